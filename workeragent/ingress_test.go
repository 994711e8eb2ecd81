package workeragent

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/tunnel"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// post sends a call to an agent over a connection, as masters do.
func post(t *testing.T, dial func(context.Context) (net.Conn, error), op string) string {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	defer transport.CloseIdleConnections()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://node/rpc",
		strings.NewReader(`{"jsonrpc":"2.0","id":7,"method":"start_vm","params":{"sid":"v"}}`))
	req.Header["idempotency-key"] = []string{op}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// wantNoGoroutines checks that all have ended that an agent has started.
func wantNoGoroutines(t *testing.T) {
	t.Helper()
	all := make([]byte, 1<<20)
	all = all[:runtime.Stack(all, true)]
	for _, stack := range strings.Split(string(all), "\n\n") {
		if strings.Contains(stack, "workeragent.(*") || strings.Contains(stack, "workeragent/internal/") {
			t.Errorf("left behind is %s", stack)
		}
	}
}

// Whatever way a call comes, and whether the agent was started anew meanwhile, an
// operation runs once.
func TestCallsComeByTheAgent(t *testing.T) {
	dir := shortTempDir(t)
	compute := new(jsonrpc.Mux)
	var runs atomic.Int32
	compute.Handle("list_vms", func(context.Context, json.RawMessage) (any, error) { return []int{}, nil })
	compute.Handle("start_vm", func(context.Context, json.RawMessage) (any, error) { return runs.Add(1), nil })
	defer serveUnix(t, filepath.Join(dir, "rpc.sock"), compute)()

	// A master's edge, which the agent learns of from the answers of its API.
	_, key, _ := ed25519.GenerateKey(nil)
	id, err := identity.FromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	open := make(chan bool, 10)
	edge, err := tunnel.Listen(t.Context(), tunnel.HostConfig{
		Identity: id, Listen: "127.0.0.1:0",
		Admit:   func(string, string, uint64) error { return nil },
		Changed: func(_ string, up bool) { open <- up },
		Answer:  func(context.Context, string, []byte) []byte { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close()
	explorer := new(jsonrpc.Mux)
	paths := make(chan string, 100)
	for _, method := range []string{"register_node", "node_heartbeat"} {
		explorer.Handle("ExplorerService."+method, func(_ context.Context, params json.RawMessage) (any, error) {
			var r struct {
				AgentPath string `json:"agent_path"`
			}
			_ = json.Unmarshal(params, &r)
			if method == "register_node" {
				paths <- r.AgentPath
			}
			return map[string]any{"accepted": true, "heartbeat_interval_s": 10, "masters": []any{
				map[string]any{"id": id.ID(), "status": "self", "edge_addrs": []string{edge.Addrs()[0] + "/p2p/" + id.ID()}},
			}}, nil
		})
	}
	defer serveUnix(t, filepath.Join(dir, "explorer.sock"), explorer)()

	cfg := DefaultConfig()
	cfg.NodeID, cfg.DataDir, cfg.Compute = "n", filepath.Join(dir, "data"), "unix://"+filepath.Join(dir, "rpc.sock")
	cfg.Explorers = []string{"unix://" + filepath.Join(dir, "explorer.sock")}
	for start := range 2 {
		a, err := New(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
		path := strings.TrimPrefix(<-paths, "unix://")
		if path != filepath.Join(cfg.DataDir, "compute.sock") {
			t.Errorf("it reports %q", path)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket: %v, %v", info, err)
		}
		socket := func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) }
		if !<-open {
			t.Fatal("the tunnel has closed")
		}
		through := func(ctx context.Context) (net.Conn, error) { return edge.Dial(ctx, "n") }
		for _, dial := range []func(context.Context) (net.Conn, error){socket, through, socket} {
			if got := post(t, dial, "op"); got != `{"jsonrpc":"2.0","result":1,"id":7}` && got != `{"jsonrpc":"2.0","id":7,"result":1}` {
				t.Errorf("start %d: %s", start, got)
			}
		}
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
		wantNoGoroutines(t)
		if <-open {
			t.Fatal("a tunnel has opened when the agent stopped")
		}
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("it ran %d times", n)
	}
}

// An agent that stops ends streams at once, and lets operations end: who waits gets the
// answer, and who is gone gets it from the next agent.
func TestStopLetsOperationsEnd(t *testing.T) {
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprint("caller is gone: ", gone), func(t *testing.T) {
			dir := shortTempDir(t)
			begun, stopping := make(chan struct{}), make(chan struct{})
			compute := http.NewServeMux()
			var runs atomic.Int32
			compute.HandleFunc("POST /rpc", func(w http.ResponseWriter, r *http.Request) {
				var request struct {
					ID     json.RawMessage
					Method string
				}
				_ = json.NewDecoder(r.Body).Decode(&request)
				result := "[]"
				if request.Method == "start_vm" {
					runs.Add(1)
					close(begun)
					<-stopping
					time.Sleep(stopWithin / 5) // is slow
					result = `"started"`
				}
				fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, request.ID, result)
			})
			compute.HandleFunc("GET /vms/v/logs", func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
			ln, err := net.Listen("unix", filepath.Join(dir, "rpc.sock"))
			if err != nil {
				t.Fatal(err)
			}
			service := &http.Server{Handler: compute, ReadHeaderTimeout: time.Minute}
			defer service.Close()
			go func() { _ = service.Serve(ln) }()

			cfg := DefaultConfig()
			cfg.NodeID, cfg.DataDir, cfg.Compute = "n", filepath.Join(dir, "data"), "unix://"+ln.Addr().String()
			cfg.Explorers = []string{"unix://" + filepath.Join(dir, "explorer.sock")}
			start := func() *Agent {
				a, err := New(cfg, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := a.Start(); err != nil {
					t.Fatal(err)
				}
				return a
			}
			a := start()
			socket := func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", gatewaySocket(cfg.DataDir))
			}
			transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return socket(ctx) }}
			defer transport.CloseIdleConnections()
			follow, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://node/vms/v/logs", nil)
			logs, err := transport.RoundTrip(follow)
			if err != nil || logs.StatusCode != http.StatusOK {
				t.Fatal(logs, err)
			}
			defer logs.Body.Close()
			answer := make(chan string, 1)
			if gone {
				conn, err := socket(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				const body = `{"jsonrpc":"2.0","id":7,"method":"start_vm","params":{"sid":"v"}}`
				fmt.Fprintf(conn, "POST /rpc HTTP/1.1\r\nHost: node\r\nIdempotency-Key: op\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				<-begun
				conn.Close()
			} else {
				go func() { answer <- post(t, socket, "op") }()
				<-begun
			}
			ended := make(chan error, 1)
			go func() { ended <- a.Stop() }()
			if _, err := io.Copy(io.Discard, logs.Body); err == nil {
				t.Error("the log came to an end of its own")
			}
			close(stopping)
			const want = `{"jsonrpc":"2.0","result":"started","id":7}`
			if !gone {
				if got := receive(t, answer); got != want {
					t.Errorf("who waited got %s", got)
				}
			}
			if err := receive(t, ended); err != nil {
				t.Error(err)
			}
			next := start()
			defer next.Stop()
			if got := post(t, socket, "op"); got != want {
				t.Errorf("who asks again gets %s", got)
			}
			if n := runs.Load(); n != 1 {
				t.Errorf("it ran %d times", n)
			}
		})
	}
}

