package explorer

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzRPC sends bodies to the API. Whatever comes is answered as JSON-RPC says,
// nothing stops the process, and a request that got no result changed nothing.
func FuzzRPC(f *testing.F) {
	for _, seed := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"register_node","params":{"node_id":"n1","boot":1,"seq":1,"vms":[{"sid":"v"}],"labels":{"a":null}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"ExplorerService.node_heartbeat","params":{"node_id":"n1","usage":{"cru":1e308}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"node_heartbeats","params":[{"beats":[{"node_id":"n1"},{}]}]}`,
		`{"jsonrpc":"2.0","id":1,"method":"list_nodes","params":{"min_free":{"cru":1},"sort":"-vms","limit":3,"cursor":"x","labels":{}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"label_node","params":{"node_id":"n1","labels":{"a":"b","c":null}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"remove_node","params":{"node_id":"n1"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"start_vm","params":{"node_id":"n1","sid":"v","\u006eode_sid":"n1"}}`,
		`{"jsonrpc":"2.0","id":1,"method":"proxy","params":{"node_id":"n1","method":"list_vms","params":[],"timeout_s":1e-9}}`,
		`[{"jsonrpc":"2.0","method":"stats"},{"jsonrpc":"2.0","id":null,"method":"masters","params":{}},1,[]]`,
		`[]`, `{}`, `null`, `"`, ``, "\xff", `{"jsonrpc":"2.0","id":{},"method":[]}`,
	} {
		f.Add(seed)
	}
	s, err := New(testConfig(f), nil)
	if err != nil {
		f.Fatal(err)
	}
	h := s.apiHandler()
	post := func(body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/rpc", strings.NewReader(body))
		r.Host = "localhost"
		r = r.WithContext(connCaller(r.Context(), pipeEnd{}))
		h.ServeHTTP(w, r)
		return w
	}
	f.Fuzz(func(t *testing.T, body string) {
		if strings.Contains(body, "socket_path") {
			t.Skip("would call out")
		}
		fake := newFakeStore()
		s.store = fake
		s.ready.Store(true)
		post(`{"jsonrpc":"2.0","id":1,"method":"register_node","params":{"node_id":"n1"}}`)
		before := fake.encoded()
		w := post(body)
		switch w.Code {
		case http.StatusNoContent:
			return
		case http.StatusOK:
		default:
			t.Fatalf("status %d for %q", w.Code, body)
		}
		type one struct {
			JSONRPC string          `json:"jsonrpc"`
			ID      json.RawMessage `json:"id"`
			Result  json.RawMessage `json:"result"`
			Error   *struct {
				Code    int
				Message string
				Data    struct {
					Retryable *bool
					Hint      *string
				}
			} `json:"error"`
		}
		var answers []one
		raw := w.Body.Bytes()
		if firstByte(raw) != '[' {
			raw = append(append([]byte{'['}, raw...), ']')
		}
		if err := json.Unmarshal(raw, &answers); err != nil {
			t.Fatalf("%q: %v: %s", body, err, raw)
		}
		failed := firstByte(json.RawMessage(body)) != '[' // in a batch a notification may do something
		for _, a := range answers {
			if a.JSONRPC != "2.0" || a.ID == nil || (a.Error == nil) == (a.Result == nil) {
				t.Fatalf("%q: %s", body, raw)
			}
			if a.Error == nil {
				failed = false
			} else if e := a.Error; e.Message == "" || e.Data.Retryable == nil || e.Data.Hint == nil || e.Code == -32603 {
				t.Fatalf("%q: %s", body, raw)
			}
		}
		if failed && fake.encoded() != before {
			t.Fatalf("%q failed and changed something", body)
		}
	})
}
