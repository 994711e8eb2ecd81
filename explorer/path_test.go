package explorer

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/tunnel"
)

// tunnelled is a node that can only dial out: an agent with a key, whose gateway notes the
// operations that it is asked for.
type tunnelled struct {
	*tunnel.Client
	id  *identity.Identity
	key ed25519.PrivateKey

	mu   sync.Mutex
	ops  []string          // in order, "" for calls without a name
	lose int               // so many answers
	full bool              // it refuses, having done nothing
	got  []json.RawMessage // params
}

func newTunnelled(t *testing.T) *tunnelled {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.FromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	n := &tunnelled{id: id, key: key}
	if n.Client, err = tunnel.NewClient(id); err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: n}
	go srv.Serve(n.Client)
	t.Cleanup(func() { srv.Close() })
	return n
}

func (n *tunnelled) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/rpc":
	case "/vms/v1/logs":
		fmt.Fprintf(w, "%s %s %s|", r.URL.RawQuery, r.Header.Get("X-VM-Secret"), r.Header.Get("Authorization"))
		http.NewResponseController(w).Flush()
		<-r.Context().Done() // the reader sees it before the end
		return
	case "/vms/v1/console":
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		fmt.Fprintf(buf, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: Upgrade\r\n\r\n", r.Header.Get("Upgrade"))
		buf.Flush()
		io.Copy(conn, buf)
		return
	default:
		http.NotFound(w, r)
		return
	}
	var in struct{ ID, Params json.RawMessage }
	_ = json.NewDecoder(r.Body).Decode(&in)
	n.mu.Lock()
	n.ops, n.got = append(n.ops, r.Header.Get("Idempotency-Key")), append(n.got, in.Params)
	lose, full := n.lose > 0, n.full
	n.lose--
	n.mu.Unlock()
	if lose {
		panic(http.ErrAbortHandler)
	}
	if full {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32007,"message":"full","data":{"by":"agent","retryable":true}}}`, in.ID)
		return
	}
	fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"from":"the agent"}}`, in.ID)
}

// report is the node's account.
func (n *tunnelled) report(seq uint64, change func(*record.Report)) string {
	r := record.Report{NodeID: n.id.ID(), Boot: 1, Seq: seq, Profile: record.Profile{AgentPath: "unix:///nowhere/compute.sock", MachineID: "another"},
		VMs: []record.VM{{SID: "v1"}}}
	if change != nil {
		change(&r)
	}
	r.Sign(n.key)
	return string(mustEncode(r))
}

func (n *tunnelled) at(t *testing.T, m *testMaster) *tunnel.Master {
	t.Helper()
	var addrs []string
	for _, a := range m.edgeAddrs() {
		id, _ := identity.Load(m.cfg.DataDir + "/identity.key")
		addrs = append(addrs, a+"/p2p/"+id.ID())
	}
	master, err := n.Master(addrs)
	if err != nil {
		t.Fatal(err)
	}
	return master
}

func (n *tunnelled) asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	ops := n.ops
	n.ops = nil
	return ops
}

func withEdge(c *Config) { c.EdgeAddr = "127.0.0.1:0" }

// tunnels starts two masters and a node with a tunnel to the second one.
func tunnels(t *testing.T) (without, with *testMaster, n *tunnelled) {
	t.Helper()
	without, with, n = startMaster(t, withEdge), startMaster(t, withEdge), newTunnelled(t)
	for _, m := range []*testMaster{without, with} {
		m.must(nil, "register_node", n.report(1, nil))
	}
	if _, err := n.at(t, with).Open(t.Context(), n.id.ID(), 1); err != nil {
		t.Fatal(err)
	}
	without.store.set(func() {
		without.store.tunnelsOf[n.id.ID()] = []string{"gone", "with"}
		without.store.dialled = func(_ context.Context, master, name string) (net.Conn, error) {
			if master != "with" {
				return nil, crdtstore.ErrUnreachable
			}
			here, there := net.Pipe()
			go with.store.served[name]("without", there)
			return here, nil
		}
	})
	return without, with, n
}

