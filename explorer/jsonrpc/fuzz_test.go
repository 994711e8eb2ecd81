package jsonrpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// FuzzAnswer sends any body and compares which methods are called, with what,
// to what a plain decoder makes of it.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		`{"jsonrpc":"2.0","method":"m","params":{"a":[1,"]}\"",{"b":null}]},"id":1}`,
		`{"jsonrpc":"2.0","method":"m"}`,
		` [ {"jsonrpc":"2.0","method":"m","id":"\u0061\\"} , 1 , [] , {} ] `,
		`{"jsonrpc":"2.0","meth\u006fd":"\u006d","params":[],"id":-1.5e3}`,
		`{"id":null,"params":null,"method":"m","jsonrpc":"2.0","x":{"y":"}"}}`,
		`[]`, `{}`, `"`, "\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var calls [][]byte
		m := new(jsonrpc.Mux)
		m.Handle("m", func(_ context.Context, params json.RawMessage) (any, error) {
			calls = append(calls, params)
			return params, nil
		})
		answer := m.Answer(t.Context(), []byte("before"), body)
		answer, ok := bytes.CutPrefix(answer, []byte("before"))
		if !ok {
			t.Fatal("what stood before the answer has changed")
		}
		if len(answer) > 0 && !json.Valid(answer) {
			t.Fatalf("answered %q", answer)
		}
		wantCalls, wantAnswers := plainly(body)
		if len(calls) != len(wantCalls) {
			t.Fatalf("%d calls, want %d", len(calls), len(wantCalls))
		}
		for i := range calls {
			if !bytes.Equal(calls[i], wantCalls[i]) {
				t.Errorf("call %d has params %q, want %q", i, calls[i], wantCalls[i])
			}
		}
		answers := 0
		if len(answer) > 0 {
			answers = 1
			if answer[0] == '[' {
				var list []json.RawMessage
				_ = json.Unmarshal(answer, &list)
				answers = len(list)
			}
		}
		if answers != wantAnswers {
			t.Errorf("%d answers, want %d: %s", answers, wantAnswers, answer)
		}
	})
}

// plainly returns the params of the calls of m in a body, and how many answers
// are due, as found out with encoding/json alone.
func plainly(body []byte) (calls [][]byte, answers int) {
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, 1
	}
	list := []json.RawMessage{body}
	if json.Unmarshal(body, &list) == nil && (len(list) == 0 || len(list) > jsonrpc.MaxBatch) {
		return nil, 1 // null decodes to none, too
	}
	for _, one := range list {
		params, call, answer := onePlainly(one)
		if call {
			calls = append(calls, params)
		}
		if answer {
			answers++
		}
	}
	return calls, answers
}

func onePlainly(one json.RawMessage) (params []byte, call, answer bool) {
	d := json.NewDecoder(bytes.NewReader(one))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return nil, false, true
	}
	got := map[string]json.RawMessage{}
	valid := true
	for d.More() {
		tok, err := d.Token()
		if err != nil {
			return nil, false, true
		}
		name := tok.(string)
		var v json.RawMessage
		if d.Decode(&v) != nil {
			return nil, false, true
		}
		switch name {
		case "jsonrpc", "method", "params", "id":
			if _, twice := got[name]; twice {
				valid = false
			}
		}
		got[name] = v
	}
	text := func(name string) string {
		var s *string
		if json.Unmarshal(got[name], &s) != nil || s == nil {
			valid = false
			return ""
		}
		return *s
	}
	if text("jsonrpc") != "2.0" {
		valid = false
	}
	method := text("method")
	params = got["params"]
	if len(params) > 0 {
		switch params[0] {
		case '{', '[':
		case 'n':
			params = nil
		default:
			valid = false
		}
	}
	id, request := got["id"]
	if request && (len(id) > jsonrpc.MaxID || bytes.IndexByte([]byte("{[tf"), id[0]) >= 0) {
		valid = false
	}
	return params, valid && method == "m", request || !valid
}

// FuzzDecodeParams compares what is decoded to what encoding/json decodes with
// unknown fields refused.
func FuzzDecodeParams(f *testing.F) {
	for _, s := range []string{
		`{"name":"a","usage":{"cru":1},"list":[{"slices":3}],"labels":{"x":"y"}}`,
		`[{"pair":[1,2,3],"any":[{}],"key":"AQ=="}]`,
		`{"usage":{"cru":"x"}}`, `{"nope":1}`, `null`, `n`, "\x00", `{"Name":1}`, `{"":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var got params
		err := jsonrpc.DecodeParams(in, &got)
		if err == nil {
			d := json.NewDecoder(bytes.NewReader(in))
			d.DisallowUnknownFields()
			var want params
			var list []params
			if len(bytes.TrimSpace(in)) > 0 && d.Decode(&want) != nil {
				d = json.NewDecoder(bytes.NewReader(in))
				d.DisallowUnknownFields()
				if err := d.Decode(&list); err != nil {
					t.Errorf("took %q, which encoding/json refuses: %v", in, err)
				}
				if want = (params{}); len(list) > 0 {
					want = list[0]
				}
			}
			// What a member given twice comes to may differ, such as the elements of a list.
			if jsontext.Value(in).IsValid() && !reflect.DeepEqual(got, want) {
				t.Errorf("%q became %+v, want %+v", in, got, want)
			}
			return
		}
		var e *jsonrpc.Error
		var data jsonrpc.ErrorData
		if !errors.As(err, &e) || e.Code != jsonrpc.CodeInvalidParams || e.DecodeData(&data) != nil || data.Field == "" {
			t.Errorf("error %v with data %+v", err, data)
		}
	})
}
