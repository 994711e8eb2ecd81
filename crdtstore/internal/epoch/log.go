package epoch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// maxDelta is how many bytes of states go into one block. Blocks travel inside
// pubsub messages, whose cap is four times as much.
const maxDelta = 256 << 10

// Errors of a Log.
var (
	ErrClosed = errors.New("epoch: closed")
	// ErrMissing: a block builds on one that is not here. Fetch its past first.
	ErrMissing = errors.New("epoch: the past of a block is missing")
	// ErrEpoch: blocks of an epoch that this master is not in.
	ErrEpoch = errors.New("epoch: another epoch")
)

// Options configure a Log.
type Options struct {
	Dir    string // created where it is missing
	Master string // id of this master: the owner of the keys that Put writes
	NoSync bool   // return from Put before the writes are on stable storage
	Logger *slog.Logger
	// Apply is called for every state that is on disk at Open, and later for
	// every state in a block from another master; it is verified. It may be called while a turn
	// is under way, so it must not call the Log.
	Apply func(node string, s record.State)
	// Announce is called with the blocks that Put made, while they are being
	// brought to stable storage.
	Announce func(number uint64, blocks []dag.Block)
}

// Write is a state to be written for a node.
type Write struct {
	Node  string
	State record.State
}

// Log is the history of the record plane. Its methods may be called
// concurrently; Put, Deliver and Adopt take turns.
type Log struct {
	opts   Options
	closed sync.Once

	turn   sync.Mutex
	broken error // an error that only opening again can mend

	// mu is held for reading while cur is used outside of a turn, and for writing
	// while it is replaced or closed.
	mu  sync.RWMutex
	cur *epoch
	old []uint64 // epochs whose directories are still there

	unwell atomic.Pointer[error] // why the last write failed

	written, synced atomic.Uint64 // turns that were written, and of these on stable storage
}

// Open opens the newest epoch below the directory, or the first, and calls
// Apply for every state in it and in those before it.
func Open(ctx context.Context, opts Options) (*Log, error) {
	if err := tidy(opts.Dir); err != nil {
		return nil, fmt.Errorf("delete old epochs: %w", err)
	}
	all, err := numbers(opts.Dir)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		all = []uint64{1}
	}
	l := &Log{opts: opts}
	cutoff := int64(0)
	for i, n := range all {
		e, err := open(ctx, opts.Dir, n, opts.Logger)
		if err != nil {
			return nil, err
		}
		results, err := e.look(ctx)
		if err == nil {
			err = each(ctx, results, func(k string, v []byte) { l.apply(k, v) })
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read epoch %s: %w", e.path, err), e.close())
		}
		if cutoff = max(cutoff, e.cutoff.Load()); i == len(all)-1 {
			l.cur = e
			break
		}
		l.old = append(l.old, n)
		if err := e.close(); err != nil {
			return nil, err
		}
	}
	// A crash may have come between opening an epoch and writing its cutoff.
	if err := l.cur.raise(cutoff); err != nil {
		return nil, errors.Join(err, l.cur.close())
	}
	return l, nil
}

// apply hands one value on, unless it is not one of ours. It cannot be refused:
// the block around it has a place in the history.
func (l *Log) apply(key string, value []byte) (node string, ok bool) {
	node, _, ok = splitKey(key)
	if !ok || record.ValidNodeID(node) != nil {
		l.opts.Logger.Warn("unknown key in the history", "key", key)
		return "", false
	}
	s, err := record.Decode(string(value))
	if err != nil {
		l.opts.Logger.Warn("unreadable state in the history", "key", key, "err", err)
		return "", false
	}
	l.opts.Apply(node, s.Verified(node))
	return node, true
}

// Number is the number of the epoch that is written to.
func (l *Log) Number() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.cur.number
}

// Cutoff is the moment before which nothing is remembered, in Unix milliseconds; 0:
// everything is.
func (l *Log) Cutoff() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.cur.cutoff.Load()
}

// Put writes states and returns when they are on disk (see Options.NoSync). No
// node may occur twice. It returns the nodes whose write did not prevail inside
// its key, because an older block of this master stands higher in the history:
// they have to be put again. After an error the states may or may not be found
// on disk and on other masters later.
func (l *Log) Put(ctx context.Context, writes []Write) (again []string, err error) {
	e, made, again, err := l.put(ctx, writes)
	if err != nil {
		return again, err
	}
	// Announced while the disk is still at work, for it takes longer than the
	// network. Should this process or the machine die in between, others have
	// blocks of ours that we have lost, and bring them back to us; see Deliver.
	if l.opts.Announce != nil {
		l.opts.Announce(e.number, made)
	}
	if l.opts.NoSync {
		return again, nil
	}
	return again, l.sync(ctx, e)
}

