package crdtstore

import (
	"context"
	"slices"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/watch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// statuses publishes the statuses that change by the passing of time. It is for one
// goroutine.
type statuses struct {
	s *Store
	*watch.Statuses
	read uint64 // position in the buffer of changes
	// By these silence is judged, as of the last tick.
	observers  []membership.Observer
	preserving bool
	moment     *moment
	vital      vital
}

var _ watch.Grid = (*statuses)(nil)

// newStatuses takes the statuses as they are, which is no change.
func newStatuses(s *Store) *statuses {
	w := &statuses{s: s}
	w.Statuses = watch.NewStatuses(watch.StatusOptions{
		Grid: w, Table: s.table, Board: s.board, OfflineAfter: s.cfg.OfflineAfter, Began: s.since,
	})
	return w
}

func (w *statuses) run(ctx context.Context) {
	w.Run(ctx, func(id string, is Status) {
		w.s.changes.Add(change{kind: NodeChange, id: id})
		if e := w.s.table.Get(id); e != nil && !e.Removed { // else its removal says it
			w.s.events.StatusChanged(id, is)
		}
	})
}

// Changed returns the nodes that were published as changed since it was called last.
func (w *statuses) Changed() (ids []string, ok bool) {
	changes, read, ok := w.s.changes.Since(w.read)
	w.read = read
	for _, c := range changes {
		if c.kind == NodeChange {
			ids = append(ids, c.id)
		}
	}
	return ids, ok
}

// At has preservation begin or end where it is time, and fixes the instant.
func (w *statuses) At(now time.Time) (all bool) {
	observers := w.s.members.Observers(now)
	w.s.preserver.Look(now)
	w.moment = w.s.at(now)                   // behind Look, which decides how silence is judged
	_, preserving := w.s.preserver.Current() // an operator ends it too
	all = preserving != w.preserving || !slices.Equal(observers, w.observers)
	w.preserving, w.observers = preserving, observers
	return all
}

// Status is that of a node at the instant.
func (w *statuses) Status(e *table.Entry) (_ Status, holds time.Duration, ends bool) {
	w.moment.vital(e, &w.vital)
	holds, ends = record.LivenessHolds(w.vital.observers, w.moment.by(w.vital.observers))
	return w.vital.status, holds, ends
}
