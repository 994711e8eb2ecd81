package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

func ExampleClient() {
	masters, err := client.New([]string{"master1.example:9002", "master2.example:9002"}, client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer masters.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var page struct{ Total int }
	_ = masters.Call(ctx, "list_nodes", map[string]any{"status": "online"}, &page)
}

// service counts how often each of its methods was carried out.
type service struct {
	*httptest.Server
	calls atomic.Int32
	conns atomic.Int32
}

func (s *service) addr() string { return s.Listener.Addr().String() }

func serve(t *testing.T, wrap func(http.Handler) http.Handler) *service {
	t.Helper()
	s := new(service)
	mux := new(jsonrpc.Mux)
	for _, name := range []string{"list_nodes", "drain_node", "transfer"} {
		mux.Handle(name, func(_ context.Context, params json.RawMessage) (any, error) {
			s.calls.Add(1)
			return params, nil
		})
	}
	mux.Handle("busy", func(context.Context, json.RawMessage) (any, error) {
		s.calls.Add(1)
		return nil, &jsonrpc.Error{Code: jsonrpc.CodeInternal, Message: "busy", Data: jsonrpc.ErrorData{Retryable: true, By: jsonrpc.ByMaster}}
	})
	mux.Handle("fail", func(context.Context, json.RawMessage) (any, error) {
		s.calls.Add(1)
		return nil, jsonrpc.InvalidParams("node_id", "is missing")
	})
	var h http.Handler = mux
	if wrap != nil {
		h = wrap(mux)
	}
	s.Server = httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// broken answers the first n requests in its own way, after it carried them out
// where run is set.
func broken(n int32, run bool, answer http.HandlerFunc) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var seen atomic.Int32
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if seen.Add(1) > n {
				next.ServeHTTP(w, r)
				return
			}
			if run {
				next.ServeHTTP(httptest.NewRecorder(), r)
			}
			answer(w, r)
		})
	}
}

func reset(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// hang reads the body, without which net/http would not see the caller hang up.
func hang(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// nobody returns an address at which nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func dial(t *testing.T, addr string, opts client.Options) *client.Conn {
	t.Helper()
	ep, err := client.Parse(addr, client.DefaultPort)
	if err != nil {
		t.Fatal(err)
	}
	c := client.Dial(ep, opts)
	t.Cleanup(c.Close)
	return c
}

func TestCallKeepsItsConnection(t *testing.T) {
	s := serve(t, nil)
	c := dial(t, s.addr(), client.Options{})
	for i := range 5 {
		var got json.RawMessage
		if err := c.Call(t.Context(), "list_nodes", json.RawMessage(`{"a": 1e0}`), &got); err != nil {
			t.Fatal(i, err)
		}
		if string(got) != `{"a": 1e0}` {
			t.Errorf("got %s", got)
		}
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections for 5 calls", n)
	}
}

func TestUnixSocketAndToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rpc.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":1,"result":%q}`, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
	})}
	go srv.Serve(ln)
	defer srv.Close()
	var got string
	if err := dial(t, "unix://"+path, client.Options{Token: "t"}).Call(t.Context(), "m", nil, &got); err != nil {
		t.Fatal(err)
	}
	if got != "POST /rpc Bearer t" {
		t.Errorf("got %q", got)
	}
}

