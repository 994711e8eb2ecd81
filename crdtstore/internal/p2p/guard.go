package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Errors of a stream to another master.
var (
	// ErrNotAdmitted: the peer is not an admitted master.
	ErrNotAdmitted = errors.New("p2p: not an admitted master")
	// ErrVersion: the peer speaks the protocol in none of the versions that this
	// program speaks.
	ErrVersion = errors.New("it speaks no version of the protocol that this master speaks; run versions of the program that are closer to each other")
)

// guard is a host as the protocols above see it: one on which there is nobody
// but admitted masters. It has an event bus of its own, on which a peer appears
// when it is admitted, not when it connects.
type guard struct {
	host.Host
	bus  event.Bus
	mesh *Mesh
}

func (g *guard) EventBus() event.Bus { return g.bus }

func (g *guard) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	g.Host.SetStreamHandler(id, g.only(handle))
}

func (g *guard) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, handle network.StreamHandler) {
	g.Host.SetStreamHandlerMatch(id, match, g.only(handle))
}

func (g *guard) only(handle network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		if !g.mesh.admittedOn(s.Conn()) {
			_ = s.Reset()
			return
		}
		handle(s)
		if g.mesh.lasts(s.Protocol()) {
			g.mesh.ended(s.Conn(), "the stream of messages from it has ended")
		}
	}
}

func (g *guard) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	g.mesh.mu.Lock()
	mb := g.mesh.members[p]
	var c network.Conn
	if mb != nil {
		c = mb.conns[0]
	}
	g.mesh.mu.Unlock()
	if mb == nil {
		return nil, ErrNotAdmitted
	}
	s, err := g.mesh.open(ctx, c, ids...)
	switch {
	case errors.Is(err, ErrVersion):
		g.mesh.states.State(slog.LevelWarn, fmt.Sprint(p, ids), "version", "a master is of another version", "master", p, "protocol", ids, "err", err)
		return nil, err
	case err != nil:
		return nil, err
	case g.mesh.lasts(s.Protocol()):
		return g.mesh.lasting(s), nil
	}
	return s, nil
}

// lasts reports whether streams of a protocol last as long as their connection.
func (m *Mesh) lasts(id protocol.ID) bool { return m.cfg.Lasting != nil && m.cfg.Lasting(id) }

// Network hides the peers that are connected but not admitted.
func (g *guard) Network() network.Network { return guardNetwork{g.Host.Network(), g.mesh} }

type guardNetwork struct {
	network.Network
	mesh *Mesh
}

func (n guardNetwork) Peers() []peer.ID { return n.mesh.Peers() }

func (n guardNetwork) Connectedness(p peer.ID) network.Connectedness {
	if !n.mesh.Admitted(p) {
		return network.NotConnected
	}
	return n.Network.Connectedness(p)
}
