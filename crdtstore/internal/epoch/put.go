package epoch

import (
	"context"
	"fmt"

	ds "github.com/ipfs/go-datastore"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Write is a state to be written for a node.
type Write struct {
	Node  string
	State record.State
}

// Put writes states and returns when they are on disk (see Options.NoSync). No
// node may occur twice, and a state must dominate what was put of the node before.
// After an error the states may or may not be found on disk and on other masters
// later.
func (l *Log) Put(ctx context.Context, writes []Write) error {
	list := make([]keyed, len(writes))
	for i, w := range writes {
		list[i] = keyed{func(writer string) string { return StateKey(w.Node, writer) }, func() []byte { return w.State.Encode() }}
	}
	return l.write(ctx, list)
}

// keyed is what goes under a key of this master's own.
type keyed struct {
	key   func(writer string) string
	value func() []byte
}

func (l *Log) write(ctx context.Context, list []keyed) error {
	e, made, err := l.put(ctx, list)
	if err != nil {
		return err
	}
	// Announced while the disk is still at work, for it takes longer than the
	// network. Should this process or the machine die in between, others have
	// blocks of ours that we have lost, and bring them back to us; see Writer.
	if l.opts.Announce != nil {
		l.opts.Announce(e.number, made)
	}
	if l.opts.NoSync {
		return nil
	}
	return l.sync(ctx, e)
}

func (l *Log) put(ctx context.Context, writes []keyed) (e *epoch, made []dag.Block, err error) {
	if err := l.txn.take(ctx); err != nil {
		return nil, nil, err
	}
	defer l.txn.release()
	if e, err = l.ready(ctx); err != nil {
		return nil, nil, err
	}
	defer e.release()
	// From here on the transaction is finished whatever the caller's context says.
	ctx = context.WithoutCancel(ctx)
	e.broadcaster.collect(true)
	defer e.broadcaster.collect(false)
	e.values.beginOwn()
	defer e.values.endTxn()
	for len(writes) > 0 {
		n, err := l.commit(ctx, e, writes)
		if err != nil {
			// go-ds-crdt may hold on to the failed delta and add it to the next.
			return e, nil, l.breaks(e, err)
		}
		writes = writes[n:]
		// A block at a time, for a batch that does not fit into Pebble's memory
		// table takes a slow way and a log of its own.
		if err := l.flush(ctx, e); err != nil {
			return e, nil, err
		}
	}
	for _, c := range e.broadcaster.take() {
		b, err := e.blocks.block(ctx, c)
		if err != nil {
			return e, made, err
		}
		made = append(made, b)
	}
	return e, made, nil
}

// ready begins a transaction, and returns the epoch that it is in, to be released. What an
// earlier transaction could not write down goes first, so that no more piles up in memory
// while the disk takes nothing.
func (l *Log) ready(ctx context.Context) (*epoch, error) {
	if l.isClosed() {
		return nil, ErrClosed
	}
	e, err := l.use()
	if err != nil {
		return nil, err
	}
	if err = e.trouble(); err == nil {
		err = l.room()
	}
	if err == nil && l.failure.Load() != nil {
		err = l.flush(context.WithoutCancel(ctx), e)
	}
	if err != nil {
		e.release()
		return nil, err
	}
	return e, nil
}

// breaks gives the epoch up after an error in the middle of a transaction, until it is
// opened again. What the transaction has staged is dropped: half a block must not reach the
// disk.
func (l *Log) breaks(e *epoch, err error) error {
	err = fmt.Errorf("history: %w", damage(e.path, err))
	e.poison(err)
	e.staged.drop()
	return err
}

// commit puts as many writes as fit into one block, and returns how many.
func (l *Log) commit(ctx context.Context, e *epoch, writes []keyed) (int, error) {
	b, err := e.crdt.Batch(ctx)
	if err != nil {
		return 0, err
	}
	n, size := 0, 0
	for _, w := range writes {
		key, value := ds.RawKey(w.key(e.writer)), w.value()
		if size += len(key.String()) + len(value) + 16; n > 0 && size > maxDelta {
			break
		}
		if err := b.Put(ctx, key, value); err != nil {
			return 0, err
		}
		e.tally.add(value)
		n++
	}
	if err := b.Commit(ctx); err != nil {
		return 0, err
	}
	e.tally.save(e.staged)
	return n, nil
}

// flush writes what is staged into the file system. That the log is well again
// only shows when what was written can be synced too.
func (l *Log) flush(ctx context.Context, e *epoch) error {
	// Something may have been read wrong in this transaction without an error coming of it.
	if err := e.trouble(); err != nil {
		e.staged.drop()
		return err
	}
	err := e.staged.flush(ctx)
	if err == nil {
		err = e.trouble()
	}
	if err == nil {
		e.written.Store(e.taken.Load())
	}
	if err != nil || l.opts.NoSync {
		return l.noteOutcome(e, err)
	}
	return nil
}

// sync waits until what an epoch holds is on stable storage. One that is left for a
// newer one is so when it was closed, if it was not given up.
func (l *Log) sync(ctx context.Context, e *epoch) error {
	if !l.hold(e) {
		select {
		case <-e.ended:
			return e.trouble()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer e.release()
	written := e.written.Load()
	err := e.base.Sync(context.WithoutCancel(ctx), ds.NewKey("/"))
	if err == nil {
		err = e.trouble() // after a failure every sync succeeds
	}
	if err := l.noteOutcome(e, err); err != nil {
		return err
	}
	for {
		if was := e.synced.Load(); was >= written || e.synced.CompareAndSwap(was, written) {
			return nil
		}
	}
}
