package ui_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// contentPolicy is at least as strict as what a master sends with the page, so
// that a page which needs more fails here.
const contentPolicy = "default-src 'self'; script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'; object-src 'none'; frame-ancestors 'none'"

// fixture stands in for the UI listener of a master: the page, and an API over
// nodes and VMs that the test holds.
type fixture struct {
	url string

	mu      sync.Mutex
	nodes   map[string]crdtstore.Node
	masters []crdtstore.Master
	log     []crdtstore.Event // oldest first
	splits  []stats.Split
	silence *stats.Preservation
	calls   []recorded
	fail    map[string]*jsonrpc.Error // by method
	token   string                    // empty: none is needed
	streams map[chan string]struct{}
	down    bool // event streams are refused
	frozen  bool // they stand, and nothing comes
	seq     int
	held    map[string]chan struct{} // by method: answers wait until it is closed
	lose    map[string]int           // by method: how many answers get lost
	cut     map[string]int           // by path: how many answers break off
	hang    int                      // how many event streams do not begin
}

// recorded is a call that the page made.
type recorded struct {
	Method string
	Params map[string]any
}

func newFixture() *fixture {
	return &fixture{
		nodes:   map[string]crdtstore.Node{},
		fail:    map[string]*jsonrpc.Error{},
		streams: map[chan string]struct{}{},
		held:    map[string]chan struct{}{},
		lose:    map[string]int{},
		cut:     map[string]int{},
		masters: []crdtstore.Master{{ID: "12D3KooWself0000", Name: "alpha", Status: crdtstore.MasterSelf, Version: "0.1.0", InSync: true}},
	}
}

func startFixture(t *testing.T) *fixture {
	f := newFixture()
	srv := httptest.NewServer(f.handler())
	f.url = srv.URL
	t.Cleanup(func() {
		f.breakStreams(true)
		srv.Close()
	})
	return f
}

