package jsonrpc_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

func ExampleDecodeParams() {
	var p struct {
		NodeID string `json:"node_id"`
		Usage  struct {
			CRU float64 `json:"cru"`
		} `json:"usage"`
	}
	err := jsonrpc.DecodeParams(json.RawMessage(`{"node_id": "n1", "usage": {"cru": "many"}}`), &p)
	fmt.Println(err)
	// Output: invalid params: usage.cru must be a number, not a string (-32602)
}

type inner struct {
	CRU    float64 `json:"cru"`
	Slices uint8   `json:"slices"`
}

// Embedded is exported for encoding/json.
type Embedded struct {
	City string `json:"city"`
	Name string `json:"name"` // hidden by the one of params
}

// upper decodes itself.
type upper string

func (u *upper) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil || s != strings.ToUpper(s) {
		return errors.New("must be in upper case")
	}
	*u = upper(s)
	return nil
}

type params struct {
	Embedded
	Name   string            `json:"name"`
	Count  int16             `json:"count"`
	On     *bool             `json:"on,omitempty"`
	Usage  *inner            `json:"usage"`
	List   []inner           `json:"list"`
	Pair   [2]int            `json:"pair"`
	Labels map[string]string `json:"labels"`
	Tables map[string]inner  `json:"tables"`
	Key    []byte            `json:"key"`
	Since  time.Time         `json:"since"`
	Shout  upper             `json:"shout"`
	Any    any               `json:"any"`
	Raw    json.RawMessage   `json:"raw"`
	Plain  string
	Hidden string `json:"-"`
}

func TestDecodeParams(t *testing.T) {
	on := true
	for _, c := range []struct {
		in   string
		want params
	}{
		{``, params{}},
		{`null`, params{}},
		{`{}`, params{}},
		{` [ ] `, params{}},
		{`[{"name":"a"}]`, params{Name: "a"}},
		{`{"name":"a","city":"b","count":-3,"on":true,"usage":{"cru":1.5,"slices":255}}`,
			params{Name: "a", Embedded: Embedded{City: "b"}, Count: -3, On: &on, Usage: &inner{1.5, 255}}},
		{`{"list":[{},{"cru":1e3}],"pair":[1,2],"labels":{"any name":"x"},"tables":{"x":{"cru":1}}}`,
			params{List: []inner{{}, {CRU: 1000}}, Pair: [2]int{1, 2}, Labels: map[string]string{"any name": "x"}, Tables: map[string]inner{"x": {CRU: 1}}}},
		{`{"key":"AQI=","since":"2026-01-02T03:04:05Z","shout":"A","any":{"a":[1]},"raw":{"a":1e0},"Plain":"p"}`,
			params{Key: []byte{1, 2}, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Shout: "A", Any: map[string]any{"a": []any{1.0}}, Raw: json.RawMessage(`{"a":1e0}`), Plain: "p"}},
		{`{"name":null,"usage":null,"list":null,"labels":null,"count":null}`, params{}},
		{`{"n\u0061me":"a"}`, params{Name: "a"}},
	} {
		var got params
		if err := jsonrpc.DecodeParams(json.RawMessage(c.in), &got); err != nil {
			t.Errorf("%s: %v", c.in, err)
		} else if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.in, got, c.want)
		}
	}
}

