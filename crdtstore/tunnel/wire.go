package tunnel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
	"github.com/multiformats/go-varint"
)

// The protocols of the edge; docs/protocol.md describes them.
const (
	askProtocol     protocol.ID = "/hero-explorer/ask/1"
	openProtocol    protocol.ID = "/hero-explorer/tunnel/1"
	computeProtocol protocol.ID = "/hero-explorer/compute/1"
)

const (
	maxAsk   = 4 << 20  // bytes of a request or an answer
	maxClaim = 64 << 10 // bytes of a frame that opens or keeps a tunnel
	maxNode  = 1 << 10  // bytes of a node id, as a splice names it

	// dialTimeout bounds how long an end of a tunnel may take to say that it is there.
	dialTimeout = 2 * time.Second
	// An agent says every pingEvery that it is there; after silence the tunnel is closed.
	pingEvery = 4 * time.Second
	silence   = 12 * time.Second
	// idle is how long an agent may keep a stream for requests without one.
	idle = 10 * time.Minute
	// strangerTimeout is how long a connection may stay that nothing is done with.
	strangerTimeout = 15 * time.Second
	// withoutTunnel is how long a connection may stay that only asks, and maxWithout how
	// many such connections there may be.
	withoutTunnel = 2 * time.Minute
	maxWithout    = 8192
)

// Errors of both ends.
var (
	// ErrNone: this master holds no tunnel of the node, or it has just broken.
	ErrNone = errors.New("tunnel: there is none")
	// ErrClosed: the Host or Client was closed.
	ErrClosed = errors.New("tunnel: closed")
	// ErrNotSent is wrapped by errors of requests that certainly did not arrive.
	ErrNotSent = errors.New("tunnel: nothing was sent")
)

// RefusedError says why the master at the other end does not take a tunnel.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "tunnel refused: " + e.Reason }

// claim is what an agent says to open a tunnel, and verdict what the master answers.
type claim struct {
	NodeID string `json:"node_id"`
	Boot   uint64 `json:"boot"`
}

type verdict struct {
	Refused string `json:"refused,omitempty"`
}

// framed is a stream cut into frames, each behind its length.
type framed struct {
	s    network.Stream
	most int
	w    msgio.WriteCloser
	// begun is called when a frame has begun to arrive; nil: not.
	begun func()
}

func frames(s network.Stream, most int) framed {
	return framed{s: s, most: most, w: msgio.NewVarintWriter(s)}
}

// read returns the next frame, which the caller may keep. Memory is taken as the bytes
// come: whoever announces a long frame has to send it.
func (f framed) read() ([]byte, error) {
	first := oneByte{f.s, f.begun}
	size, err := varint.ReadUvarint(&first)
	if err != nil {
		return nil, err
	}
	if size > uint64(f.most) {
		return nil, fmt.Errorf("frame of %d bytes", size)
	}
	var b bytes.Buffer
	b.Grow(int(min(size, 4<<10)))
	if _, err := io.CopyN(&b, f.s, int64(size)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (f framed) write(b []byte) error { return f.w.WriteMsg(b) }

// oneByte reads byte by byte, for what follows is not to be touched.
type oneByte struct {
	io.Reader
	begun func() // called after the first byte; nil: not
}

func (o *oneByte) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(o, b[:])
	if err == nil && o.begun != nil {
		o.begun()
		o.begun = nil
	}
	return b[0], err
}

func (f framed) readJSON(into any) error {
	b, err := f.read()
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

func (f framed) writeJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.write(b)
}

// within sets the deadline of a stream by a context, and at most the given time, and
// ends reads and writes when the context does. What it returns lifts that again.
func within(ctx context.Context, s interface{ SetDeadline(time.Time) error }, most time.Duration) (lift func()) {
	deadline := time.Now().Add(most)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = s.SetDeadline(deadline) // a stream that is gone says so when it is used
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	return func() {
		if stop() {
			_ = s.SetDeadline(time.Time{})
		}
	}
}

// The one byte that says whether a connection to a node is there.
const (
	refused byte = 0
	ready   byte = 1
)

// await reads that byte.
func await(r io.Reader) error {
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	if b[0] != ready {
		return ErrNone
	}
	return nil
}

func notSent(err error) error { return fmt.Errorf("%w: %w", ErrNotSent, err) }
