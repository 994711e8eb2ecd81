package crdtstore

import (
	"context"
	"slices"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// statusTick is how often statuses are compared with what they were, to tell
// watchers. It adds to the time until a silent node's event, not to what a
// reader sees: statuses are computed when they are read.
const statusTick = 500 * time.Millisecond

// watch turns changes of status, which happen by the mere passing of time, into
// events. It does not look at all nodes at every tick, for there may be a hundred
// thousand: a status changes when its time has come, which is known beforehand, or
// because something was heard or written of the node. Only the coming and going of
// masters is looked at for all nodes.
type watch struct {
	s    *Store
	was  map[string]watched
	due  map[int64][]string // nodes to look at, by tick
	tick int64              // that was looked at last
	read uint64             // position in the event log
	live []string           // masters, at the last tick
	buf  scratch
}

// watched is what was last found of a node.
type watched struct {
	status Status
	due    int64 // when to look at it again; 0: when something is heard of it
}

// newWatch takes the statuses as they are, which is no news.
func newWatch(s *Store) *watch {
	w := &watch{s: s, was: map[string]watched{}, due: map[int64][]string{}}
	w.step(time.Now(), func(string) {})
	return w
}

func (w *watch) run(ctx context.Context) {
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
		w.step(time.Now(), func(id string) { w.s.hub.add(change{kind: NodeEvent, id: id}) })
	}
}

// step brings the statuses up to date, and tells of each node whose status is
// another than it was.
func (w *watch) step(now time.Time, tell func(id string)) {
	last := w.tick
	w.tick = w.at(now)
	roused := w.s.board.Roused()
	news, read, ok := w.s.hub.since(w.read)
	w.read = read
	live := w.s.live()
	if len(w.was) == 0 || !ok || !slices.Equal(live, w.live) {
		w.live = live
		for e := range w.s.table.All() {
			w.look(now, e.ID, tell)
		}
	} else {
		for _, id := range roused {
			w.look(now, id, tell)
		}
		for _, c := range news {
			if c.kind == NodeEvent {
				w.look(now, c.id, tell)
			}
		}
	}
	for t := last + 1; t <= w.tick; t++ {
		for _, id := range w.due[t] {
			if w.was[id].due == t {
				w.look(now, id, tell)
			}
		}
		delete(w.due, t)
	}
}

// at is the tick that a moment lies in.
func (w *watch) at(t time.Time) int64 { return int64(t.Sub(w.s.since) / statusTick) }

// look compares a node's status with what it was.
func (w *watch) look(now time.Time, id string, tell func(id string)) {
	e := w.s.table.Get(id)
	if e == nil { // dropped for good, or only heard of yet; its record is an event
		delete(w.was, id)
		return
	}
	v := w.s.vital(now, e, &w.buf)
	if v.status != Online {
		// What is heard from here on is told; what was heard just before that is
		// seen now.
		w.s.board.Await(e.ID)
		v = w.s.vital(now, e, &w.buf)
	}
	was, had := w.was[e.ID]
	is := watched{status: v.status, due: was.due}
	if holds, ends := record.LivenessHolds(v.witnesses, now.Sub(w.s.since), w.s.cfg.OfflineAfter); !ends || e.Removed {
		is.due = 0
	} else if due := w.at(now.Add(holds)) + 1; is.due <= w.tick || due < is.due {
		// Where it is looked at before that anyway, it is early enough then to see
		// that the time has moved on.
		is.due = due
		w.due[due] = append(w.due[due], e.ID)
	}
	if !had || was != is {
		w.was[e.ID] = is
	}
	if was.status != is.status {
		tell(e.ID)
	}
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
