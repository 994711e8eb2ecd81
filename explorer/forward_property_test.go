package explorer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// fate is what becomes of one attempt to send a call on a path.
type fate int

const (
	answered     fate = iota // it is carried out and answered
	unreachable              // nobody takes the connection
	lostBefore               // it arrives, and the connection ends before it is carried out
	lostAfter                // it is carried out, and the connection ends before the answer
	hangsBefore              // it arrives, and nobody ever answers
	hangsAfter               // it is carried out, and nobody ever answers
	garbled                  // it is carried out, and the answer makes no sense
	gatewayError             // it is carried out, and the answer is HTTP 500
	amnesiac                 // as lostAfter, and the agent has forgotten all when it is back
	unavailable              // the answer is HTTP 503: nothing was done
	misdirected              // the answer is HTTP 421: nothing was done
	refusing                 // the answer is an error, of the agent where there is one: it did nothing
	fates                    // how many there are
)

// lost reports whether nobody learns what came of a call that arrived.
func (f fate) lost() bool { return f != answered && f < unavailable }

// lossy are paths to a node that lose calls, and the oracle of what a master may say of
// them: what is to change something never runs twice; what may have run is not called
// undone; what surely did not arrive is not called unknown.
type lossy struct {
	t    rapid.TB
	s    *Server
	node crdtstore.Node

	fates     map[string][]fate // of a path, for the attempts to come; then it answers
	remembers map[string]bool   // whether a path leads to the agent
	agent     map[string]string // what the agent remembers: answers by the name of an operation
	forgot    bool              // the agent knows that it has forgotten, and refuses repetitions
	runs      map[string]string // the answer of what has run, by its name
	named     int               // how many operations have a name
	unknown   []string          // operations that were called unknown

	// Of the call under way.
	tried map[string]int // attempts, by path
	sent  []delivery
	twice bool
}

// delivery is a request that arrived.
type delivery struct {
	op    string
	agent bool // at the agent
	again bool // marked as a repetition
	fate  fate
}

func TestCallsOverLossyPaths(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		inBubble(t, rt, func(t *testing.T) {
			l := newLossy(rt, rapid.SampledFrom([]string{"", "unix:///agent.sock"}).Draw(rt, "agent"),
				rapid.SampledFrom([]string{"", "unix:///service.sock"}).Draw(rt, "service"),
				[]string{"self", "b", "c"}[rapid.IntRange(0, 2).Draw(rt, "tunnels"):]...)
			defer l.s.nodes.close()
			rt.Repeat(map[string]func(*rapid.T){
				"call": l.draw,
				"wait": func(*rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 20).Draw(rt, "seconds")) * time.Second) },
			})
		})
	})
}

// Whatever becomes of the first two attempts on either of two paths.
func TestCallsOverTwoLossyPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pairs [][]fate
		few := []fate{answered, unreachable, lostBefore, lostAfter, amnesiac, refusing}
		for _, first := range few {
			for _, second := range few {
				pairs = append(pairs, []fate{first, second})
			}
		}
		for _, service := range []string{"", "unix:///service.sock"} {
			agent, over := "unix:///agent.sock", []string{"b"}
			if service != "" { // then these two, and no agent that remembers
				agent, over = "", []string{"self"}
			}
			for _, a := range pairs {
				for _, b := range pairs {
					for _, c := range []call{{method: "start_vm", op: "x"}, {method: "start_vm"}, {method: "vm_stats"}, {method: "start_vm", op: "x", again: true}} {
						l := newLossy(t, agent, service, over...)
						for i, key := range slices.Sorted(maps.Keys(l.remembers)) {
							l.fates[key] = [][]fate{a, b}[i]
						}
						l.call(c, nil)
						l.s.nodes.close()
						if t.Failed() {
							t.Fatalf("paths %q with fates %v and %v, call %+v", slices.Sorted(maps.Keys(l.remembers)), a, b, c)
						}
					}
				}
			}
		}
	})
}

// inBubble is synctest.Test for what rapid checks. What rapid throws when it has no more
// to draw goes on out of the bubble; anything else is a failure. Rapid tells the two apart
// by the place.
func inBubble(t *testing.T, rt *rapid.T, f func(*testing.T)) {
	var thrown any
	synctest.Test(t, func(t *testing.T) {
		defer func() { thrown = recover() }()
		f(t)
	})
	switch {
	case thrown == nil:
	case fmt.Sprintf("%T", thrown) == "rapid.invalidData":
		panic(thrown)
	default:
		rt.Fatalf("%v", thrown)
	}
}

