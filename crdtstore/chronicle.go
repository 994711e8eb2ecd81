package crdtstore

import (
	"fmt"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Occurrence is something that happened in the grid, as this master saw it.
type Occurrence struct {
	ID   uint64         `json:"id"`   // ascending, of this run of this master
	At   time.Time      `json:"at"`   // by this master's clock, or when an operator said it by that of the master that was told
	Kind OccurrenceKind `json:"kind"` // what it is about
	What string         `json:"what"` // one word, such as "offline"; see the What constants
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

// OccurrenceKind is what an [Occurrence] is about.
type OccurrenceKind string

// The kinds of occurrences.
const (
	AboutNode     OccurrenceKind = "node"
	AboutVM       OccurrenceKind = "vm"
	AboutMaster   OccurrenceKind = "master"
	AboutOperator OccurrenceKind = "operator" // what an operator said, through whichever master
	AboutGrid     OccurrenceKind = "grid"     // all of it: mass silence, a split, a merge
)

// What happens to nodes.
const (
	WhatNew      = "new"      // registered for the first time; also of a VM
	WhatBack     = "back"     // registered anew after it was removed or had expired; also of a master
	WhatOnline   = "online"   // heard again
	WhatSuspect  = "suspect"  // who would know is gone; also of a master, which is silent
	WhatOffline  = "offline"  // nobody hears it
	WhatExpired  = "expired"  // removed by a master, for it was silent for too long
	WhatConflict = "conflict" // several machines claim its id
)

// What happens to VMs, beside WhatNew.
const (
	WhatChanged = "changed" // its state is another
	WhatGone    = "gone"
)

// What happens to masters, beside WhatBack and WhatSuspect.
const (
	WhatCame = "came" // heard for the first time in this run
	WhatDown = "down"
	WhatLeft = "left" // closed on purpose
)

// What operators say.
const (
	WhatDrained    = "drained"
	WhatUndrained  = "undrained"
	WhatLabelled   = "labelled"
	WhatUnlabelled = "unlabelled" // a label was taken away
	WhatRemoved    = "removed"
)

// ChronicleQuery chooses occurrences: those that match all that is set. The zero
// ChronicleQuery asks for the latest 50.
type ChronicleQuery struct {
	Kind   OccurrenceKind `json:"kind"`    // empty: any
	NodeID string         `json:"node_id"` // empty: any
	Master string         `json:"master"`  // id or name; empty: any
	// Q matches, whatever the case, a part of the text, of what happened, of who asked
	// for it, or of the id of a node or VM.
	Q     string `json:"q"`
	Limit int    `json:"limit"` // 0: 50; at most 1,000
	// Cursor continues after the page that returned it, with what happened before. It
	// stays valid for this run of the store.
	Cursor string `json:"cursor"`
}

// ChroniclePage is one page of occurrences, the latest first.
type ChroniclePage struct {
	Events     []Occurrence `json:"events"`
	NextCursor string       `json:"next_cursor,omitempty"` // of the next page; empty: this is the last
}

// OccurrenceCount is how often something happened in this run, whether it is still in
// the log or not.
type OccurrenceCount struct {
	Kind  OccurrenceKind
	What  string
	Count uint64
}

// chronicleChunk is how many occurrences are looked at in one go, which bounds for how
// long a reader holds up those who add some.
const chronicleChunk = 512

// Chronicle returns a page of what happened, the latest first, out of the log that this
// master keeps in memory: up to 5,000 occurrences about nodes and VMs, and as many about
// operators, masters and the grid. Where more than a hundred of the same happen at a
// time to nodes or VMs, one occurrence stands for the rest. What operators said is in
// the records, so all masters list it, and after a start too, as far as it still stands.
// Errors: ErrCursor, also for a cursor of an earlier run; [FieldError].
func (s *Store) Chronicle(q ChronicleQuery) (ChroniclePage, error) {
	const cursorKind = "events"
	limit, err := limitOf(q.Limit)
	if err != nil {
		return ChroniclePage{}, err
	}
	switch q.Kind {
	case "", AboutNode, AboutVM, AboutMaster, AboutOperator, AboutGrid:
	default:
		return ChroniclePage{}, &FieldError{Field: "kind", Problem: fmt.Sprintf("is %q, must be node, vm, master, operator or grid", q.Kind)}
	}
	if q.NodeID != "" {
		if err := record.ValidNodeID(q.NodeID); err != nil {
			return ChroniclePage{}, err
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
		at, err := decodeCursor(cursorKind, q.Cursor)
		if err != nil || at.Str != s.hub.run || !(at.Num >= 1 && at.Num < 1<<53) {
			return ChroniclePage{}, ErrCursor
		}
		before = uint64(at.Num)
	}
	page := ChroniclePage{Events: make([]Occurrence, 0, limit)}
	var chunk [chronicleChunk]*Occurrence
	for {
		some := s.chronicle.before(before, chunk[:0])
		if len(some) == 0 {
			return page, nil
		}
		for _, o := range some {
			if !q.Matches(o) {
				continue
			}
			if len(page.Events) == limit {
				page.NextCursor = encodeCursor(cursorKind, place{Str: s.hub.run, Num: float64(page.Events[limit-1].ID)})
				return page, nil
			}
			page.Events = append(page.Events, *o)
		}
		before = some[len(some)-1].ID
	}
}

// Matches reports whether an occurrence is one of those that are asked for, whose master
// must be given by id. Limit and Cursor do not matter.
func (q *ChronicleQuery) Matches(o *Occurrence) bool {
	if q.Kind != "" && o.Kind != q.Kind || q.NodeID != "" && o.NodeID != q.NodeID || q.Master != "" && o.Master != q.Master {
		return false
	}
	if q.Q == "" {
		return true
	}
	for _, text := range [...]string{o.Text, o.What, o.By, o.NodeID, o.VM} {
		if containsFold(text, q.Q) {
			return true
		}
	}
	return false
}

// Occurred returns how often what has happened in this run, by kind and what.
func (s *Store) Occurred() []OccurrenceCount { return s.chronicle.counted() }

// happened notes an occurrence of now.
func (s *Store) happened(o Occurrence) {
	if o.At.IsZero() {
		o.At = s.cfg.Wall().UTC().Round(0)
	}
	s.chronicle.add(s.hub, o, 0, true)
}
