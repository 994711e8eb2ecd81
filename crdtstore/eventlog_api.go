package crdtstore

import (
	"fmt"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/page"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Event is something that happened in the grid, as this master saw it.
type Event struct {
	ID   uint64    `json:"id"`   // ascending, of this run of this master
	At   time.Time `json:"at"`   // by this master's clock, or when an operator said it by that of the master that was told
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

// EventKind is what an [Event] is about.
type EventKind string

// The kinds of events.
const (
	NodeEvent     EventKind = "node"
	VMEvent       EventKind = "vm"
	MasterEvent   EventKind = "master"
	OperatorEvent EventKind = "operator" // what an operator said, through whichever master
	GridEvent     EventKind = "grid"     // all of it: mass silence, a split, a merge
)

// What happens to nodes.
const (
	EventNew      = "new"      // registered for the first time; also of a VM
	EventBack     = "back"     // registered anew after it was removed or had expired; also of a master
	EventOnline   = "online"   // heard again
	EventSuspect  = "suspect"  // who would know is gone; also of a master, which is silent
	EventOffline  = "offline"  // nobody hears it
	EventExpired  = "expired"  // removed by a master, for it was silent for too long
	EventConflict = "conflict" // several machines claim its id
)

// What happens to VMs, beside EventNew.
const (
	EventChanged = "changed" // its state is another
	EventGone    = "gone"
)

// What happens to masters, beside EventBack and EventSuspect.
const (
	EventJoined = "joined" // heard for the first time in this run
	EventDown   = "down"
	EventLeft   = "left" // closed on purpose
)

// What operators say.
const (
	EventDrained    = "drained"
	EventUndrained  = "undrained"
	EventLabelled   = "labelled"
	EventUnlabelled = "unlabelled" // a label was taken away
	EventRemoved    = "removed"
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

// eventChunk is how many events are looked at in one go, which bounds for how
// long a reader holds up those who add some.
const eventChunk = 512

// Events returns a page of what happened, the latest first, out of the log that this
// master keeps in memory: up to 5,000 events about nodes and VMs, and as many about
// operators, masters and the grid. Where more than a hundred of the same happen at a
// time to nodes or VMs, one event stands for the rest. What operators said is in
// the records, so all masters list it, and after a start too, as far as it still stands.
// Errors: ErrCursor, also for a cursor of an earlier run; [FieldError].
func (s *Store) Events(q EventQuery) (EventPage, error) {
	const cursorKind = "events"
	limit, err := page.Limit(q.Limit)
	if err != nil {
		return EventPage{}, err
	}
	switch q.Kind {
	case "", NodeEvent, VMEvent, MasterEvent, OperatorEvent, GridEvent:
	default:
		return EventPage{}, &FieldError{Field: "kind", Problem: fmt.Sprintf("is %q, must be node, vm, master, operator or grid", q.Kind)}
	}
	if q.NodeID != "" {
		if err := record.ValidNodeID(q.NodeID); err != nil {
			return EventPage{}, err
		}
	}
	if q.Master != "" {
		// One that is forgotten may still be in the log, by its id.
		if m, err := s.Master(q.Master); err == nil {
			q.Master = m.ID
		}
	}
	before := ^uint64(0)
	if q.Cursor != "" {
		at, err := page.Parse(cursorKind, q.Cursor)
		if err != nil || at.Str != s.changes.Run() || !(at.Num >= 1 && at.Num < 1<<53) {
			return EventPage{}, ErrCursor
		}
		before = uint64(at.Num)
	}
	out := EventPage{Events: make([]Event, 0, limit)}
	var chunk [eventChunk]*Event
	for {
		some := s.events.before(before, chunk[:0])
		if len(some) == 0 {
			return out, nil
		}
		for _, o := range some {
			if !q.Matches(o) {
				continue
			}
			if len(out.Events) == limit {
				out.NextCursor = page.Cursor(cursorKind, page.Place{Str: s.changes.Run(), Num: float64(out.Events[limit-1].ID)})
				return out, nil
			}
			out.Events = append(out.Events, *o)
		}
		before = some[len(some)-1].ID
	}
}

// Matches reports whether an event is one of those that are asked for, whose master
// must be given by id. Limit and Cursor do not matter.
func (q *EventQuery) Matches(o *Event) bool {
	if q.Kind != "" && o.Kind != q.Kind || q.NodeID != "" && o.NodeID != q.NodeID || q.Master != "" && o.Master != q.Master {
		return false
	}
	if q.Q == "" {
		return true
	}
	for _, text := range [...]string{o.Text, o.Type, o.By, o.NodeID, o.VM} {
		if page.ContainsFold(text, q.Q) {
			return true
		}
	}
	return false
}

// EventCounts returns how often what has happened in this run, by kind and what.
func (s *Store) EventCounts() []EventCount { return s.events.counted() }

// logEvent logs an event of now.
func (s *Store) logEvent(o Event) {
	if o.At.IsZero() {
		o.At = s.cfg.seams.Wall().UTC().Round(0)
	}
	s.events.add(s.changes, o, 0, true)
}