// unstarted is a server that only forwards calls.
func unstarted() (*Server, *fakeStore) {
	store := newFakeStore()
	return &Server{log: slog.New(slog.DiscardHandler), nodes: newNodePool(), store: store, metrics: sharedMetrics()}, store
}

// sharedMetrics are for thousands of servers, which are quicker made than metrics.
var sharedMetrics = sync.OnceValue(func() *metrics { return newMetrics(&Server{}) })

func newLossy(t rapid.TB, agent, service string, tunnels ...string) *lossy {
	l := &lossy{
		t: t, fates: map[string][]fate{}, remembers: map[string]bool{},
		agent: map[string]string{}, runs: map[string]string{}, tried: map[string]int{},
	}
	l.s, _ = unstarted()
	l.node.NodeID, l.node.AgentPath, l.node.SocketPath, l.node.Tunnel = "n", agent, service, tunnels
	all, _ := l.s.paths(l.node)
	for _, p := range all {
		l.remembers[p.key] = p.remembers
		dial := func(context.Context) (net.Conn, error) { return l.dial(p.key) }
		l.s.nodes.conns[p.key] = &nodeConn{conn: client.Dial(p.ep, client.Options{Dial: dial})}
	}
	return l
}

// next takes the fate of an attempt.
func (l *lossy) next(path string) fate {
	left := l.fates[path]
	if len(left) == 0 {
		return answered
	}
	l.fates[path] = left[1:]
	return left[0]
}

func (l *lossy) dial(path string) (net.Conn, error) {
	if left := l.fates[path]; len(left) > 0 && left[0] == unreachable {
		l.tried[path]++
		l.next(path)
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	go l.serve(path, there)
	return here, nil
}

// serve is the agent or the compute service at the end of a connection.
func (l *lossy) serve(path string, conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		l.tried[path]++
		d := delivery{op: req.Header.Get("Idempotency-Key"), agent: l.remembers[path], again: req.Header.Get("Hero-Op-Again") != "", fate: l.next(path)}
		if d.fate == unreachable { // of a connection that was kept, it shows only now
			d.fate = lostBefore
		}
		l.sent = append(l.sent, d)
		if node := req.Header.Get("Hero-Node"); node != l.node.NodeID {
			l.t.Errorf("a request for node %q", node)
		}
		if !l.answer(conn, d, body) {
			return
		}
	}
}

