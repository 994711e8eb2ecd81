package settings

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// behindMost bounds what a Behind keeps, in bytes.
	behindMost = 256 << 10
	// behindWait is how long Close waits for the writer below.
	behindWait = 500 * time.Millisecond
)

// Behind is a writer for logs that never waits. A program logs with locks held and from
// goroutines that nothing may hold up, and the file behind its standard error may be on a
// disk that hangs. What it is given is written by a goroutine of its own, in order; what
// does not fit into 256 KiB meanwhile is dropped, and how much was is said afterwards. Its
// methods may be called concurrently.
type Behind struct {
	to   io.Writer
	wake chan struct{}
	done chan struct{} // closed when all is written after Close

	mu      sync.Mutex // guards what follows
	waiting [][]byte
	size    int
	dropped int
	closed  bool
}

// NewBehind returns a writer to another one. It must be closed.
func NewBehind(to io.Writer) *Behind {
	b := &Behind{to: to, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go b.run()
	return b
}

// Write keeps p to be written. There is no error to be told.
func (b *Behind) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.size+len(p) > behindMost || b.closed {
		b.dropped++
		return len(p), nil
	}
	b.waiting, b.size = append(b.waiting, append([]byte(nil), p...)), b.size+len(p)
	b.rouse()
	return len(p), nil
}

func (b *Behind) rouse() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Close writes what is kept, and returns after a moment at the latest.
func (b *Behind) Close() {
	b.mu.Lock()
	b.closed = true
	b.rouse()
	b.mu.Unlock()
	select {
	case <-b.done:
	case <-time.After(behindWait):
	}
}

func (b *Behind) run() {
	defer close(b.done)
	for range b.wake {
		for {
			b.mu.Lock()
			list, dropped, closed := b.waiting, b.dropped, b.closed
			b.waiting, b.dropped = nil, 0
			b.mu.Unlock()
			if len(list) == 0 && dropped == 0 {
				if closed {
					return
				}
				break
			}
			for _, p := range list {
				_, _ = b.to.Write(p) // whom could one tell?
				b.mu.Lock()
				b.size -= len(p)
				b.mu.Unlock()
			}
			if dropped > 0 {
				fmt.Fprintf(b.to, "%d messages were dropped here: they could not be written as fast\n", dropped)
			}
		}
	}
}
