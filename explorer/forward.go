package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

const (
	maxNodeConns  = 1024            // nodes with a connection kept for them
	maxNodeCalls  = 32              // calls at once to one node
	idleNodeConn  = 5 * time.Minute // how long an unused connection is kept
	maxNodeAnswer = 16 << 20        // bytes, which a log can have
)

// call is one call to a node.
type call struct {
	node    crdtstore.Node
	method  string
	params  json.RawMessage
	timeout time.Duration
}

// forward sends a call to its node and returns the answer, result or error, as
// the node gave it.
func (s *Server) forward(ctx context.Context, c call) (json.RawMessage, error) {
	data := errorData{NodeID: c.node.NodeID}
	offline := c.node.Status == crdtstore.Offline
	// A suspect node is tried, for only its agent or another master may be gone,
	// and so is one that nobody has heard: it may have registered with another
	// master a moment ago. One that fell silent would let the caller wait for a
	// machine that is not there, and what it did now nobody would report.
	if offline && len(c.node.SeenBy) > 0 {
		return nil, s.offline(c.node)
	}
	if c.node.SocketPath == "" {
		s.metrics.forwards.WithLabelValues("unreachable").Inc()
		data.Hint = "the node reports no socket_path; give its agent the address of the compute service"
		return nil, failure(jsonrpc.CodeCannotReach, "node "+c.node.NodeID+" has no address", data)
	}
	ep, err := s.target(c.node)
	if err != nil {
		s.metrics.forwards.WithLabelValues("unreachable").Inc()
		data.Hint = "its socket_path cannot be used: " + err.Error()
		return nil, failure(jsonrpc.CodeCannotReach, "node "+c.node.NodeID+" cannot be reached", data)
	}
	conn, release, err := s.nodes.take(ep)
	if err != nil {
		s.metrics.forwards.WithLabelValues("limit").Inc()
		data.Retryable, data.Hint, data.RetryAfterS = true, "try again in a moment", 1
		return nil, failure(jsonrpc.CodeLimit, err.Error(), data)
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var result json.RawMessage
	err = conn.Call(ctx, c.method, c.params, &result)
	if err == nil {
		s.metrics.forwards.WithLabelValues("result").Inc()
		return result, nil
	}
	var theirs *jsonrpc.Error
	if errors.As(err, &theirs) {
		s.metrics.forwards.WithLabelValues("error").Inc()
		return nil, theirs
	}
	var transport *client.TransportError
	if errors.As(err, &transport) && !transport.Sent {
		if offline {
			return nil, s.offline(c.node)
		}
		data.Retryable = true // nothing was done
		s.metrics.forwards.WithLabelValues("unreachable").Inc()
		data.Hint = "nothing was sent; check that " + ep.URL + " answers where this master runs, or ask another master"
		return nil, failure(jsonrpc.CodeCannotReach, "node "+c.node.NodeID+" cannot be reached", data)
	}
	s.metrics.forwards.WithLabelValues("unknown").Inc()
	data.Retryable = client.Idempotent(c.method)
	data.Hint = "it may have run; look at the VM before you repeat it"
	if data.Retryable {
		data.Hint = "nothing was to be changed; try again"
	}
	return nil, failure(jsonrpc.CodeOutcomeUnknown, "the call was sent to node "+c.node.NodeID+" and not answered", data)
}

// offline is the error for a node that is silent; nothing was sent to it.
func (s *Server) offline(n crdtstore.Node) error {
	s.metrics.forwards.WithLabelValues("offline").Inc()
	return failure(jsonrpc.CodeNodeOffline, "node "+n.NodeID+" is offline", errorData{
		Retryable: true, NodeID: n.NodeID,
		Hint: "it was last heard at " + n.LastSeen.UTC().Format(time.RFC3339) + "; start it or its agent",
	})
}

// nodePool keeps connections to nodes.
type nodePool struct {
	mu    sync.Mutex
	conns map[string]*nodeConn // by URL
}

type nodeConn struct {
	conn  *client.Conn
	calls int
	used  time.Time
}

func newNodePool() *nodePool { return &nodePool{conns: map[string]*nodeConn{}} }

// take returns the connection to a node, until release is called.
func (p *nodePool) take(ep client.Endpoint) (conn *client.Conn, release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.conns[ep.URL]
	if c == nil {
		if len(p.conns) >= maxNodeConns && !p.evict() {
			return nil, nil, fmt.Errorf("this master calls %d nodes already", maxNodeConns)
		}
		c = &nodeConn{conn: client.Dial(ep, client.Options{MaxConns: maxNodeCalls, MaxAnswer: maxNodeAnswer})}
		p.conns[ep.URL] = c
	}
	if c.calls >= maxNodeCalls {
		return nil, nil, fmt.Errorf("%d calls to that node run already", maxNodeCalls)
	}
	c.calls++
	return c.conn, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		c.calls--
		c.used = time.Now()
	}, nil
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
