package crdtstore

import (
	"encoding/hex"
	"log/slog"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
)

// self is this master as it shows itself.
func (s *Store) self() Master {
	digest, nodes := s.table.Digest()
	m := Master{
		ID: s.ID(), Name: s.cfg.Name, Status: MasterSelf, Version: s.cfg.Version,
		RPCURLs: nonNil(s.cfg.RPCURLs), UIURLs: nonNil(s.cfg.UIURLs), MeshAddrs: []string{},
		EdgeAddrs: withID(s.cfg.EdgeAddrs, s.ID()),
		LastSeen:  time.Now().UTC(), Nodes: nodes,
		Digest: hex.EncodeToString(digest[:]), InSync: true, Direct: true, Hears: s.hears(time.Now()), HeardBy: []string{}, SettingsDiffer: []string{},
	}
	if s.cluster != nil {
		m.MeshAddrs = s.cluster.meshAddrs()
		m.HeardBy = s.cluster.dir.heardOf(time.Now(), s.ID())
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

// watch looks at the other masters, about once a second.
func (c *cluster) watch(now time.Time) {
	s := c.store
	c.dir.sweep(now, s.masterChanged)
	c.found = s.collisions.look(now, c.collided)
	c.rebuild(now)
	c.adopt(now)
	c.forget(now)
	c.watchUnmet(s.cfg.Wall())
	c.dir.skews(now, func(id, text string) {
		s.log.Warn("clocks apart or together again", "master", id, "text", text)
		s.happened(Occurrence{Kind: AboutMaster, What: WhatClock, Master: id, Text: text})
	})
	c.dir.differing(now, func(id, text string) {
		s.log.Warn("the settings of masters differ, or agree again", "master", id, "text", text)
		s.happened(Occurrence{Kind: AboutMaster, What: WhatSettings, Master: id, Text: text})
		s.hub.add(change{kind: MasterChange, id: id})
	})
	_, joining := s.replica.Joining()
	hearers := c.dir.hearers(now)
	if !joining {
		hearers = append(hearers, hearer{s.ID(), s.hears(now)})
	}
	c.ears.look(now, s.longestOfflineAfter(), hearers, s.nameOf, func(master, what, text string) {
		s.log.Warn("what a master hears", "what", what, "master", master, "text", text)
		s.happened(Occurrence{Kind: AboutMaster, What: what, Master: master, Text: text})
		s.hub.add(change{kind: MasterChange, id: master})
	})
	s.splits.look(now, c.dir.acquaintances(now, s.since, joining, s.replica.Agreement), s.nameOf, func(master, what, text string) {
		level := slog.LevelWarn
		if what == WhatMerged {
			level = slog.LevelInfo
		}
		s.log.Log(c.ctx, level, "a split begins or ends", "what", what, "master", master, "text", text)
		s.happened(Occurrence{Kind: AboutGrid, What: what, Master: master, Text: text})
		s.hub.add(change{kind: MasterChange, id: master})
	})
}

// acquaintances returns what is to be known of the other masters to see a split.
func (d *directory) acquaintances(now, began time.Time, joining bool, agreement func(id string) replica.Agreement) []acquaintance {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]acquaintance, 0, len(d.peers))
	for _, p := range d.peers {
		a := agreement(p.ID)
		out = append(out, acquaintance{
			id: p.ID, status: d.status(now, p), joining: joining || p.joining, inSync: a.InSync,
			heard: laterOf(p.heard, began), same: p.same, apart: laterOf(p.same, p.met), differs: a.Differs,
		})
	}
	slices.SortFunc(out, func(a, b acquaintance) int { return strings.Compare(a.id, b.id) })
	return out
}

// Splits returns the masters that have held something else than this one for a while, or
// that cannot be reached, the oldest split first.
func (s *Store) Splits() []Split {
	if s.cluster == nil {
		return []Split{}
	}
	out := s.splits.list(time.Now(), s.cfg.Wall())
	for i := range out {
		out[i].Name = s.nameOf(out[i].Master)
		out[i].HeardBy = s.cluster.dir.heardOf(time.Now(), out[i].Master)
	}
	return out
}
