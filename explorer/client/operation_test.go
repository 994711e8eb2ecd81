package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// node stands in for the node behind all masters: it counts how often it carried
// out what, and, unless it forgets, gives the first answer to a repetition.
type node struct {
	forgets bool
	refused chan struct{} // of a node that forgets: a repetition was

	mu   sync.Mutex
	runs map[string]int             // by the call, whatever its name
	told map[string]json.RawMessage // by name
}

func (n *node) run(call, name string) json.RawMessage {
	n.mu.Lock()
	defer n.mu.Unlock()
	if answer, ok := n.told[name]; ok && !n.forgets {
		return answer
	}
	n.runs[call]++
	answer := json.RawMessage(fmt.Sprintf(`{"call":%q, "run":%d, "cost":1e0}`, call, n.runs[call]))
	n.told[name] = answer
	return answer
}

func (n *node) ran(call string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.runs[call]
}

// A fault is what a master does with a request instead of its work.
type fault int

const (
	none        fault = iota
	resetBefore       // breaks off, nothing was sent to the node
	resetAfter
	busy        // 503
	badGateway  // 502, after it ran
	hangs       // and sends nothing
	hangsAfter  // it ran
	late        // hangs, and sends it to the node when its caller is long gone
	unknown     // -32004, and nothing was sent
	unknownRan  // -32004, and it ran
	cannotReach // -32003
	limited     // -32007
	offline     // -32002
	stranger    // -32001, which only a master says that is behind
	agentBusy   // -32007, of the node's agent
	faults

	slow   // answers once a repetition was refused elsewhere
	theirs // an error of the node's own
)

// fakeMaster is a master with faults.
type fakeMaster struct {
	*httptest.Server
	node *node

	mu     sync.Mutex
	theirs int     // code of the node's own error
	faults []fault // of the next requests, then none
	active int
	idle   *sync.Cond    // of active
	gone   chan struct{} // closed when hung requests go on
	asked  []map[string]any
}

func newFakeMaster(n *node) *fakeMaster {
	m := &fakeMaster{node: n, gone: make(chan struct{})}
	m.idle = sync.NewCond(&m.mu)
	m.Server = httptest.NewServer(m)
	return m
}

// plan sets what the master does next.
func (m *fakeMaster) plan(faults ...fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults, m.gone, m.asked = faults, make(chan struct{}), nil
}

// settle lets hung requests go on and waits for their end. One that its caller
// gave up may yet arrive.
func (m *fakeMaster) settle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.gone)
	for m.active > 0 {
		m.idle.Wait()
	}
}

func (m *fakeMaster) requests() []map[string]any {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

func (m *fakeMaster) next(params map[string]any) (f fault, gone chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, params)
	if len(m.faults) > 0 {
		f, m.faults = m.faults[0], m.faults[1:]
	}
	m.active++
	return f, m.gone
}

func (m *fakeMaster) ended() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.active--
	m.idle.Broadcast()
}

