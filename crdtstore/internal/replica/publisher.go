package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// maxFlush bounds how many nodes are written in one turn of the history, and so
// the memory that it takes and how long others wait for theirs.
const maxFlush = 2048

const (
	// writeWithin is how long a caller waits for its write: a disk with seconds for each
	// fsync makes it.
	writeWithin = 15 * time.Second
	// lookAfter is how often who waits looks whether the disk hangs.
	lookAfter = time.Second
)

// retryFlush is how long after a failure the disk is tried again.
const retryFlush = time.Second

// publisher is the one writer of the history. Callers mark nodes whose state
// changed; it writes the state that the table then holds. Batching is natural,
// not timed: an idle publisher commits at once, and what is marked while a
// commit runs makes the next batch, with one element per node. What waits is a
// set of nodes that the table holds already, and whoever changes a node waits for
// its flush, so a slow disk slows its writers down and no bound is needed.
type publisher struct {
	disk  stable
	state func(node string) record.State
	// putSeen writes what is known of buckets of nodes, which are marked by name as
	// nodes are by id; nil where none are.
	putSeen func(ctx context.Context, buckets []string) error
	// health returns why the disk takes nothing, or nil; nil: it takes everything.
	health func() error
	// lost reports whether the disk may have lost something that the table holds;
	// nil: it has not.
	lost func() bool

	mu       sync.Mutex          // guards what follows, up to wake
	pending  []string            // in order of marking
	asked    bool                // somebody waits for the next flush, whatever is in it
	next     *Flush              // the flush that pending will be part of
	queued   map[string]struct{} // pending, as a set
	current  *Flush              // the flush that is running, nil when idle
	writing  map[string]struct{} // what it writes
	changing map[string]int      // running changes of states, by node
	changed  chan struct{}       // closed when the next one ends; nil while nobody waits for it
	wake     chan struct{}

	once    sync.Once
	closing chan struct{}
	done    chan struct{} // closed when Run has ended
}

// stable is where a publisher writes to; see [epoch.Log].
type stable interface {
	Put(ctx context.Context, writes []epoch.Write) error
	Sync(ctx context.Context) error
	Unsynced() bool
}

// Flush is one batch on its way; done is closed when err is known.
type Flush struct {
	done chan struct{}
	err  error
}

// Done is closed when the flush has ended, well or not.
func (f *Flush) Done() <-chan struct{} { return f.done }

// Err returns why the flush failed, or nil. It is to be called after Done.
func (f *Flush) Err() error { return f.err }