func TestDecodeParamsNamesTheField(t *testing.T) {
	for in, field := range map[string]string{
		`"text"`:                            "params",
		`7`:                                 "params",
		`[1]`:                               "params",
		`[{}, {}]`:                          "params",
		`[{}`:                               "params",
		`{"name":`:                          "params",
		`{"nope":1}`:                        "nope",
		`{"Name":"a"}`:                      "Name",
		`{"Hidden":"a"}`:                    "Hidden",
		`{"Embedded":{}}`:                   "Embedded",
		`{"usage":{"cru":1,"mru":2}}`:       "usage.mru",
		`{"list":[{},{"nope":1}]}`:          "list[1].nope",
		`{"tables":{"x":{"nope":1}}}`:       "tables.x.nope",
		`[{"usage":{"nope":1}}]`:            "usage.nope",
		`{"name":7}`:                        "name",
		`{"count":"7"}`:                     "count",
		`{"count":1.5}`:                     "count",
		`{"count":40000}`:                   "count",
		`{"count":-40000}`:                  "count",
		`{"on":"yes"}`:                      "on",
		`{"on":1}`:                          "on",
		`{"usage":[]}`:                      "usage",
		`{"usage":7}`:                       "usage",
		`{"usage":{"cru":"many"}}`:          "usage.cru",
		`{"usage":{"slices":256}}`:          "usage.slices",
		`{"usage":{"slices":-1}}`:           "usage.slices",
		`{"list":{}}`:                       "list",
		`{"list":[{},{},{"cru":true}]}`:     "list[2].cru",
		`{"list":[{},7]}`:                   "list[1]",
		`{"pair":["a"]}`:                    "pair[0]",
		`{"labels":{"a b":7}}`:              "labels.a b",
		`{"labels":["a"]}`:                  "labels",
		`{"key":"?"}`:                       "key",
		`{"since":"yesterday"}`:             "since",
		`{"shout":"quiet"}`:                 "shout",
		`{"name":7,"nope":1}`:               "name",
		`{"count":1e999}`:                   "count",
		`{"usage":{"cru":1e999}}`:           "usage.cru",
		`{"name":"a","usage":{"cru":null}`:  "params",
		`{"usage":{"` + long + `":1}}`:      "usage." + long[:128] + "...",
		`{"list":[` + long + `]}`:           "params",
		`{"tables":{"x":{"cru":1},"y":[]}}`: "tables.y",
	} {
		var p params
		err := jsonrpc.DecodeParams(json.RawMessage(in), &p)
		var e *jsonrpc.Error
		var data jsonrpc.ErrorData
		if !errors.As(err, &e) || e.Code != jsonrpc.CodeInvalidParams || e.DecodeData(&data) != nil || data.Field != field || data.Retryable {
			t.Errorf("%.60s: got %v with %+v, want the field %q", in, err, data, field)
		} else if !strings.HasPrefix(data.Hint, field+" ") || !strings.Contains(e.Message, data.Hint) {
			t.Errorf("%.60s: message %q, hint %q", in, e.Message, data.Hint)
		}
	}
}

// What callers read of an error stays as it is.
func TestDecodeParamsSaysWhatIsWrong(t *testing.T) {
	for in, want := range map[string]string{
		`[1]`:                               `params must be an object, or an array with one object in it`,
		`{} x`:                              `params must be JSON: invalid character 'x' after top-level value`,
		`{"name":7,"raw":`:                  `params must be JSON: unexpected end of JSON input`,
		`{"nope":1}`:                        `nope is not known; there are Plain, any, city, count, key, labels, list, name, on, pair, raw, shout, since, tables, usage`,
		`{"tables":{"1":{"nope":1}}}`:       `tables.1.nope is not known; there are cru, slices`,
		`{"":1}`:                            `"" is not known; there are Plain, any, city, count, key, labels, list, name, on, pair, raw, shout, since, tables, usage`,
		`{"on":1}`:                          `on must be true or false, not 1`,
		`{"count": -40000 }`:                `count must be an integer of 16 bits, not -40000`,
		`{"usage":{"slices":-0}}`:           `usage.slices must be an integer of 8 bits, not negative, not -0`,
		`{"usage":{"cru" : "many"}}`:        `usage.cru must be a number, not a string`,
		`{"n\u0061me":false}`:               `name must be a string, not false`,
		`{"usage":[]}`:                      `usage must be an object, not an array`,
		`{"list":[{"cru":true}],"list":[]}`: `list[0].cru must be a number, not true`,
		`{"list":7}`:                        `list must be an array, not 7`,
		`{"labels":{"a/b~":7}}`:             `labels.a/b~ must be a string, not 7`,
		`{"key":"?"}`:                       `key must be a string in base64, not a string`,
		`{"shout":"quiet"}`:                 `shout cannot be taken: must be in upper case`,
	} {
		err := jsonrpc.DecodeParams(json.RawMessage(in), new(params))
		var e *jsonrpc.Error
		if !errors.As(err, &e) || e.Message != "invalid params: "+want {
			t.Errorf("%s: got %v, want %s", in, err, want)
		}
	}
}

