package explorer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// testMaster is a server that runs on loopback with a fake store.
type testMaster struct {
	*Server
	t     testing.TB
	store *fakeStore
	url   string // of the API
	page  string
}

func testConfig(t testing.TB) Config {
	dir, err := os.MkdirTemp("", "hx") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cfg := DefaultConfig()
	cfg.DataDir, cfg.RPCSocket = filepath.Join(dir, "data"), filepath.Join(dir, "s", "rpc.sock")
	cfg.RPCAddr, cfg.UIAddr = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Version = "1.2.3"
	return cfg
}

func startMaster(t testing.TB, change ...func(*Config)) *testMaster {
	t.Helper()
	cfg := testConfig(t)
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &testMaster{Server: s, t: t, store: newFakeStore()}
	s.open = func(context.Context, crdtstore.Config) (store, error) { return m.store, nil }
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error("stop:", err)
		}
	})
	if s.RPCAddr() != nil {
		m.url = "http://" + s.RPCAddr().String()
	}
	if s.UIAddr() != nil {
		m.page = "http://" + s.UIAddr().String()
	}
	return m
}

// answer is what came back for a call.
type answer struct {
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Data    struct {
			Retryable   *bool   `json:"retryable"`
			Hint        string  `json:"hint"`
			Field       string  `json:"field"`
			RetryAfterS float64 `json:"retry_after_s"`
			By          string  `json:"by"`
		} `json:"data"`
	} `json:"error"`
}

func (m *testMaster) post(url, body string, header ...string) (int, []byte) {
	m.t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return resp.StatusCode, b
}

// call calls a method over TCP.
func (m *testMaster) call(method, params string, header ...string) answer {
	m.t.Helper()
	return m.callAt(m.url+"/rpc", method, params, header...)
}

func (m *testMaster) callAt(url, method, params string, header ...string) (a answer) {
	m.t.Helper()
	status, b := m.post(url, `{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":`+params+`}`, header...)
	if status != http.StatusOK {
		m.t.Fatalf("%s: status %d: %s", method, status, b)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		m.t.Fatalf("%s: %v: %s", method, err, b)
	}
	return a
}

// must decodes the result of a call that succeeds.
func (m *testMaster) must(into any, method, params string, header ...string) {
	m.t.Helper()
	a := m.call(method, params, header...)
	if a.Error != nil {
		m.t.Fatalf("%s %s: error %+v", method, params, *a.Error)
	}
	if into != nil {
		reflect.ValueOf(into).Elem().SetZero() // what is left out stays zero
		if err := json.Unmarshal(a.Result, into); err != nil {
			m.t.Fatalf("%s: %v", method, err)
		}
	}
}

// fails checks the error of a call.
func (m *testMaster) fails(code int, field, method, params string, header ...string) {
	m.t.Helper()
	a := m.call(method, params, header...)
	switch {
	case a.Error == nil:
		m.t.Errorf("%s %.80s: result %.200s, want error %d", method, params, a.Result, code)
	case a.Error.Code != code || a.Error.Data.Field != field:
		m.t.Errorf("%s %.80s: error %d %q about %q, want %d about %q",
			method, params, a.Error.Code, a.Error.Message, a.Error.Data.Field, code, field)
	case a.Error.Data.Retryable == nil || a.Error.Data.Hint == "" || a.Error.Data.By != jsonrpc.ByMaster:
		m.t.Errorf("%s %.80s: error without data.retryable, data.hint and data.by: %+v", method, params, a.Error)
	}
}

func (m *testMaster) unix() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", m.cfg.RPCSocket)
	}}}
}

func get(t testing.TB, client *http.Client, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

func TestHTTP(t *testing.T) {
	m := startMaster(t)
	for name, client := range map[string]*http.Client{"unix": m.unix(), "tcp": http.DefaultClient} {
		base := m.url
		if name == "unix" {
			base = "http://explorer.any.name"
		}
		for path, want := range map[string]string{
			"/health":                       `{"service":"hero_explorer","status":"ok","version":"1.2.3"}`,
			"/.well-known/heroservice.json": `"socket":"rpc"`,
			"/openrpc.json":                 `"openrpc":"1.3.2"`,
			"/metrics":                      "hero_explorer_events_total{kind=\"operator\",what=\"drained\"} 3\n",
		} {
			resp, b := get(t, client, base+path)
			if resp.StatusCode != http.StatusOK || !bytes.Contains(b, []byte(want)) {
				t.Errorf("%s %s: %d %.300s, want %s", name, path, resp.StatusCode, b, want)
			}
		}
		for _, path := range []string{"/rpc", "/explorer/rpc"} {
			resp, err := client.Post(base+path, "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":7,"method":"stats"}`))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if !bytes.Contains(b, []byte(`"id":7`)) || !bytes.Contains(b, []byte(`"convergence"`)) {
				t.Errorf("%s %s: %s", name, path, b)
			}
		}
	}
	m.store.set(func() { m.store.health = errors.New("disk is full") })
	if resp, b := get(t, http.DefaultClient, m.url+"/health"); resp.StatusCode != http.StatusServiceUnavailable || !bytes.Contains(b, []byte("disk is full")) {
		t.Errorf("/health of a sick store: %d %s", resp.StatusCode, b)
	}
}

func TestJSONRPCOverHTTP(t *testing.T) {
	m := startMaster(t)
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"jsonrpc":"2.0","method":"stats"}`, http.StatusNoContent, ""},
		{`[]`, http.StatusOK, `"code":-32600`},
		{`{"jsonrpc":`, http.StatusOK, `"code":-32700`},
		{`{"jsonrpc":"2.0","id":1,"method":"no_such"}`, http.StatusOK, `"code":-32601`},
		{`[{"jsonrpc":"2.0","id":1,"method":"ExplorerService.stats"},{"jsonrpc":"2.0","id":2,"method":"masters"}]`, http.StatusOK, `"id":2`},
		{`{"jsonrpc":"2.0","id":1,"method":"stats","params":["` + strings.Repeat("x", 5<<20) + `"]}`, http.StatusRequestEntityTooLarge, ""},
	} {
		status, b := m.post(m.url+"/rpc", c.body)
		if status != c.status || !strings.Contains(string(b), c.want) {
			t.Errorf("%.60s: %d %.200s, want %d %s", c.body, status, b, c.status, c.want)
		}
	}
}

func TestSocket(t *testing.T) {
	t.Run("mode and directories", func(t *testing.T) {
		m := startMaster(t)
		info, err := os.Stat(m.cfg.RPCSocket)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatal(info.Mode(), err)
		}
		if err := m.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(m.cfg.RPCSocket); !errors.Is(err, os.ErrNotExist) {
			t.Error("socket is left behind:", err)
		}
		if !m.store.closed {
			t.Error("store was not closed")
		}
	})
	t.Run("stale", func(t *testing.T) {
		startMaster(t, func(c *Config) {
			if err := os.MkdirAll(filepath.Dir(c.RPCSocket), 0o755); err != nil {
				t.Fatal(err)
			}
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.RPCSocket})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
		})
	})
	t.Run("in use", func(t *testing.T) {
		m := startMaster(t)
		cfg := testConfig(t)
		cfg.RPCSocket = m.cfg.RPCSocket
		second, err := New(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "another server") {
			t.Error("second server on the same socket:", err)
		}
		if resp, _ := get(t, m.unix(), "http://x/health"); resp.StatusCode != http.StatusOK {
			t.Error("the first one lost its socket")
		}
	})
	t.Run("no socket", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := listenUnix(path); err == nil {
			t.Error("listened over a file")
		}
		if b, _ := os.ReadFile(path); string(b) != "precious" {
			t.Error("file is gone")
		}
	})
}

