package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/internal/attempts"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

const (
	maxNodeConns  = 1024            // nodes with a connection kept for them
	maxNodeCalls  = 32              // calls at once to one node
	idleNodeConn  = 5 * time.Minute // how long an unused connection is kept
	maxNodeAnswer = 16 << 20        // bytes, which a log can have

	keptOverTunnel = time.Second // how long an unused connection over a tunnel is kept
)

// call is one call to a node.
type call struct {
	node    crdtstore.Node
	method  string
	params  json.RawMessage
	timeout time.Duration
	// op names the operation, so that the node's agent carries it out once however often
	// it is asked. Empty: it has no name.
	op string
	// again: the answer to an earlier call of that name was lost.
	again bool
}

// mutates reports whether a call must not run twice.
func (c call) mutates() bool { return !client.Idempotent(c.method) }

// forward sends a call to its node and returns the answer, result or error, as
// the node gave it. It goes on to the next path where nothing was sent, and where an
// answer was lost and the call may be repeated.
func (s *Server) forward(ctx context.Context, c call) (json.RawMessage, error) {
	// A suspect node is tried, for only its agent or another master may be gone,
	// and so is one that nobody has heard: it may have registered with another
	// master a moment ago. One that fell silent would let the caller wait for a
	// machine that is not there, and what it did now nobody would report.
	offline := c.node.Status == crdtstore.Offline
	if offline && len(c.node.SeenBy) > 0 {
		return nil, s.offline(c.node)
	}
	remembered := c.op != "" && c.mutates() && c.node.AgentPath != ""
	if c.again && c.mutates() && !remembered {
		return nil, s.unknown(c, false)
	}
	all, err := s.pathsFor(c, remembered)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	calls := attempts.Call{Repeatable: remembered || !c.mutates()}
	out := s.tryAll(ctx, all, c, &calls)
	if calls.MayRun() && calls.Next() && ctx.Err() == nil && !out.answered {
		// Once more, for a connection that was kept may have ended before it was used.
		out = s.tryAll(ctx, all, c, &calls)
	}
	if out.answered && out.err == nil {
		s.acknowledged(c, out.result)
	}
	if out.answered && !(calls.MayRun() && refusedByAgent(out.err)) {
		return out.result, out.err
	}
	switch {
	case calls.MayRun():
		return nil, s.unknown(c, calls.Repeatable)
	case out.busy != nil:
		return nil, failure(jsonrpc.CodeLimit, out.busy.Error(),
			errorData{Retryable: true, NodeID: c.node.NodeID, Hint: "try again in a moment", RetryAfterS: 1})
	case offline:
		return nil, s.offline(c.node)
	}
	return nil, s.cannotReach(c, "nothing was sent; tried "+tried(all)+"; check that its agent and its compute service run, or ask another master")
}

// outcome is what came of a call by some paths.
type outcome struct {
	answered bool // by the node; with result or err, its own
	result   json.RawMessage
	err      error
	busy     error // the limit of a path kept the call back
}

// refusedByAgent reports whether an error says that the node's agent did nothing. What
// was sent by another path, and lost, may have run all the same, or may yet.
func refusedByAgent(err error) bool {
	var theirs *jsonrpc.Error
	var data struct {
		By string `json:"by"`
	}
	return errors.As(err, &theirs) && theirs.DecodeData(&data) == nil && data.By == jsonrpc.ByAgent &&
		(theirs.Code == jsonrpc.CodeCannotReach || theirs.Code == jsonrpc.CodeLimit)
}

// tryAll sends a call by one path after the other, until the node answers, or there may be
// no further attempt.
func (s *Server) tryAll(ctx context.Context, all []path, c call, calls *attempts.Call) (out outcome) {
	again := c.again
	for _, p := range all {
		if ctx.Err() != nil || !calls.Next() {
			return out
		}
		c.again = calls.Begin() || again
		result, err := s.take(ctx, p, c)
		lost := false
		var theirs *jsonrpc.Error
		var transport *client.TransportError
		switch {
		case err == nil:
			s.metrics.forwarded(p, "result")
			out.answered, out.result = true, result
		case errors.As(err, &theirs):
			s.metrics.forwarded(p, "error")
			out.answered, out.err = true, theirs
		case errors.Is(err, errBusy):
			s.metrics.forwarded(p, "limit")
			out.busy = err
		case errors.As(err, &transport) && !transport.Sent:
			s.unreachable(ctx, p)
			s.log.Debug("path does not lead to the node", "node", c.node.NodeID, "path", p.key, "err", err)
		default:
			s.metrics.forwarded(p, "unknown")
			lost = true
		}
		calls.Ended(lost)
		if out.answered {
			return out
		}
	}
	return out
}

// unreachable notes that nothing could be sent by a path. Where the caller has hung up
// that says nothing of the path.
func (s *Server) unreachable(ctx context.Context, p path) {
	s.metrics.forwarded(p, "unreachable")
	if !errors.Is(ctx.Err(), context.Canceled) {
		s.nodes.failed(p.key)
	}
}

