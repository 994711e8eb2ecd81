package crdtstore

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
)

// What happens to the responsibility for nodes when masters go and come.
const (
	EventAdopted = "adopted" // this master took over the share of one that is gone
	EventGiven   = "given"   // this master gave a share to one that has come, or come back
)

// Each node has one master that does what need be done only once: it asserts its record
// in a new epoch, writes down when it was last seen, and lets it expire. That is no
// office that is held or handed over, but a function of the node and of the masters that
// live, so what a master that is gone was responsible for falls to others at once, and one that returns has its share
// back. Masters that disagree for a while about who lives may do the work twice, or leave
// it to the next time. Neither does harm: what they write is joined.

// responsibleFor returns the master, out of some, that is responsible for a node.
func responsibleFor(node string, masters []string) string { return replica.Rendezvous(node, masters) }

// handover counts the nodes that pass from one master to self when those that live are
// not before any more but after, by the master, and those that pass from self to another.
func handover(nodes iter.Seq[string], before, after []string, self string) (adopted, given map[string]int) {
	adopted, given = map[string]int{}, map[string]int{}
	for node := range nodes {
		was, is := responsibleFor(node, before), responsibleFor(node, after)
		switch {
		case was == is:
		case is == self:
			adopted[was]++
		case was == self:
			given[is]++
		}
	}
	return adopted, given
}

// liveSet follows who lives.
type liveSet struct {
	members []string        // when it was last looked
	gone    map[string]bool // those that were members and are none now
}

// look returns who lived before and who lives now, where that is not the same.
func (h *liveSet) look(members []string) (before, after []string, changed bool) {
	if h.gone == nil {
		h.members, h.gone = members, map[string]bool{}
	}
	if slices.Equal(members, h.members) {
		return nil, nil, false
	}
	before, h.members = h.members, members
	return before, members, true
}

// members returns the masters that others need not stand in for, in order: all but those
// that are down or have left. After the start those that are known have a moment to be
// heard.
func (d *membership) members(now, began time.Time) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for id, p := range d.peers {
		status := d.status(now, p)
		awaited := p.lastHeard.IsZero() && !p.HasLeft && now.Sub(began) <= downAfter
		if status == MasterAlive || status == MasterSuspect || awaited {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// watchLiveSet tells what passes to this master, and from it, by the going and coming of others.
func (c *cluster) watchLiveSet(now time.Time) {
	s := c.store
	before, after, changed := c.liveSet.look(c.members.members(now, s.since))
	if !changed {
		return
	}
	adopted, given := handover(s.nodeIDs(), append([]string{s.ID()}, before...), append([]string{s.ID()}, after...), s.ID())
	for _, id := range slices.Sorted(maps.Keys(adopted)) {
		c.liveSet.gone[id] = true
		text := fmt.Sprintf("adopted %s of %s, which %s", nodes(adopted[id]), s.nameOf(id), c.members.whyAbsent(id))
		if n := s.exclusive(now, id); n > 0 {
			text += fmt.Sprintf("; %s were heard by it alone", nodes(n))
		}
		s.log.Info("responsible for nodes of another master", "master", id, "nodes", adopted[id])
		s.logEvent(Event{Kind: MasterEvent, Type: EventAdopted, Master: id, Text: text})
	}
	for _, id := range slices.Sorted(maps.Keys(given)) {
		text := fmt.Sprintf("gave %s to %s", nodes(given[id]), s.nameOf(id))
		if c.liveSet.gone[id] {
			text = fmt.Sprintf("gave %s back to %s", nodes(given[id]), s.nameOf(id))
			delete(c.liveSet.gone, id)
		}
		s.log.Info("another master is responsible for nodes", "master", id, "nodes", given[id])
		s.logEvent(Event{Kind: MasterEvent, Type: EventGiven, Master: id, Text: text})
	}
}

func (d *membership) whyAbsent(id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch p := d.peers[id]; {
	case p == nil:
		return "is forgotten"
	case p.HasLeft:
		return "has left"
	}
	return "is down"
}

// nodeIDs yields the ids of the nodes that are not removed.
func (s *Store) nodeIDs() iter.Seq[string] {
	return func(yield func(string) bool) {
		for e := range s.table.All() {
			if !e.Removed && !yield(e.ID) {
				return
			}
		}
	}
}

// exclusive counts the nodes that a master that is gone was the only one to hear lately.
// They are suspect for a while, for who would know is gone.
func (s *Store) exclusive(now time.Time, master string) (n int) {
	m := s.at(now)
	for id := range s.nodeIDs() {
		v, _ := s.board.Vital(id, m.heard)
		m.heard = v.Observation
		alone, others := false, false
		for _, h := range v.Observation {
			if age := now.Sub(h.At); h.Master == master {
				alone = age <= 2*m.limit(master)
			} else if age <= m.limit(h.Master) && m.reachable(h.Master) {
				others = true
			}
		}
		if alone && !others {
			n++
		}
	}
	return n
}
