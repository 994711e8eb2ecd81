package crdtstore

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/events"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
)

// self is this master as it shows itself.
func (s *Store) self() Master {
	digest, nodes := s.table.Digest()
	m := Master{
		ID: s.ID(), Name: s.cfg.Name, Status: MasterSelf, Version: s.cfg.Version,
		RPCURLs: nonNil(s.cfg.Endpoints.RPCURLs), UIURLs: nonNil(s.cfg.Endpoints.UIURLs), MeshAddrs: []string{},
		EdgeAddrs: withID(s.cfg.Endpoints.EdgeAddrs, s.ID()),
		LastSeen:  time.Now().UTC(), Nodes: nodes,
		Digest: hex.EncodeToString(digest[:]), InSync: true, Direct: true, Hears: s.countDirect(time.Now()), HeardBy: []string{}, SettingsDiffer: []string{},
	}
	if s.cluster != nil {
		m.MeshAddrs = s.cluster.meshAddrs()
		m.HeardBy = s.cluster.members.heardOf(time.Now(), s.ID())
		s.cluster.judge(&m)
	}
	return m
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// Masters returns all known masters, this one first, then by name, and behind them the
// configured peers that were never met.
func (s *Store) Masters() []Master {
	out := []Master{s.self()}
	if s.cluster != nil {
		out = append(out, s.cluster.masters()...)
		out = append(out, s.cluster.unmet()...)
	}
	return out
}

// Master returns the master of the given id, or else name. Errors: ErrNotFound.
func (s *Store) Master(idOrName string) (Master, error) {
	all := s.Masters()
	for _, m := range all {
		if m.ID == idOrName {
			return m, nil
		}
	}
	for _, m := range all {
		if m.Name == idOrName {
			return m, nil
		}
	}
	return Master{}, ErrNotFound
}

// nameOf returns what people call a master, or what there is of its id.
func (s *Store) nameOf(master string) string {
	if master == s.text {
		return s.cfg.Name
	}
	if s.cluster != nil {
		if name := s.cluster.members.name(master); name != "" {
			return name
		}
	}
	return "master " + master[max(0, len(master)-8):]
}

// masterChanged publishes that a master has changed.
func (s *Store) masterChanged(id string) {
	s.changes.Add(change{kind: MasterChange, id: id})
	s.events.MasterChanged(id)
}

// watch looks at the other masters, about once a second.
func (c *cluster) watch(now time.Time) {
	s := c.store
	c.members.sweep(now, s.masterChanged)
	c.found = s.collisions.look(now, c.collided)
	c.rebuild(now)
	c.watchLiveSet(now)
	c.forget(now)
	c.watchUnmet(s.cfg.seams.Wall())
	c.members.skews(now, func(id, text string) {
		s.log.Warn("clocks apart or together again", "master", id, "text", text)
		s.logEvent(Event{Kind: MasterEvent, Type: EventClock, Master: id, Text: text})
	})
	c.members.differing(now, func(id, text string) {
		s.log.Warn("the settings of masters differ, or agree again", "master", id, "text", text)
		s.logEvent(Event{Kind: MasterEvent, Type: EventSettings, Master: id, Text: text})
		s.changes.Add(change{kind: MasterChange, id: id})
	})
	_, joining := s.replica.Joining()
	hearers := c.members.hearers(now)
	if !joining {
		hearers = append(hearers, hearer{s.ID(), s.countDirect(now)})
	}
	c.connectivity.look(now, s.longestOfflineAfter(), hearers, s.nameOf, func(master, what, text string) {
		s.log.Warn("what a master hears", "what", what, "master", master, "text", text)
		s.logEvent(Event{Kind: MasterEvent, Type: what, Master: master, Text: text})
		s.changes.Add(change{kind: MasterChange, id: master})
	})
	for _, e := range s.splits.Look(now, c.members.splitViews(now, s.since, joining, s.replica.Agreement)) {
		level := slog.LevelWarn
		if e.Type == EventMerged {
			level = slog.LevelInfo
		}
		s.log.Log(c.ctx, level, "a split begins or ends", "what", e.Type, "master", e.Master, "text", e.Text)
		s.logEvent(Event(e))
		s.changes.Add(change{kind: MasterChange, id: e.Master})
	}
}

// splitViews returns what is to be known of the other masters to see a split.
func (d *membership) splitViews(now, began time.Time, joining bool, agreement func(id string) replica.Agreement) []events.Master {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]events.Master, 0, len(d.peers))
	for _, p := range d.peers {
		status, a := d.status(now, p), agreement(p.ID)
		out = append(out, events.Master{
			ID: p.ID, Left: status == MasterLeft, Silent: status == MasterSuspect || status == MasterDown,
			Joining: joining || p.joining, InSync: a.InSync, Differs: a.Differs,
			Heard: laterOf(p.lastHeard, began), Same: p.same, Apart: laterOf(p.same, p.met),
		})
	}
	slices.SortFunc(out, func(a, b events.Master) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// nodes is a number of nodes, as text.
func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// openSplits returns the masters that have held something else than this one for a while, or
// that cannot be reached, the oldest split first.
func (s *Store) openSplits() []Split {
	if s.cluster == nil {
		return []Split{}
	}
	now, wall := time.Now(), s.cfg.seams.Wall()
	out := []Split{}
	for _, p := range s.splits.Open(now) {
		out = append(out, Split{
			Master: p.Master, Name: s.nameOf(p.Master), Since: wall.Add(-p.Age).UTC().Round(0), LagS: p.Age.Seconds(),
			Nodes: p.Nodes, Unreachable: p.Silent, HeardBy: s.cluster.members.heardOf(now, p.Master),
		})
	}
	return out
}