func (m *fakeMaster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct {
		ID     json.RawMessage
		Params map[string]any
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &request) != nil {
		panic(http.ErrAbortHandler)
	}
	fault, gone := m.next(request.Params)
	defer m.ended()
	call, name := fmt.Sprint(request.Params["name"]), fmt.Sprint(request.Params["op_id"])
	failBy := func(by string, code int, retryable bool) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":"fault","data":{"retryable":%v,"hint":"look"%s}}}`, request.ID, code, retryable, by)
	}
	fail := func(code int, retryable bool) { failBy(`,"by":"master"`, code, retryable) }
	if m.node.forgets && request.Params["op_again"] == true {
		fail(jsonrpc.CodeOutcomeUnknown, false)
		_ = http.NewResponseController(w).Flush()
		select {
		case m.node.refused <- struct{}{}:
		default:
		}
		return
	}
	switch fault {
	case resetBefore:
		panic(http.ErrAbortHandler)
	case resetAfter:
		m.node.run(call, name)
		panic(http.ErrAbortHandler)
	case busy:
		w.WriteHeader(http.StatusServiceUnavailable)
	case badGateway:
		m.node.run(call, name)
		w.WriteHeader(http.StatusBadGateway)
	case hangs, hangsAfter, late:
		if fault == hangsAfter {
			m.node.run(call, name)
		}
		<-gone
		if fault == late {
			m.node.run(call, name)
		}
	case slow:
		answer := m.node.run(call, name)
		<-m.node.refused
		select {
		case <-r.Context().Done(): // the caller took the refusal for the answer
		case <-time.After(50 * time.Millisecond):
		}
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, request.ID, answer)
	case unknownRan:
		m.node.run(call, name)
		fail(jsonrpc.CodeOutcomeUnknown, !m.node.forgets)
	case unknown:
		fail(jsonrpc.CodeOutcomeUnknown, !m.node.forgets)
	case cannotReach:
		fail(jsonrpc.CodeCannotReach, true)
	case limited:
		fail(jsonrpc.CodeLimit, true)
	case offline:
		fail(jsonrpc.CodeNodeOffline, true)
	case stranger:
		fail(jsonrpc.CodeNodeNotFound, false)
	case agentBusy:
		failBy(`,"by":"agent"`, jsonrpc.CodeLimit, true)
	case theirs:
		failBy("", m.theirs, true)
	default:
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, request.ID, m.node.run(call, name))
	}
}

// cluster is some masters with faults over one node, and a client of them all.
type cluster struct {
	node    *node
	masters []*fakeMaster
	client  *client.Client
	calls   int
}

