package epoch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// maxDelta is how many bytes of states go into one block. Blocks travel inside
// pubsub messages, whose cap is four times as much.
const maxDelta = 256 << 10

// maxTxnBytes is how many bytes of blocks of others are applied and written down at
// once: what goes well into one batch of Pebble, with its keys.
const maxTxnBytes = 256 << 10

// Errors of a Log.
var (
	ErrClosed = errors.New("epoch: closed")
	// ErrMissing: a block builds on one that is not here. Fetch its past first.
	ErrMissing = errors.New("epoch: the past of a block is missing")
	// ErrEpoch: blocks of an epoch that this master is not in.
	ErrEpoch = errors.New("epoch: another epoch")
	// ErrHangs: a call to the disk does not return. Nothing is known of what waits for it.
	ErrHangs = errors.New("does not answer")
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
	// FS is the file system that Dir is in; nil: the machine's.
	FS vfs.FS
	// hangAfter is how long a call to it may take until the disk is said to hang; 0:
	// 8 s. Only tests set it.
	hangAfter time.Duration
	// Apply is called for every state that is on disk at Open, and later for
	// every state in a block from another master, by several goroutines at once; the
	// states are verified. It may be called while a transaction is under way, so it must not
	// call the Log.
	Apply func(node string, s record.State)
	// Announce is called with the blocks that Put made, while they are being
	// brought to stable storage.
	Announce func(number uint64, blocks []dag.Block)
}

// Log is the history of the record plane. Its methods may be called
// concurrently.
//
// A log whose disk takes no writes refuses them with an error that says why, as
// Health does, and is read all the same. It looks by itself whether the disk takes
// writes again; see Reopened.
//
// A disk may also hang: a call to it does not return, and whoever made it can only
// wait. So these never wait for the disk, nor for anybody who does: Number, Cutoff,
// Heads, Stats, Health, Reopened and Unsynced. All others may wait for as long as it
// hangs; while they wait for each other they leave when their context ends.
//
// Three locks, taken in this order:
//
//   - turnover, while the newest epoch is replaced, opened again or closed, and while old
//     ones are deleted. Held across all the disk work of that.
//   - txn, while blocks are made or applied, one after the other. Held across reading
//     what they build on and across handing them to the file system; not across a sync.
//   - mu, which guards fields in memory and is held across nothing.
//
// Whoever reads or writes an epoch has it counted by use or hold, and it is closed when
// nobody does any more.
type Log struct {
	opts  Options
	fs    *watchdog          // Options.FS
	aside []string           // epochs that were set aside; only Open changes it
	stop  context.CancelFunc // ends recoverLoop and logHealth
	loops sync.WaitGroup     // recoverLoop and logHealth

	turnover lock // held while epochs are made, opened, closed or deleted
	txn      lock // held for a write transaction

	mu     sync.RWMutex // guards closed, cur and old
	closed bool         // by Close
	cur    *epoch
	old    []uint64 // epochs whose directories are still there

	left     atomic.Pointer[leftEpochs] // the epochs before cur; nil: all of them is on stable storage
	failure  atomic.Pointer[error]      // why the last write failed
	full     atomic.Pointer[error]      // why there is no room for writes
	bytes    atomic.Uint64              // see Stats.Bytes
	reopened atomic.Uint64
	newer    newer
}

// leftEpochs is the closing of an epoch that was left for a newer one.
type leftEpochs struct {
	old    *epoch
	before error // why an epoch before that may not be on stable storage
}

// wait returns, once the epoch is closed, why it or one before may not be on stable
// storage.
func (p *leftEpochs) wait(ctx context.Context) error {
	select {
	case <-p.old.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := p.old.trouble(); err != nil {
		return err
	}
	return p.before
}

// Open opens the newest epoch below the directory, or the first, and calls
// Apply for every state in it and in those before it. On a disk that takes no
// writes the epochs are only read; Health then says why.
func Open(ctx context.Context, opts Options) (*Log, error) {
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	l := &Log{opts: opts, fs: newWatchdog(opts.FS, cmp.Or(opts.hangAfter, hangAfter)), turnover: newLock(), txn: newLock()}
	if err := tidy(l.fs, opts.Dir); err != nil {
		opts.Logger.Warn("cannot delete what is left of old epochs", "err", err)
	}
	all, err := numbers(l.fs, opts.Dir)
	if err != nil {
		return nil, err
	}
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
			l.cur = e
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
		opener := l.opener(newest, false)
		err := l.fs.MkdirAll(opts.Dir, 0o700)
		if err == nil { // or a power cut takes the directory with all that is in it
			err = syncDir(l.fs, l.fs.PathDir(opts.Dir))
		}
		if err == nil {
			err = opener.create()
		}
		if err != nil {
			return nil, err
		}
		if l.cur, err = opener.open(ctx); err != nil {
			return nil, err
		}
	}
	// An epoch that was set aside may have been the one that had the cutoff.
	if err := l.cur.raise(cutoff); err != nil {
		opts.Logger.Warn("cannot write the cutoff of the epoch", "err", err)
	}
	l.measure()
	var background context.Context
	background, l.stop = context.WithCancel(context.Background())
	l.loops.Go(func() { l.recoverLoop(background) })
	l.loops.Go(func() { l.logHealth(background) })
	return l, nil
}