// Of a master that takes no calls over its edge the agent finds out without a failure.
func TestMasterTakesHTTPOnly(t *testing.T) {
	dir := shortTempDir(t)
	compute := new(jsonrpc.Mux)
	compute.Handle("list_vms", func(context.Context, json.RawMessage) (any, error) { return []int{}, nil })
	defer serveUnix(t, filepath.Join(dir, "rpc.sock"), compute)()
	_, key, _ := ed25519.GenerateKey(nil)
	id, err := identity.FromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	edge, err := tunnel.Listen(t.Context(), tunnel.HostConfig{
		Identity: id, Listen: "127.0.0.1:0",
		Admit:   func(string, string, uint64) error { return nil },
		Changed: func(string, bool) {},
		Answer: func(_ context.Context, _ string, request []byte) []byte {
			asked.Add(1)
			in, _ := jsonrpc.ParseRequest(request)
			return jsonrpc.AppendError(nil, &jsonrpc.Error{Code: jsonrpc.CodeUnauthorized, Message: "a token is needed"}, in.ID)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close()
	explorer := new(jsonrpc.Mux)
	beats := make(chan bool, 1000) // whether the edge was asked before
	for _, method := range []string{"register_node", "node_heartbeat"} {
		explorer.Handle("ExplorerService."+method, func(context.Context, json.RawMessage) (any, error) {
			select {
			case beats <- asked.Load() > 0:
			default:
			}
			return map[string]any{"accepted": true, "heartbeat_interval_s": 0.02, "masters": []any{
				map[string]any{"id": id.ID(), "status": "self", "edge_addrs": []string{edge.Addrs()[0] + "/p2p/" + id.ID()}},
			}}, nil
		})
	}
	defer serveUnix(t, filepath.Join(dir, "explorer.sock"), explorer)()
	cfg := DefaultConfig()
	cfg.NodeID, cfg.DataDir, cfg.Compute = "n", filepath.Join(dir, "data"), "unix://"+filepath.Join(dir, "rpc.sock")
	cfg.Explorers = []string{"unix://" + filepath.Join(dir, "explorer.sock")}
	log := &logBuffer{}
	a, err := New(cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	defer a.Stop()
	for !receive(t, beats) {
	}
	for range 3 {
		receive(t, beats)
	}
	if lines := log.lines("unreachable"); len(lines) > 0 || asked.Load() != 1 {
		t.Errorf("the edge was asked %d times; log %q", asked.Load(), lines)
	}
}
