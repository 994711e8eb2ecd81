package crdtstore

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
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

// ownSettings are the settings that this master tells the others, by name.
func (c *Config) ownSettings() *liveness.Settings {
	all := []liveness.Setting{{Name: "require-signed", Value: yesOrNo(c.RequireSigned)}}
	for name, value := range c.Settings {
		all = append(all, liveness.Setting{Name: name, Value: value})
	}
	slices.SortFunc(all, func(a, b liveness.Setting) int { return strings.Compare(a.Name, b.Name) })
	return &liveness.Settings{OfflineAfter: c.OfflineAfter, Retention: c.Retention, Others: all}
}

// validSettings checks the settings of the program that embeds the store.
func (c *Config) validSettings() error {
	if len(c.Settings) > maxSettings {
		return &FieldError{Field: "Settings", Problem: fmt.Sprintf("has %d entries, at most %d are allowed", len(c.Settings), maxSettings)}
	}
	for name, value := range c.Settings {
		if name == "" || len(name) > maxSettingBytes || len(value) > maxSettingBytes {
			return &FieldError{Field: "Settings." + name, Problem: fmt.Sprintf("is not a name with a value, of at most %d bytes each", maxSettingBytes)}
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
func (d *membership) differ(p *member) []string {
	out, here, there := []string{}, d.settings, p.settings
	differ := func(name, there, here string) {
		if there != here && there != "" && here != "" {
			out = append(out, fmt.Sprintf("%s: %s there, %s here", name, there, here))
		}
	}
	if here != nil && there != nil {
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
	differ("version", p.Version, d.version)
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

func yesOrNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// differing tells of masters whose settings have come to differ from this one's, or agree
// again, each change once.
func (d *membership) differing(now time.Time, publish func(id, text string)) {
	type news struct{ id, text string }
	var all []news
	d.mu.Lock()
	for id, p := range d.peers {
		if p.statusAt(now) != MasterAlive {
			continue // what it said last is out of date
		}
		what := strings.Join(d.differ(p), "; ")
		if what == p.differs {
			continue
		}
		p.differs = what
		text := fmt.Sprintf("the settings of %s and this master's agree again", p.Name)
		if what != "" {
			text = fmt.Sprintf("the settings of %s differ from this master's: %s", p.Name, what)
		}
		all = append(all, news{id, text})
	}
	d.mu.Unlock()
	slices.SortFunc(all, func(a, b news) int { return strings.Compare(a.id, b.id) })
	for _, n := range all {
		publish(n.id, n.text)
	}
}

// observer is a master that may have heard nodes.
type observer struct {
	id           string
	reachable    bool
	offlineAfter time.Duration // by which it judges silence; 0: it does not tell
}

// observer returns what is known of a master as one that hears nodes.
func (s *Store) observer(id string) observer {
	o := observer{id: id, reachable: id == s.ID()}
	if s.cluster != nil && id != s.ID() {
		o = s.cluster.members.observer(id)
	}
	return s.judging(o)
}

// judging has a master that does not tell its limit judge like this one.
func (s *Store) judging(o observer) observer {
	if o.offlineAfter == 0 {
		o.offlineAfter = s.cfg.OfflineAfter
	}
	return o
}

// observers returns all known masters, this one first.
func (s *Store) observers() []observer {
	out := []observer{s.observer(s.ID())}
	if s.cluster != nil {
		for _, o := range s.cluster.members.observers(time.Now()) {
			out = append(out, s.judging(o))
		}
	}
	return out
}

// longestOfflineAfter is the longest among the masters that are heard: whoever counts
// nodes to compare the count with another master's counts them by this.
func (s *Store) longestOfflineAfter() time.Duration {
	longest := s.cfg.OfflineAfter
	for _, o := range s.observers() {
		if o.reachable {
			longest = max(longest, o.offlineAfter)
		}
	}
	return longest
}

func (d *membership) observer(id string) observer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.peers[id]; p != nil {
		return p.observer(time.Now())
	}
	return observer{id: id}
}

// observers returns the known masters in order.
func (d *membership) observers(now time.Time) []observer {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]observer, 0, len(d.peers))
	for _, p := range d.peers {
		out = append(out, p.observer(now))
	}
	slices.SortFunc(out, func(a, b observer) int { return strings.Compare(a.id, b.id) })
	return out
}

func (p *member) observer(now time.Time) observer {
	o := observer{id: p.ID, reachable: p.statusAt(now) == MasterAlive}
	if p.settings != nil {
		o.offlineAfter = p.settings.OfflineAfter
	}
	return o
}
