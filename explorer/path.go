package explorer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/tunnel"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

// The kinds of paths to a node, as metrics show them.
const (
	pathAgent  = "agent"  // the socket of its agent, on this machine
	pathDirect = "direct" // the address of its compute service
	pathTunnel = "tunnel" // a connection that its agent keeps to this master
	pathSplice = "splice" // one that it keeps to another master
)

// path is a way to a node. HTTP/1.1 is spoken on all of them.
type path struct {
	kind string
	key  string // tells paths apart
	ep   client.Endpoint
	dial func(ctx context.Context) (net.Conn, error)
	// remembers: it leads to the node's agent, which carries out an operation once.
	remembers bool
	silent    bool // the master on it has not been heard just now
}

// paths returns the ways to a node, in the order in which they are to be tried: those
// on which nothing failed of late first, among them the shortest first. The error says
// why an address that the node gave is not used.
func (s *Server) paths(node crdtstore.Node) (all []path, unusable error) {
	if node.AgentPath != "" {
		if p, err := s.direct(node, node.AgentPath); err == nil {
			p.kind, p.remembers = pathAgent, true
			all = append(all, p)
		}
	}
	if node.SocketPath != "" {
		p, err := s.direct(node, node.SocketPath)
		if err == nil {
			all = append(all, p)
		}
		unusable = err
	}
	var masters []crdtstore.Master
	if len(node.Tunnel) > 0 {
		masters = s.store.Masters()
	}
	// Connections that were made to an agent with another key, or at an earlier boot, are
	// not those to the one that the node has now.
	agent := fmt.Sprintf("%s %x %d", node.NodeID, node.PublicKey, node.Boot)
	for _, master := range node.Tunnel {
		p := path{kind: pathSplice, key: pathSplice + " " + master + " " + agent, remembers: true}
		if p.dial = func(ctx context.Context) (net.Conn, error) { return s.splice(ctx, master, node.NodeID) }; master == s.store.ID() {
			p.kind, p.key = pathTunnel, pathTunnel+" "+agent
			p.dial = func(ctx context.Context) (net.Conn, error) { return s.edge.dial(ctx, node.NodeID) }
		}
		p.ep = client.Endpoint{Network: "unix", URL: p.key}
		p.silent = slices.ContainsFunc(masters, func(m crdtstore.Master) bool {
			return m.ID == master && m.Status != crdtstore.MasterSelf && time.Since(m.LastSeen) > silentAfter
		})
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b path) int { return s.rank(a) - s.rank(b) })
	return all, unusable
}

// rank orders paths.
func (s *Server) rank(p path) int {
	rank := slices.Index([]string{pathAgent, pathDirect, pathTunnel, pathSplice}, p.kind)
	if p.silent {
		rank += 5
	}
	if s.nodes.failing(p.key) {
		rank += 10
	}
	return rank
}

// direct is the path to an address that the node gave of itself.
func (s *Server) direct(node crdtstore.Node, address string) (path, error) {
	if filepath.IsAbs(address) { // older agents report the bare path of a socket
		address = "unix://" + address
	}
	ep, err := client.Parse(address, computePort)
	if err != nil {
		return path{}, err
	}
	if err := s.checkTarget(node, ep); err != nil {
		return path{}, err
	}
	return path{kind: pathDirect, key: ep.URL + " " + node.MachineID, ep: ep, dial: s.dialerTo(node, ep)}, nil
}

// spliceName is what masters ask each other for, to get through to a node.
const spliceName = "splice/1"

// splice opens a connection to a node by the tunnel of another master.
func (s *Server) splice(ctx context.Context, master, node string) (net.Conn, error) {
	conn, err := s.store.Dial(ctx, master, spliceName)
	if err != nil {
		return nil, err
	}
	if err := tunnel.Through(ctx, conn, node); err != nil {
		return nil, errors.Join(fmt.Errorf("by master %s: %w", master, err), conn.Close())
	}
	return conn, nil
}

// spliced serves what other masters ask for by splice.
func (s *Server) spliced(_ string, conn net.Conn) {
	select {
	case s.splices <- struct{}{}:
		defer func() { <-s.splices }()
		s.edge.host.Splice(conn)
	default:
		_ = conn.Close() // the other master says that it cannot reach the node
	}
}

// silentAfter is when a master that says something every second is not the first to be
// asked for a splice: to find out that nobody answers takes longer.
const silentAfter = 2 * time.Second

// failedFor is for how long a path that could not be dialled is tried last.
const failedFor = 15 * time.Second

// tried names the paths that were tried.
func tried(all []path) string {
	var names []string
	for _, p := range all {
		if p.kind == pathDirect || p.kind == pathAgent {
			names = append(names, p.ep.URL)
		} else {
			names = append(names, p.kind)
		}
	}
	return strings.Join(names, ", ")
}
