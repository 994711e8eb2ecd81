package watch

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/page"
)

// Size is how many changes a watcher may fall behind before it has to read a fresh
// snapshot.
const Size = 1 << 14

// Buffer keeps the latest changes. A cursor is the name of the run and a position, the
// number of changes before it, so that a cursor of an earlier run is told apart.
type Buffer[T any] struct {
	run string

	mu     sync.Mutex // guards all below
	ring   [Size]T
	end    uint64        // position behind the newest change
	more   chan struct{} // closed at the next change; nil while nobody waits
	closed error         // what watchers get once it is set
}

// New returns an empty buffer of a run.
func New[T any](run string) *Buffer[T] { return &Buffer[T]{run: run} }

// Run is the name of the run.
func (b *Buffer[T]) Run() string { return b.run }

// Add appends a change.
func (b *Buffer[T]) Add(c T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ring[b.end%Size] = c
	b.end++
	b.signal()
}

// signal wakes the watchers that wait. The caller holds mu.
func (b *Buffer[T]) signal() {
	if b.more != nil {
		close(b.more)
		b.more = nil
	}
}

// Close has all watchers end with an error, now and from now on.
func (b *Buffer[T]) Close(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = err
	b.signal()
}

// End is the cursor behind the newest change.
func (b *Buffer[T]) End() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Cursor(b.end)
}

// Cursor is a position as text.
func (b *Buffer[T]) Cursor(at uint64) string { return fmt.Sprintf("%s-%d", b.run, at) }

// parse returns the position of a cursor.
func (b *Buffer[T]) parse(cursor string) (uint64, error) {
	run, pos, ok := strings.Cut(cursor, "-")
	at, err := strconv.ParseUint(pos, 10, 64)
	if !ok || err != nil || run != b.run {
		return 0, page.ErrCursor
	}
	return at, nil
}

// Entry is a change and its position; the next one is at At+1.
type Entry[T any] struct {
	At     uint64
	Change T
}

// Follow yields the changes behind a cursor, and waits for more. It ends with the reader's
// break or with an error: [page.ErrCursor] for a cursor of another run and for a reader
// that has fallen behind by more than [Size], that of Close, or the context's.
func (b *Buffer[T]) Follow(ctx context.Context, cursor string) iter.Seq2[Entry[T], error] {
	return func(yield func(Entry[T], error) bool) {
		at, err := b.parse(cursor)
		for err == nil {
			e := Entry[T]{At: at}
			if e.Change, err = b.next(ctx, at); err == nil && !yield(e, nil) {
				return
			}
			at++
		}
		yield(Entry[T]{}, err)
	}
}

// next returns the change at a position, waiting for it.
func (b *Buffer[T]) next(ctx context.Context, at uint64) (none T, _ error) {
	for {
		b.mu.Lock()
		switch {
		case b.closed != nil:
			err := b.closed
			b.mu.Unlock()
			return none, err
		case at > b.end || b.end-at > Size:
			b.mu.Unlock()
			return none, page.ErrCursor
		case at < b.end:
			c := b.ring[at%Size]
			b.mu.Unlock()
			return c, nil
		}
		if b.more == nil {
			b.more = make(chan struct{})
		}
		more := b.more
		b.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return none, ctx.Err()
		}
	}
}

// Since returns the changes from a position on, without waiting, and the position behind
// them; false when some of them are not kept any more.
func (b *Buffer[T]) Since(at uint64) ([]T, uint64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at > b.end || b.end-at > Size {
		return nil, b.end, false
	}
	out := make([]T, 0, b.end-at)
	for ; at < b.end; at++ {
		out = append(out, b.ring[at%Size])
	}
	return out, at, true
}
