package sim

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

var errCut = errors.New("the connection broke")

// stream is one end of a connection on which the real stream protocols run, each
// end in a goroutine. The protocols speak in turns, so what happens does not depend
// on which goroutine is faster. After a number of writes the connection breaks:
// what was written before is still read, nothing more is.
type stream struct {
	network.Stream // for what is not used here
	in, out        *half
	left           *int // writes until it breaks, of both ends
}

type half struct {
	mu    *sync.Mutex // of both halves; guards what follows
	moved *sync.Cond
	buf   []byte
	end   error
}

func newStream(writes int) (a, b *stream) {
	var mu sync.Mutex
	x, y := &half{mu: &mu, moved: sync.NewCond(&mu)}, &half{mu: &mu, moved: sync.NewCond(&mu)}
	return &stream{in: x, out: y, left: &writes}, &stream{in: y, out: x, left: &writes}
}

func (s *stream) Read(b []byte) (int, error) {
	h := s.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.buf) == 0 {
		if h.end != nil {
			return 0, h.end
		}
		h.moved.Wait()
	}
	n := copy(b, h.buf)
	h.buf = h.buf[n:]
	return n, nil
}

func (s *stream) Write(b []byte) (int, error) {
	h := s.out
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.end != nil {
		return 0, errCut
	}
	if *s.left == 0 {
		s.finish(errCut, h, s.in)
		return 0, errCut
	}
	*s.left--
	h.buf = append(h.buf, b...)
	h.moved.Broadcast()
	return len(b), nil
}

// finish is called with mu held.
func (s *stream) finish(err error, halves ...*half) {
	for _, h := range halves {
		if h.end == nil {
			h.end = err
		}
		h.moved.Broadcast()
	}
}

func (s *stream) CloseWrite() error {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.finish(io.EOF, s.out)
	return nil
}

func (s *stream) Close() error { return s.CloseWrite() }

func (s *stream) Reset() error {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.finish(errCut, s.in, s.out)
	return nil
}

func (s *stream) SetDeadline(time.Time) error { return nil }