// answer answers a request, and reports whether the connection is kept.
func (l *lossy) answer(conn net.Conn, d delivery, body []byte) bool {
	var in struct {
		ID     json.RawMessage
		Method string
	}
	if err := json.Unmarshal(body, &in); err != nil {
		l.t.Error(err)
	}
	say := func(status int, member string) bool {
		text := fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,%s}`, in.ID, member)
		if member == "" {
			text = "<html>"
		}
		fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s", status, len(text), text)
		return true
	}
	by := "service"
	if d.agent {
		by = jsonrpc.ByAgent
	}
	switch d.fate {
	case lostBefore:
		return false
	case hangsBefore:
		_, _ = io.Copy(io.Discard, conn)
		return false
	case unavailable:
		return say(http.StatusServiceUnavailable, "")
	case misdirected:
		return say(http.StatusMisdirectedRequest, "")
	case refusing:
		return say(http.StatusOK, fmt.Sprintf(`"error":{"code":%d,"message":"full","data":{"by":%q}}`, jsonrpc.CodeLimit, by))
	}
	result, known := l.agent[d.op]
	switch {
	case d.agent && d.op != "" && known:
	case d.agent && d.op != "" && d.again && l.forgot:
		return say(http.StatusOK, fmt.Sprintf(`"error":{"code":%d,"message":"fresh","data":{"by":"agent"}}`, jsonrpc.CodeOutcomeUnknown))
	default:
		result = l.run(in.Method, d)
	}
	switch d.fate {
	case amnesiac:
		if d.agent {
			clear(l.agent)
			l.forgot = true
		}
		return false
	case lostAfter:
		return false
	case hangsAfter:
		_, _ = io.Copy(io.Discard, conn)
		return false
	case garbled:
		return say(http.StatusOK, "")
	case gatewayError:
		return say(http.StatusInternalServerError, "")
	}
	return say(http.StatusOK, `"result":`+result)
}

// run carries a call out, and returns its answer.
func (l *lossy) run(method string, d delivery) string {
	before, ran := l.runs[d.op]
	l.twice = l.twice || ran && !client.Idempotent(method)
	result := strconv.Quote(fmt.Sprint(d.op, " after ", before))
	l.runs[d.op] = result
	if d.agent && d.op != "" {
		l.agent[d.op] = result
	}
	return result
}

// draw makes any call, and lets anything become of it.
func (l *lossy) draw(rt *rapid.T) {
	c := call{method: rapid.SampledFrom([]string{"start_vm", "vm_stats"}).Draw(rt, "method")}
	switch how := rapid.IntRange(0, 2).Draw(rt, "name"); {
	case how == 2 && len(l.unknown) > 0 && c.mutates():
		c.op, c.again = rapid.SampledFrom(l.unknown).Draw(rt, "operation"), true
	case how > 0:
		l.named++
		c.op = fmt.Sprint("op-", l.named)
	}
	if l.node.Status = crdtstore.Online; rapid.Bool().Draw(rt, "offline") {
		l.node.Status = crdtstore.Offline
	}
	if l.node.SeenBy = nil; rapid.Bool().Draw(rt, "was heard") {
		l.node.SeenBy = []record.Observer{{Master: "self", AgeS: 99}}
	}
	busy := map[string]bool{}
	anyFate := rapid.Map(rapid.IntRange(0, int(fates)-1), func(i int) fate { return fate(i) })
	for _, key := range slices.Sorted(maps.Keys(l.remembers)) {
		l.fates[key] = rapid.SliceOfN(anyFate, 0, 3).Draw(rt, key)
		busy[key] = rapid.IntRange(0, 9).Draw(rt, "busy") == 0
	}
	l.call(c, busy)
}

// call makes a call, with so many others under way on the busy paths as there may be, and
// holds what comes back against what happened.
func (l *lossy) call(c call, busy map[string]bool) {
	c.node, c.timeout = l.node, 30*time.Second
	occupy := func(by int) {
		for key, b := range busy {
			if b {
				l.s.nodes.conns[key].calls += by
			}
		}
	}
	synctest.Wait() // until connections are kept, or gone
	clear(l.tried)
	delete(l.runs, "") // another call without a name is another call
	l.sent, l.twice = nil, false

	occupy(maxNodeCalls)
	began := time.Now()
	result, err := l.s.forward(context.Background(), c)
	hung := time.Since(began) >= c.timeout
	occupy(-maxNodeCalls)
	synctest.Wait() // until the node has done what it does
	l.holdRequests(c)
	l.holdAnswer(c, result, err)
	if !hung {
		l.holdAttempts(c, busy, err)
	}
}

// remembered reports whether a call has a name that the node's agent knows.
func (l *lossy) remembered(c call) bool { return c.op != "" && c.mutates() && l.node.AgentPath != "" }

func (l *lossy) lost() bool {
	return slices.ContainsFunc(l.sent, func(d delivery) bool { return d.fate.lost() })
}

// holdRequests holds what was sent against what may be.
func (l *lossy) holdRequests(c call) {
	if l.twice {
		l.t.Errorf("%+v ran twice: %+v", c, l.sent)
	}
	lost := c.again
	for i, d := range l.sent {
		switch {
		case !c.mutates():
			if d.op != "" || d.again {
				l.t.Errorf("a call that changes nothing is sent as operation %q", d.op)
			}
			continue
		case d.op != c.op:
			l.t.Errorf("operation %q is sent as %q", c.op, d.op)
		case l.remembered(c) && !d.agent:
			l.t.Errorf("operation %q went past the agent", c.op)
		case lost && !l.remembered(c):
			l.t.Errorf("attempt %d of what may have run, and nobody can tell: %+v", i, l.sent)
		case d.op != "" && d.again != lost:
			l.t.Errorf("attempt %d is marked as a repetition: %v, is one: %v: %+v", i, d.again, lost, l.sent)
		}
		lost = lost || d.fate.lost()
	}
}

// holdAnswer holds what the caller is told against what happened.
func (l *lossy) holdAnswer(c call, result json.RawMessage, err error) {
	var wire *jsonrpc.Error
	switch {
	case err == nil:
		if ran, ok := l.runs[l.sent[len(l.sent)-1].op]; !ok || ran != string(result) {
			l.t.Errorf("%+v was answered %s; its answer is %q", c, result, ran)
		}
		return
	case !errors.As(err, &wire):
		l.t.Fatal(err)
	}
	undone := slices.Contains([]int{jsonrpc.CodeCannotReach, jsonrpc.CodeLimit, jsonrpc.CodeNodeOffline}, wire.Code)
	var data struct {
		By        string
		Retryable bool
	}
	if wire.DecodeData(&data) != nil {
		l.t.Fatal(err)
	}
	switch {
	case undone && data.By != "service" && c.mutates() && l.lost():
		l.t.Errorf("what may have run is called undone: %v, %+v", err, l.sent)
	case wire.Code == jsonrpc.CodeOutcomeUnknown && data.By == jsonrpc.ByMaster:
		if c.op != "" && c.mutates() {
			l.unknown = append(l.unknown, c.op)
		}
		if l.lost() {
			if data.Retryable != (l.remembered(c) || !c.mutates()) {
				l.t.Errorf("%+v may be repeated: %v", c, data.Retryable)
			}
		} else if !c.again || l.remembered(c) {
			l.t.Errorf("what surely did not run is called unknown: %v, %+v", err, l.sent)
		}
	case !undone && wire.Code != jsonrpc.CodeOutcomeUnknown:
		l.t.Errorf("unexpected: %v", err)
	}
}

// holdAttempts holds that a call goes as far as it may before it is given up.
func (l *lossy) holdAttempts(c call, busy map[string]bool, err error) {
	var wire *jsonrpc.Error
	var data struct{ By string }
	if !errors.As(err, &wire) || wire.DecodeData(&data) != nil || data.By != jsonrpc.ByMaster {
		return
	}
	silent := c.node.Status == crdtstore.Offline && len(c.node.SeenBy) > 0
	if silent || c.again && !l.remembered(c) {
		if len(l.sent) > 0 {
			l.t.Errorf("%v, and yet it was sent", err)
		}
		return
	}
	want := 1
	if l.lost() && c.mutates() { // else the connection repeats it by itself
		want = 2
	}
	if l.lost() && c.mutates() && !l.remembered(c) || slices.ContainsFunc(l.sent, func(d delivery) bool { return d.fate == refusing }) {
		return // given up at once, or when the agent refused
	}
	for key, agent := range l.remembers {
		if n := l.tried[key]; n < want && !busy[key] && (agent || !l.remembered(c)) {
			l.t.Errorf("%v, and path %s was tried %d times, not %d; sent: %+v", err, key, n, want, l.sent)
		}
	}
}

// A path on which the time ran out is tried last for a while. The ones behind it, to which
// nobody came, are not, and none is where the caller hung up.
func TestWhichPathFailed(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(context.CancelFunc)
		want []string
	}{
		"the time is over": {func(context.CancelFunc) {}, []string{"splice a n  0"}},
		"hung up":          {func(cancel context.CancelFunc) { cancel() }, nil},
	} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", a stream: ", stream), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, store := unstarted()
					n := crdtstore.Node{NodeID: "n", Tunnel: []string{"a", "b", "c"}}
					dialled, ending := make(chan string, 3), make(chan struct{})
					defer close(ending)
					store.dialled = func(ctx context.Context, master, _ string) (net.Conn, error) {
						dialled <- master
						select {
						case <-ctx.Done():
						case <-ending:
						}
						return nil, errors.New("nobody answered")
					}
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					done := make(chan struct{})
					go func() {
						defer close(done)
						if stream {
							_, _ = s.dialNode(ctx, n)
						} else {
							_, _ = s.forward(ctx, call{node: n, method: "start_vm", timeout: time.Minute})
						}
					}()
					synctest.Wait()
					c.end(cancel)
					<-done
					if len(dialled) != 1 {
						t.Errorf("%d paths were dialled in the time of one", len(dialled))
					}
					if got := slices.Collect(maps.Keys(s.nodes.broken)); !slices.Equal(got, c.want) {
						t.Errorf("failed are %q, want %q", got, c.want)
					}
				})
			})
		}
	}
}