func (l *Log) put(ctx context.Context, writes []Write) (e *epoch, made []dag.Block, again []string, err error) {
	l.turn.Lock()
	defer l.turn.Unlock()
	e = l.cur
	if err := l.ready(ctx); err != nil {
		return e, nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return e, nil, nil, err
	}
	// From here on the turn is finished whatever the caller's context says.
	ctx = context.WithoutCancel(ctx)
	clear(e.prevails)
	e.feed.collect(true)
	defer e.feed.collect(false)
	for len(writes) > 0 {
		n, err := l.commit(ctx, e, writes)
		if err != nil {
			// go-ds-crdt may hold on to the failed delta and add it to the next.
			return e, nil, nil, l.breaks(err)
		}
		e.entries.Add(int64(n))
		for _, w := range writes[:n] {
			if !e.prevails[stateKey(w.Node, l.opts.Master).String()] {
				again = append(again, w.Node)
			}
		}
		writes = writes[n:]
	}
	if err := l.flush(ctx, e); err != nil {
		return e, nil, nil, err
	}
	for _, c := range e.feed.take() {
		b, err := e.blocks.block(ctx, c)
		if err != nil {
			return e, made, again, err
		}
		made = append(made, b)
	}
	return e, made, again, nil
}

// ready begins a turn. What an earlier turn could not write down goes first, so
// that no more piles up in memory while the disk takes nothing.
func (l *Log) ready(ctx context.Context) error {
	if l.broken != nil {
		return l.broken
	}
	if l.Health() != nil {
		return l.flush(context.WithoutCancel(ctx), l.cur)
	}
	return nil
}

// breaks ends all writing after an error in the middle of a turn. What the turn
// has staged is dropped: half a block must not reach the disk.
func (l *Log) breaks(err error) error {
	err = fmt.Errorf("history: %w", err)
	l.broken = err
	l.unwell.Store(&err)
	l.cur.staged.drop()
	return err
}

// commit puts as many writes as fit into one block, and returns how many.
func (l *Log) commit(ctx context.Context, e *epoch, writes []Write) (int, error) {
	b, err := e.crdt.Batch(ctx)
	if err != nil {
		return 0, err
	}
	n, size := 0, 0
	for _, w := range writes {
		key, value := stateKey(w.Node, l.opts.Master), w.State.Encode()
		if size += len(key.String()) + len(value) + 16; n > 0 && size > maxDelta {
			break
		}
		if err := b.Put(ctx, key, value); err != nil {
			return 0, err
		}
		n++
	}
	return n, b.Commit(ctx)
}

// Deliver applies blocks of other masters; each must build only on blocks that
// are here or come before it in the list, else ErrMissing is returned, with
// those before it applied. It returns the nodes whose keys of this master the
// blocks write. Such blocks are of a past that this master has lost in a crash,
// and they may stand higher in the history than what it has put since: the
// caller has to see whether [Log.Own] still holds what it should, and put it
// again where it does not.
//
// Blocks of another epoch are refused with ErrEpoch.
func (l *Log) Deliver(ctx context.Context, number uint64, list []dag.Block) (own []string, err error) {
	l.turn.Lock()
	defer l.turn.Unlock()
	if err := l.ready(ctx); err != nil {
		return nil, err
	}
	e := l.cur
	if number != e.number {
		return nil, fmt.Errorf("%w: %d, this master is in %d", ErrEpoch, number, e.number)
	}
	ctx = context.WithoutCancel(ctx)
	var heads []cid.Cid
	heights := make(map[cid.Cid]uint64, len(list))
	for _, b := range list {
		nodes, isNew, storeErr := l.store(ctx, e, b, heights)
		if storeErr != nil {
			err = storeErr
			break
		}
		if isNew {
			heads, own = append(heads, b.Cid), append(own, nodes...)
		}
	}
	if len(heads) == 0 {
		return nil, err
	}
	// The first block into an empty history goes alone: go-ds-crdt makes every
	// head of the first payload that it sees a head of its own.
	first := 0
	if len(e.crdt.InternalStats(ctx).Heads) == 0 {
		first = 1
	}
	for _, part := range [][]cid.Cid{heads[:first], heads[first:]} {
		if len(part) == 0 {
			continue
		}
		if err := e.apply(ctx, part); err != nil {
			return nil, l.breaks(err)
		}
	}
	if flushErr := l.flush(ctx, e); flushErr != nil {
		err = flushErr // it is applied all the same, so own has to be told
	}
	slices.Sort(own)
	return slices.Compact(own), err
}

