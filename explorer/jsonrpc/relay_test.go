package jsonrpc_test

import (
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

func TestParseRequest(t *testing.T) {
	for body, want := range map[string]struct {
		method, params, id string
		code               int
	}{
		` {"jsonrpc":"2.0","method":"m","params":{"b": 1},"id":"x"}`: {"m", `{"b": 1}`, `"x"`, 0},
		`{"id":null,"jsonrpc":"2.0","method":"\u006d"}`:              {"m", "", "null", 0},
		`{"jsonrpc":"2.0","method":"m"}`:                             {"m", "", "", 0},
		`{"jsonrpc":"2.0","method":"m","method":"n","id":7}`:         {"n", "", "7", jsonrpc.CodeInvalidRequest},
		`[{"jsonrpc":"2.0","method":"m","id":7}]`:                    {"", "", "null", jsonrpc.CodeInvalidRequest},
		`{"jsonrpc":"2.0","method":"m"`:                              {"", "", "null", jsonrpc.CodeParse},
	} {
		r, err := jsonrpc.ParseRequest([]byte(body))
		code := 0
		if err != nil {
			code = err.Code
		}
		if code != want.code || r.Method != want.method || string(r.Params) != want.params || string(r.ID) != want.id {
			t.Errorf("%s: %+v, error %v", body, r, err)
		}
	}
}

func TestAppendAnswer(t *testing.T) {
	got := string(jsonrpc.AppendAnswer(nil, []byte(`"result":{ "a":1.0 }`), []byte("7")))
	if want := `{"jsonrpc":"2.0","result":{ "a":1.0 },"id":7}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
