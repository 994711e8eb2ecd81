package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// maxFlush bounds how many nodes are written in one turn of the history, and so
// the memory that it takes and how long others wait for theirs.
const maxFlush = 2048

// retryFlush is how long after a failure the disk is tried again.
const retryFlush = time.Second

// publisher is the one writer of the history. Callers mark nodes whose state
// changed; it writes the state that the table then holds. Batching is natural,
// not timed: an idle publisher commits at once, and what is marked while a
// commit runs makes the next batch, with one element per node. What waits is a
// set of nodes that the table holds already, and whoever changes a node waits for
// its flush, so a slow disk slows its writers down and no bound is needed.
type publisher struct {
	put   func(context.Context, []epoch.Write) (again []string, err error)
	state func(node string) record.State

	mu      sync.Mutex
	pending []string            // in order of marking
	next    *flush              // the flush that pending will be part of
	queued  map[string]struct{} // pending, as a set
	current *flush              // the flush that is running, nil when idle
	writing map[string]struct{} // what it writes
	joining map[string]int      // running joins, by node
	joined  chan struct{}       // closed when the next one ends; nil while nobody waits for it
	wake    chan struct{}
	closed  bool
	done    chan struct{}
}

// flush is one batch on its way; done is closed when err is known.
type flush struct {
	done chan struct{}
	err  error
}

func newPublisher(put func(context.Context, []epoch.Write) ([]string, error), state func(string) record.State) *publisher {
	p := &publisher{
		put: put, state: state,
		next: newFlush(), queued: map[string]struct{}{}, joining: map[string]int{},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go p.run()
	return p
}

func newFlush() *flush { return &flush{done: make(chan struct{})} }

// mark has a node's state written by the next flush, without waiting for it.
func (p *publisher) mark(nodes ...string) *flush {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range nodes {
		if _, ok := p.queued[n]; !ok {
			p.queued[n] = struct{}{}
			p.pending = append(p.pending, n)
		}
	}
	f := p.next
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return f
}

// change runs join, which changes a node's state in the table and says whether it
// did, and returns when the state is written. Who finds the change there already
// waits for it too: that the table holds it does not mean that the disk does.
func (p *publisher) change(ctx context.Context, node string, join func() bool) error {
	p.mu.Lock()
	p.joining[node]++
	p.mu.Unlock()
	var f *flush
	if join() {
		f = p.mark(node)
	}
	p.mu.Lock()
	if p.joining[node]--; p.joining[node] == 0 {
		delete(p.joining, node)
	}
	if p.joined != nil {
		close(p.joined)
		p.joined = nil
	}
	p.mu.Unlock()
	if f == nil {
		return p.settle(ctx, node)
	}
	return p.wait(ctx, f)
}

// settle waits until nothing that was marked for a node is still on its way.
func (p *publisher) settle(ctx context.Context, node string) error {
	p.mu.Lock()
	for p.joining[node] > 0 {
		if p.joined == nil {
			p.joined = make(chan struct{})
		}
		joined := p.joined
		p.mu.Unlock()
		select {
		case <-joined:
		case <-ctx.Done():
			return ctx.Err()
		}
		p.mu.Lock()
	}
	f := p.current
	_, writing := p.writing[node]
	if _, ok := p.queued[node]; ok {
		f, writing = p.next, true
	}
	p.mu.Unlock()
	if !writing {
		return nil
	}
	return p.wait(ctx, f)
}

func (p *publisher) wait(ctx context.Context, f *flush) error {
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
	}
}

func (p *publisher) run() {
	defer close(p.done)
	for range p.wake {
		p.mu.Lock()
		nodes, f, closed := p.pending, p.next, p.closed
		p.current, p.writing = f, p.queued
		p.pending, p.next = nil, newFlush()
		p.queued = make(map[string]struct{}, len(nodes))
		p.mu.Unlock()
		if len(nodes) > 0 {
			f.err = p.flush(nodes)
		}
		p.mu.Lock()
		p.current, p.writing = nil, nil
		p.mu.Unlock()
		close(f.done)
		if closed {
			return
		}
	}
}

func (p *publisher) flush(nodes []string) error {
	for at := 0; at < len(nodes); at += maxFlush {
		part := nodes[at:min(at+maxFlush, len(nodes))]
		writes := make([]epoch.Write, 0, len(part))
		for _, n := range part {
			writes = append(writes, epoch.Write{Node: n, State: p.state(n)})
		}
		again, err := p.put(context.Background(), writes)
		switch {
		case errors.Is(err, epoch.ErrClosed):
			return ErrClosed
		case err != nil:
			// The table has it, so the disk has to have it too, once it can. The
			// store refuses further changes until then.
			rest := slices.Clone(nodes[at:])
			time.AfterFunc(retryFlush, func() { p.mark(rest...) })
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if len(again) > 0 {
			p.mark(again...)
		}
	}
	return nil
}

// close writes what is pending and stops.
func (p *publisher) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	<-p.done
}