// store stages a block and hands on its states. It returns the nodes whose key
// of this master the block writes. heights remembers those of the blocks that
// were stored in this turn.
func (l *Log) store(ctx context.Context, e *epoch, b dag.Block, heights map[cid.Cid]uint64) (own []string, isNew bool, err error) {
	if has, err := e.blocks.has(ctx, b.Cid); err != nil || has {
		return nil, false, err
	}
	below := uint64(0)
	for _, c := range b.Links {
		if has, err := e.blocks.has(ctx, c); err != nil {
			return nil, false, err
		} else if !has {
			return nil, false, fmt.Errorf("%w: %s", ErrMissing, b.Cid)
		}
		h, ok := heights[c]
		if !ok {
			past, err := e.blocks.block(ctx, c)
			if err != nil {
				return nil, false, err
			}
			h = past.Height
		}
		below = max(below, h)
	}
	// Everything here relies on a block standing one above its past: the order in
	// which blocks are sent, and that what is written next stands above all.
	if b.Height != below+1 {
		return nil, false, fmt.Errorf("%w: %s says height %d, and stands on %d", dag.ErrBlock, b.Cid, b.Height, below)
	}
	elements, err := b.Elements()
	if err != nil {
		return nil, false, err
	}
	if err := e.blocks.put(ctx, b.Cid, b.Raw); err != nil {
		return nil, false, err
	}
	heights[b.Cid] = b.Height
	e.entries.Add(int64(len(elements)))
	for _, el := range elements {
		node, ok := l.apply(el.Key, el.Value)
		if ok && strings.HasSuffix(el.Key, "/"+l.opts.Master) {
			own = append(own, node)
		}
	}
	return own, true, nil
}

// flush writes what is staged into the file system. That the log is well again
// only shows when what was written can be synced too.
func (l *Log) flush(ctx context.Context, e *epoch) error {
	l.written.Add(1)
	err := e.staged.flush(ctx)
	if err != nil || l.opts.NoSync {
		return l.noted(err)
	}
	return nil
}

// sync waits until what an epoch holds is on stable storage. An epoch that was
// left meanwhile is so already.
func (l *Log) sync(ctx context.Context, e *epoch) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if e != l.cur {
		return nil
	}
	written := l.written.Load()
	if err := l.noted(e.base.Sync(context.WithoutCancel(ctx), ds.NewKey("/"))); err != nil {
		return err
	}
	for {
		if was := l.synced.Load(); was >= written || l.synced.CompareAndSwap(was, written) {
			return nil
		}
	}
}

// noted remembers whether the disk takes what it is given.
func (l *Log) noted(err error) error {
	if err != nil {
		err = fmt.Errorf("write to disk: %w", err)
		l.unwell.Store(&err)
		return err
	}
	l.unwell.Store(nil)
	return nil
}

// Health returns why the log cannot be written to, or nil.
func (l *Log) Health() error {
	if err := l.unwell.Load(); err != nil {
		return *err
	}
	return nil
}

// Own returns the state that this master's key for a node holds on disk; the
// zero State where it holds none.
func (l *Log) Own(ctx context.Context, node string) (record.State, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	v, err := l.cur.crdt.Get(ctx, stateKey(node, l.opts.Master))
	if errors.Is(err, ds.ErrNotFound) {
		return record.State{}, nil
	} else if err != nil {
		return record.State{}, err
	}
	return record.Decode(string(v))
}

// Heads returns the blocks that no other block builds on.
func (l *Log) Heads() []cid.Cid {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.cur.crdt.InternalStats(context.Background()).Heads
}

// Has reports whether a block, and so all its past, is here.
func (l *Log) Has(ctx context.Context, c cid.Cid) (bool, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.cur.blocks.has(ctx, c)
}

// Block returns a block that is here.
func (l *Log) Block(ctx context.Context, c cid.Cid) (dag.Block, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.cur.blocks.block(ctx, c)
}

// Close writes down what is staged and closes the files. It is idempotent.
func (l *Log) Close() (err error) {
	l.closed.Do(func() {
		l.turn.Lock()
		defer l.turn.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.broken = ErrClosed
		err = l.cur.close()
	})
	return err
}
