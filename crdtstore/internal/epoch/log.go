package epoch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	ds "github.com/ipfs/go-datastore"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// maxDelta is how many bytes of states go into one block. Blocks travel inside
// pubsub messages, whose cap is four times as much.
const maxDelta = 256 << 10

// maxTurn is how many bytes of blocks of others are applied and written down at
// once: what goes well into one batch of Pebble, with its keys.
const maxTurn = 256 << 10

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
	// Elsewhere: other masters have the records too, or most of them. Then an epoch
	// that is damaged is set aside, and what can be read of it is taken; else Open
	// refuses it.
	Elsewhere bool
	// FS is the file system for Pebble's files; nil: the machine's.
	FS vfs.FS
	// Apply is called for every state that is on disk at Open, and later for
	// every state in a block from another master, by several goroutines at once; the
	// states are verified. It may be called while a turn is under way, so it must not
	// call the Log.
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
//
// A log whose disk takes no writes refuses them with an error that says why, as
// Health does, and is read all the same. It looks by itself whether the disk takes
// writes again; see Reopened.
type Log struct {
	opts   Options
	closed sync.Once
	aside  []string           // epochs that were set aside; only Open changes it
	stop   context.CancelFunc // ends mend
	mended chan struct{}      // closed when mend has ended

	turn sync.Mutex
	shut bool // by Close

	// mu is held for reading while cur is used outside of a turn, and for writing
	// while it is replaced or closed.
	mu  sync.RWMutex
	cur *epoch
	old []uint64 // epochs whose directories are still there

	at       atomic.Pointer[epoch] // cur, for those who must not wait for mu
	unwell   atomic.Pointer[error] // why the last write failed
	full     atomic.Pointer[error] // why there is no room for writes
	reopened atomic.Uint64
	newer    newer

	// Blocks of others, counted: whose states were handed on, that are in the file
	// system, and that are on stable storage.
	taken, written, synced atomic.Uint64
}

// Open opens the newest epoch below the directory, or the first, and calls
// Apply for every state in it and in those before it. On a disk that takes no
// writes the epochs are only read; Health then says why.
func Open(ctx context.Context, opts Options) (*Log, error) {
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	if err := tidy(opts.Dir); err != nil {
		opts.Logger.Warn("cannot delete what is left of old epochs", "err", err)
	}
	all, err := numbers(opts.Dir)
	if err != nil {
		return nil, err
	}
	l := &Log{opts: opts, mended: make(chan struct{})}
	newest, cutoff := uint64(1), int64(0)
	for i, n := range all {
		newest = n
		e, err := l.load(ctx, n, i < len(all)-1)
		if err == nil {
			cutoff = max(cutoff, e.cutoff.Load())
		}
		if errors.Is(err, ErrDamaged) && opts.Elsewhere {
			err = l.setAside(n, err)
		} else if err == nil && i == len(all)-1 {
			l.setCur(e)
		} else if err == nil {
			l.old = append(l.old, n)
			err = e.close()
		}
		if err != nil {
			return nil, err
		}
	}
	err = first(&l.newer.own)
	if err == nil && opts.Elsewhere {
		err = l.recall(ctx)
	}
	if err != nil {
		if l.cur != nil {
			err = errors.Join(err, l.cur.close())
		}
		return nil, err
	}
	if l.cur == nil {
		how := l.how(newest, false)
		err := os.MkdirAll(opts.Dir, 0o700)
		if err == nil {
			err = how.create()
		}
		if err != nil {
			return nil, err
		}
		e, err := how.open(ctx)
		if err != nil {
			return nil, err
		}
		l.setCur(e)
	}
	// An epoch that was set aside may have been the one that had the cutoff.
	if err := l.cur.raise(cutoff); err != nil {
		opts.Logger.Warn("cannot write the cutoff of the epoch", "err", err)
	}
	var background context.Context
	background, l.stop = context.WithCancel(context.Background())
	go l.mend(background)
	return l, nil
}

func (l *Log) how(number uint64, readOnly bool) how {
	return how{dir: l.opts.Dir, number: number, master: l.opts.Master, readOnly: readOnly, fs: l.opts.FS, log: l.opts.Logger}
}

func (l *Log) setCur(e *epoch) {
	l.cur = e
	l.at.Store(e)
}

