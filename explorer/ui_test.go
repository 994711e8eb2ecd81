package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

func TestPage(t *testing.T) {
	m := startMaster(t)
	resp, b := get(t, http.DefaultClient, m.page+"/")
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(b), "<title>") {
		t.Errorf("%s %.100s", resp.Status, b)
	}
	for _, h := range []string{"Content-Security-Policy", "X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy"} {
		if resp.Header.Get(h) == "" {
			t.Errorf("no %s", h)
		}
	}
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'self'") || strings.Contains(csp, "unsafe") {
		t.Error(csp)
	}
	for path, want := range map[string]int{
		"/no_such": http.StatusNotFound, "/../server.go": http.StatusNotFound, "/fixture_test.go": http.StatusNotFound, "/health": http.StatusOK,
		"/rpc": http.StatusNotFound,
	} {
		if resp, _ := get(t, http.DefaultClient, m.page+path); resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	a := m.callAt(m.page+"/explorer/rpc", "masters", `{}`)
	if a.Error != nil || !strings.Contains(string(a.Result), `"self":"self"`) {
		t.Errorf("%+v", a)
	}
	if e := listen(t, m.page+"/explorer/events", "")(); e.kind != "snapshot" {
		t.Errorf("%+v", e)
	}
}

func TestNoPage(t *testing.T) {
	m := startMaster(t, func(c *Config) { c.UIAddr = "" })
	if m.UIAddr() != nil {
		t.Error(m.UIAddr())
	}
}

// know tells a master of others at the given addresses of their API.
func (m *testMaster) know(urls ...string) {
	for _, u := range urls {
		m.store.masters = append(m.store.masters, crdtstore.Master{ID: u, Status: crdtstore.MasterAlive, RPCURLs: []string{u}})
	}
}

func TestPageFailsOver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	m, second := startMaster(t), startMaster(t)
	m.know(m.url, "http://"+l.Addr().String(), second.url)
	m.must(nil, "register_node", `{"node_id":"here"}`)
	second.must(nil, "register_node", `{"node_id":"there"}`)
	nodes := func() string {
		t.Helper()
		var page crdtstore.NodePage
		a := m.callAt(m.page+"/explorer/rpc", "list_nodes", `{}`)
		if err := json.Unmarshal(a.Result, &page); err != nil || len(page.Nodes) != 1 {
			t.Fatalf("%+v", a)
		}
		return page.Nodes[0].NodeID
	}
	if got := nodes(); got != "here" {
		t.Error(got)
	}
	m.store.set(func() { m.store.health = errors.New("full") })
	if got := nodes(); got != "there" {
		t.Error(got)
	}
	if a := m.callAt(m.page+"/explorer/rpc", "drain_node", `{"node_id":"there"}`); a.Error != nil {
		t.Errorf("%+v", a.Error)
	}
	// The other master does not trust the first one in the place of a caller
	// from elsewhere.
	a := m.callAt(m.page+"/explorer/rpc", "drain_node", `{"node_id":"there"}`, remote...)
	if a.Error == nil || a.Error.Code != -32005 {
		t.Errorf("%+v", a)
	}
	next := listen(t, m.page+"/explorer/events", "")
	if e := next(); e.kind != "snapshot" || !strings.Contains(e.data, `"there"`) {
		t.Errorf("%+v", e)
	}
	// Back again: the page is served here, and its stream ends so that it moves.
	m.store.set(func() { m.store.health = nil })
	if got := nodes(); got != "here" {
		t.Error(got)
	}
}

func TestPageDoesNotRepeat(t *testing.T) {
	var asked atomic.Int32
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	m, second := startMaster(t), startMaster(t)
	m.know(broken.URL, second.url)
	m.store.health = errors.New("full")
	second.must(nil, "register_node", `{"node_id":"there"}`)
	before := second.store.encoded()
	for _, method := range []string{"deploy_vm", "start_vm", "no_such_method"} {
		asked.Store(0)
		if a := m.callAt(m.page+"/explorer/rpc", method, `{"node_id":"there"}`); a.Error == nil || a.Error.Code != -32004 || asked.Load() != 1 {
			t.Errorf("%s: asked %d times, %+v", method, asked.Load(), a)
		}
	}
	if second.store.encoded() != before {
		t.Error("what may have run was repeated")
	}
	if a := m.callAt(m.page+"/explorer/rpc", "get_node", `{"node_id":"there"}`); a.Error != nil {
		t.Errorf("a read was not repeated: %+v", a.Error)
	}
	_, b := m.post(m.page+"/explorer/rpc", `[{"jsonrpc":"2.0","id":"a","method":"stats"},{"jsonrpc":"2.0","id":"b","method":"stop_vm","params":{"node_id":"there"}}]`)
	var batch []struct {
		ID    string
		Error struct{ Code int }
	}
	if err := json.Unmarshal(b, &batch); err != nil || len(batch) != 2 || batch[1].ID != "b" || batch[1].Error.Code != -32004 {
		t.Errorf("%s", b)
	}
	// With nobody left this master says so, rather than nothing.
	m.store.set(func() { m.store.masters = m.store.masters[:2] })
	if a := m.callAt(m.page+"/explorer/rpc", "stats", `{}`); a.Error == nil || a.Error.Code != -32603 || !*a.Error.Data.Retryable {
		t.Errorf("%+v", a)
	}
}

