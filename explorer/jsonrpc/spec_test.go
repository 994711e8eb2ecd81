package jsonrpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// specMux has the methods that the examples of the specification call.
func specMux() *jsonrpc.Mux {
	m := new(jsonrpc.Mux)
	m.Handle("subtract", func(_ context.Context, params json.RawMessage) (any, error) {
		var list []int
		if json.Unmarshal(params, &list) == nil && len(list) == 2 {
			return list[0] - list[1], nil
		}
		var p struct {
			Minuend    int `json:"minuend"`
			Subtrahend int `json:"subtrahend"`
		}
		err := jsonrpc.DecodeParams(params, &p)
		return p.Minuend - p.Subtrahend, err
	})
	m.Handle("sum", func(_ context.Context, params json.RawMessage) (any, error) {
		var list []int
		err := json.Unmarshal(params, &list)
		sum := 0
		for _, n := range list {
			sum += n
		}
		return sum, err
	})
	m.Handle("get_data", func(context.Context, json.RawMessage) (any, error) { return []any{"hello", 5}, nil })
	for _, name := range []string{"update", "foobar", "notify_hello", "notify_sum"} {
		m.Handle(name, func(context.Context, json.RawMessage) (any, error) { return "unseen", nil })
	}
	m.Handle("panic", func(context.Context, json.RawMessage) (any, error) { panic("at the disco") })
	m.Handle("fail", func(context.Context, json.RawMessage) (any, error) { return nil, errors.New("secret of the house") })
	m.Handle("null", func(context.Context, json.RawMessage) (any, error) { return nil, nil })
	m.Handle("raw", func(_ context.Context, params json.RawMessage) (any, error) { return params, nil })
	m.Handle("unencodable", func(context.Context, json.RawMessage) (any, error) { return func() {}, nil })
	return m
}

// A batch may be as long as it says, and what is longer is told how long it is.
func TestBatchIsBounded(t *testing.T) {
	batch := func(n int) []byte {
		return []byte("[" + strings.Repeat(`,{"jsonrpc":"2.0","method":"null","id":1}`, n)[1:] + "]")
	}
	var answers []jsonrpc.Response
	if err := json.Unmarshal(specMux().Answer(t.Context(), nil, batch(jsonrpc.MaxBatch)), &answers); err != nil || len(answers) != jsonrpc.MaxBatch {
		t.Errorf("%d answers, %v", len(answers), err)
	}
	if a := specMux().Answer(t.Context(), nil, batch(jsonrpc.MaxBatch+7)); !bytes.Contains(a, []byte("a batch may hold 1000 requests, this one has 1007")) {
		t.Errorf("%s", a)
	}
}