func TestTunnelAndSplice(t *testing.T) {
	without, with, n := tunnels(t)
	for name, m := range map[string]*testMaster{"tunnel": with, "splice": without} {
		for range 3 {
			_, b := m.post(m.url+"/rpc", `{"jsonrpc":"2.0","id":1,"method":"start_vm","params":{"sid":"v1","secret":"s","op_id":"op-1"}}`)
			if !strings.Contains(string(b), `"result":{"from":"the agent"}`) {
				t.Fatalf("%s: %s", name, b)
			}
			if ops := n.asked(); !slices.Equal(ops, []string{"op-1"}) {
				t.Errorf("%s: the agent was asked for %q", name, ops)
			}
			if got := string(n.got[len(n.got)-1]); got != `{"secret":"s","sid":"v1"}` {
				t.Errorf("%s: the agent got %s", name, got)
			}
		}
		m.must(nil, "vm_stats", `{"sid":"v1","op_id":"op-2"}`)
		if ops := n.asked(); !slices.Equal(ops, []string{""}) {
			t.Errorf("%s: reading is no operation, asked for %q", name, ops)
		}
	}
	// What is gone cannot be reached. On a connection that was kept it shows only when
	// something was sent.
	n.Client.Close()
	for _, m := range []*testMaster{with, without} {
		if a := m.call("start_vm", `{"sid":"v1","op_id":"op-3"}`); a.Error == nil || a.Error.Code != -32003 && a.Error.Code != -32004 || !*a.Error.Data.Retryable {
			t.Errorf("without a tunnel: %+v", a.Error)
		}
	}
}

// An answer that is lost is asked for again by the next path, under the same name.
func TestLostAnswerOfAnOperation(t *testing.T) {
	without, with, n := tunnels(t)
	without.store.set(func() { without.store.tunnelsOf[n.id.ID()] = []string{"with", "with"} })
	n.lose = 1
	without.must(nil, "start_vm", `{"sid":"v1","op_id":"op"}`)
	if ops := n.asked(); !slices.Equal(ops, []string{"op", "op"}) {
		t.Errorf("asked for %q", ops)
	}
	for _, c := range []struct {
		params    string
		retryable bool
		asked     []string
	}{
		{`{"sid":"v1","op_id":"op"}`, true, []string{"op", "op"}},
		{`{"sid":"v1","op_id":"op","op_again":true}`, true, []string{"op", "op"}},
		{`{"sid":"v1"}`, false, []string{""}},
	} {
		n.lose = len(c.asked)
		a := with.call("start_vm", c.params)
		if a.Error == nil || a.Error.Code != -32004 || *a.Error.Data.Retryable != c.retryable {
			t.Errorf("%s: %+v", c.params, a.Error)
		}
		if ops := n.asked(); !slices.Equal(ops, c.asked) {
			t.Errorf("%s: asked for %q", c.params, ops)
		}
	}
}

// That the agent did nothing now says nothing of what was sent before and lost.
func TestRefusedAfterALostAnswer(t *testing.T) {
	without, _, n := tunnels(t)
	without.store.set(func() { without.store.tunnelsOf[n.id.ID()] = []string{"with", "with"} })
	n.full = true
	if a := without.call("start_vm", `{"sid":"v1","op_id":"a"}`); a.Error == nil || a.Error.Code != -32007 {
		t.Errorf("refused: %+v", a.Error)
	}
	n.lose = 1
	if a := without.call("start_vm", `{"sid":"v1","op_id":"b"}`); a.Error == nil || a.Error.Code != -32004 || !*a.Error.Data.Retryable {
		t.Errorf("refused after an answer was lost: %+v", a.Error)
	}
}

// A node whose agent remembers operations gets them by its agent only. One that has no
// such agent is not asked again for what it may have done.
func TestOperationsTakeNoOtherPath(t *testing.T) {
	m, n := startMaster(t, withEdge), newTunnelled(t)
	direct, addr := startNode(t, "tcp", result(`{"from":"the service"}`))
	m.must(nil, "register_node", n.report(1, func(r *record.Report) { r.SocketPath, r.MachineID = addr, identity.Machine() }))
	m.fails(-32003, "", "start_vm", `{"sid":"v1","op_id":"op"}`)
	m.fails(-32003, "", "proxy", `{"node_id":"`+n.id.ID()+`","method":"start_vm","params":{},"op_id":"op"}`)
	if direct.count.Load() != 0 {
		t.Error("the service was called past the agent")
	}
	m.must(nil, "start_vm", `{"sid":"v1"}`)

	m.must(nil, "register_node", `{"node_id":"legacy","socket_path":"`+addr+`"}`)
	direct.count.Store(0)
	m.must(nil, "start_vm", `{"node_id":"legacy","op_id":"op"}`)
	if a := m.call("start_vm", `{"node_id":"legacy","op_id":"op","op_again":true}`); a.Error == nil || a.Error.Code != -32004 || *a.Error.Data.Retryable {
		t.Errorf("a repetition that nobody can tell from a second call: %+v", a.Error)
	}
	m.must(nil, "vm_stats", `{"node_id":"legacy","op_id":"op","op_again":true}`)
	if n := direct.count.Load(); n != 2 {
		t.Errorf("the service was called %d times", n)
	}
}