// load opens an epoch and hands on its states; only to read it, where that is asked
// for or the disk takes no writes.
func (l *Log) load(ctx context.Context, number uint64, readOnly bool) (*epoch, error) {
	e, err := l.how(number, readOnly).open(ctx)
	if err != nil && !readOnly && refused(err) {
		var readErr error
		if e, readErr = l.how(number, true).open(ctx); readErr != nil {
			return nil, errors.Join(err, readErr)
		}
		l.opts.Logger.Error("the disk takes no writes, the history is only read", "err", err)
		e.spoil(err)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	var some []value
	results, err := e.look(ctx)
	if err == nil {
		err = e.each(ctx, results, func(k string, v []byte, good bool) {
			if some = append(some, value{k, v, good}); len(some) == atOnce {
				l.applyAll(some)
				some = some[:0]
			}
		})
		l.applyAll(some)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read epoch %s: %w", e.path, damage(e.path, err)), e.close())
	}
	return e, nil
}

// value is what the history holds under a key; good says that nothing has to be verified.
type value struct {
	key   string
	bytes []byte
	good  bool
}

// atOnce is how many values are handed on together when an epoch is read: enough for
// all processors, and little memory.
const atOnce = 1024

// applyAll is apply for many values, by as many goroutines as there are processors: to
// verify and to merge a state takes longer than to read it. It returns whether all are
// good.
func (l *Log) applyAll(list []value) bool {
	const share = 16 // for fewer no goroutine is worth its while
	workers := min(runtime.GOMAXPROCS(0), (len(list)+share-1)/share)
	var next, bad atomic.Int64
	work := func() {
		for i := int(next.Add(share)) - share; i < len(list); i = int(next.Add(share)) - share {
			for _, v := range list[i:min(i+share, len(list))] {
				if !l.apply(v.key, v.bytes, v.good) {
					bad.Add(1)
				}
			}
		}
	}
	var others sync.WaitGroup
	for range workers - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	return bad.Load() == 0
}

// apply hands one value on, unless it is not one of ours. It cannot be refused:
// the block around it has a place in the history. What is not known to be good is
// verified; apply returns whether it is.
func (l *Log) apply(key string, value []byte, good bool) bool {
	verified := true
	err := Decode(key, value, func(node string, s record.State) {
		if !good {
			claimed := s
			s = s.Verified(node)
			verified = verified && s.SameClaims(claimed)
		}
		l.opts.Apply(node, s)
	})
	if err != nil {
		l.opts.Logger.Warn("something in the history cannot be read", "key", key, "err", err)
		l.newer.note(l.opts.Master, key, err)
	}
	return err == nil && verified
}

// Number is the number of the epoch that is written to.
func (l *Log) Number() uint64 { return l.at.Load().number }

// Cutoff is the moment before which nothing is remembered, in Unix milliseconds; 0:
// everything is.
func (l *Log) Cutoff() int64 { return l.at.Load().cutoff.Load() }

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
	l.turn.Lock()
	defer l.turn.Unlock()
	e = l.cur
	if err := l.ready(ctx); err != nil {
		return e, nil, err
	}
	if err := ctx.Err(); err != nil {
		return e, nil, err
	}
	// From here on the turn is finished whatever the caller's context says.
	ctx = context.WithoutCancel(ctx)
	e.feed.collect(true)
	defer e.feed.collect(false)
	e.once.ours()
	defer e.once.release()
	for len(writes) > 0 {
		n, err := l.commit(ctx, e, writes)
		if err != nil {
			// go-ds-crdt may hold on to the failed delta and add it to the next.
			return e, nil, l.breaks(err)
		}
		writes = writes[n:]
		// A block at a time, for a batch that does not fit into Pebble's memory
		// table takes a slow way and a log of its own.
		if err := l.flush(ctx, e); err != nil {
			return e, nil, err
		}
	}
	for _, c := range e.feed.take() {
		b, err := e.blocks.block(ctx, c)
		if err != nil {
			return e, made, err
		}
		made = append(made, b)
	}
	return e, made, nil
}

// ready begins a turn. What an earlier turn could not write down goes first, so
// that no more piles up in memory while the disk takes nothing.
func (l *Log) ready(ctx context.Context) error {
	if l.shut {
		return ErrClosed
	}
	if err := l.cur.trouble(); err != nil {
		return err
	}
	if err := l.room(); err != nil {
		return err
	}
	if l.unwell.Load() != nil {
		return l.flush(context.WithoutCancel(ctx), l.cur)
	}
	return nil
}

// breaks gives the epoch up after an error in the middle of a turn, until it is
// opened again. What the turn has staged is dropped: half a block must not reach the
// disk.
func (l *Log) breaks(err error) error {
	err = fmt.Errorf("history: %w", damage(l.cur.path, err))
	l.cur.spoil(err)
	l.cur.staged.drop()
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
	// Something may have been read wrong in this turn without an error coming of it.
	if err := e.trouble(); err != nil {
		e.staged.drop()
		return err
	}
	err := e.staged.flush(ctx)
	if err == nil {
		err = e.trouble()
	}
	if err == nil {
		l.written.Store(l.taken.Load())
	}
	if err != nil || l.opts.NoSync {
		return l.noted(err)
	}
	return nil
}

// sync waits until what an epoch holds is on stable storage. An epoch that was left
// for a newer one is so already, if it was not given up.
func (l *Log) sync(ctx context.Context, e *epoch) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var err error
	written := l.written.Load()
	if e == l.cur && !e.closed {
		err = e.base.Sync(context.WithoutCancel(ctx), ds.NewKey("/"))
	}
	if err == nil {
		err = e.trouble() // behind a shut gate every sync succeeds
	}
	if e != l.cur {
		return err
	}
	if err := l.noted(err); err != nil {
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
	if err == nil {
		l.unwell.Store(nil)
		return nil
	}
	if l.at.Load().trouble() == nil {
		err = fmt.Errorf("write to disk: %w", err)
	}
	l.unwell.Store(&err)
	return err
}

// Health returns why the log cannot be written to, or nil. That the disk is full says
// more than which file did not find room.
func (l *Log) Health() error {
	trouble := l.at.Load().trouble()
	if full := l.full.Load(); full != nil && (trouble == nil || errors.Is(trouble, syscall.ENOSPC)) {
		return *full
	}
	if unwell := l.unwell.Load(); unwell != nil && trouble == nil {
		return *unwell
	}
	return trouble
}

// Close writes down what is staged and closes the files. It is idempotent.
func (l *Log) Close() (err error) {
	l.closed.Do(func() {
		l.stop()
		<-l.mended
		l.turn.Lock()
		defer l.turn.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.shut = true
		err = l.cur.close()
	})
	return err
}
