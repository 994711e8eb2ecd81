package crdtstore

import (
	"context"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// statusTick is how often statuses are compared with what they were, to tell
// watchers. It adds to the time until a silent node's event, not to what a
// reader sees: statuses are computed when they are read.
const statusTick = 500 * time.Millisecond

// watchLiveness turns changes of status, which happen by the mere passing of
// time, into events. was are the statuses that need not be told.
func (s *Store) watchLiveness(ctx context.Context, was map[string]Status) {
	tick := time.NewTicker(statusTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		// The first event of a new node comes before its first sign of life is
		// counted, so the status of a node that was not there is told too.
		for _, id := range s.statuses(was) {
			s.hub.add(change{kind: NodeEvent, id: id})
		}
	}
}

// statuses brings the statuses of all nodes up to date, and returns the nodes
// whose status is another than it was.
func (s *Store) statuses(was map[string]Status) (changed []string) {
	now := time.Now()
	var buf scratch
	for e := range s.table.All() {
		v := s.vital(now, e, &buf)
		if was[e.ID] != v.status {
			was[e.ID] = v.status
			changed = append(changed, e.ID)
		}
	}
	return changed
}

// checkpoint now and then writes down when nodes were last seen, for display
// and retention after all masters have been down. Each node is written by one
// master: the one that heard it last, as far as this master knows.
func (s *Store) checkpoint(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Checkpoint)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		var buf scratch
		for e := range s.table.All() {
			v := s.vital(now, e, &buf)
			seen := v.lastSeen.UnixMilli()
			if e.Removed || len(v.Heard) == 0 || seen <= e.State.LastSeen || !s.heardLast(v.Heard) {
				continue
			}
			s.table.Join(e.ID, record.State{LastSeen: seen})
			s.replica.Mark(e.ID)
		}
	}
}

// heardLast reports whether this master is the one to write down when a node was
// last seen: of the reachable masters that heard it, the one of the least id.
func (s *Store) heardLast(heard []liveness.Heard) bool {
	writer := ""
	for _, h := range heard {
		if s.reachable(h.Master) && (writer == "" || h.Master < writer) {
			writer = h.Master
		}
	}
	return writer == s.ID()
}
