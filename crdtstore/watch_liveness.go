package crdtstore

import (
	"context"
	"slices"
	"time"

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
	was  map[string]*watched
	due  map[int64][]*watched // nodes to look at, by tick
	tick int64                // that was looked at last
	read uint64               // position in the log of changes
	seen []observer           // the masters, at the last tick
	// preserving is whether silence was doubted at the last tick.
	preserving bool
	moment     *moment // of the tick
	vital      vital
}

// watched is what was last found of a node.
type watched struct {
	id     string
	status Status
	due    int64 // when to look at it again; 0: when something is heard of it
}

// newWatch takes the statuses as they are, which is no news.
func newWatch(s *Store) *watch {
	w := &watch{s: s, was: map[string]*watched{}, due: map[int64][]*watched{}}
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
		w.step(time.Now(), func(id string) {
			w.s.hub.add(change{kind: NodeChange, id: id})
			w.s.publishedStatus(id, w.was[id].status)
		})
	}
}

// step brings the statuses up to date, and tells of each node whose status is
// another than it was.
func (w *watch) step(now time.Time, tell func(id string)) {
	last := w.tick
	w.tick = w.at(now)
	roused := w.s.board.Woken()
	news, read, ok := w.s.hub.since(w.read)
	w.read = read
	observers := w.s.observers()
	w.s.preserve(now)
	w.moment = w.s.at(now)                          // behind preserve, which decides how silence is judged
	preserving := w.s.preserver.state.Load() != nil // an operator's word ends it too
	turned := preserving != w.preserving
	w.preserving = preserving
	if len(w.was) == 0 || turned || !ok || !slices.Equal(observers, w.seen) {
		w.seen = observers
		for e := range w.s.table.All() {
			w.look(now, e.ID, tell)
		}
	} else {
		for _, id := range roused {
			w.look(now, id, tell)
		}
		for _, c := range news {
			if c.kind == NodeChange {
				w.look(now, c.id, tell)
			}
		}
	}
	for t := last + 1; t <= w.tick; t++ {
		for _, is := range w.due[t] {
			if is.due == t && !w.heard(is) {
				w.look(now, is.id, tell)
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
	v := &w.vital
	w.moment.vital(e, v)
	if v.status != Online {
		// What is heard from here on is told; what was heard just before that is
		// seen now.
		w.s.board.WakeOn(e.ID)
		w.moment.vital(e, v)
	}
	is := w.was[e.ID]
	if is == nil {
		is = &watched{id: e.ID}
		w.was[e.ID] = is
	}
	if holds, ends := record.LivenessHolds(v.witnesses, w.moment.by(v.witnesses)); ends && !e.Removed {
		w.schedule(is, w.at(now.Add(holds))+1)
	} else {
		is.due = 0
	}
	if is.status != v.status {
		is.status = v.status
		tell(e.ID)
	}
}

// heard reports whether an online node was heard by this master itself recently
// enough to be online for longer, and sees to it that it is looked at then. This
// is what comes of nearly every look.
func (w *watch) heard(is *watched) bool {
	if is.status != Online {
		return false
	}
	due := w.at(w.s.board.Direct(is.id).Add(w.s.cfg.OfflineAfter)) + 1
	if due <= w.tick {
		return false
	}
	w.schedule(is, due)
	return true
}

// schedule has a node looked at in a later tick. Where it is looked at before that
// anyway, it is early enough then to see that time has moved on.
func (w *watch) schedule(is *watched, due int64) {
	if is.due <= w.tick || due < is.due {
		is.due = due
		w.due[due] = append(w.due[due], is)
	}
}

// checkpoint now and then has it written down when nodes were last seen.
func (s *Store) checkpoint(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Checkpoint)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.replica.Checkpoint()
		case <-ctx.Done():
			return
		}
	}
}
