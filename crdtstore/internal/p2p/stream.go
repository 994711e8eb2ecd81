package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// openTimeout is how long a stream may take to be opened, where the context gives no time.
const openTimeout = 5 * time.Second

// open opens a stream on one connection. A host would choose among all to the peer,
// also such as have not been noticed to be dead.
func (m *Mesh) open(ctx context.Context, c network.Conn, ids ...protocol.ID) (_ network.Stream, err error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, openTimeout)
		defer cancel()
	}
	s, err := c.NewStream(network.WithNoDial(ctx, "this connection or none"))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			_ = s.Reset()
		}
	}()
	ps := m.host.Peerstore()
	// What the peer is known to speak need not be asked for.
	if speaks, e := ps.SupportsProtocols(c.RemotePeer(), ids...); e == nil && len(speaks) > 0 {
		return eager{s, multistream.NewMSSelect(s, speaks[0])}, s.SetProtocol(speaks[0])
	}
	id, err := multistream.SelectOneOf(ids, s)
	if _, not := errors.AsType[multistream.ErrNotSupported[protocol.ID]](err); not {
		return nil, fmt.Errorf("%w: %w", ErrVersion, err)
	}
	if err != nil {
		return nil, err
	}
	return s, s.SetProtocol(id)
}

// eager is a stream whose first bytes travel together with the name of the protocol.
type eager struct {
	network.Stream
	rw multistream.LazyConn
}

func (s eager) Read(b []byte) (int, error)  { return s.rw.Read(b) }
func (s eager) Write(b []byte) (int, error) { return s.rw.Write(b) }

func (s eager) Close() error {
	// To close is to wait for the other side to agree on the protocol.
	_ = s.SetReadDeadline(time.Now().Add(openTimeout))
	return s.rw.Close()
}

func (s eager) CloseWrite() error {
	_ = s.rw.(interface{ Flush() error }).Flush() // what is wrong shows in reading
	return s.Stream.CloseWrite()
}

// lasting is a stream that lasts as long as its connection.
type lasting struct {
	network.Stream
	ended func()
}

func (m *Mesh) lasting(s network.Stream) network.Stream {
	return lasting{s, sync.OnceFunc(func() { m.ended(s.Conn(), "the stream of messages to it has ended") })}
}

func (s lasting) Close() error {
	defer s.ended()
	return s.Stream.Close()
}

func (s lasting) Reset() error {
	defer s.ended()
	return s.Stream.Reset()
}

func (s lasting) ResetWithError(code network.StreamErrorCode) error {
	defer s.ended()
	return s.Stream.ResetWithError(code)
}