// pathsFor returns the paths that a call may take.
func (s *Server) pathsFor(c call, remembered bool) ([]path, error) {
	all, unusable := s.paths(c.node)
	if remembered {
		// By any other path it would not be known to have run.
		all = slices.DeleteFunc(all, func(p path) bool { return !p.remembers })
	}
	if len(all) > 0 {
		return all, nil
	}
	s.metrics.forwarded(path{}, "unreachable")
	switch {
	case c.node.SocketPath == "" && c.node.AgentPath == "":
		return nil, s.cannotReach(c, "the node reports no socket_path; give its agent the address of the compute service")
	case unusable != nil:
		return nil, s.cannotReach(c, "its socket_path cannot be used, and no master holds a tunnel of its agent: "+unusable.Error())
	}
	return nil, s.cannotReach(c, "no master holds a tunnel of its agent; see that it runs, and that it can connect to the edge address of a master")
}

// cannotReach is the error for a node to which nothing was sent.
func (s *Server) cannotReach(c call, hint string) error {
	return failure(jsonrpc.CodeCannotReach, "node "+c.node.NodeID+" cannot be reached",
		errorData{Retryable: true, NodeID: c.node.NodeID, Hint: hint})
}

// unknown is the error for a call that may have run.
func (s *Server) unknown(c call, repeatable bool) error {
	data := errorData{Retryable: repeatable, NodeID: c.node.NodeID, Hint: "it may have run; look at the VM before you repeat it"}
	switch {
	case !c.mutates():
		data.Hint = "nothing was to be changed; try again"
	case repeatable:
		data.Hint = "try again with the same op_id, on any master; it does not run twice"
	}
	return failure(jsonrpc.CodeOutcomeUnknown, "the call was sent to node "+c.node.NodeID+" and not answered", data)
}

// take sends a call on one path.
func (s *Server) take(ctx context.Context, p path, c call) (result json.RawMessage, err error) {
	conn, release, err := s.nodes.take(p)
	if err != nil {
		return nil, err
	}
	defer release()
	header := http.Header{client.HeaderNode: {c.node.NodeID}}
	if c.op != "" && c.mutates() {
		// In lower case, for net/http sends a request that has this header once more by
		// itself, as it pleases.
		header[strings.ToLower(client.HeaderOperation)] = []string{c.op}
		if c.again {
			header[client.HeaderAgain] = []string{"1"}
		}
	}
	err = conn.CallHeader(ctx, c.method, c.params, &result, header)
	return result, err
}

// offline is the error for a node that is silent; nothing was sent to it.
func (s *Server) offline(n crdtstore.Node) error {
	s.metrics.forwarded(path{}, "offline")
	return failure(jsonrpc.CodeNodeOffline, "node "+n.NodeID+" is offline", errorData{
		Retryable: true, NodeID: n.NodeID,
		Hint: "it was last heard at " + n.LastSeen.UTC().Format(time.RFC3339) + "; start it or its agent",
	})
}

// nodePool keeps connections to nodes, by path.
type nodePool struct {
	mu     sync.Mutex // guards what follows
	conns  map[string]*nodeConn
	broken map[string]time.Time // when a path could not be dialled
}

type nodeConn struct {
	conn  *client.Conn
	calls int
	used  time.Time
}

// errBusy is wrapped by the errors of take.
var errBusy = errors.New("too many calls")

func newNodePool() *nodePool {
	return &nodePool{conns: map[string]*nodeConn{}, broken: map[string]time.Time{}}
}

// take returns the connection on a path, until release is called.
func (p *nodePool) take(on path) (conn *client.Conn, release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.conns[on.key]
	if c == nil {
		if len(p.conns) >= maxNodeConns && !p.evict() {
			return nil, nil, fmt.Errorf("%w: this master calls %d nodes already", errBusy, maxNodeConns)
		}
		opts := client.Options{MaxConns: maxNodeCalls, MaxAnswer: maxNodeAnswer, Dial: on.dial}
		if on.kind == pathTunnel || on.kind == pathSplice {
			// A new one finds out in time whether anybody is there; one that was kept over
			// a tunnel that has died without a word does not.
			opts.IdleTimeout = keptOverTunnel
		}
		c = &nodeConn{conn: client.Dial(on.ep, opts)}
		p.conns[on.key] = c
	}
	if c.calls >= maxNodeCalls {
		return nil, nil, fmt.Errorf("%w: %d to that node run already", errBusy, maxNodeCalls)
	}
	c.calls++
	return c.conn, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		c.calls--
		c.used = time.Now()
	}, nil
}

// failed notes that a path could not be dialled.
func (p *nodePool) failed(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.broken) >= maxNodeConns {
		clear(p.broken) // at worst one of them is tried in vain once more
	}
	p.broken[key] = time.Now()
}

// failing reports whether a path could not be dialled of late.
func (p *nodePool) failing(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.broken[key]
	return ok && time.Since(at) < failedFor
}

// evict closes the connections that were not used for long, or else the one
// that was not used for longest.
func (p *nodePool) evict() bool {
	var oldest string
	enough := false
	for url, c := range p.conns {
		switch {
		case c.calls > 0:
		case time.Since(c.used) > idleNodeConn:
			c.conn.Close()
			delete(p.conns, url)
			enough = true
		case oldest == "" || c.used.Before(p.conns[oldest].used):
			oldest = url
		}
	}
	if !enough && oldest != "" {
		p.conns[oldest].conn.Close()
		delete(p.conns, oldest)
		enough = true
	}
	return enough
}

func (p *nodePool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for url, c := range p.conns {
		c.conn.Close()
		delete(p.conns, url)
	}
}