func TestBadOperations(t *testing.T) {
	m := startMaster(t)
	m.must(nil, "register_node", `{"node_id":"n"}`)
	for _, c := range []struct{ field, params string }{
		{"op_id", `"op_id":"a b"`}, {"op_id", `"op_id":"ä"`}, {"op_id", `"op_id":7`}, {"op_id", `"op_again":true`},
		{"op_id", `"op_id":"` + strings.Repeat("x", 129) + `"`}, {"op_again", `"op_id":"x","op_again":"yes"`},
	} {
		m.fails(-32602, c.field, "start_vm", `{"node_id":"n",`+c.params+`}`)
		m.fails(-32602, c.field, "proxy", `{"node_id":"n","method":"start_vm",`+c.params+`}`)
	}
}

func TestWhoMayHoldATunnel(t *testing.T) {
	m, n, other := startMaster(t, withEdge), newTunnelled(t), newTunnelled(t)
	at := n.at(t, m)
	for _, c := range []struct {
		why    string
		before func()
	}{
		{"not known", func() {}},
		{"not signed", func() { m.must(nil, "register_node", `{"node_id":"`+n.id.ID()+`"}`) }},
	} {
		c.before()
		var refused *tunnel.RefusedError
		if _, err := at.Open(t.Context(), n.id.ID(), 1); !errors.As(err, &refused) || !strings.Contains(refused.Reason, c.why) {
			t.Errorf("%s: %v", c.why, err)
		}
	}
	m.must(nil, "register_node", n.report(1, nil))
	var refused *tunnel.RefusedError
	if _, err := other.at(t, m).Open(t.Context(), n.id.ID(), 1); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "another key") {
		t.Errorf("another key: %v", err)
	}
	tun, err := at.Open(t.Context(), n.id.ID(), 1)
	if err != nil {
		t.Fatal(err)
	}
	m.must(nil, "vm_stats", `{"sid":"v1"}`)
	// The node boots again. What is left of the boot before is not called, nor let in.
	m.must(nil, "register_node", n.report(1, func(r *record.Report) { r.Boot = 2 }))
	if m.fails(-32003, "", "vm_stats", `{"sid":"v1"}`); len(n.asked()) != 1 {
		t.Error("an old boot was called")
	}
	<-tun.Done()
	if _, err := at.Open(t.Context(), n.id.ID(), 1); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "later boot") {
		t.Errorf("an old boot: %v", err)
	}
	if _, err := at.Open(t.Context(), n.id.ID(), 2); err != nil {
		t.Error(err)
	}
	m.must(nil, "vm_stats", `{"sid":"v1"}`)
	m.must(nil, "remove_node", `{"node_id":"`+n.id.ID()+`"}`)
	if _, err := at.Open(t.Context(), n.id.ID(), 1); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "removed") {
		t.Errorf("removed: %v", err)
	}
}

// What agents call over the edge is what they call over HTTP, and no more.
func TestEdgeCalls(t *testing.T) {
	m, n := startMaster(t, withEdge), newTunnelled(t)
	at := n.at(t, m)
	ask := func(method, params string) (a answer) {
		t.Helper()
		b, err := at.Ask(t.Context(), []byte(`{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":`+params+`}`))
		if err == nil {
			err = json.Unmarshal(b, &a)
		}
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask(Prefix+"register_node", n.report(1, nil)); a.Error != nil || !strings.Contains(string(a.Result), `"accepted":true`) {
		t.Errorf("register: %s %+v", a.Result, a.Error)
	}
	if a := ask("node_heartbeat", `{"node_id":"`+n.id.ID()+`","boot":1,"seq":2}`); a.Error != nil {
		t.Errorf("beat: %+v", a.Error)
	}
	for _, method := range []string{"list_nodes", "remove_node", "start_vm", "proxy"} {
		if a := ask(method, `{}`); a.Error == nil || a.Error.Code != -32601 {
			t.Errorf("%s: %s %+v", method, a.Result, a.Error)
		}
	}
}

func TestStreamsOfVMs(t *testing.T) {
	without, with, n := tunnels(t)
	for name, m := range map[string]*testMaster{"tunnel": with, "splice": without} {
		t.Run(name, func(t *testing.T) {
			get := func(path string, header http.Header) *http.Response {
				t.Helper()
				ctx, cancel := context.WithCancel(t.Context())
				t.Cleanup(cancel)
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, m.url+path, nil)
				req.Header = header
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { resp.Body.Close() })
				return resp
			}
			resp := get("/vms/v1/logs?follow=true&node_id="+n.id.ID(), http.Header{"X-Vm-Secret": {"s"}, "Authorization": {"Bearer x"}})
			line, err := bufio.NewReader(resp.Body).ReadString('|')
			if err != nil || line != "follow=true s |" {
				t.Errorf("got %q, %v", line, err)
			}
			for path, want := range map[string]int{
				"/vms/%2e%2e%2fv1/logs": 400, "/vms/a%5Cb/logs": 400, "/vms/v2/logs": 404, "/vms/v1/logs?node_id=nobody": 404, "/vms/v1/logs?node_id=!": 400, "/vms/v1/other": 404,
			} {
				if resp := get(path, nil); resp.StatusCode != want {
					t.Errorf("%s: %s", path, resp.Status)
				}
			}
			console := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
			for origin, want := range map[string]int{"": 101, m.url: 101, "http://evil.example": 403, "null": 403} {
				header := console.Clone()
				if origin != "" {
					header.Set("Origin", origin)
				}
				resp := get("/vms/v1/console", header)
				if resp.StatusCode != want {
					t.Errorf("from %q: %s", origin, resp.Status)
					continue
				}
				if both, ok := resp.Body.(io.ReadWriter); ok && want == 101 {
					fmt.Fprint(both, "typed")
					got := make([]byte, 5)
					if _, err := io.ReadFull(both, got); err != nil || string(got) != "typed" {
						t.Errorf("from %q: console gives %q, %v", origin, got, err)
					}
				}
			}
		})
	}
}

