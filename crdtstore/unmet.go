package crdtstore

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// unmet returns a row for each configured peer that was never met, nor heard of by way of
// others, in the order in which they are configured.
func (c *cluster) unmet() []Master {
	now := time.Now()
	var out []Master
	for _, u := range c.mesh.Unmet(func(id peer.ID) bool { return c.members.has(id.String()) }) {
		out = append(out, Master{
			Name: u.Peer, ID: u.ID.String(), Status: MasterNeverMet,
			Cause: Cause(u.Cause), Reason: u.Reason, Since: c.store.cfg.seams.Wall().Add(-now.Sub(u.Since)).Round(0).UTC(),
			MeshAddrs: nonNil(u.Addrs), RPCURLs: []string{}, UIURLs: []string{}, EdgeAddrs: []string{}, HeardBy: []string{}, SettingsDiffer: []string{},
		})
	}
	return out
}

// EventNeverMet is logged of a configured peer that was not met for a while, and again when
// the cause is another one.
const EventNeverMet = "never_met"

// unmetAfter is how long the cause must have been the same before it is told: masters
// that start together do not meet in the first moment.
const unmetAfter = 5 * time.Second

// watchUnmet tells watchers of the configured peers that were not met. It belongs to the
// goroutine that sends pulses.
func (c *cluster) watchUnmet(wall time.Time) {
	s := c.store
	current := map[string]Cause{}
	for _, m := range c.unmet() {
		cause, known := c.absent[m.Name]
		current[m.Name] = cause
		if m.Cause == "" || known && cause == m.Cause || wall.Sub(m.Since) < unmetAfter {
			continue
		}
		current[m.Name] = m.Cause
		s.logEvent(Event{Kind: MasterEvent, Type: EventNeverMet, Master: m.ID,
			Text: fmt.Sprintf("the configured master %s was never met: %s", m.Name, m.Reason)})
		s.changes.Add(change{kind: MasterChange, id: m.Name})
	}
	c.absent = current
}
