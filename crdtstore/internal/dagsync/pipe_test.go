package dagsync

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// pipe is a network.Stream to the other end in this process, with what a real
// one has: a window that writers wait for, half-close, reset and deadlines.
type pipe struct {
	network.Stream // for what is not used here
	in, out        *half
}

// newPipe returns both ends.
func newPipe() (a, b *pipe) {
	x, y := newHalf(), newHalf()
	return &pipe{in: x, out: y}, &pipe{in: y, out: x}
}

const window = 256 << 10

var errReset = errors.New("stream reset")

// half is one direction.
type half struct {
	mu     sync.Mutex
	moved  *sync.Cond
	buf    []byte
	total  int
	ended  bool  // no more writes
	broken error // neither reads nor writes
	read   deadline
	write  deadline
}

type deadline struct {
	timer  *time.Timer
	passed bool
}

func newHalf() *half {
	h := &half{}
	h.moved = sync.NewCond(&h.mu)
	return h
}

func (h *half) set(d *deadline, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.passed = false
	var timer *time.Timer
	timer = time.AfterFunc(time.Until(t), func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if d.timer == timer {
			d.passed = true
			h.moved.Broadcast()
		}
	})
	d.timer = timer
}

func (h *half) end(broken error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if h.broken == nil {
		h.broken = broken
	}
	for _, d := range []*deadline{&h.read, &h.write} {
		if d.timer != nil && broken != nil {
			d.timer.Stop()
		}
	}
	h.moved.Broadcast()
}

func (p *pipe) Read(b []byte) (int, error) {
	h := p.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.broken != nil:
			return 0, h.broken
		case len(h.buf) > 0:
			n := copy(b, h.buf)
			h.buf = h.buf[n:]
			h.moved.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		case h.read.passed:
			return 0, os.ErrDeadlineExceeded
		}
		h.moved.Wait()
	}
}

func (p *pipe) Write(b []byte) (n int, err error) {
	h := p.out
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(b) > 0 {
		switch {
		case h.broken != nil:
			return n, h.broken
		case h.ended:
			return n, io.ErrClosedPipe
		case h.write.passed:
			return n, os.ErrDeadlineExceeded
		case len(h.buf) < window:
			k := min(len(b), window-len(h.buf))
			h.buf = append(h.buf, b[:k]...)
			b, n, h.total = b[k:], n+k, h.total+k
			h.moved.Broadcast()
		default:
			h.moved.Wait()
		}
	}
	return n, nil
}

func (p *pipe) CloseWrite() error { p.out.end(nil); return nil }
func (p *pipe) Close() error      { p.out.end(nil); return nil }
func (p *pipe) Reset() error      { p.in.end(errReset); p.out.end(errReset); return nil }
func (p *pipe) SetDeadline(t time.Time) error {
	p.in.set(&p.in.read, t)
	p.out.set(&p.out.write, t)
	return nil
}
