package membership

import (
	"fmt"
	"time"
)

// EventNeverMet is that a configured peer was not met for a while, and again when the
// cause is another one.
const EventNeverMet = "never_met"

// Unmet is a configured peer that was never met, nor heard of by way of others.
type Unmet struct {
	Peer   string // as configured
	ID     string // empty: not known
	Cause  string // empty: it was not tried yet
	Reason string
	Since  time.Time // since when the cause is the same, by the monotonic clock
}

// watchUnmet publishes the configured peers that were not met, each once for each cause.
func (t *Table) watchUnmet(now time.Time, unmet []Unmet) {
	current := map[string]string{}
	for _, u := range unmet {
		cause, known := t.absent[u.Peer]
		current[u.Peer] = cause
		if u.Cause == "" || known && cause == u.Cause || now.Sub(u.Since) < neverMetAfter {
			continue
		}
		current[u.Peer] = u.Cause
		t.cfg.Publisher.Happened(Event{Type: EventNeverMet, Master: u.ID, Row: u.Peer,
			Text: fmt.Sprintf("the configured master %s was never met: %s", u.Peer, u.Reason)})
	}
	t.absent = current
}
