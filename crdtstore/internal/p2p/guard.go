package p2p

import (
	"context"
	"errors"
	"fmt"

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
		if !g.mesh.Admitted(s.Conn().RemotePeer()) {
			_ = s.Reset()
			return
		}
		handle(s)
	}
}

func (g *guard) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	if !g.mesh.Admitted(p) {
		return nil, ErrNotAdmitted
	}
	s, err := g.mesh.stream(ctx, p, ids...)
	if errors.Is(err, ErrVersion) {
		g.mesh.complain(fmt.Sprint(p, ids), "a master is of another version", err, "master", p, "protocol", ids)
	}
	return s, err
}

// stream opens a stream to a peer. Where that fails because the two share no version
// of the protocol, the error says so.
func (m *Mesh) stream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := m.host.NewStream(ctx, p, ids...)
	if err == nil {
		return s, nil
	}
	all, _ := m.host.Peerstore().GetProtocols(p)
	if shared, e := m.host.Peerstore().SupportsProtocols(p, ids...); e == nil && len(all) > 0 && len(shared) == 0 {
		err = fmt.Errorf("%w: %w", ErrVersion, err)
	}
	return nil, err
}

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