func newPublisher(disk stable, state func(string) record.State) *publisher {
	return &publisher{
		disk: disk, state: state,
		next: newFlush(), queued: map[string]struct{}{}, changing: map[string]int{},
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
}

func newFlush() *Flush { return &Flush{done: make(chan struct{})} }

// Mark has a node's state written by the next flush, without waiting for it.
func (p *publisher) Mark(nodes ...string) *Flush {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range nodes {
		if _, ok := p.queued[n]; !ok {
			p.queued[n] = struct{}{}
			p.pending = append(p.pending, n)
		}
	}
	p.asked = true
	p.wakeUp()
	return p.next
}

// wakeUp has Run look for what is pending.
func (p *publisher) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// change runs do, which changes a node's state in the table and says whether it
// did, and returns when the state is written. Who finds the change there already
// waits for it too: that the table holds it does not mean that the disk does.
func (p *publisher) change(ctx context.Context, node string, do func() bool) error {
	p.mu.Lock()
	p.changing[node]++
	p.mu.Unlock()
	var f *Flush
	if do() {
		f = p.Mark(node)
	}
	p.mu.Lock()
	if p.changing[node]--; p.changing[node] == 0 {
		delete(p.changing, node)
	}
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
	p.mu.Unlock()
	if f == nil {
		return p.waitWritten(ctx, node)
	}
	return p.Wait(ctx, f)
}

// waitWritten waits until nothing that was marked for a node is still on its way.
func (p *publisher) waitWritten(ctx context.Context, node string) error {
	p.mu.Lock()
	for p.changing[node] > 0 {
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		p.mu.Lock()
	}
	p.mu.Unlock()
	if f := p.underway(node); f != nil {
		return p.Wait(ctx, f)
	}
	return nil
}

// underway returns the flush after which all that the table holds of a node is on
// stable storage, nil where it is. What came in blocks of other masters is written,
// and not synced before something is written here.
func (p *publisher) underway(node string) *Flush {
	if f := p.onItsWay(node); f != nil {
		return f
	}
	switch {
	case p.lost != nil && p.lost():
		return p.Mark(node)
	case p.disk.Unsynced():
		return p.Mark()
	}
	return nil
}

func (p *publisher) onItsWay(node string) *Flush {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.queued[node]; ok {
		return p.next
	}
	if _, ok := p.writing[node]; ok {
		return p.current
	}
	return nil
}

// Wait returns when a flush has ended, with its error. It returns ErrUnavailable when the
// disk hangs, or takes longer than anybody should wait for; the flush goes on, and
// whether it will end well is not known.
func (p *publisher) Wait(ctx context.Context, f *Flush) error {
	began := time.Now()
	tick := time.NewTicker(lookAfter)
	defer tick.Stop()
	for {
		select {
		case <-f.done:
			return f.err
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			select {
			case <-f.done:
				return f.err
			default:
				return ErrClosed
			}
		case now := <-tick.C:
			if err := p.hangs(); err != nil {
				return err
			}
			if now.Sub(began) >= writeWithin {
				return fmt.Errorf("%w: %w and has not taken the write within %v; it may take it later", ErrUnavailable, ErrSlow, writeWithin)
			}
		}
	}
}

// hangs returns why nobody should wait for the disk, or nil.
func (p *publisher) hangs() error {
	if p.health == nil {
		return nil
	}
	if err := p.health(); errors.Is(err, epoch.ErrHangs) {
		return unavailable(err)
	}
	return nil
}

// Run writes what is marked until Close.
func (p *publisher) Run() {
	defer close(p.done)
	for {
		select {
		case <-p.wake:
		case <-p.closing:
			_ = p.Publish() // told to who waits for it
			return
		}
		if p.Publish() == nil {
			continue
		}
		select {
		case <-time.After(retryFlush):
			p.wakeUp()
		case <-p.closing:
		}
	}
}

// Pending reports whether there is anything to Publish.
func (p *publisher) Pending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// Publish writes what is marked now. Run does it as often as needed; a caller that
// decides itself when things happen does it instead of Run. What the disk does not
// take stays marked: the table has it, so the disk has to have it too, once it can.
func (p *publisher) Publish() error {
	p.mu.Lock()
	nodes, f := p.pending, p.next
	p.current, p.writing = f, p.queued
	p.pending, p.next, p.asked = nil, newFlush(), false
	p.queued = make(map[string]struct{}, len(nodes))
	p.mu.Unlock()
	left, err := p.flush(nodes)
	if len(left) > 0 {
		p.Mark(left...) // before it counts as written
	}
	p.mu.Lock()
	p.current, p.writing = nil, nil
	p.mu.Unlock()
	f.err = err
	close(f.done)
	return err
}

// flush writes nodes and buckets, and returns those that the disk did not take.
func (p *publisher) flush(marked []string) (left []string, err error) {
	if len(marked) == 0 {
		return nil, unavailable(p.disk.Sync(context.Background()))
	}
	var nodes, buckets []string
	for _, name := range marked {
		if _, ok := epoch.BucketNumber(name); ok {
			buckets = append(buckets, name)
		} else {
			nodes = append(nodes, name)
		}
	}
	if len(buckets) > 0 {
		if err := unavailable(p.putSeen(context.Background(), buckets)); err != nil {
			return marked, err
		}
	}
	for at := 0; at < len(nodes); at += maxFlush {
		part := nodes[at:min(at+maxFlush, len(nodes))]
		writes := make([]epoch.Write, 0, len(part))
		for _, n := range part {
			writes = append(writes, epoch.Write{Node: n, State: p.state(n)})
		}
		if err := unavailable(p.disk.Put(context.Background(), writes)); err != nil {
			return nodes[at:], err
		}
	}
	return nil, nil
}

// unavailable says of an error of the history what it means for callers.
func unavailable(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, epoch.ErrClosed):
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Close writes what is marked and ends Run.
func (p *publisher) Close() {
	p.once.Do(func() { close(p.closing) })
	<-p.done
}