// A master that takes connections and never answers holds nothing up that may be
// repeated; of the rest nobody knows whether it was done.
func TestPageWithAFrozenMaster(t *testing.T) {
	frozen, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	m, second := startMaster(t), startMaster(t)
	m.know("http://"+frozen.Addr().String(), second.url)
	m.store.health = errors.New("full")
	second.must(nil, "register_node", `{"node_id":"there"}`)
	var all sync.WaitGroup
	defer all.Wait()
	for _, method := range []string{"get_node", "drain_node"} {
		all.Go(func() {
			if a := m.callAt(m.page+"/explorer/rpc", method, `{"node_id":"there"}`); a.Error != nil {
				t.Errorf("%s: %+v", method, a.Error)
			}
		})
	}
	if e := listen(t, m.page+"/explorer/events", "")(); e.kind != "snapshot" || !strings.Contains(e.data, `"there"`) {
		t.Errorf("%+v", e)
	}
}

// What became of a request is judged while the transport may still be at it.
func TestPageGivesUp(t *testing.T) {
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer hangs.Close()
	s := &Server{toMasters: newMasterClient()}
	defer s.toMasters.CloseIdleConnections()
	for _, tt := range []struct {
		name  string
		trace func(giveUp func()) *httptrace.ClientTrace
		sent  bool
	}{
		{"before there is a connection", func(giveUp func()) *httptrace.ClientTrace {
			return &httptrace.ClientTrace{GetConn: func(string) { giveUp() }}
		}, false},
		{"when there is one", func(giveUp func()) *httptrace.ClientTrace {
			return &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { giveUp() }}
		}, true},
		{"when it is sent", func(giveUp func()) *httptrace.ClientTrace {
			return &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { giveUp() }}
		}, true},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		r := httptest.NewRequestWithContext(httptrace.WithClientTrace(ctx, tt.trace(cancel)), http.MethodPost, "/rpc", nil)
		req, got, err := s.requestTo(r.Context(), r, http.MethodPost, hangs.URL, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		_, sent, err := s.askMaster(req, got)
		if !errors.Is(err, context.Canceled) || sent != tt.sent {
			t.Errorf("%s: sent %v, %v", tt.name, sent, err)
		}
	}
}

// A call that names its operation goes on to the next master when its answer is
// lost, as a repetition.
func TestPageRepeatsOperations(t *testing.T) {
	var mu sync.Mutex // of asked and works
	var asked []string
	masters := make([]*httptest.Server, 3)
	works := 2
	for i := range masters {
		masters[i] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, string(body))
			if i != works {
				panic(http.ErrAbortHandler)
			}
			fmt.Fprint(w, `{"jsonrpc":"2.0","id":1,"result":"done"}`)
		}))
		defer masters[i].Close()
	}
	m := startMaster(t, func(c *Config) { c.Aliases = map[string]string{"boot": "start_vm"} })
	m.know(masters[0].URL, masters[1].URL, masters[2].URL)
	m.store.health = errors.New("full")
	const first = `{"jsonrpc":"2.0", "id":1, "method":"start_vm", "params":{"z": 1e0, "op_id":"x"}}`
	const again = `{"id":1,"jsonrpc":"2.0","method":"start_vm","params":{"op_again":true,"op_id":"x","z":1e0}}`
	for _, c := range []struct {
		name, body string
		works      int
		want       []string
		answer     string
	}{
		{"the third has it", first, 2, []string{first, again, again}, `"result":"done"`},
		{"nobody has", first, -1, []string{first, again, again}, `"code":-32004,"message":"the call was sent to other masters and not answered","data":{"retryable":true`},
		{"positional, by an alias", `{"id":1,"method":"boot","params":[{"op_id":"x"}]}`, 1, []string{
			`{"id":1,"method":"boot","params":[{"op_id":"x"}]}`, `{"id":1,"method":"boot","params":{"op_again":true,"op_id":"x"}}`,
		}, `"result":"done"`},
		{"with a read", `[` + first + `,{"id":2,"method":"stats"}]`, 1, []string{
			`[` + first + `,{"id":2,"method":"stats"}]`, `[` + again + `,{"id":2,"method":"stats"}]`,
		}, `"result":"done"`},
		{"with what has no name", `[` + first + `,{"id":2,"method":"stop_vm"}]`, 2, []string{`[` + first + `,{"id":2,"method":"stop_vm"}]`}, `"retryable":false`},
		{"an empty name", `{"id":1,"method":"stop_vm","params":{"op_id":""}}`, 2, []string{`{"id":1,"method":"stop_vm","params":{"op_id":""}}`}, `"retryable":false`},
		{"a name for what takes none", `{"id":1,"method":"create_token","params":{"op_id":"x"}}`, 2, []string{`{"id":1,"method":"create_token","params":{"op_id":"x"}}`}, `"retryable":false`},
	} {
		mu.Lock()
		asked, works = nil, c.works
		mu.Unlock()
		_, b := m.post(m.page+"/explorer/rpc", c.body)
		mu.Lock()
		if !slices.Equal(asked, c.want) || !strings.Contains(string(b), c.answer) {
			t.Errorf("%s: asked\n%s\nanswer %s", c.name, strings.Join(asked, "\n"), b)
		}
		mu.Unlock()
	}
}
