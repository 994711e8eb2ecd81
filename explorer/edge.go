package explorer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/tunnel"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/descriptors"
)

// edgeMethods are what an agent may call over its connection to the edge address.
var edgeMethods = []string{"register_node", "node_heartbeat", "node_heartbeats", "masters"}

// edge is where agents connect to, so that their nodes can be reached from here.
type edge struct {
	host *tunnel.Host
	rpc  jsonrpc.Mux
}

// dial opens a connection to a node whose tunnel this master holds.
func (e *edge) dial(ctx context.Context, node string) (net.Conn, error) {
	if e == nil {
		return nil, tunnel.ErrNone
	}
	return e.host.Dial(ctx, node)
}

// edgeAddr is where agents connect to; empty: nowhere.
func (c *Config) edgeAddr() string {
	switch {
	case c.EdgeAddr == "off", c.EdgeAddr == "" && (c.alone() || c.Store != nil):
		return ""
	case c.EdgeAddr == "":
		return net.JoinHostPort("0.0.0.0", strconv.Itoa(DefaultEdgePort))
	}
	return c.EdgeAddr
}

// openEdge begins to listen for agents. Until the store is open it refuses them.
func (s *Server) openEdge(ctx context.Context) error {
	addr := s.cfg.edgeAddr()
	if addr == "" {
		return nil
	}
	// The same key as that of the store, which makes this master one for all.
	id, err := identity.Load(filepath.Join(s.cfg.DataDir, "identity.key"))
	if err != nil {
		return err
	}
	if st := s.cfg.Store; st != nil && st.ID() != id.ID() {
		return configErrorf("data-dir", "is %s, where Store does not have its identity; agents would take this for another master", s.cfg.DataDir)
	}
	a, _ := parseAdvertise(s.cfg.Advertise) // checked by resolve
	e := &edge{}
	e.rpc.Logger, e.rpc.By = s.log, jsonrpc.ByMaster
	for _, m := range s.methods() {
		if slices.Contains(edgeMethods, m.name) {
			s.handle(&e.rpc, m)
		}
	}
	cfg := tunnel.HostConfig{
		Identity: id, Listen: addr, Advertise: a.hosts, Logger: s.log,
		MaxConns: descriptors.Of(descriptors.Limit()).Edge,
		Admit:    s.admitTunnel,
		Changed: func(node string, open bool) {
			s.log.Debug("tunnel", "node", node, "open", open)
			s.store.SetTunnel(node, open)
		},
		Answer: func(ctx context.Context, key string, request []byte) []byte {
			if !s.ready.Load() {
				return nil
			}
			ctx = context.WithValue(ctx, callerKey{}, &caller{origin: fromRemote, name: "agent " + key})
			return e.rpc.Answer(ctx, nil, request)
		},
	}
	e.host, err = tunnel.Listen(ctx, cfg)
	if errors.Is(err, syscall.EADDRINUSE) && s.cfg.EdgeAddr == "" {
		// Agents learn the address from the masters, so any port will do, unless a
		// firewall lets this one through only.
		s.log.Warn("the port for tunnels of agents is taken, using another", "addr", addr)
		cfg.Listen = "0.0.0.0:0"
		e.host, err = tunnel.Listen(ctx, cfg)
	}
	if err != nil {
		return fmt.Errorf("edge-addr: %w", err)
	}
	s.edge = e
	s.metrics.measureEdge(e.host)
	return nil
}

// edgeAddrs are multiaddrs at which agents reach this master.
func (s *Server) edgeAddrs() []string {
	if s.edge == nil {
		return []string{}
	}
	return s.edge.host.Addrs()
}

// admitTunnel decides whether an agent may hold the tunnel of a node: the one whose key
// signs the node's account.
func (s *Server) admitTunnel(nodeID, key string, boot uint64) error {
	if !s.ready.Load() {
		return errors.New("this master is starting; try again in a moment")
	}
	node, err := s.store.Node(nodeID)
	switch {
	case err != nil:
		return errors.New("the node is not known here; register it first")
	case node.RemovedAt != nil:
		return errors.New("the node was removed")
	case !node.Signed:
		return errors.New("the node's account is not signed")
	}
	if owner, err := tunnel.ID(node.PublicKey); err != nil || owner != key {
		return errors.New("the node belongs to another key")
	}
	if boot < node.Boot {
		return errors.New("the node speaks as a later boot")
	}
	return nil
}
