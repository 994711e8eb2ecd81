package p2p

import (
	"context"
	"errors"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// ErrNotAdmitted is returned for a stream to a peer that is not an admitted
// master.
var ErrNotAdmitted = errors.New("p2p: not an admitted master")

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
	return g.Host.NewStream(ctx, p, ids...)
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