func newCluster(t *testing.T, size int, forgets bool) *cluster {
	t.Helper()
	c := &cluster{node: &node{forgets: forgets, refused: make(chan struct{}, 1), runs: map[string]int{}, told: map[string]json.RawMessage{}}}
	var addrs []string
	for range size {
		m := newFakeMaster(c.node)
		c.masters, addrs = append(c.masters, m), append(addrs, m.Listener.Addr().String())
	}
	t.Cleanup(func() { c.closed(t) })
	var err error
	if c.client, err = client.New(addrs, client.Options{Timeout: 20 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)
	return c
}

var operations = []string{"deploy_vm", "start_vm", "ExplorerService.stop_vm", "restart_vm", "delete_vm", "vm_exec"}

// call makes a call, and returns its answer and how often the node carried it
// out, by the time that nothing of it is under way any more.
func (c *cluster) call(ctx context.Context, method string) (answer string, runs int, err error) {
	c.calls++
	call := fmt.Sprint("call", c.calls)
	var result json.RawMessage
	err = c.client.Call(ctx, method, map[string]any{"node_id": "n1", "name": call}, &result)
	for _, m := range c.masters {
		m.settle()
	}
	return string(result), c.node.ran(call), err
}

// closed ends all masters, and checks that nothing ran twice even so late.
func (c *cluster) closed(t *testing.T) {
	for _, m := range c.masters {
		m.Close()
	}
	for call, runs := range c.node.runs {
		if runs > 1 {
			t.Errorf("%s was carried out %d times", call, runs)
		}
	}
}

func drawFaults(rt *rapid.T, master int) (plan []fault) {
	for _, f := range rapid.SliceOfN(rapid.IntRange(0, int(faults)-1), 0, 3).Draw(rt, fmt.Sprint("faults of master ", master)) {
		plan = append(plan, fault(f))
	}
	return plan
}

// Whatever masters do to a call, the node carries it out once as long as one of
// them works, and the caller gets the answer of that.
func TestOperationRunsOnce(t *testing.T) {
	c := newCluster(t, 3, false)
	rapid.Check(t, func(rt *rapid.T) {
		works := rapid.IntRange(0, len(c.masters)-1).Draw(rt, "works")
		for i, m := range c.masters {
			if i == works {
				m.plan()
			} else {
				m.plan(drawFaults(rt, i)...)
			}
		}
		method := rapid.SampledFrom(operations).Draw(rt, "method")
		answer, runs, err := c.call(rt.Context(), method)
		switch first := fmt.Sprintf(`{"call":"call%d", "run":1, "cost":1e0}`, c.calls); {
		// At first a master that knows the node badly cannot be told from one that
		// knows that there is none, or that it is gone.
		case err != nil && !client.OutcomeUnknown(err) && runs == 0 && isCode(err, jsonrpc.CodeNodeNotFound):
		case err != nil || runs != 1 || answer != first:
			rt.Fatalf("answer %s, carried out %d times, %v", answer, runs, err)
		}
	})
}

func isCode(err error, code int) bool {
	var e *jsonrpc.Error
	return errors.As(err, &e) && e.Code == code
}

// On a node that forgets, and where no master works, nothing runs twice either,
// and no error says that nothing was done where something was.
func TestOperationRunsAtMostOnce(t *testing.T) {
	for _, forgets := range []bool{true, false} {
		c := newCluster(t, 2, forgets)
		rapid.Check(t, func(rt *rapid.T) {
			for i, m := range c.masters {
				m.plan(drawFaults(rt, i)...)
			}
			ctx, cancel := context.WithTimeout(rt.Context(), 100*time.Millisecond)
			defer cancel()
			answer, runs, err := c.call(ctx, rapid.SampledFrom(operations).Draw(rt, "method"))
			first := fmt.Sprintf(`{"call":"call%d", "run":1, "cost":1e0}`, c.calls)
			if runs > 1 || err == nil && (runs != 1 || answer != first) || err != nil && runs > 0 && !client.OutcomeUnknown(err) {
				rt.Fatalf("forgets %v: answer %s, carried out %d times, %v", forgets, answer, runs, err)
			}
		})
	}
}

// What is slow on a node that forgets gets its answer, though another master was
// asked meanwhile and could say nothing.
func TestSlowOperation(t *testing.T) {
	c := newCluster(t, 2, true)
	c.masters[0].plan(slow)
	c.masters[1].plan()
	if answer, runs, err := c.call(t.Context(), "deploy_vm"); err != nil || runs != 1 || !strings.Contains(answer, `"run":1`) {
		t.Errorf("%s, carried out %d times, %v", answer, runs, err)
	}
	if asked := c.masters[1].requests(); len(asked) != 1 || asked[0]["op_again"] != true {
		t.Errorf("the second master was asked %v", asked)
	}
}

// What the node's compute service answers is the answer, with whatever code, also when
// an answer was lost before; only masters and agents speak of the way there.
func TestNodesOwnErrors(t *testing.T) {
	for _, code := range []int{
		jsonrpc.CodeInternal, jsonrpc.CodeInvalidParams, jsonrpc.CodeNodeNotFound, jsonrpc.CodeNodeOffline,
		jsonrpc.CodeCannotReach, jsonrpc.CodeUnauthorized, jsonrpc.CodeLimit, jsonrpc.CodeNotFound,
	} {
		c := newCluster(t, 2, false)
		c.masters[0].plan(resetAfter)
		c.masters[1].plan(theirs)
		c.masters[1].theirs = code
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, _, err := c.call(ctx, "delete_vm")
		cancel()
		if asked := c.masters[1].requests(); !isCode(err, code) || client.OutcomeUnknown(err) || len(asked) != 1 {
			t.Errorf("%d: got %v, after %d requests", code, err, len(asked))
		}
	}
}

// The params of an operation name it, and stay as they are besides.
func TestNamesOperations(t *testing.T) {
	var mu sync.Mutex
	var bodies []string
	sent := func() (all []string) { // since it was asked last
		mu.Lock()
		defer mu.Unlock()
		all, bodies = bodies, nil
		return all
	}
	var lose atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		bodies = append(bodies, string(body))
		mu.Unlock()
		if lose.Swap(false) {
			panic(http.ErrAbortHandler)
		}
		var request struct{ ID int }
		_ = json.Unmarshal(body, &request)
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%d,"result":1}`, request.ID)
	}))
	defer srv.Close()
	c, err := client.New([]string{srv.URL, srv.URL + "/other"}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, tt := range []struct {
		method string
		params any
		want   string // of the params; OP stands for a name that was made
		lose   bool
	}{
		{"start_vm", nil, `{"op_id":"OP"}`, false},
		{"start_vm", json.RawMessage(`null`), `{"op_id":"OP"}`, false},
		{"start_vm", []any{}, `{"op_id":"OP"}`, false},
		{"start_vm", json.RawMessage(` {"z": 1e0 ,"a":"\u003c<", "deep":{"b" : [ 1]}}`), `{"a":"\u003c<","deep":{"b" : [ 1]},"op_id":"OP","z":1e0}`, false},
		{"start_vm", []any{map[string]any{"sid": "<v>"}}, `{"op_id":"OP","sid":"<v>"}`, false},
		{"start_vm", map[string]any{"op_id": "mine"}, `{"op_id":"mine"}`, false},
		{"start_vm", map[string]any{"op_id": "mine", "op_again": true}, `{"op_again":true,"op_id":"mine"}`, false},
		{"start_vm", map[string]any{"op_again": false}, `{"op_again":true,"op_id":"OP"}`, true},
		{"proxy", map[string]any{"method": "start_vm"}, `{"method":"start_vm","op_id":"OP"}`, false},
		{"proxy", map[string]any{"method": "ComputeService.vm_logs"}, `{"method":"ComputeService.vm_logs"}`, true},
		{"drain_node", map[string]any{"node_id": "n"}, `{"node_id":"n"}`, false},
	} {
		lose.Store(tt.lose)
		if err := c.Call(t.Context(), tt.method, tt.params, nil); err != nil {
			t.Errorf("%s %v: %v", tt.method, tt.params, err)
		}
		var request struct{ Params json.RawMessage }
		var named struct {
			OpID string `json:"op_id"`
		}
		bodies := sent()
		if err := json.Unmarshal([]byte(bodies[len(bodies)-1]), &request); err != nil {
			t.Fatal(err)
		}
		_ = json.Unmarshal(request.Params, &named)
		got := string(request.Params)
		if len(named.OpID) >= 26 {
			got = strings.Replace(got, named.OpID, "OP", 1)
		}
		if got != tt.want {
			t.Errorf("%s %v: sent %s, want %s", tt.method, tt.params, got, tt.want)
		}
	}
	for _, params := range []any{json.RawMessage(`{`), []any{1}, []any{map[string]any{}, 2}, map[string]any{"op_id": 7}, map[string]any{"op_id": ""}, "text"} {
		err := c.Call(t.Context(), "start_vm", params, nil)
		if bodies := sent(); err == nil || len(bodies) > 0 {
			t.Errorf("%v: %v, sent %v", params, err, bodies)
		}
	}
}

// How an operation ends that no master can carry out.
func TestOperationFails(t *testing.T) {
	for _, tt := range []struct {
		name    string
		faults  []fault // of each of two masters
		code    int
		unknown bool
	}{
		{"the node is offline", []fault{offline}, jsonrpc.CodeNodeOffline, false},
		{"nobody knows the node", []fault{stranger}, jsonrpc.CodeNodeNotFound, false},
		{"it was lost, and then nobody knows the node", []fault{resetAfter, stranger, stranger, stranger, stranger, stranger, stranger}, 0, true},
		{"it was lost, and then no master could serve", []fault{resetAfter, busy, busy, busy, busy, busy, busy, busy, busy}, 0, true},
		{"it was lost again and again", []fault{unknown, unknown, unknown, unknown, unknown, unknown}, jsonrpc.CodeOutcomeUnknown, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, 2, false)
			for _, m := range c.masters {
				m.plan(tt.faults...)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, _, err := c.call(ctx, "start_vm")
			var e *jsonrpc.Error
			if errors.As(err, &e) != (tt.code != 0) || e != nil && e.Code != tt.code || client.OutcomeUnknown(err) != tt.unknown {
				t.Errorf("got %v", err)
			}
			var transport *client.TransportError
			for i, asked := range append(c.masters[0].requests(), c.masters[1].requests()...) {
				if tt.unknown && i > 0 && tt.faults[0] == resetAfter && asked["op_again"] != true {
					t.Errorf("request %d is not marked as a repetition", i)
				}
			}
			if tt.unknown && (!errors.As(err, &transport) || len(transport.OpID) < 26 || !errors.Is(err, context.DeadlineExceeded)) {
				t.Errorf("got %v", err)
			}
		})
	}
}
