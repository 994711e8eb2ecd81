package crdtstore

import (
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func init() {
	turnoverTick, assertDelay = 200*time.Millisecond, time.Second
}

// SetDisk has the history be on a file system that a test has made.
func SetDisk(cfg *Config, disk vfs.FS) { cfg.seams.Disk = disk }

// SetCloseWithin changes how long closing waits for the disk, and returns what it was.
func SetCloseWithin(d time.Duration) (was time.Duration) {
	was, closeWithin = closeWithin, d
	return was
}

// Inject lets a store hold a state that its history knows nothing of, as if the
// block with it had been lost elsewhere.
func (s *Store) Inject(node string, st record.State) { s.table.Join(node, st) }

// AllEvents returns what happened, the oldest first.
func (s *Store) AllEvents() (all []Event) {
	for q := (EventQuery{Limit: 1000}); ; {
		page, err := s.Events(q)
		if err != nil {
			panic(err)
		}
		all = append(all, page.Events...)
		if q.Cursor = page.NextCursor; q.Cursor == "" {
			slices.Reverse(all)
			return all
		}
	}
}

// Seeks returns the ids of the masters that this one looks for.
func (s *Store) Seeks() (ids []string) {
	for _, k := range s.cluster.Mesh().Contacts() {
		ids = append(ids, k.ID)
	}
	return ids
}

// Responsible returns the id of the master that does for a node what need be done only
// once.
func (s *Store) Responsible(nodeID string) string { return s.replica.Responsible(nodeID) }

// CountsClock reports whether the clock of another master counts in what time ends.
func (s *Store) CountsClock(id string) bool { return !s.replica.Agreement(id).Equal.IsZero() }
