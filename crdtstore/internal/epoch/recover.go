package epoch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// maxReserve is how many bytes are kept free on the disk, or an eighth of a small
	// one: enough for what is already acknowledged to be moved from the write-ahead
	// log into tables, and for these to be merged.
	maxReserve = 32 << 20
	// maxRetryAfter is how long after a failed attempt to open an epoch again the next
	// one is made, at most.
	maxRetryAfter = 10 * time.Second
)

// recoverEvery is how often a log looks whether its disk takes writes. A variable, so
// that tests need not wait as long.
var recoverEvery = time.Second

// refused reports whether an error means that the disk takes no writes. It may take
// them later, or be read as long as it does not.
func refused(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// room returns an error when the disk is too full to begin another transaction. Then what
// was begun still finds room, and Pebble's own work on its files too.
func (l *Log) room() error {
	disk, err := l.fs.GetDiskUsage(l.opts.Dir)
	if err != nil {
		return nil // who writes will see
	}
	reserve := min(maxReserve, disk.TotalBytes/8)
	if l.full.Load() != nil {
		reserve += reserve / 8 // not to and fro
	}
	if disk.AvailBytes >= reserve {
		l.full.Store(nil)
		return nil
	}
	err = fmt.Errorf("the disk of %s is full: %w: %.1f MiB are free, %.1f MiB are kept in reserve",
		l.opts.Dir, syscall.ENOSPC, float64(disk.AvailBytes)/(1<<20), float64(reserve)/(1<<20))
	l.full.Store(&err)
	return err
}

// recoverLoop looks after the disk until the log is closed: Health is to know of a full
// disk before anybody writes, and an epoch that was given up is opened again as soon
// as that may succeed. It waits for the disk.
func (l *Log) recoverLoop(ctx context.Context) {
	tick := time.NewTicker(recoverEvery)
	defer tick.Stop()
	var next time.Time
	retryAfter := recoverEvery
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		full := l.room()
		l.measure()
		trouble := l.newest().trouble()
		if trouble == nil {
			retryAfter = recoverEvery
			continue
		}
		if errors.Is(trouble, ErrDamaged) || time.Now().Before(next) {
			continue // damage does not go away; the caller moves to a new epoch
		}
		l.reopen(ctx, full == nil)
		if l.newest().trouble() != nil && full == nil {
			retryAfter = min(2*retryAfter, maxRetryAfter)
			next = time.Now().Add(retryAfter)
		}
	}
}

// logHealth logs when the log can no longer be written to, and when it can again. It never
// waits for the disk.
func (l *Log) logHealth(ctx context.Context) {
	tick := time.NewTicker(recoverEvery)
	defer tick.Stop()
	var logged error
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		health := l.Health()
		if (health == nil) == (logged == nil) {
			continue
		}
		if logged = health; health != nil {
			l.opts.Logger.Error("the history takes no writes", "err", health)
		} else {
			l.opts.Logger.Info("the history takes writes again")
		}
	}
}

// Reopened returns how many times the newest epoch was opened again after it had
// been given up. Each time it may hold less than was handed to Apply or put: the
// caller has to see that what Missing returns is put again.
func (l *Log) Reopened() uint64 { return l.reopened.Load() }

// reopen opens the newest epoch again: for writing where the disk seems to take it,
// else for reading only.
func (l *Log) reopen(ctx context.Context, hasRoom bool) {
	if l.turnover.take(ctx) != nil {
		return
	}
	defer l.turnover.release()
	was := l.newest()
	cause := was.trouble()
	if l.isClosed() || cause == nil {
		return
	}
	if hasRoom {
		if err := l.probe(); err != nil {
			hasRoom = false
			cause = err
		}
	}
	readable := was.readOnly && !was.leaving
	if !hasRoom && readable {
		return
	}
	if err := l.leave(was); err != nil {
		l.opts.Logger.Debug("an epoch that was given up was not closed cleanly", "epoch", was.number, "err", err)
	}
	if hasRoom {
		next, err := l.opener(was.number, false).open(ctx)
		if err == nil {
			l.replace(next)
			l.reopened.Add(1)
			return
		}
		cause = err
	}
	next, err := l.opener(was.number, true).open(ctx)
	if err != nil {
		if errors.Is(err, ErrDamaged) {
			cause = err
		}
		was.fault.Store(&cause)
		return
	}
	next.poison(cause)
	l.replace(next)
}

// probe finds out whether the disk takes writes, with a file that nobody needs.
func (l *Log) probe() error {
	path := filepath.Join(l.opts.Dir, "probe"+unfinished)
	f, err := l.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(make([]byte, 64<<10))
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close(), l.fs.Remove(path))
	}
	if err == nil {
		return nil
	}
	if at := (*fs.PathError)(nil); errors.As(err, &at) {
		err = at.Err // nobody knows that file
	}
	return fmt.Errorf("the disk of %s takes no writes: %w", l.opts.Dir, err)
}
