package crdtstore

import (
	"slices"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/events"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
)

// Event is something that happened in the grid, as this master saw it.
type Event struct {
	ID   uint64    `json:"id"`   // ascending, of this run of this master
	At   time.Time `json:"at"`   // by this master's clock, or when an operator set it by that of the master that was told
	Kind EventKind `json:"kind"` // what it is about
	Type string    `json:"type"` // one word, such as "offline"; see the Event constants
	// NodeID, VM (sid), Master (id) and By (who asked for it) are set where they matter.
	NodeID string `json:"node_id,omitempty"`
	VM     string `json:"vm,omitempty"`
	Master string `json:"master,omitempty"`
	By     string `json:"by,omitempty"`
	// More is how many of the same this one stands for, of which there were too many
	// at a time to list each. 0: it is about itself.
	More int    `json:"more,omitempty"`
	Text string `json:"text"` // for people: one sentence without a full stop
}

// EventKind is what an [Event] is about, as text.
type EventKind = events.Kind

// The kinds of events.
const (
	NodeEvent     EventKind = events.KindNode
	VMEvent       EventKind = events.KindVM
	MasterEvent   EventKind = events.KindMaster
	OperatorEvent EventKind = events.KindOperator // what an operator set, through whichever master
	GridEvent     EventKind = events.KindGrid     // all of it: mass silence, a split, a merge
)

// What happens to nodes.
const (
	EventNew      = events.TypeNew     // registered for the first time; also of a VM
	EventBack     = events.TypeBack    // registered anew after it was removed or had expired; also of a master
	EventOnline   = events.TypeOnline  // heard again
	EventSuspect  = events.TypeSuspect // who would know is gone; also of a master, which is silent
	EventOffline  = events.TypeOffline // nobody hears it
	EventExpired  = events.TypeExpired // removed by a master, for it was silent for too long
	EventConflict = "conflict"         // several machines claim its id
)

// What happens to VMs, beside EventNew.
const (
	EventChanged = events.TypeChanged // its state is another
	EventGone    = events.TypeGone
)

// What happens to masters, beside EventBack and EventSuspect.
const (
	EventJoined = events.TypeJoined // heard for the first time in this run
	EventDown   = events.TypeDown
	EventLeft   = events.TypeLeft // closed on purpose
)

// What operators ask for.
const (
	EventDrained    = events.TypeDrained
	EventUndrained  = events.TypeUndrained
	EventLabelled   = events.TypeLabelled
	EventUnlabelled = events.TypeUnlabelled // a label was taken away
	EventRemoved    = events.TypeRemoved
)

// What happens to the grid when masters cannot talk, and after it.
const (
	EventSplit  = events.TypeSplit  // another master holds something else, or cannot be reached
	EventMerged = events.TypeMerged // both hold the same again
)

// EventQuery chooses events: those that match all that is set. The zero
// EventQuery asks for the latest 50.
type EventQuery struct {
	Kind   EventKind `json:"kind"`    // empty: any
	NodeID string    `json:"node_id"` // empty: any
	Master string    `json:"master"`  // id or name; empty: any
	// Q matches, whatever the case, a part of the text, of what happened, of who asked
	// for it, or of the id of a node or VM.
	Q     string `json:"q"`
	Limit int    `json:"limit"` // 0: 50; at most 1,000
	// Cursor continues after the page that returned it, with what happened before. It
	// stays valid for this run of the store.
	Cursor string `json:"cursor"`
}

// EventPage is one page of events, the latest first.
type EventPage struct {
	Events     []Event `json:"events"`
	NextCursor string  `json:"next_cursor,omitempty"` // of the next page; empty: this is the last
}

// EventCount is how often something happened in this run, whether it is still in
// the log or not.
type EventCount struct {
	Kind  EventKind
	Type  string
	Count uint64
}

