package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/backup"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// restoreBatch is how many nodes Restore has written before it reads the next.
const restoreBatch = 1000

// BackupInfo sums up a backup or a restore.
type BackupInfo struct {
	Nodes   int `json:"nodes"`   // in the file, removed ones included
	Changed int `json:"changed"` // nodes of which Restore learned something
}

// Backup writes the records as they are, those of removed nodes included. Records
// that change while it runs are written as they were or as they are; each is whole.
// It blocks nobody. Errors: those of w, and the context's.
func (s *Store) Backup(ctx context.Context, w io.Writer) (BackupInfo, error) {
	nodes, err := backup.Write(orBackground(ctx), w, func(yield func(string, record.State) bool) {
		for e := range s.table.All() {
			if !yield(e.ID, e.State) {
				return
			}
		}
	})
	return BackupInfo{Nodes: nodes}, err
}

// Restore joins the records of a backup into the store and returns when they are
// on disk. It merges: a record that is newer here stays, and a node that was
// removed here stays removed. Restoring one file on several masters, or twice,
// gives equal records. The file is read to its end and checked before anything
// changes; for that it is kept in a temporary file in Dir. Errors: ErrBackup,
// ErrUnavailable, ErrClosed, the context's, those of r.
func (s *Store) Restore(ctx context.Context, r io.Reader) (BackupInfo, error) {
	ctx = orBackground(ctx)
	spool, err := os.CreateTemp(s.cfg.Dir, ".restore-*")
	if err != nil {
		return BackupInfo{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer func() { _, _ = spool.Close(), os.Remove(spool.Name()) }()
	nothing := func(string, record.State) error { return nil }
	if _, err := backup.Read(ctx, io.TeeReader(r, spooler{spool}), nothing); err != nil {
		return BackupInfo{}, err
	}
	if err := errors.Join(s.replica.Health(), s.collisions.Yielded()); err != nil {
		return BackupInfo{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return BackupInfo{}, err
	}
	var changed int
	var waiting []*replica.Flush
	waitWritten := func() error {
		var errs []error
		for _, f := range slices.Compact(waiting) {
			errs = append(errs, s.replica.Wait(ctx, f))
		}
		waiting = waiting[:0]
		return errors.Join(errs...)
	}
	nodes, err := backup.Read(ctx, spool, func(node string, st record.State) error {
		f, news := s.replica.Learned(node, st.Verified(node))
		if news {
			changed++
		}
		if f == nil {
			return nil
		}
		if waiting = append(waiting, f); len(waiting) < restoreBatch {
			return nil
		}
		return waitWritten()
	})
	return BackupInfo{Nodes: nodes, Changed: changed}, errors.Join(err, waitWritten())
}

// spooler is a file on this master's disk.
type spooler struct{ w io.Writer }

func (s spooler) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return n, err
}