func TestMountedService(t *testing.T) {
	s := serve(t, func(next http.Handler) http.Handler {
		m := http.NewServeMux()
		m.Handle("POST /explorer/rpc", next)
		m.HandleFunc("GET /explorer/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "fine") })
		return m
	})
	for _, path := range []string{"/explorer", "/explorer/", "/explorer/rpc"} {
		c := dial(t, s.URL+path, client.Options{})
		if err := c.Call(t.Context(), "list_nodes", nil, nil); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		resp, err := c.Get(t.Context(), "/health", nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %v %v", path, resp, err)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
}

// What a Conn says of a call that failed, and how often it was carried out.
func TestSent(t *testing.T) {
	for _, c := range []struct {
		name   string
		wrap   func(http.Handler) http.Handler
		method string
		sent   bool
		calls  int32
	}{
		{"reset after", broken(9, true, reset), "drain_node", true, 1},
		{"reset before", broken(9, false, reset), "drain_node", true, 0},
		{"busy", broken(9, false, status(503)), "drain_node", false, 0},
		{"bad gateway", broken(9, true, status(502)), "drain_node", true, 1},
		{"no such path", broken(9, false, status(404)), "drain_node", false, 0},
		{"too slow", broken(9, false, hang), "drain_node", true, 0},
		{"not JSON", broken(9, true, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }), "drain_node", true, 1},
		{"answer to another", broken(9, true, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"jsonrpc":"2.0","id":77,"result":1}`)
		}), "drain_node", true, 1},
		{"too long", broken(9, true, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(" ", 2000)) }), "drain_node", true, 1},
		{"redirect", broken(9, false, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/rpc", http.StatusTemporaryRedirect)
		}), "drain_node", true, 0},
		{"accepted", broken(9, true, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprint(w, `{"jsonrpc":"2.0","id":1,"result":1}`)
		}), "drain_node", true, 1},
		{"no content", broken(9, true, status(204)), "drain_node", true, 1},
		{"unauthorized", broken(9, false, status(401)), "drain_node", false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, c.wrap)
			conn := dial(t, s.addr(), client.Options{MaxAnswer: 1000, Timeout: 200 * time.Millisecond})
			err := conn.Call(t.Context(), c.method, nil, nil)
			var e *client.TransportError
			if !errors.As(err, &e) || e.Sent != c.sent || s.calls.Load() != c.calls {
				t.Errorf("got %v, carried out %d times; want sent %v, %d times", err, s.calls.Load(), c.sent, c.calls)
			}
		})
	}
	var e *client.TransportError
	if err := dial(t, nobody(t), client.Options{}).Call(t.Context(), "drain_node", nil, nil); !errors.As(err, &e) || e.Sent {
		t.Errorf("nobody listens: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := dial(t, serve(t, nil).addr(), client.Options{}).Call(ended, "drain_node", nil, nil); !errors.As(err, &e) || e.Sent || !errors.Is(err, context.Canceled) {
		t.Errorf("context has ended: %v", err)
	}
}

// A service that restarts closes the connections that are kept to it.
func TestRestart(t *testing.T) {
	for range 20 {
		s := serve(t, nil)
		conn := dial(t, s.addr(), client.Options{})
		if err := conn.Call(t.Context(), "list_nodes", nil, nil); err != nil {
			t.Fatal(err)
		}
		s.CloseClientConnections() // races with the call on purpose
		if err := conn.Call(t.Context(), "list_nodes", nil, nil); err != nil {
			t.Fatalf("after the restart: %v", err)
		}
	}
}

// A request on a kept connection that breaks is repeated only where it may be.
func TestKeptConnectionBreaks(t *testing.T) {
	for _, c := range []struct {
		method string
		fails  bool
		calls  int32
	}{{"list_nodes", false, 3}, {"drain_node", true, 2}} {
		var seen atomic.Int32
		s := serve(t, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if seen.Add(1) != 2 {
					next.ServeHTTP(w, r)
					return
				}
				next.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			})
		})
		conn := dial(t, s.addr(), client.Options{})
		if err := conn.Call(t.Context(), c.method, nil, nil); err != nil {
			t.Fatal(err)
		}
		err := conn.Call(t.Context(), c.method, nil, nil)
		if client.OutcomeUnknown(err) != c.fails || (err != nil) != c.fails || s.calls.Load() != c.calls {
			t.Errorf("%s: %v, carried out %d times", c.method, err, s.calls.Load())
		}
	}
}

func TestFailover(t *testing.T) {
	for _, c := range []struct {
		name          string
		wrap          func(http.Handler) http.Handler // of the first; nil: nobody listens there
		method        string
		fails         bool
		first, second int32 // how often each carried it out
	}{
		{"refused", nil, "transfer", false, 0, 1},
		{"503", broken(9, false, status(503)), "transfer", false, 0, 1},
		{"404", broken(9, false, status(404)), "transfer", false, 0, 1},
		{"reset, read", broken(9, true, reset), "list_nodes", false, 1, 1},
		{"reset, write", broken(9, true, reset), "transfer", true, 1, 0},
		{"reset, override", broken(9, true, reset), "drain_node", false, 1, 1},
		{"hangs, override", broken(9, false, hang), "drain_node", false, 0, 1},
		{"hangs, read", broken(9, false, hang), "list_nodes", false, 0, 1},
		{"502, read", broken(9, true, status(502)), "list_nodes", false, 1, 1},
		{"502, write", broken(9, true, status(502)), "transfer", true, 1, 0},
		{"an error of the service", func(h http.Handler) http.Handler { return h }, "fail", true, 1, 0},
		{"all are busy", func(h http.Handler) http.Handler { return h }, "busy", true, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := &service{}, serve(t, nil)
			addr := nobody(t)
			if c.wrap != nil {
				first = serve(t, c.wrap)
				addr = first.addr()
			}
			masters, err := client.New([]string{addr, addr, " " + second.addr()}, client.Options{Timeout: 200 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			defer masters.Close()
			err = masters.Call(t.Context(), c.method, nil, nil)
			if (err != nil) != c.fails || first.calls.Load() != c.first || second.calls.Load() != c.second {
				t.Errorf("got %v, carried out %d and %d times", err, first.calls.Load(), second.calls.Load())
			}
			if err == nil && masters.Endpoint().Address != second.addr() {
				t.Errorf("stays with %s", masters.Endpoint())
			}
		})
	}
}

func TestNobodyAnswers(t *testing.T) {
	a, b := nobody(t), nobody(t)
	masters, err := client.New([]string{a, b}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = masters.Call(t.Context(), "transfer", nil, nil)
	var e *client.TransportError
	if !errors.As(err, &e) || e.Sent || !strings.Contains(err.Error(), a) || !strings.Contains(err.Error(), b) {
		t.Errorf("got %v", err)
	}
	if _, err := masters.Get(t.Context(), "/health", nil); !errors.As(err, &e) {
		t.Errorf("got %v", err)
	}
	for _, addrs := range [][]string{nil, {""}, {a, "ftp://x"}} {
		if _, err := client.New(addrs, client.Options{}); err == nil {
			t.Errorf("%q is taken", addrs)
		}
	}
}
