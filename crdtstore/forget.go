package crdtstore

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What is told of masters beside their status and what they hear.
const (
	EventForgotten = "forgotten" // gone for longer than retention
	EventClock     = "clock"     // its clock is far from this master's, or is right again
)

// maxSkew is how far a clock may be off before it is told. Clocks decide little
// (see docs/architecture.md), but what they do decide is wrong then.
const maxSkew = 5 * time.Second

// forget drops the masters that have been gone for longer than retention, from the
// membership, its file and the mesh. What they alone had is taken when they return,
// but nobody waits for them, and this master does not introduce them any more.
func (c *cluster) forget(now time.Time) {
	s := c.store
	for _, id := range c.members.expired(now, s.cfg.seams.Wall(), s.since, s.cfg.Retention) {
		name := s.nameOf(id)
		c.members.drop(id)
		c.unknow(id)
		s.log.Info("a master is forgotten", "master", id, "name", name, "gone for more than", s.cfg.Retention)
		s.logEvent(Event{Kind: MasterEvent, Type: EventForgotten, Master: id,
			Text: fmt.Sprintf("%s has been gone for more than %s and is forgotten", name, s.cfg.Retention)})
		s.changes.Add(change{kind: MasterChange, id: id})
	}
	c.mesh.ForgetUnheard(now, c.members.has)
}

func (c *cluster) unknow(id string) {
	if p, err := peer.Decode(id); err == nil {
		c.plane.forget(p)
		c.mesh.Forget(p)
	}
	c.store.collisions.table.Forget(id)
	c.store.replica.Forget(id)
}

func (d *membership) has(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peers[id] != nil
}

// expired returns the masters that have been gone for longer than retention, by the
// monotonic clock where they were heard in this run. Others have a minute from its
// beginning to be heard, whatever the wall clock says.
func (d *membership) expired(now, wall, began time.Time, retention time.Duration) (ids []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, p := range d.peers {
		gone := now.Sub(p.lastHeard)
		if p.lastHeard.IsZero() {
			gone = wall.Sub(p.LastSeen)
		}
		if gone > retention && now.Sub(began) > min(time.Minute, retention) && len(d.heardBy(now, id)) == 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// drop removes a master.
func (d *membership) drop(id string) {
	d.mu.Lock()
	delete(d.peers, id)
	d.mu.Unlock()
	d.saveSoon()
}

// skews tells of the clocks that go wrong or are right again, each once.
func (d *membership) skews(now time.Time, publish func(id, text string)) {
	type news struct{ id, text string }
	var all []news
	d.mu.Lock()
	for id, p := range d.peers {
		skew := time.Duration(math.Abs(float64(p.skew)))
		switch {
		case p.statusAt(now) != MasterAlive:
		case skew > maxSkew && !p.skewed:
			p.skewed = true
			where := "ahead of"
			if p.skew < 0 {
				where = "behind"
			}
			all = append(all, news{id, fmt.Sprintf("the clock of %s is %s %s this master's", p.Name, skew.Round(time.Second), where)})
		case skew < maxSkew/2 && p.skewed:
			p.skewed = false
			all = append(all, news{id, fmt.Sprintf("the clock of %s and this master's agree again", p.Name)})
		}
	}
	d.mu.Unlock()
	slices.SortFunc(all, func(a, b news) int { return strings.Compare(a.id, b.id) })
	for _, n := range all {
		publish(n.id, n.text)
	}
}