var long = strings.Repeat("x", 300)

func TestRequestRoundTrip(t *testing.T) {
	m := specMux()
	for _, c := range []struct {
		params any
		want   string // of the result; empty: not encoded
	}{
		{nil, "null"},
		{json.RawMessage(nil), "null"},
		{map[string]int{"a": 1}, `{"a":1}`},
		{json.RawMessage(`{"a": "<"}`), `{"a": "<"}`},
		{[]string{"<&>"}, `["<&>"]`},
		{7, ""},
		{"x", ""},
		{func() {}, ""},
	} {
		body, err := jsonrpc.EncodeRequest(42, "raw", c.params)
		if c.want == "" {
			if err == nil {
				t.Errorf("%v encodes to %s", c.params, body)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		resp, err := jsonrpc.DecodeResponse(42, m.Answer(t.Context(), nil, body))
		if err != nil || string(resp.Result) != c.want {
			t.Errorf("%s: got %s, %v, want %s", body, resp.Result, err, c.want)
		}
	}
}

func TestDecodeResponse(t *testing.T) {
	for _, c := range []struct {
		in string
		ok bool
	}{
		{`{"jsonrpc":"2.0","id":1,"result":null}`, true},
		{`{"jsonrpc":"2.0","id":1,"result":{},"error":null}`, true},
		{`{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"m"}}`, true},
		{`{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"m"}}`, true},
		{`{"jsonrpc":"2.0","error":{"code":-1,"message":"m"}}`, true},
		{``, false},
		{`[]`, false},
		{`{}`, false},
		{`{"jsonrpc":"2.0","id":1}`, false},
		{`{"jsonrpc":"1.0","id":1,"result":1}`, false},
		{`{"jsonrpc":"2.0","id":2,"result":1}`, false},
		{`{"jsonrpc":"2.0","id":null,"result":1}`, false},
		{`{"jsonrpc":"2.0","id":"1","result":1}`, false},
		{`{"jsonrpc":"2.0","id":2,"error":{"code":-1,"message":"m"}}`, false},
		{`{"jsonrpc":"2.0","id":1,"error":{"message":"m"}}`, false},
		{`{"jsonrpc":"2.0","id":1,"error":"m"}`, false},
		{`{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":-1,"message":"m"}}`, false},
	} {
		if _, err := jsonrpc.DecodeResponse(1, []byte(c.in)); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.in, err)
		}
	}
}

// What passes through Named and EncodeObject stays as it was, byte for byte, and it
// does not matter in which form or order it was given.
func TestObjects(t *testing.T) {
	const want = `{"":null,"a\"<é>":"\u003c<","b":{"z" : [ 1e0]},"c":-0.0}`
	for _, given := range []string{
		want,
		` { "c" :-0.0, "b":{"z" : [ 1e0]} ,"a\u0022\u003c\u00e9>":"\u003c<","":null}`,
		`[{"b":{"z" : [ 1e0]},"c":-0.0,"":null,"a\"<é>":"\u003c<"} ]`,
	} {
		object, err := jsonrpc.Named(json.RawMessage(given))
		if err != nil {
			t.Errorf("%s: %v", given, err)
			continue
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(object, &members); err != nil {
			t.Errorf("%s: %v", object, err)
		}
		if got := string(jsonrpc.EncodeObject(members)); got != want {
			t.Errorf("%s: %s, want %s", given, got, want)
		}
	}
	for _, given := range []string{"", " ", "null", "[]", "{}", "[{}]"} {
		if object, err := jsonrpc.Named(json.RawMessage(given)); err != nil || string(object) != "{}" {
			t.Errorf("%q: %s, %v", given, object, err)
		}
	}
	for _, given := range []string{"nul", "1", `"text"`, "[1]", "[{},{}]", "[null]", "[{}"} {
		var e *jsonrpc.Error
		if object, err := jsonrpc.Named(json.RawMessage(given)); !errors.As(err, &e) || e.Code != jsonrpc.CodeInvalidParams {
			t.Errorf("%q: %s, %v", given, object, err)
		}
	}
	if got := string(jsonrpc.EncodeObject(nil)); got != "{}" {
		t.Error(got)
	}
}
