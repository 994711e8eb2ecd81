package membership

import (
	"context"
	"log/slog"
	"time"
)

// Event is something that has happened to a master and that people want to know.
type Event struct {
	Type   string
	Master string // id
	Text   string
	// Row is the master that is to be shown anew, by its id, or the configured peer, by its
	// name. Empty: none is.
	Row string
}

// Publisher takes what [Table.Look] finds. It is called without the lock of the table.
type Publisher interface {
	// StatusChanged says that the status of a master has changed by the passing of time.
	StatusChanged(id string)
	// Forgotten says that a master was dropped from the table.
	Forgotten(id string)
	// Happened says what else has happened.
	Happened(Event)
}

// Look finds what has changed by the passing of time, and by what the masters said since
// it was called last, about once a second. joining says that this master does not have all
// records yet. unmet are the configured peers that were never met.
func (t *Table) Look(now time.Time, joining bool, unmet []Unmet) {
	for _, id := range t.changedStatuses(now) {
		t.cfg.Publisher.StatusChanged(id)
	}
	t.noticeResponsible(now)
	t.forget(now)
	t.watchUnmet(now, unmet)
	t.publish(slog.LevelWarn, t.clocks(now)...)
	t.publish(slog.LevelWarn, t.settings(now)...)
	t.publish(slog.LevelWarn, t.connected(now, joining)...)
}

// publish logs and publishes events.
func (t *Table) publish(level slog.Level, events ...Event) {
	for _, e := range events {
		t.cfg.Logger.Log(context.Background(), level, "about a master", "what", e.Type, "master", e.Master, "text", e.Text)
		t.cfg.Publisher.Happened(e)
	}
}

// changedStatuses returns the masters whose status is another than was published last.
func (t *Table) changedStatuses(now time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ids(func(p *member) bool {
		was := p.status
		p.status = t.status(now, p)
		return p.status != was
	})
}
