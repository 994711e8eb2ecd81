package membership

import (
	"fmt"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// EventSettings is that the settings of a master have come to differ from this one's, or
// agree again.
const EventSettings = "settings"

// Bounds on the settings that a program hands to the store, and on those that are taken
// from another master.
const (
	maxSettings     = 16
	maxSettingBytes = 64 // of a name, and of a value
	// maxOfflineAfter bounds what another master may say that its OfflineAfter is.
	maxOfflineAfter = 366 * 24 * time.Hour
)

// CheckSettings returns a [record.FieldError] for the settings of a program that are too
// many or too long.
func CheckSettings(settings map[string]string) error {
	if len(settings) > maxSettings {
		return &record.FieldError{Field: "Settings", Problem: fmt.Sprintf("has %d entries, at most %d are allowed", len(settings), maxSettings)}
	}
	for name, value := range settings {
		if name == "" || len(name) > maxSettingBytes || len(value) > maxSettingBytes {
			return &record.FieldError{Field: "Settings." + name, Problem: fmt.Sprintf("is not a name with a value, of at most %d bytes each", maxSettingBytes)}
		}
	}
	return nil
}

// boundSettings cuts what another master says to what is kept of it.
func boundSettings(s *liveness.Settings) {
	if s == nil {
		return
	}
	s.OfflineAfter, s.Retention = min(s.OfflineAfter, maxOfflineAfter), max(s.Retention, 0)
	s.Others = s.Others[:min(len(s.Others), maxSettings+1)]
	for i := range s.Others {
		o := &s.Others[i]
		o.Name, o.Value = o.Name[:min(len(o.Name), maxSettingBytes)], o.Value[:min(len(o.Value), maxSettingBytes)]
	}
}

// differ compares what must agree of a master with what this one has, and says of each
// setting that does not agree what it is there and here. What one of them does not tell,
// as one of an earlier version does not, is not compared.
func (t *Table) differ(p *member) []string {
	out, here, there := []string{}, t.cfg.Settings, p.settings
	differ := func(name, there, here string) {
		if there != here && there != "" && here != "" {
			out = append(out, fmt.Sprintf("%s: %s there, %s here", name, there, here))
		}
	}
	if there != nil {
		differ("offline-after", shortDuration(there.OfflineAfter), shortDuration(here.OfflineAfter))
		differ("retention", shortDuration(there.Retention), shortDuration(here.Retention))
		for _, mine := range here.Others {
			for _, theirs := range there.Others {
				if theirs.Name == mine.Name {
					differ(mine.Name, theirs.Value, mine.Value)
				}
			}
		}
	}
	differ("version", p.Version, t.cfg.Version)
	return out
}

// shortDuration is a duration without the parts that are zero; empty: none is told.
func shortDuration(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	s := d.String()
	if short, ok := strings.CutSuffix(s, "m0s"); ok {
		s = short + "m"
	}
	if short, ok := strings.CutSuffix(s, "h0m"); ok {
		s = short + "h"
	}
	return s
}

// settings returns the masters whose settings have come to differ from this one's, or
// agree again, each change once.
func (t *Table) settings(now time.Time) (out []Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.sorted() {
		if p.statusAt(now) != Alive {
			continue // what it said last is out of date
		}
		what := strings.Join(t.differ(p), "; ")
		if what == p.differs {
			continue
		}
		p.differs = what
		text := fmt.Sprintf("the settings of %s and this master's agree again", p.Name)
		if what != "" {
			text = fmt.Sprintf("the settings of %s differ from this master's: %s", p.Name, what)
		}
		out = append(out, Event{Type: EventSettings, Master: p.ID, Row: p.ID, Text: text})
	}
	return out
}