func TestPortInUse(t *testing.T) {
	m := startMaster(t)
	cfg := testConfig(t)
	cfg.RPCAddr = m.RPCAddr().String()
	err := Run(t.Context(), cfg, nil)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), "rpc-addr: ") {
		t.Error(err)
	}
	if _, err := os.Stat(cfg.RPCSocket); !errors.Is(err, os.ErrNotExist) {
		t.Error("what had been started was not undone")
	}
}

func TestStarting(t *testing.T) {
	s, err := New(testConfig(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	loading, loaded := make(chan struct{}), make(chan struct{})
	s.open = func(context.Context, crdtstore.Config) (store, error) {
		close(loading)
		<-loaded
		return newFakeStore(), nil
	}
	started := make(chan error)
	go func() { started <- s.Start(t.Context()) }()
	<-loading
	resp, _ := get(t, http.DefaultClient, "http://"+s.RPCAddr().String()+"/health")
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Error("/health while the store is being read:", resp.Status)
	}
	close(loaded)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if resp, _ := get(t, http.DefaultClient, "http://"+s.RPCAddr().String()+"/health"); resp.StatusCode != http.StatusOK {
		t.Error("/health afterwards:", resp.Status)
	}
	if err := s.Start(t.Context()); err == nil {
		t.Error("started twice")
	}
	if err := errors.Join(s.Stop(t.Context()), s.Stop(t.Context())); err != nil {
		t.Error(err)
	}
}

func TestStoreDoesNotOpen(t *testing.T) {
	s, err := New(testConfig(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	s.open = func(context.Context, crdtstore.Config) (store, error) { return nil, broken }
	if err := s.Start(t.Context()); !errors.Is(err, broken) {
		t.Error(err)
	}
	if c, err := net.DialTimeout("tcp", s.RPCAddr().String(), time.Second); err == nil {
		c.Close()
		t.Error("still listening")
	}
}

func TestStopEndsStreams(t *testing.T) {
	m := startMaster(t)
	resp, err := http.Get(m.url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	done := make(chan struct{})
	go func() { io.Copy(io.Discard, resp.Body); close(done) }()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := m.Stop(ctx); err != nil {
		t.Error(err)
	}
	select {
	case <-done:
	case <-ctx.Done():
		t.Error("the stream goes on")
	}
}

// What other masters say is shown under their names, and so is a configured one that was
// never met. Agents are not told of it.
func TestPeerThatWasNeverMet(t *testing.T) {
	m := startMaster(t)
	m.store.mu.Lock()
	m.store.masters = append(m.store.masters, crdtstore.Master{Name: "10.0.0.2:9002", Status: crdtstore.MasterNeverMet, Cause: crdtstore.CauseNoMeshPort})
	m.store.mu.Unlock()
	if _, b := get(t, http.DefaultClient, m.url+"/metrics"); !bytes.Contains(b, []byte(`hero_explorer_peer_never_met{cause="no_mesh_port",peer="10.0.0.2:9002"} 1`)) {
		t.Errorf("the metrics do not have it:\n%s", b)
	}
	for call, told := range map[string]bool{
		`{"jsonrpc":"2.0","id":1,"method":"masters"}`:                                                   true,
		`{"jsonrpc":"2.0","id":1,"method":"node_heartbeat","params":{"node_id":"n1","boot":1,"seq":1}}`: false,
	} {
		resp, err := http.Post(m.url+"/rpc", "application/json", strings.NewReader(call))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if bytes.Contains(b, []byte("never_met")) != told || !bytes.Contains(b, []byte(`"alpha"`)) {
			t.Errorf("%s is answered with %s", call, b)
		}
	}
}
