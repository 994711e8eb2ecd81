package compute_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
)

func newService(t *testing.T, cfg compute.Config) *compute.Service {
	t.Helper()
	s, err := compute.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rpcError is an error as it is on the wire.
type rpcError struct {
	Code    int             `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data"`
}

// call posts one call to the handler and decodes the result, if there is one. It
// may be used in any goroutine.
func call(t *testing.T, h http.Handler, method, params string, result any) *rpcError {
	t.Helper()
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, params)
	req := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/rpc", bytes.NewBufferString(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	if w.Code != http.StatusOK {
		t.Errorf("%s: HTTP %d: %s", method, w.Code, w.Body)
		return &rpcError{Message: "no answer"}
	}
	var resp struct {
		Result json.RawMessage `json:"result"`
		Error  *rpcError       `json:"error"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &resp); err != nil {
		t.Errorf("%s: %v in %s", method, err, w.Body)
		return &rpcError{Message: "no answer"}
	}
	if resp.Error == nil && result != nil {
		if err := json.Unmarshal(resp.Result, result); err != nil {
			t.Errorf("%s: %v in %s", method, err, resp.Result)
		}
	}
	return resp.Error
}

// mustCall fails the test when the call does.
func mustCall(t *testing.T, h http.Handler, method, params string, result any) {
	t.Helper()
	if e := call(t, h, method, params, result); e != nil {
		t.Fatalf("%s %s: %+v %s", method, params, *e, e.Data)
	}
}

func get(t *testing.T, h http.Handler, path string) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s: HTTP %d", path, w.Code)
	}
	return w.Body.String()
}
