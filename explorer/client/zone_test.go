package client

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"testing"
)

// An IPv6 address may have a zone, as link-local ones must.
func TestZoneOfAnAddress(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("there is no IPv6 here: ", err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host, _, err := net.SplitHostPort(r.Host); err != nil || host != "::1" {
			t.Errorf("the host is called %q", r.Host)
		}
		var req struct {
			ID json.RawMessage `json:"id"`
		}
		_ = json.NewDecoder(r.Body).Decode(&req)
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":`+string(req.ID)+`,"result":"here"}`)
	})}
	go func() { _ = srv.Serve(l) }() // until Close
	defer srv.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, addr := range []string{"[::1%lo]:" + port, "http://[::1%lo]:" + port} {
		ep, err := Parse(addr, DefaultPort)
		if err != nil {
			t.Fatal(err)
		}
		c := Dial(ep, Options{})
		defer c.Close()
		var result string
		if err := c.Call(t.Context(), "stats", nil, &result); err != nil || result != "here" {
			t.Errorf("%s answers %q, %v", addr, result, err)
		}
	}
}