func (f *fixture) handler() http.Handler {
	rpc := new(jsonrpc.Mux)
	for name, handle := range f.methods() {
		rpc.Handle(name, func(_ context.Context, raw json.RawMessage) (any, error) {
			params := map[string]any{}
			_ = json.Unmarshal(raw, &params) // no params: none
			answer, held, err := f.call(name, params, handle)
			if held != nil {
				<-held
			}
			return answer, err
		})
	}
	files := http.FileServerFS(os.DirFS("."))
	mux := http.NewServeMux()
	mux.HandleFunc("POST /explorer/rpc", func(w http.ResponseWriter, r *http.Request) {
		if !f.allowed(r) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"token needed","data":{"retryable":false,"hint":"give one","by":"master"}}}`)
			return
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if f.loses(body) {
			rpc.ServeHTTP(httptest.NewRecorder(), r)
			// Without the beginning of an answer the browser would ask again by itself.
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		rpc.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /explorer/events", f.serveEvents)
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		if f.cuts(r.URL.Path) {
			w.Header().Set("Content-Length", "1000000")
			_, _ = io.WriteString(w, "//")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Security-Policy", contentPolicy)
		files.ServeHTTP(w, r)
	})
	return mux
}

func (f *fixture) allowed(r *http.Request) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.token == "" || r.Header.Get("Authorization") == "Bearer "+f.token
}

// cuts tells whether the answer to a request for a file is to break off.
func (f *fixture) cuts(path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut[path]--
	return f.cut[path] >= 0
}

// loses tells whether the answer to a request is to be lost.
func (f *fixture) loses(body []byte) bool {
	var request struct{ Method string }
	_ = json.Unmarshal(body, &request) // not a call: nothing to lose
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lose[request.Method]--
	return f.lose[request.Method] >= 0
}

// operations returns the params of the calls of a method that changes a VM, but
// for the names of the operations, which it checks: each is new unless the call
// is marked as a repetition.
func (f *fixture) operations(t *testing.T, method string) (params []map[string]any) {
	t.Helper()
	names := map[any]bool{}
	for _, given := range f.called(method) {
		name, _ := given["op_id"].(string)
		if again := given["op_again"] == true; len(name) != 32 || names[name] != again {
			t.Errorf("%s was called with %v", method, given)
		}
		names[name] = true
		given = maps.Clone(given)
		delete(given, "op_id")
		params = append(params, given)
	}
	return params
}

// call handles a call, and tells what its answer has to wait for.
func (f *fixture) call(name string, params map[string]any, do handle) (answer any, held <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, recorded{name, params})
	if err := f.fail[name]; err != nil {
		return nil, f.held[name], err
	}
	answer, err = do(params)
	return answer, f.held[name], err
}

// hold keeps the answers of methods back until the returned function is called,
// which the end of the test does as well.
func (f *fixture) hold(t *testing.T, methods ...string) (release func()) {
	gate := make(chan struct{})
	f.set(func() {
		for _, name := range methods {
			f.held[name] = gate
		}
	})
	release = sync.OnceFunc(func() {
		f.set(func() { clear(f.held) })
		close(gate)
	})
	t.Cleanup(release)
	return release
}

type handle func(params map[string]any) (any, error)

// methods are called with f.mu held.
func (f *fixture) methods() map[string]handle {
	text := func(params map[string]any, name string) string { s, _ := params[name].(string); return s }
	change := func(do func(n *crdtstore.Node, params map[string]any)) handle {
		return func(params map[string]any) (any, error) {
			n, ok := f.nodes[text(params, "node_id")]
			if !ok {
				return nil, &jsonrpc.Error{Code: jsonrpc.CodeNodeNotFound, Message: "node is not known", Data: jsonrpc.ErrorData{Hint: "list_nodes shows the nodes"}}
			}
			do(&n, params)
			f.nodes[n.NodeID] = n
			return n, nil
		}
	}
	vmCall := func(params map[string]any) (any, error) {
		return map[string]any{"sid": params["sid"], "state": "done"}, nil
	}
	return map[string]handle{
		"list_nodes": func(params map[string]any) (any, error) {
			var all []crdtstore.Node
			for _, n := range f.sorted() {
				q := text(params, "q")
				if s := text(params, "status"); s != "" && string(n.Status) != s || q != "" && !strings.Contains(n.NodeID+n.Hostname, q) || n.RemovedAt != nil {
					continue
				}
				all = append(all, n)
			}
			if strings.HasPrefix(text(params, "sort"), "-") {
				slices.Reverse(all)
			}
			page, next := paged(all, params)
			return crdtstore.NodePage{Nodes: page, Total: len(all), NextCursor: next}, nil
		},
		"list_vms": func(params map[string]any) (any, error) {
			var all []crdtstore.VM
			for _, n := range f.sorted() {
				for _, vm := range n.VMs {
					if s := text(params, "state"); s == "" || vm.State == s {
						all = append(all, vm)
					}
				}
			}
			page, next := paged(all, params)
			return crdtstore.VMPage{VMs: page, Total: len(all), NextCursor: next}, nil
		},
		"get_node":     change(func(*crdtstore.Node, map[string]any) {}),
		"drain_node":   change(func(n *crdtstore.Node, _ map[string]any) { n.Drained = true }),
		"undrain_node": change(func(n *crdtstore.Node, _ map[string]any) { n.Drained = false }),
		"remove_node":  change(func(n *crdtstore.Node, _ map[string]any) { now := time.Now(); n.RemovedAt = &now }),
		"label_node": change(func(n *crdtstore.Node, params map[string]any) {
			n.Labels = maps.Clone(n.Labels)
			for name, value := range params["labels"].(map[string]any) {
				if s, ok := value.(string); ok {
					n.Labels[name] = s
				} else {
					delete(n.Labels, name)
				}
			}
		}),
		"masters": func(map[string]any) (any, error) {
			return map[string]any{"self": f.masters[0].ID, "masters": slices.Clone(f.masters)}, nil
		},
		"events": func(params map[string]any) (any, error) {
			var all []crdtstore.Event
			for _, o := range slices.Backward(f.log) {
				q := crdtstore.EventQuery{Kind: crdtstore.EventKind(text(params, "kind")), Q: text(params, "q")}
				if q.Matches(&o) {
					all = append(all, o)
				}
			}
			page, next := paged(all, params)
			return crdtstore.EventPage{Events: page, NextCursor: next}, nil
		},
		"stats":      func(map[string]any) (any, error) { return f.stats(), nil },
		"deploy_vm":  vmCall,
		"start_vm":   vmCall,
		"stop_vm":    vmCall,
		"restart_vm": vmCall,
		"delete_vm":  vmCall,
	}
}

func (f *fixture) sorted() []crdtstore.Node {
	return slices.SortedFunc(maps.Values(f.nodes), func(a, b crdtstore.Node) int { return strings.Compare(a.NodeID, b.NodeID) })
}

func paged[T any](all []T, params map[string]any) (page []T, next string) {
	limit, _ := params["limit"].(float64)
	from := 0
	if c, ok := params["cursor"].(string); ok {
		from, _ = strconv.Atoi(c)
	}
	from = min(from, len(all))
	to := min(from+int(limit), len(all))
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	return append([]T{}, all[from:to]...), next
}

func (f *fixture) stats() crdtstore.Stats {
	st := crdtstore.Stats{VMs: stats.VMCounts{ByState: map[string]int{}}, Masters: map[string]int{}}
	for _, n := range f.nodes {
		if n.RemovedAt != nil {
			continue
		}
		st.Nodes.Total++
		switch n.Status {
		case crdtstore.Online:
			st.Nodes.Online++
			st.Free.CRU += n.Total.CRU - n.Usage.CRU
			st.Free.MRU += n.Total.MRU - n.Usage.MRU
			st.Free.SRU += n.Total.SRU - n.Usage.SRU
		case crdtstore.Suspect:
			st.Nodes.Suspect++
		case crdtstore.Offline:
			st.Nodes.Offline++
		}
		if n.Drained {
			st.Nodes.Drained++
		}
		st.Total.CRU += n.Total.CRU
		st.Total.MRU += n.Total.MRU
		st.Total.SRU += n.Total.SRU
		st.Total.HRU += n.Total.HRU
		for _, vm := range n.VMs {
			st.VMs.Total++
			st.VMs.ByState[vm.State]++
		}
	}
	st.Convergence.Splits, st.Preservation = f.splits, f.silence
	for _, m := range f.masters {
		st.Masters[string(m.Status)]++
		st.Convergence.InSync = m.InSync
	}
	return st
}

func (f *fixture) serveEvents(w http.ResponseWriter, r *http.Request) {
	if !f.allowed(r) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"token needed","data":{"retryable":false,"hint":"give one","by":"master"}}}`)
		return
	}
	events := make(chan string, 4096)
	f.mu.Lock()
	if f.down {
		f.mu.Unlock()
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if f.hang--; f.hang >= 0 || f.frozen {
		f.mu.Unlock()
		<-r.Context().Done()
		return
	}
	f.streams[events] = struct{}{}
	snapshot, _ := json.Marshal(map[string]any{
		"nodes": f.sorted(), "total": len(f.nodes), "masters": f.masters, "stats": f.stats(),
	})
	f.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	fmt.Fprintf(w, "event: snapshot\nid: %d\ndata: %s\n\n", 0, snapshot)
	alive := time.NewTicker(time.Second)
	defer alive.Stop()
	for {
		if out.Flush() != nil {
			return
		}
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			if _, err := fmt.Fprint(w, e); err != nil {
				return
			}
		case <-alive.C:
			f.mu.Lock()
			frozen := f.frozen
			f.mu.Unlock()
			if frozen {
				<-r.Context().Done()
				return
			}
			fmt.Fprint(w, ":\n\n")
		case <-r.Context().Done():
			return
		}
	}
}

