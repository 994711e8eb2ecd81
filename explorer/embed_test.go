package explorer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer"
)

// A program with a store, an HTTP server and metrics of its own serves the API among what
// it serves itself.
func ExampleServer_Handler() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "embed")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	store, err := crdtstore.Open(ctx, crdtstore.Config{Dir: dir})
	if err != nil {
		panic(err)
	}
	defer store.Close() // last

	cfg := explorer.DefaultConfig()
	cfg.DataDir, cfg.Store, cfg.Registerer = dir, store, prometheus.NewRegistry()
	cfg.RPCAddr, cfg.RPCSocket, cfg.UIAddr = "", "", "" // no listener of the server's own
	server, err := explorer.New(cfg, nil)
	if err != nil {
		panic(err)
	}
	if err := server.Start(ctx); err != nil {
		panic(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	mux.Handle("/grid/", http.StripPrefix("/grid", server.Handler()))
	web := httptest.NewServer(mux)
	defer web.Close()      // second
	defer server.Stop(ctx) // first: it ends streams of events, for which web would wait

	answer, err := http.Post(web.URL+"/grid/rpc", "application/json",
		strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"register_node","params":{"node_id":"n1","hostname":"alpha"}}`))
	if err != nil {
		panic(err)
	}
	answer.Body.Close()
	node, err := store.Node("n1")
	fmt.Println(node.Hostname, err)
	// Output: alpha <nil>
}

// embedding is a program that has a store, a registry and a mux.
type embedding struct {
	t        *testing.T
	dir      string
	store    *crdtstore.Store
	registry *prometheus.Registry
	server   *explorer.Server
	web      *httptest.Server
}

func embed(t *testing.T, change ...func(*explorer.Config)) *embedding {
	t.Helper()
	e := &embedding{t: t, dir: t.TempDir(), registry: prometheus.NewRegistry()}
	var err error
	if e.store, err = crdtstore.Open(t.Context(), crdtstore.Config{Dir: e.dir, OfflineAfter: 2 * time.Minute, NoSync: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.store.Close() })
	own := prometheus.NewCounter(prometheus.CounterOpts{Name: "own_total", Help: "Of the program."})
	e.registry.MustRegister(own)
	e.server = e.serverOf(change...)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	mux.Handle("/grid/", http.StripPrefix("/grid", e.server.Handler()))
	e.web = httptest.NewServer(mux)
	t.Cleanup(e.web.Close)
	return e
}

// serverOf makes a server on what the program has.
func (e *embedding) serverOf(change ...func(*explorer.Config)) *explorer.Server {
	e.t.Helper()
	cfg := explorer.DefaultConfig()
	cfg.DataDir, cfg.Store, cfg.Registerer = e.dir, e.store, e.registry
	cfg.RPCAddr, cfg.RPCSocket, cfg.UIAddr = "", "", ""
	for _, c := range change {
		c(&cfg)
	}
	s, err := explorer.New(cfg, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { s.Stop(context.Background()) })
	return s
}

func (e *embedding) start() {
	e.t.Helper()
	if err := e.server.Start(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
}

func (e *embedding) post(url, method, params string) (int, string) {
	e.t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":`+params+`}`))
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// metrics are the names of those in the program's registry.
func (e *embedding) metrics() string {
	e.t.Helper()
	families, err := e.registry.Gather()
	if err != nil {
		e.t.Fatal(err)
	}
	var names strings.Builder
	for _, f := range families {
		fmt.Fprintln(&names, f.GetName())
	}
	return names.String()
}

