package watch

import (
	"context"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Tick is how often statuses are compared with what they were, to tell watchers. It adds
// to the time until the change of a silent node is published, not to what a reader sees:
// statuses are computed when they are read.
const Tick = 500 * time.Millisecond

// Grid is what statuses are found out from. All of it is called by one goroutine.
type Grid interface {
	// Changed returns the nodes whose records have changed since it was called last;
	// false: any may have.
	Changed() (ids []string, ok bool)
	// At fixes the instant for which Status is asked from here on. It reports whether
	// anything has changed since it was called last by which all nodes are judged, such
	// as which masters are reachable.
	At(now time.Time) (all bool)
	// Status returns how a node lives, and for how long that holds if it is not heard
	// meanwhile; where ends is false it holds until then.
	Status(e *table.Entry) (status record.Status, holds time.Duration, ends bool)
}

// StatusOptions are what [NewStatuses] needs.
type StatusOptions struct {
	Grid  Grid
	Table *table.Table
	Board *liveness.Board
	// OfflineAfter is for how long a node that this master hears itself stays online.
	OfflineAfter time.Duration
	// Began is an instant before any other that is asked for.
	Began time.Time
}

// Statuses turns changes of status, which happen by the mere passing of time, into
// changes. It does not look at all nodes at every tick, for there may be a hundred
// thousand: a status changes when its time has come, which is known beforehand, or because
// the node was heard or its record has changed. All nodes are looked at only where
// something changes by which all are judged. It is for one goroutine.
type Statuses struct {
	StatusOptions
	nodes map[string]*node
	due   map[int64][]*node // nodes to look at, by tick
	tick  int64             // that was looked at last
}

// node is what was found last of a node.
type node struct {
	id     string
	status record.Status
	due    int64 // tick at which to look again; 0: when it is heard
}

// NewStatuses takes the statuses as they are, which is no change.
func NewStatuses(o StatusOptions) *Statuses {
	s := &Statuses{StatusOptions: o, nodes: map[string]*node{}, due: map[int64][]*node{}}
	s.Step(time.Now(), func(string, record.Status) {})
	return s
}

// Run publishes changes until ctx ends.
func (s *Statuses) Run(ctx context.Context, publish func(id string, is record.Status)) {
	tick := time.NewTicker(Tick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.Step(time.Now(), publish)
	}
}

// Step brings the statuses up to date, and publishes each that is another than it was,
// that of a new node too: the first change of such a node is published before its first
// sign of life counts.
func (s *Statuses) Step(now time.Time, publish func(id string, is record.Status)) {
	last := s.tick
	s.tick = s.at(now)
	// Before the instant is fixed, so that what happens later is seen in the next tick.
	woken := s.Board.Woken()
	changed, ok := s.Grid.Changed()
	if s.Grid.At(now) || !ok || len(s.nodes) == 0 {
		for e := range s.Table.All() {
			s.look(now, e.ID, publish)
		}
	} else {
		for _, id := range woken {
			s.look(now, id, publish)
		}
		for _, id := range changed {
			s.look(now, id, publish)
		}
	}
	for t := last + 1; t <= s.tick; t++ {
		for _, n := range s.due[t] {
			if n.due == t && !s.heard(n) {
				s.look(now, n.id, publish)
			}
		}
		delete(s.due, t)
	}
}

// at is the tick in which an instant is.
func (s *Statuses) at(t time.Time) int64 { return int64(t.Sub(s.Began) / Tick) }

// look compares a node's status with what it was.
func (s *Statuses) look(now time.Time, id string, publish func(string, record.Status)) {
	e := s.Table.Get(id)
	if e == nil { // dropped for good, or only heard yet; its record is a change
		delete(s.nodes, id)
		return
	}
	status, holds, ends := s.Grid.Status(e)
	if status != record.Online {
		// A sign of life from here on wakes; one just before that is seen now.
		s.Board.WakeOn(e.ID)
		status, holds, ends = s.Grid.Status(e)
	}
	n := s.nodes[e.ID]
	if n == nil {
		n = &node{id: e.ID}
		s.nodes[e.ID] = n
	}
	if ends && !e.Removed {
		s.schedule(n, s.at(now.Add(holds))+1)
	} else {
		n.due = 0
	}
	if n.status != status {
		n.status = status
		publish(e.ID, status)
	}
}

// heard reports whether an online node was heard by this master itself recently enough to
// be online for longer, and schedules it for then. This is what nearly every look finds.
func (s *Statuses) heard(n *node) bool {
	if n.status != record.Online {
		return false
	}
	due := s.at(s.Board.Direct(n.id).Add(s.OfflineAfter)) + 1
	if due <= s.tick {
		return false
	}
	s.schedule(n, due)
	return true
}

// schedule has a node looked at in a later tick. Where it is looked at before that anyway,
// it is early enough then to see that time has moved on.
func (s *Statuses) schedule(n *node, due int64) {
	if n.due <= s.tick || due < n.due {
		n.due = due
		s.due[due] = append(s.due[due], n)
	}
}

// Scheduled returns how many ticks have nodes to look at.
func (s *Statuses) Scheduled() int { return len(s.due) }
