package crdtstore

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
)

// Streams is what masters offer to the program that embeds the store and has something of
// its own on each of them: connections by name from one to another, and who holds the
// tunnel of a node's agent. Records are replicated without it.
type Streams struct{ s *Store }

// Streams returns what this master offers beside its records.
func (s *Store) Streams() Streams { return Streams{s} }

// Endpoints are where the program that embeds the store serves what is its own, if it
// does. All masters show them, see [Master]; nothing here calls them or listens on them.
type Endpoints struct {
	RPCURLs []string // its API
	UIURLs  []string // its page
	// EdgeAddrs are multiaddrs at which agents reach its tunnels, see package tunnel.
	EdgeAddrs []string
}

// embedded is the protocol of a name that the embedding program chose.
func embedded(name string) protocol.ID { return protocol.ID("/hero-explorer/x/" + name) }

// Serve has connections that other masters open with Dial under a name handed to a
// function, each on a goroutine of its own. from is the id of that master, which is
// proven. The function closes the connection. A single master has none to serve. Serve
// replaces what was given for the name before.
func (x Streams) Serve(name string, handle func(from string, conn net.Conn)) {
	if x.s.cluster == nil {
		return
	}
	x.s.cluster.Mesh().Host().SetStreamHandler(embedded(name), func(st network.Stream) {
		handle(st.Conn().RemotePeer().String(), p2p.Conn(st))
	})
}

// Dial opens a connection to what another master serves under a name. It goes over the
// connection that the masters have with each other, so it needs no address and is
// encrypted. The caller closes it. Whether the other master serves the name shows when it
// is used. Errors:
// ErrUnreachable, the context's.
func (x Streams) Dial(ctx context.Context, master, name string) (net.Conn, error) {
	ctx = orBackground(ctx)
	id, err := peer.Decode(master)
	if err != nil || x.s.cluster == nil {
		return nil, ErrUnreachable
	}
	st, err := x.s.cluster.Mesh().Host().NewStream(network.WithNoDial(ctx, "an admitted master is connected"), id, embedded(name))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return p2p.Conn(st), nil
}

// SetTunnel notes that this master holds the tunnel of a node's agent from now on, or
// holds it no more. Node.Tunnel shows it, here and on the other masters, as long as
// this one says so; nothing of it is written to disk. It never blocks.
func (x Streams) SetTunnel(nodeID string, open bool) {
	s := x.s
	s.board.Tunnel(time.Now(), nodeID, open)
	s.changes.Add(change{kind: NodeChange, id: nodeID})
	if s.cluster != nil {
		s.cluster.PulseSoon()
	}
}