func TestHandlerInAnotherServer(t *testing.T) {
	e := embed(t)
	rpc := e.web.URL + "/grid/rpc"
	if status, b := e.post(rpc, "stats", "{}"); status != http.StatusServiceUnavailable || !strings.Contains(b, "starting") {
		t.Error("before the start:", status, b)
	}
	e.start()
	if status, b := e.post(rpc, "register_node", `{"node_id":"n1"}`); status != http.StatusOK || !strings.Contains(b, `"offline_after_s":120`) {
		t.Error("not by the store's own settings:", status, b)
	}
	// A connection over loopback is trusted, another one is not.
	if _, b := e.post(rpc, "drain_node", `{"node_id":"n1"}`); !strings.Contains(b, `"drained":true`) {
		t.Error(b)
	}
	r := httptest.NewRequest(http.MethodPost, "/rpc", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"undrain_node","params":{"node_id":"n1"}}`))
	r.Host = "localhost"
	w := httptest.NewRecorder()
	e.server.Handler().ServeHTTP(w, r) // from 192.0.2.1
	if !strings.Contains(w.Body.String(), "a token is needed") {
		t.Error("somebody else:", w.Body)
	}
	if n, err := e.store.Node("n1"); err != nil || !n.Drained {
		t.Errorf("%+v, %v", n, err)
	}
	for _, name := range []string{"own_total", "hero_explorer_nodes", "hero_explorer_rpc_requests_total", "hero_explorer_healthy"} {
		if !strings.Contains(e.metrics(), name+"\n") {
			t.Errorf("%s is not in the program's registry", name)
		}
	}
	if strings.Contains(e.metrics(), "go_goroutines") {
		t.Error("the server puts figures of the process into the program's registry")
	}
	resp, err := http.Get(e.web.URL + "/grid/metrics")
	if err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !strings.Contains(string(page), "\ngo_goroutines ") || !strings.Contains(string(page), "\nhero_explorer_healthy 1\n") || strings.Contains(string(page), "own_total") {
		t.Errorf("/metrics: %s", page)
	}
}

// The server stops first: streams end and requests are refused, while the store and all
// else that is the program's goes on.
func TestStopBesideAnotherServer(t *testing.T) {
	e := embed(t)
	e.start()
	stream, err := http.Get(e.web.URL + "/grid/events")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	lines := bufio.NewReader(stream.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := e.server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Error("the stream has no proper end:", err)
	}
	if status, b := e.post(e.web.URL+"/grid/rpc", "stats", "{}"); status != http.StatusServiceUnavailable || !strings.Contains(b, "stopping") {
		t.Error("after the stop:", status, b)
	}
	if resp, err := http.Get(e.web.URL + "/hello"); err != nil || resp.StatusCode != http.StatusOK {
		t.Error("the program's own:", resp, err)
	}
	if m := e.metrics(); m != "own_total\n" {
		t.Error("left in the registry:", m)
	}
	if _, err := e.store.Report(t.Context(), crdtstore.Report{NodeID: "n2", Boot: 1, Seq: 1}); err != nil {
		t.Error("the store was closed:", err)
	}
	again := e.serverOf()
	if err := again.Start(t.Context()); err != nil {
		t.Fatal("another server on the same store:", err)
	}
	if m := e.metrics(); !strings.Contains(m, "hero_explorer_nodes") {
		t.Error(m)
	}
}

// A store that is closed too early costs answers and nothing else.
func TestStoreClosedBeforeTheServer(t *testing.T) {
	e := embed(t)
	e.start()
	if err := e.store.Close(); err != nil {
		t.Fatal(err)
	}
	if status, b := e.post(e.web.URL+"/grid/rpc", "register_node", `{"node_id":"n1"}`); status != http.StatusOK || !strings.Contains(b, `"retryable":true`) {
		t.Error(status, b)
	}
	if resp, err := http.Get(e.web.URL + "/grid/health"); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Error(resp, err)
	}
	e.metrics()
	if err := e.server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMetricsAreTaken(t *testing.T) {
	e := embed(t)
	e.start()
	other := e.serverOf()
	if err := other.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "register metrics") {
		t.Error("two servers in one registry:", err)
	}
	if m := e.metrics(); !strings.Contains(m, "hero_explorer_nodes") {
		t.Error("the one that was there has lost its metrics:", m)
	}
	if status, b := e.post(e.web.URL+"/grid/rpc", "stats", "{}"); status != http.StatusOK {
		t.Error(status, b)
	}
}

// A node that gives the address of the program's own server does not have the master call
// itself.
func TestNodeInTheProgramsServer(t *testing.T) {
	e := embed(t)
	e.start()
	root := httptest.NewServer(e.server.Handler())
	defer root.Close()
	e.post(root.URL+"/rpc", "register_node", `{"node_id":"n1","socket_path":"`+root.URL+`","vms":[{"sid":"v1","state":"running"}]}`)
	if _, b := e.post(root.URL+"/rpc", "start_vm", `{"node_id":"n1","sid":"v1"}`); !strings.Contains(b, "meant for a node") {
		t.Error(b)
	}
}

// Tunnels need the store's own directory: agents know a master by its identity.
func TestEdgeOfTheProgramsStore(t *testing.T) {
	e := embed(t, func(cfg *explorer.Config) { cfg.EdgeAddr = "127.0.0.1:0" })
	e.start()
	other := e.serverOf(func(cfg *explorer.Config) { cfg.EdgeAddr, cfg.DataDir = "127.0.0.1:0", t.TempDir() })
	var field *crdtstore.FieldError
	if err := other.Start(t.Context()); !errors.As(err, &field) || field.Field != "data-dir" {
		t.Error(err)
	}
}

func TestListenerOfTheProgram(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := embed(t, func(cfg *explorer.Config) { cfg.Listener = l })
	e.start()
	if e.server.RPCAddr().String() != l.Addr().String() {
		t.Error(e.server.RPCAddr())
	}
	if status, b := e.post("http://"+l.Addr().String()+"/rpc", "stats", "{}"); status != http.StatusOK {
		t.Error(status, b)
	}
	if err := e.server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("still listening")
	}
	l, err = net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	other := e.serverOf(func(cfg *explorer.Config) { cfg.Listener, cfg.RPCSocket = l, "/dev/null/x" })
	if err := other.Start(t.Context()); err == nil {
		t.Error("started")
	}
	if _, err := l.Accept(); err == nil {
		t.Error("still listening after a start that failed")
	}
}