// Matches reports whether an event is one of those that are asked for, whose master
// must be given by id. Limit and Cursor do not matter.
func (q *EventQuery) Matches(e *Event) bool {
	return (*events.Query)(q).Matches((*events.Event)(e))
}

// makeEvents makes the event log, which publishes to the watchers of the store, and the
// history of splits.
func (s *Store) makeEvents() {
	s.splits = events.NewSplits(s.nameOf, func(node string) record.State { return s.replica.State(node) })
	s.events = events.New(events.Options{
		Run: s.changes.Run(), Self: s.text, Wall: s.cfg.seams.Wall, Name: s.nameOf, Node: s.Node,
		MasterStatus: func(id string) string {
			m, _ := s.Master(id)
			return string(m.Status)
		},
		Publish: func(e *events.Event) { s.changes.Add(change{kind: LogChange, event: (*Event)(e)}) },
	})
}

// logEvent logs an event of now.
func (s *Store) logEvent(e Event) { s.events.Add(events.Event(e)) }

// Events returns a page of what happened, the latest first, out of the log that this
// master keeps in memory: up to 5,000 events about nodes and VMs, and as many about
// operators, masters and the grid. Where more than a hundred of the same happen at a
// time to nodes or VMs, one event stands for the rest. What operators set is in
// the records, so all masters list it, and after a start too, as far as it still stands.
// Errors: ErrCursor, also for a cursor of an earlier run; [FieldError].
func (s *Store) Events(q EventQuery) (EventPage, error) {
	if q.Master != "" {
		// One that is forgotten may still be in the log, by its id.
		if m, err := s.Master(q.Master); err == nil {
			q.Master = m.ID
		}
	}
	list, next, err := s.events.Page(events.Query(q))
	if err != nil {
		return EventPage{}, err
	}
	out := EventPage{Events: make([]Event, len(list)), NextCursor: next}
	for i, e := range list {
		out.Events[i] = Event(*e)
	}
	return out, nil
}

// EventCounts returns how often what has happened in this run, by kind and type.
func (s *Store) EventCounts() []EventCount {
	counts := s.events.Counts()
	out := make([]EventCount, len(counts))
	for i, c := range counts {
		out[i] = EventCount(c)
	}
	return out
}

// lookForSplits logs and publishes which splits begin and end.
func (s *Store) lookForSplits(now time.Time, joining bool) {
	var masters []events.Master
	for _, m := range s.members.Members(now) {
		a := s.replica.Agreement(m.ID)
		masters = append(masters, events.Master{
			ID: m.ID, Left: m.Status == membership.Left, Silent: m.Status == membership.Suspect || m.Status == membership.Down,
			Joining: joining || m.Joining, InSync: a.InSync, Differs: a.Differs,
			Heard: slices.MaxFunc([]time.Time{m.Heard, s.since}, time.Time.Compare), Same: m.Same, Apart: slices.MaxFunc([]time.Time{m.Same, m.Met}, time.Time.Compare),
		})
	}
	for _, e := range s.splits.Look(now, masters) {
		log := s.log.Warn
		if e.Type == EventMerged {
			log = s.log.Info
		}
		log("a split begins or ends", "what", e.Type, "master", e.Master, "text", e.Text)
		s.logEvent(Event(e))
		s.changes.Add(change{kind: MasterChange, id: e.Master})
	}
}

// openSplits returns the masters that have held something else than this one for a while, or
// that cannot be reached, the oldest split first.
func (s *Store) openSplits() []stats.Split {
	now, wall := time.Now(), s.cfg.seams.Wall()
	out := []stats.Split{}
	for _, p := range s.splits.Open(now) {
		out = append(out, stats.Split{
			Master: p.Master, Name: s.nameOf(p.Master), Since: wall.Add(-p.Age).UTC().Round(0), LagS: p.Age.Seconds(),
			Nodes: p.Nodes, Unreachable: p.Silent, HeardBy: s.members.HeardBy(now, p.Master),
		})
	}
	return out
}