// Codes and ids of answers are compared; of errors, not the wording.
func TestSpecification(t *testing.T) {
	srv := httptest.NewServer(specMux())
	defer srv.Close()
	for _, c := range []struct{ name, send, want string }{
		// From https://www.jsonrpc.org/specification#examples
		{"positional", `{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}`, `{"jsonrpc": "2.0", "result": 19, "id": 1}`},
		{"positional, other way", `{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}`, `{"jsonrpc": "2.0", "result": -19, "id": 2}`},
		{"named", `{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}`, `{"jsonrpc": "2.0", "result": 19, "id": 3}`},
		{"named, other order", `{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}`, `{"jsonrpc": "2.0", "result": 19, "id": 4}`},
		{"notification", `{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}`, ``},
		{"notification without params", `{"jsonrpc": "2.0", "method": "foobar"}`, ``},
		{"unknown method", `{"jsonrpc": "2.0", "method": "unknown", "id": "1"}`, `{"jsonrpc": "2.0", "error": {"code": -32601}, "id": "1"}`},
		{"invalid JSON", `{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]`, `{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}`},
		{"invalid request", `{"jsonrpc": "2.0", "method": 1, "params": "bar"}`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}`},
		{"batch of invalid JSON", `[
			{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
			{"jsonrpc": "2.0", "method"
			]`, `{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}`},
		{"empty batch", `[]`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}`},
		{"invalid batch", `[1]`, `[{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}]`},
		{"longer invalid batch", `[1,2,3]`, `[
			{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}]`},
		{"batch", `[
			{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
			{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
			{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
			{"foo": "boo"},
			{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
			{"jsonrpc": "2.0", "method": "get_data", "id": "9"}
			]`, `[
			{"jsonrpc": "2.0", "result": 7, "id": "1"},
			{"jsonrpc": "2.0", "result": 19, "id": "2"},
			{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null},
			{"jsonrpc": "2.0", "error": {"code": -32601}, "id": "5"},
			{"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}]`},
		{"batch of notifications", `[
			{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
			{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]`, ``},

		// What the text of the specification says, and what it leaves open.
		{"empty body", ``, `{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}`},
		{"spaces", "  \n", `{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}`},
		{"two values", `{} {}`, `{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}`},
		{"not UTF-8", "{\"jsonrpc\": \"2.0\", \"method\": \"\xff\", \"id\": 1}", `{"jsonrpc": "2.0", "error": {"code": -32700}, "id": null}`},
		{"a string", `"foobar"`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}`},
		{"null", `null`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}`},
		{"empty object", `{}`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}`},
		{"no version", `{"method": "foobar", "id": 1}`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": 1}`},
		{"version 1", `{"jsonrpc": "1.0", "method": "foobar", "id": 1}`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": 1}`},
		{"version is a number", `{"jsonrpc": 2.0, "method": "foobar", "id": 1}`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": 1}`},
		{"params is a string", `{"jsonrpc": "2.0", "method": "foobar", "params": "bar", "id": 1}`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": 1}`},
		{"params is null", `{"jsonrpc": "2.0", "method": "get_data", "params": null, "id": 1}`, `{"jsonrpc": "2.0", "result": ["hello", 5], "id": 1}`},
		{"id is null", `{"jsonrpc": "2.0", "method": "get_data", "id": null}`, `{"jsonrpc": "2.0", "result": ["hello", 5], "id": null}`},
		{"id is a fraction", `{"jsonrpc": "2.0", "method": "null", "id": -1.50e2}`, `{"jsonrpc": "2.0", "result": null, "id": -1.50e2}`},
		{"id has escapes", `{"jsonrpc": "2.0", "method": "null", "id": "a\"\u00e9\\"}`, `{"jsonrpc": "2.0", "result": null, "id": "a\"\u00e9\\"}`},
		{"id is an object", `{"jsonrpc": "2.0", "method": "get_data", "id": {}}`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}`},
		{"id is a bool", `{"jsonrpc": "2.0", "method": "get_data", "id": true}`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}`},
		{"id is too long", `{"jsonrpc": "2.0", "method": "get_data", "id": "` + strings.Repeat("x", 1100) + `"}`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}`},
		{"method twice", `{"jsonrpc": "2.0", "method": "null", "method": "get_data", "id": 1}`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": 1}`},
		{"method in other case", `{"jsonrpc": "2.0", "Method": "get_data", "id": 1}`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": 1}`},
		{"method with escapes", `{"jsonrpc": "2.0", "method": "get\u005fdata", "id": 1}`, `{"jsonrpc": "2.0", "result": ["hello", 5], "id": 1}`},
		{"unknown members", `{"jsonrpc": "2.0", "trace": [{"a": "}]"}], "method": "get_data", "id": 1}`, `{"jsonrpc": "2.0", "result": ["hello", 5], "id": 1}`},
		{"notification of an unknown method", `{"jsonrpc": "2.0", "method": "unknown"}`, ``},
		{"notification that panics", `{"jsonrpc": "2.0", "method": "panic"}`, ``},
		{"panic", `{"jsonrpc": "2.0", "method": "panic", "id": 1}`, `{"jsonrpc": "2.0", "error": {"code": -32603}, "id": 1}`},
		{"error", `{"jsonrpc": "2.0", "method": "fail", "id": 1}`, `{"jsonrpc": "2.0", "error": {"code": -32603}, "id": 1}`},
		{"result that does not encode", `{"jsonrpc": "2.0", "method": "unencodable", "id": 1}`, `{"jsonrpc": "2.0", "error": {"code": -32603}, "id": 1}`},
		{"batch in a batch", `[[]]`, `[{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}]`},
		{"batch that is too long", `[` + strings.Repeat(`1,`, 1000) + `1]`, `{"jsonrpc": "2.0", "error": {"code": -32600}, "id": null}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, err := http.Post(srv.URL, "application/json", strings.NewReader(c.send))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if c.want == "" {
				if resp.StatusCode != http.StatusNoContent || len(got) != 0 {
					t.Fatalf("got %s with %q, want 204 with nothing", resp.Status, got)
				}
				return
			}
			if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" {
				t.Errorf("got %s with content type %q", resp.Status, resp.Header.Get("Content-Type"))
			}
			if bytes.Contains(got, []byte("secret")) {
				t.Errorf("an error of the house was sent: %s", got)
			}
			if g, w := wordless(t, got), wordless(t, []byte(c.want)); !reflect.DeepEqual(g, w) {
				t.Errorf("sent %s\n got %s\nwant %s", c.send, got, c.want)
			}
		})
	}
}

// wordless decodes an answer and takes the wording of errors out of it, after
// looking that there is one.
func wordless(t *testing.T, answer []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(answer))
	d.UseNumber() // 1.50e2 is to come back as it was
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("answer %q: %v", answer, err)
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, one := range list {
		e, ok := one.(map[string]any)["error"].(map[string]any)
		if !ok {
			continue
		}
		if data, ok := e["data"].(map[string]any); ok && (data["hint"] == "" || data["retryable"] == nil) {
			t.Errorf("error without retryable or hint: %s", answer)
		}
		delete(e, "message")
		delete(e, "data")
	}
	return v
}

func TestVerbatim(t *testing.T) {
	const odd = `{ "b" : 1e0, "a":"<\u0041>" ,"a":[ ] }`
	m := specMux()
	got := m.Answer(t.Context(), nil, []byte(`{"jsonrpc":"2.0","method":"raw","id":1,"params":`+odd+`}`))
	if want := `{"jsonrpc":"2.0","result":` + odd + `,"id":1}`; string(got) != want {
		t.Errorf("result: got %s, want %s", got, want)
	}

	const foreign = `{ "code":-7, "message":"a<b", "data":{ "x":1.0 }, "more":true }`
	var e jsonrpc.Error
	if err := json.Unmarshal([]byte(foreign), &e); err != nil {
		t.Fatal(err)
	}
	if e.Code != -7 || e.Message != "a<b" {
		t.Errorf("decoded %+v", e)
	}
	m.Handle("foreign", func(context.Context, json.RawMessage) (any, error) { return nil, &e })
	got = m.Answer(t.Context(), nil, []byte(`{"jsonrpc":"2.0","method":"foreign","id":1}`))
	if want := `{"jsonrpc":"2.0","error":` + foreign + `,"id":1}`; string(got) != want {
		t.Errorf("error: got %s, want %s", got, want)
	}
}

// Errors of this package say who made them; what a handler passes on stays as it is.
func TestErrorsSayWhoMadeThem(t *testing.T) {
	passedOn := json.RawMessage(`{"code":-32602, "message":"theirs","data":{"retryable":false,"hint":"look"}}`)
	m := &jsonrpc.Mux{By: jsonrpc.ByMaster}
	m.Handle("checks", func(context.Context, json.RawMessage) (any, error) {
		return nil, jsonrpc.InvalidParams("sid", "is missing")
	})
	m.Handle("fails", func(context.Context, json.RawMessage) (any, error) { return nil, errors.New("unforeseen") })
	m.Handle("panics", func(context.Context, json.RawMessage) (any, error) { panic("now") })
	m.Handle("asks", func(context.Context, json.RawMessage) (any, error) {
		var e jsonrpc.Error
		return nil, errors.Join(json.Unmarshal(passedOn, &e), &e)
	})
	request := func(method string) string { return `{"jsonrpc":"2.0","id":1,"method":"` + method + `"}` }
	for _, body := range []string{`{`, `{}`, `[]`, `[{}]`, request("checks"), request("fails"), request("panics"), request("none")} {
		if got := string(m.Answer(t.Context(), nil, []byte(body))); !strings.Contains(got, `"by":"master"`) {
			t.Errorf("%s: %s", body, got)
		}
		if got := string((&jsonrpc.Mux{}).Answer(t.Context(), nil, []byte(body))); strings.Contains(got, `"by"`) {
			t.Errorf("nobody is named, %s: %s", body, got)
		}
	}
	if got := string(m.Answer(t.Context(), nil, []byte(request("asks")))); !strings.Contains(got, string(passedOn)) {
		t.Errorf("passed on as %s", got)
	}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	if got := w.Body.String(); !strings.Contains(got, `"by":"master"`) {
		t.Error(got)
	}
}

func TestHTTP(t *testing.T) {
	srv := httptest.NewServer(specMux())
	defer srv.Close()
	call := `{"jsonrpc":"2.0","method":"raw","id":1,"params":["` + strings.Repeat("x", jsonrpc.MaxBody-60) + `"]}`
	for _, c := range []struct {
		name, method, body string
		status             int
		code               int
	}{
		{"get", "GET", "", 405, jsonrpc.CodeInvalidRequest},
		{"put", "PUT", `{}`, 405, jsonrpc.CodeInvalidRequest},
		{"long", "POST", call, 200, 0},
		{"too long", "POST", call + strings.Repeat(" ", 100), 413, jsonrpc.CodeInvalidRequest},
		{"far too long", "POST", strings.Repeat(" ", 3*jsonrpc.MaxBody), 413, jsonrpc.CodeInvalidRequest},
	} {
		for _, announced := range []bool{true, false} {
			var body io.Reader = strings.NewReader(c.body)
			if !announced {
				body = io.MultiReader(body) // hides its length: a chunked body
			}
			req, err := http.NewRequestWithContext(t.Context(), c.method, srv.URL, body)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			var answer jsonrpc.Response
			err = json.NewDecoder(resp.Body).Decode(&answer)
			resp.Body.Close()
			code := 0
			if answer.Error != nil {
				code = answer.Error.Code
			}
			if err != nil || resp.StatusCode != c.status || code != c.code {
				t.Errorf("%s (announced: %v): got %d with code %d (%v), want %d with %d", c.name, announced, resp.StatusCode, code, err, c.status, c.code)
			}
			if c.status == 405 && resp.Header.Get("Allow") != "POST" {
				t.Errorf("%s: Allow is %q", c.name, resp.Header.Get("Allow"))
			}
		}
	}
}

func TestBatchStopsWithItsCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m, calls := new(jsonrpc.Mux), 0
	m.Handle("hang_up", func(context.Context, json.RawMessage) (any, error) {
		calls++
		cancel()
		return true, nil
	})
	got := m.Answer(ctx, nil, []byte(`[{"jsonrpc":"2.0","method":"hang_up","id":1},{"jsonrpc":"2.0","method":"hang_up","id":2},{"jsonrpc":"2.0","method":"hang_up"}]`))
	if calls != 1 || !bytes.Contains(got, []byte(`-32603`)) {
		t.Errorf("%d calls, answered %s", calls, got)
	}
}

func TestBatchAnswerIsBounded(t *testing.T) {
	m, calls := new(jsonrpc.Mux), 0
	long := json.RawMessage(`"` + strings.Repeat("x", 10<<20) + `"`)
	m.Handle("long", func(context.Context, json.RawMessage) (any, error) {
		calls++
		return long, nil
	})
	one := `{"jsonrpc":"2.0","method":"long","id":1},`
	got := m.Answer(t.Context(), nil, []byte(`[`+strings.Repeat(one, 20)+one[:len(one)-1]+`]`))
	if calls != 7 || bytes.Count(got, []byte("-32007")) != 21-7 || got[len(got)-1] != ']' {
		t.Errorf("%d calls, %d bytes", calls, len(got))
	}
}