func (l *Log) opener(number uint64, readOnly bool) opener {
	return opener{dir: l.opts.Dir, number: number, master: l.opts.Master, readOnly: readOnly, fs: l.fs, log: l.opts.Logger}
}

// newest returns the newest epoch, to look at what it has in memory.
func (l *Log) newest() *epoch {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.cur
}

// use returns the newest epoch to be read or written, until it is released.
func (l *Log) use() (*epoch, error) {
	e := l.newest()
	for !l.hold(e) {
		if err := e.trouble(); err != nil {
			return nil, err
		}
		next := l.newest()
		if next == e {
			return nil, ErrClosed
		}
		e = next
	}
	return e, nil
}

// hold keeps an epoch from being closed until it is released; false: it is being closed.
func (l *Log) hold(e *epoch) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if e.leaving {
		return false
	}
	e.users.Add(1)
	return true
}

// leave closes an epoch once nobody uses it. The caller holds turnover.
func (l *Log) leave(e *epoch) error {
	l.mu.Lock()
	e.leaving = true
	l.mu.Unlock()
	e.users.Wait()
	return e.close()
}

// replace makes an epoch the newest. The caller holds turnover.
func (l *Log) replace(e *epoch) {
	l.mu.Lock()
	l.cur = e
	l.mu.Unlock()
	l.failure.Store(nil)
}

// load opens an epoch and hands on its states; only to read it, where that is asked
// for or the disk takes no writes.
func (l *Log) load(ctx context.Context, number uint64, readOnly bool) (*epoch, error) {
	e, err := l.opener(number, readOnly).open(ctx)
	if err != nil && !readOnly && refused(err) {
		var readErr error
		if e, readErr = l.opener(number, true).open(ctx); readErr != nil {
			return nil, errors.Join(err, readErr)
		}
		l.opts.Logger.Error("the disk takes no writes, the history is only read", "err", err)
		e.poison(err)
		err = nil
	}
	if err != nil {
		return nil, err
	}
	var some []value
	results, err := e.look(ctx)
	if err == nil {
		err = e.each(ctx, results, func(k string, v []byte, good bool) {
			if len(v) > record.MaxState {
				e.large.Store(true)
			}
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
func (l *Log) Number() uint64 { return l.newest().number }

// Cutoff is the moment before which nothing is remembered, in Unix milliseconds; 0:
// everything is.
func (l *Log) Cutoff() int64 { return l.newest().cutoff.Load() }

// noteOutcome remembers whether the disk takes what an epoch is given, if that is the newest.
func (l *Log) noteOutcome(e *epoch, err error) error {
	if err != nil && e.trouble() == nil {
		err = fmt.Errorf("write to disk: %w", err)
	}
	switch {
	case e != l.newest():
	case err == nil:
		l.failure.Store(nil)
	default:
		l.failure.Store(&err)
	}
	return err
}

// Health returns why the log cannot be written to, or nil. That the disk is full says
// more than which file did not find room. With ErrHangs it may be written to again
// without having been opened again.
func (l *Log) Health() error {
	if err := l.fs.hangs(l.opts.Dir); err != nil {
		return err
	}
	trouble := l.newest().trouble()
	if full := l.full.Load(); full != nil && (trouble == nil || errors.Is(trouble, syscall.ENOSPC)) {
		return *full
	}
	if failure := l.failure.Load(); failure != nil && trouble == nil {
		return *failure
	}
	return trouble
}

// Waiting is for how long the disk has not answered to the call that takes longest; 0: it
// has answered to all.
func (l *Log) Waiting() time.Duration {
	if c, running := l.fs.oldest(); running {
		return time.Since(c.since)
	}
	return 0
}

// Close writes down what is staged and closes the files. It is idempotent. It waits for
// the disk, however long that hangs.
func (l *Log) Close() error {
	l.stop()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.loops.Wait()
	background := context.Background()
	_ = l.turnover.take(background) // which does not end
	defer l.turnover.release()
	return l.leave(l.newest())
}

// isClosed reports whether Close was called.
func (l *Log) isClosed() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.closed
}
