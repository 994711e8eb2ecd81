package crdtstore

import (
	"sync"
	"time"
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
	Text   string `json:"text"` // for people: one sentence without a full stop
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

// maxOccurrences is how many occurrences are remembered.
const maxOccurrences = 10_000

// chronicle is the bounded log of what happened.
type chronicle struct {
	mu   sync.Mutex
	ring []Occurrence
	next uint64 // id of the next one
}

// add appends an occurrence and returns it with its id.
func (c *chronicle) add(o Occurrence) Occurrence {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	o.ID = c.next
	if len(c.ring) < maxOccurrences {
		c.ring = append(c.ring, o)
	} else {
		c.ring[(o.ID-1)%maxOccurrences] = o
	}
	return o
}

// happened notes an occurrence of now.
func (s *Store) happened(o Occurrence) {
	if o.At.IsZero() {
		o.At = s.cfg.Wall().UTC().Round(0)
	}
	s.chronicle.add(o)
}
