package epoch

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// maxJump bounds how far ahead another master may take this one at once; an epoch
// lasts minutes at the least.
const maxJump = 1 << 32

// Adopt moves the history to an epoch of a greater number; lesser numbers change
// nothing. What Put and Deliver are called with from then on belongs to it. The
// directories of the epochs before stay until Retire. The new epoch begins empty:
// the caller has to see that what Missing returns is put again.
//
// The cutoff of the newest epoch becomes the greatest of its own, that of the epoch
// before, and the given one.
func (l *Log) Adopt(ctx context.Context, number uint64, cutoff int64) error {
	if err := l.turnover.take(ctx); err != nil {
		return err
	}
	defer l.turnover.release()
	if l.isClosed() {
		return ErrClosed
	}
	was := l.newest()
	if number < was.number {
		return nil
	}
	if number == was.number {
		return was.raise(cutoff)
	}
	if number-was.number > maxJump {
		return fmt.Errorf("%w: %d is out of reach from %d", ErrEpoch, number, was.number)
	}
	if err := l.room(); err != nil {
		return err
	}
	opener := l.opener(number, false)
	opener.cutoff = max(cutoff, was.cutoff.Load())
	if !exists(l.fs, epochPath(l.opts.Dir, number)) { // else it was made and not opened
		if err := opener.create(); err != nil {
			return err
		}
	}
	next, err := opener.open(ctx)
	if err != nil {
		return err
	}
	p := &leftEpochs{old: was}
	if before := l.left.Load(); before != nil {
		p.before = before.wait(context.WithoutCancel(ctx)) // it has ended
	}
	l.left.Store(p) // before anything goes to the new one
	l.mu.Lock()
	l.old = append(slices.Clip(l.old), was.number)
	l.mu.Unlock()
	l.replace(next)
	// From here on the new one is written to, while the old one is brought to stable
	// storage. Who waits for a sync of it waits for that.
	if err := l.leave(was); err != nil {
		// All that it holds is in the caller's table, and will be put again.
		l.opts.Logger.Warn("an epoch was not closed cleanly", "epoch", was.number, "err", err)
	}
	if p.wait(context.WithoutCancel(ctx)) == nil {
		l.left.Store(nil)
	}
	return nil
}

// Missing returns the nodes whose state is not dominated by what the newest epoch
// holds on this master's disk. It reads all of it.
func (l *Log) Missing(ctx context.Context, states iter.Seq2[string, record.State]) ([]string, error) {
	missing := map[string]record.State{}
	for node, s := range states {
		missing[node] = s
	}
	joined := map[string]record.State{} // of those that no value dominates alone
	err := l.held(ctx, func(node string, s record.State, good bool) {
		want, wanted := missing[node]
		if !wanted {
			return
		}
		if !good && !s.SameClaims(want) { // what is wanted is good
			s = s.Verified(node)
		}
		if was, ok := joined[node]; ok {
			s = record.Join(was, s)
		}
		if s.Dominates(want) {
			delete(missing, node)
			delete(joined, node)
		} else {
			joined[node] = s
		}
	})
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(missing)), nil
}

// held calls f with what the newest epoch holds on stable storage; what is not good is
// not verified.
func (l *Log) held(ctx context.Context, f func(node string, s record.State, good bool)) error {
	if l.isClosed() {
		return ErrClosed
	}
	e, err := l.use()
	if err != nil {
		return err
	}
	defer e.release()
	results, err := l.lookSynced(ctx, e)
	if err != nil {
		return err
	}
	// What cannot be read holds nothing.
	err = e.each(ctx, results, func(key string, value []byte, good bool) {
		_ = Decode(key, value, func(node string, s record.State) { f(node, s, good) })
	})
	return errors.Join(err, e.trouble())
}

// lookSynced looks at what is on stable storage: what a failing disk, or the loss of
// power, may still take back must not be counted on. The look comes before the sync, so
// that nothing is seen that comes behind the sync.
func (l *Log) lookSynced(ctx context.Context, e *epoch) (query.Results, error) {
	results, err := e.look(ctx)
	if err != nil {
		return nil, err
	}
	if err = e.trouble(); err == nil {
		err = e.base.Sync(ctx, ds.NewKey("/"))
	}
	if err == nil {
		err = e.trouble()
	}
	if err != nil {
		return nil, errors.Join(err, results.Close())
	}
	return results, nil
}

// Retire deletes the directories of the epochs before the newest. The caller must
// have seen that Missing returns nothing for all that it knows (INV-6). What was put and
// delivered before the call is on stable storage before the first of them goes.
func (l *Log) Retire(ctx context.Context) error {
	if err := l.turnover.take(ctx); err != nil {
		return err
	}
	defer l.turnover.release()
	if l.isClosed() {
		return ErrClosed
	}
	if err := first(&l.newer.any); err != nil {
		return fmt.Errorf("old epochs are kept: %w", err)
	}
	if err := l.sync(ctx, l.newest()); err != nil {
		return err
	}
	l.mu.RLock()
	old := l.old
	l.mu.RUnlock()
	var left []uint64
	var errs []error
	for _, n := range old {
		if err := remove(l.fs, epochPath(l.opts.Dir, n)); err != nil {
			left, errs = append(left, n), append(errs, err)
		}
	}
	l.mu.Lock()
	l.old = left
	l.mu.Unlock()
	if len(left) == 0 {
		l.left.Store(nil) // the newest holds all of it
	}
	return errors.Join(errs...)
}

// Stats describes the history.
type Stats struct {
	Number  uint64
	Created time.Time // of the newest epoch
	Entries int       // elements ever written in the newest epoch
	Written uint64    // bytes of their values
	Old     int       // epochs before it that are still on disk
	Bytes   uint64    // on disk, all epochs, as measured about a second ago
	// Large: the newest epoch has a block that is too large to be sent, as older programs
	// wrote them. What it says is here, but others cannot get it, nor what builds on it.
	Large bool
}

// Stats returns what the history takes. It never waits.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return Stats{
		Number: l.cur.number, Created: l.cur.created, Entries: int(l.cur.tally.entries.Load()),
		Written: uint64(l.cur.tally.bytes.Load()), Old: len(l.old), Bytes: l.bytes.Load(),
		Large: l.cur.large.Load(),
	}
}

// measure finds out what the epochs take on disk.
func (l *Log) measure() {
	var bytes uint64
	if e, err := l.use(); err == nil {
		bytes = e.base.DB.Metrics().DiskSpaceUsage()
		e.release()
	} else {
		bytes = dirSize(l.fs, l.newest().path)
	}
	l.mu.RLock()
	old := l.old
	l.mu.RUnlock()
	for _, n := range old {
		bytes += dirSize(l.fs, epochPath(l.opts.Dir, n))
	}
	l.bytes.Store(bytes)
}
