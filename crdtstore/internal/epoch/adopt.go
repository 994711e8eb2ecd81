package epoch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"path/filepath"
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
	l.turn.Lock()
	defer l.turn.Unlock()
	if l.shut {
		return ErrClosed
	}
	was := l.cur
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
	how := l.how(number, false)
	how.cutoff = max(cutoff, was.cutoff.Load())
	if !exists(epochPath(l.opts.Dir, number)) { // else it was made and not opened
		if err := how.create(); err != nil {
			return err
		}
	}
	next, err := how.open(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.old = append(l.old, was.number)
	l.setCur(next)
	l.unwell.Store(nil)
	if err := was.close(); err != nil {
		// All that it holds is in the caller's table, and will be put again. Who
		// waits for a sync of it has to hear of it.
		was.spoil(fmt.Errorf("write to disk: %w", err))
		l.opts.Logger.Warn("an epoch was not closed cleanly", "epoch", was.number, "err", err)
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
	l.turn.Lock()
	if l.shut {
		l.turn.Unlock()
		return ErrClosed
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	e, results, err := l.lookSynced(ctx)
	l.turn.Unlock() // what is read is a snapshot
	if err != nil {
		return err
	}
	// What cannot be read holds nothing.
	err = e.each(ctx, results, func(key string, value []byte, good bool) {
		_ = Decode(key, value, func(node string, s record.State) { f(node, s, good) })
	})
	return errors.Join(err, e.trouble())
}

// lookSynced looks at what is on stable storage: what a failing disk may still take
// back must not be counted on.
func (l *Log) lookSynced(ctx context.Context) (*epoch, query.Results, error) {
	e, err := l.reading()
	if err == nil {
		err = e.trouble()
	}
	if err == nil {
		err = e.base.Sync(ctx, ds.NewKey("/"))
	}
	if err == nil {
		err = e.trouble()
	}
	if err != nil {
		return nil, nil, err
	}
	results, err := e.look(ctx)
	return e, results, err
}

// Retire deletes the directories of the epochs before the newest. The caller must
// have seen that Missing returns nothing for all that it knows (INV-6).
func (l *Log) Retire(ctx context.Context) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	if err := first(&l.newer.any); err != nil {
		return fmt.Errorf("old epochs are kept: %w", err)
	}
	// What makes the old ones superfluous has to be on stable storage first.
	if err := l.sync(ctx, l.cur); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var left []uint64
	var errs []error
	for _, n := range l.old {
		if err := remove(epochPath(l.opts.Dir, n)); err != nil {
			left, errs = append(left, n), append(errs, err)
		}
	}
	l.old = left
	return errors.Join(errs...)
}

// Stats describes the history.
type Stats struct {
	Number  uint64
	Created time.Time // of the newest epoch
	Entries int       // elements ever written in the newest epoch
	Written uint64    // bytes of their values
	Old     int       // epochs before it that are still on disk
	Bytes   uint64    // on disk, all epochs
}

// Stats returns what the history takes.
func (l *Log) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := Stats{
		Number: l.cur.number, Created: l.cur.created, Entries: int(l.cur.tally.entries.Load()),
		Written: uint64(l.cur.tally.bytes.Load()), Old: len(l.old),
	}
	if l.cur.closed {
		s.Bytes = dirSize(l.cur.path)
	} else {
		s.Bytes = l.cur.base.DB.Metrics().DiskSpaceUsage()
	}
	for _, n := range l.old {
		s.Bytes += dirSize(epochPath(l.opts.Dir, n))
	}
	return s
}

func dirSize(path string) (bytes uint64) {
	// What vanishes while it is looked at does not count.
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				bytes += uint64(info.Size())
			}
		}
		return nil
	})
	return bytes
}
