package membership

import (
	"fmt"
	"log/slog"
	"time"
)

// EventForgotten is that a master was gone for longer than retention, and is forgotten.
const EventForgotten = "forgotten"

// forget drops the masters that have been gone for longer than retention, from the table
// and its file. What they alone had is taken when they return, but nobody waits for them,
// and this master does not introduce them any more.
func (t *Table) forget(now time.Time) {
	for _, id := range t.expired(now) {
		name := t.Name(id)
		t.mu.Lock()
		delete(t.members, id)
		t.saveSoon()
		t.mu.Unlock()
		t.cfg.Publisher.Forgotten(id)
		t.publish(slog.LevelInfo, Event{Type: EventForgotten, Master: id, Row: id,
			Text: fmt.Sprintf("%s has been gone for more than %s and is forgotten", name, t.cfg.Settings.Retention)})
	}
}

// expired returns the masters that have been gone for longer than retention, by the
// monotonic clock where they were heard in this run. Others have a minute from its
// beginning to be heard, whatever the wall clock says.
func (t *Table) expired(now time.Time) []string {
	wall, retention := t.cfg.Wall(), t.cfg.Settings.Retention
	if now.Sub(t.cfg.Began) <= min(startGrace, retention) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ids(func(p *member) bool {
		gone := now.Sub(p.Heard)
		if p.Heard.IsZero() {
			gone = wall.Sub(p.LastSeen)
		}
		return gone > retention && len(t.heardBy(now, p.ID)) == 0
	})
}