// put changes a node and tells it to the streams.
func (f *fixture) put(n crdtstore.Node) {
	f.mu.Lock()
	f.nodes[n.NodeID] = n
	f.mu.Unlock()
	f.send("node", n)
}

// happen adds to the log and tells it to the streams.
func (f *fixture) happen(o crdtstore.Event) {
	f.mu.Lock()
	o.ID, o.At = uint64(len(f.log)+1), time.Now()
	f.log = append(f.log, o)
	f.mu.Unlock()
	f.send("log", o)
}

// send tells an event to the streams.
func (f *fixture) send(kind string, what any) {
	data, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	for s := range f.streams {
		select {
		case s <- fmt.Sprintf("event: %s\nid: %d\ndata: %s\n\n", kind, f.seq, data):
		default: // it reads too slowly, and has to connect again
			close(s)
			delete(f.streams, s)
		}
	}
}

// breakStreams ends all streams; down refuses new ones.
func (f *fixture) breakStreams(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
	for s := range f.streams {
		close(s)
		delete(f.streams, s)
	}
}

// called returns the params of the calls of a method.
func (f *fixture) called(method string) (params []map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c.Method == method {
			params = append(params, c.Params)
		}
	}
	return params
}

// set changes the fixture itself.
func (f *fixture) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}