// Streams of VMs are calls to VMs: beyond loopback they need a token.
func TestStreamsNeedAToken(t *testing.T) {
	m := startMaster(t)
	m.must(nil, "register_node", `{"node_id":"n","vms":[{"sid":"v1"}]}`)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, m.url+"/vms/v1/logs", nil)
	req.Header.Set("X-Forwarded-For", "192.0.2.1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Error(resp.Status)
	}
}

// A name is looked at once it is known what it stands for.
func TestNamesOfThisMachine(t *testing.T) {
	m := startMaster(t)
	service, addr := startNode(t, "tcp", result(`1`))
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(addr, "tcp://"))
	_, own, _ := net.SplitHostPort(m.RPCAddr().String())
	for i, c := range []struct {
		address, machine string
		reached          bool
	}{
		{"tcp://localhost:" + port, identity.Machine(), true},
		{"tcp://localhost:" + port, "another", identity.Machine() == ""},
		{"http://localhost:" + own, identity.Machine(), false},
	} {
		id := fmt.Sprint("n", i)
		m.must(nil, "register_node", `{"node_id":"`+id+`","socket_path":"`+c.address+`","machine_id":"`+c.machine+`"}`)
		if a := m.call("start_vm", `{"node_id":"`+id+`"}`); (a.Error == nil) != c.reached {
			t.Errorf("%s on machine %q: %+v", c.address, c.machine, a.Error)
		}
	}
	if service.count.Load() == 0 {
		t.Error("nobody was called at all")
	}
}

// Several masters on one machine need not be told where agents are to connect to.
func TestEdgePortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", fmt.Sprint("0.0.0.0:", DefaultEdgePort))
	if err == nil { // else another has taken it
		defer l.Close()
	}
	m := startMaster(t, func(c *Config) { c.ClusterSecret = "s" })
	if addrs := m.edgeAddrs(); len(addrs) == 0 || strings.HasSuffix(addrs[0], fmt.Sprint("/", DefaultEdgePort)) {
		t.Errorf("agents find it at %q", addrs)
	}
	cfg := testConfig(t)
	cfg.EdgeAddr = fmt.Sprint("0.0.0.0:", DefaultEdgePort)
	s, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "edge-addr") {
		t.Errorf("a port that was asked for is taken: %v", err)
	}
}

// What a node sends is shown as what it is, text, and nothing of it is a page of the
// master to a browser; and other sites cannot have it shown.
func TestStreamsAreHarmless(t *testing.T) {
	m := startMaster(t)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Clear-Site-Data", `"*"`)
		fmt.Fprint(w, "<script>")
	}))
	defer evil.Close()
	m.must(nil, "register_node", `{"node_id":"evil","socket_path":"`+evil.URL+`"}`)
	for site, want := range map[string]int{"": 200, "none": 200, "same-origin": 200, "cross-site": 403, "same-site": 403} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, m.url+"/vms/v/logs?node_id=evil", nil)
		if site != "" {
			req.Header.Set("Sec-Fetch-Site", site)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("from %q: %s", site, resp.Status)
		}
		h := resp.Header
		if want == 200 && (h.Get("Content-Type") != "text/plain; charset=utf-8" || h.Get("X-Content-Type-Options") != "nosniff" ||
			!strings.HasPrefix(h.Get("Content-Security-Policy"), "sandbox") || h.Get("Set-Cookie")+h.Get("Clear-Site-Data") != "") {
			t.Errorf("from %q: %v", site, h)
		}
	}
}
