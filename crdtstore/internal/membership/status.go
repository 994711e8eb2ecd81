package membership

import (
	"slices"
	"time"
)

// Status is how a master is seen.
type Status string

// The statuses of a master.
const (
	Alive   Status = "alive"   // heard within SuspectAfter
	Suspect Status = "suspect" // silent for longer, or heard by other masters only
	Down    Status = "down"    // silent for downAfter, or not heard in this run, and no other master hears it
	Left    Status = "left"    // closed on purpose, and said so
)

// By these limits it is decided who lives, and what is published of the others. A master
// says something every second.
const (
	// SuspectAfter is how long a master may be silent until it is suspect. From then on what
	// it hears no longer counts, and its share of the work is that of the masters that are
	// left: see Table.Alive and Rendezvous.
	SuspectAfter = 5 * time.Second
	// downAfter is how long until it is down. Then it is published how much of its work has
	// passed to others, as EventAdopted; it did so at SuspectAfter.
	downAfter = 15 * time.Second
	// farewellGrace is how long what a master said before it left may arrive behind its
	// farewell, by way of others. Of an earlier version, which does not name its runs, for
	// so long it is not taken for a return.
	farewellGrace = 2 * time.Second
	// startGrace is how long at least after the start of this run nobody is forgotten who
	// was not heard in it.
	startGrace = time.Minute
	// neverMetAfter is how long the cause must have been the same before it is published
	// that a configured peer was never met: masters that start together do not meet in the
	// first moment.
	neverMetAfter = 5 * time.Second
	// maxSkew is how far a clock may be off before that is published. Clocks decide little
	// (see docs/design/history.md), but what they do decide is wrong then.
	maxSkew = 5 * time.Second
)

// statusAt is the status of a master by what is heard of it here.
func (p *member) statusAt(now time.Time) Status {
	switch age := now.Sub(p.Heard); {
	case p.HasLeft:
		return Left
	case p.Heard.IsZero() || age > downAfter:
		return Down
	case age > SuspectAfter:
		return Suspect
	}
	return Alive
}

// status is the status of a master by what is heard of it here and by way of others.
// One that only others hear is not down. The caller holds mu.
func (t *Table) status(now time.Time, p *member) Status {
	s := p.statusAt(now)
	if s == Down && len(t.heardBy(now, p.ID)) > 0 {
		return Suspect
	}
	return s
}

// heardBy returns the masters that are alive and say that they hear another one, in order.
// The caller holds mu.
func (t *Table) heardBy(now time.Time, id string) []string {
	return t.ids(func(p *member) bool {
		return p.ID != id && p.connectivity != nil && p.statusAt(now) == Alive && slices.Contains(p.connectivity.Masters, id)
	})
}
