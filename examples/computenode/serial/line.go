package serial

import (
	"errors"
	"io"
	"sync"
)

// MaxBehind is how many bytes a tap may lag behind its line.
const MaxBehind = 256 << 10

// ErrBehind is what a tap ends with that was not read for too long.
var ErrBehind = errors.New("the reader is too slow for this serial line")

// Line is the writing end of a serial line. The zero Line is ready for use.
type Line struct {
	mu     sync.Mutex
	taps   map[*Tap]struct{}
	closed bool
}

// Write gives the bytes to all taps. It does not block and does not fail.
func (l *Line) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for t := range l.taps {
		if !t.put(p) {
			delete(l.taps, t)
		}
	}
	return len(p), nil
}

// Tap returns a reader of all that is written from now on.
func (l *Line) Tap() *Tap {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &Tap{line: l}
	t.more.L = &t.mu
	if l.closed {
		t.err = io.EOF
		return t
	}
	if l.taps == nil {
		l.taps = map[*Tap]struct{}{}
	}
	l.taps[t] = struct{}{}
	return t
}

// Close ends the line: the taps read what they have, then io.EOF.
func (l *Line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for t := range l.taps {
		t.end(io.EOF)
	}
	clear(l.taps)
	return nil
}

// Tap is one reader of a line.
type Tap struct {
	line *Line

	mu   sync.Mutex
	more sync.Cond // there are bytes, or an error
	buf  []byte
	err  error // what comes after buf
}

// put returns false when the tap takes no more.
func (t *Tap) put(p []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return false
	}
	if len(t.buf)+len(p) > MaxBehind {
		t.err = ErrBehind
	} else {
		t.buf = append(t.buf, p...)
	}
	t.more.Broadcast()
	return t.err == nil
}

func (t *Tap) end(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
	t.more.Broadcast()
}

// Read waits for bytes. It ends with io.EOF when the line or the tap is closed,
// and with ErrBehind when bytes had to be dropped.
func (t *Tap) Read(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.buf) == 0 && t.err == nil {
		t.more.Wait()
	}
	if len(t.buf) == 0 {
		return 0, t.err
	}
	n := copy(p, t.buf)
	t.buf = t.buf[n:]
	if len(t.buf) == 0 {
		t.buf = nil // a burst does not keep its memory
	}
	return n, nil
}

// Close detaches the tap from its line. A Read that waits returns.
func (t *Tap) Close() error {
	t.line.mu.Lock()
	delete(t.line.taps, t)
	t.line.mu.Unlock()
	t.end(io.EOF)
	return nil
}
