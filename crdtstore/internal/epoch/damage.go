package epoch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
)

// ErrDamaged: a file of the history is missing, or does not hold what was written
// to it.
var ErrDamaged = errors.New("damaged")

const advice = `move the directory of the epoch away to start without it; see "When a disk fails" in docs/operating.md`

// damaged is the error for a file that does not hold what was written to it.
func damaged(path string, problem error) error {
	return fmt.Errorf("%w: %s: %w; %s", ErrDamaged, path, problem, advice)
}

// damage turns errors of reading a file, or the database in a directory, that mean
// damage into ErrDamaged, and returns others as they are.
func damage(path string, err error) error {
	switch {
	case err == nil || errors.Is(err, ErrDamaged):
		return err
	case errors.Is(err, fs.ErrNotExist), pebble.IsCorruptionError(err):
		if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
			path = info.Path
		}
		return damaged(path, err)
	}
	return err
}

// openDamage is damage for an error of opening a database: whatever the system has
// no part in is damage too.
func openDamage(path string, err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, pebble.ErrDBDoesNotExist):
		return damaged(path, errors.New("marker.manifest.* is missing"))
	case errors.Is(err, pebble.ErrDBNotPristine):
		return damaged(path, errors.New("marker.format-version.* is missing"))
	case err == nil, errors.As(err, &errno) && errno != syscall.ENOENT:
		return err
	}
	if err = damage(path, err); !errors.Is(err, ErrDamaged) {
		err = damaged(path, err)
	}
	return err
}

// asideSuffix is what the name of a directory ends in that was set aside.
const asideSuffix = ".damaged"

// setAside moves the directory of a damaged epoch out of the way, to be looked at by a
// person.
func (l *Log) setAside(number uint64, cause error) error {
	path := epochPath(l.opts.Dir, number)
	to := path + asideSuffix
	for i := 2; exists(l.fs, to); i++ {
		to = fmt.Sprintf("%s%s.%d", path, asideSuffix, i)
	}
	l.opts.Logger.Error("an epoch of the history is damaged and is set aside; what only this master knew may be lost",
		"cause", cause, "kept_as", to)
	if err := errors.Join(l.fs.Rename(path, to), syncDir(l.fs, l.opts.Dir)); err != nil {
		return errors.Join(cause, err)
	}
	return nil
}

// completeFile is what a directory that was set aside holds once nothing is expected
// of it any more.
const completeFile = "records-are-complete"

// recall takes what can be read of epochs that were set aside, in this run or an
// earlier one that ended before the records were complete again.
func (l *Log) recall(ctx context.Context) error {
	names, err := list(l.fs, l.opts.Dir)
	for _, name := range names {
		if !strings.Contains(name, asideSuffix) {
			continue
		}
		path := filepath.Join(l.opts.Dir, name)
		if exists(l.fs, filepath.Join(path, completeFile)) {
			l.opts.Logger.Warn("an epoch that was damaged is still here; delete it when nobody needs it", "kept_as", path)
			continue
		}
		n, err := l.salvage(ctx, path)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.opts.Logger.Warn("a damaged epoch was read as far as it goes", "kept_as", path, "values", n, "err", err)
		l.aside = append(l.aside, path)
		l.reopened.Store(1) // what was read has to be written again
	}
	return err
}

// salvage hands on the states that can be read of a damaged epoch. Whatever can be
// read was checked by Pebble, and an old state does no harm: it is joined.
func (l *Log) salvage(ctx context.Context, path string) (n int, err error) {
	e, opener := &epoch{path: path, fs: l.fs}, l.opener(0, true)
	opener.lenient = true
	if err := e.openDisk(opener, true); err != nil {
		return 0, err
	}
	results, err := e.look(ctx)
	if err == nil {
		e.staged = newStaged(e.base)
		e.values = newIndirect(e.staged)
		e.values.lenient = true
		err = e.each(ctx, results, func(k string, v []byte, _ bool) { l.apply(k, v, false); n++ })
	}
	return n, errors.Join(err, e.base.Close())
}

// SetAside returns the directories of damaged epochs that were set aside and for
// which the records were not complete again when the log was opened.
func (l *Log) SetAside() []string { return l.aside }

// Completed notes down that the records are complete without what was set aside.
func (l *Log) Completed() error {
	var errs []error
	for _, path := range l.aside {
		if err := writeFile(l.fs, filepath.Join(path, completeFile), nil); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err) // or a person has deleted it
		}
	}
	return errors.Join(errs...)
}
