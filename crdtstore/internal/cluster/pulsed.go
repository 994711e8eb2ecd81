package cluster

import (
	"log/slog"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// maxHeads bounds the heads that are taken from one pulse.
const maxHeads = 64

// Pulsed is of [gossip.Handler]: it takes a pulse of another master.
func (c *Cluster) Pulsed(from peer.ID, data []byte) {
	msg, err := liveness.Decode(data)
	if err != nil {
		c.cfg.States.State(slog.LevelWarn, "pulse "+from.String(), "bad", "bad pulse", "from", from, "err", err)
		return
	}
	now := time.Now()
	if m := msg.Master; m != nil {
		if !c.cfg.Collisions.Observe(now, from.String(), m) {
			return
		}
		c.plane.echoed(time.Now(), from, m.Run == "" || slices.ContainsFunc(m.Echoes, func(e liveness.Echo) bool {
			return e.Master == c.cfg.Self && e.Run == c.cfg.Run && e.Direct
		}))
		if c.plane.checkCount(now, from, m.Run, m.Announced) {
			c.pull(from)
		}
	}
	for _, p := range msg.Pulses {
		if record.ValidNodeID(p.NodeID) == nil {
			c.cfg.Board.Merge(now, from.String(), p)
		}
	}
	if msg.Master != nil {
		c.takeSummary(now, from, msg.Master)
	}
}

func (c *Cluster) takeSummary(now time.Time, from peer.ID, m *liveness.MasterInfo) {
	membership.Bound(m)
	if save := c.cfg.Store.Ended(now, from.String(), m.Ended); save != nil {
		c.spawn(save)
	}
	contacts := []p2p.Contact{{ID: from.String(), Addrs: m.MeshAddrs}}
	for _, k := range m.Contacts {
		contacts = append(contacts, p2p.Contact{ID: k.ID, Addrs: k.Addrs})
	}
	c.mesh.Learn(contacts)
	c.cfg.Store.Heard(now, from.String())
	s := summary(m)
	apart := c.cfg.Replica.Note(from.String(), s)
	shown, back := c.cfg.Members.Observe(now, from.String(), m, c.cfg.Replica.Agreement(from.String()).InSync)
	if shown {
		c.cfg.Store.MasterChanged(from.String())
	}
	if back {
		c.expectFullState()
	}
	c.follow(from, latest{s, apart})
}

// latest is what another master said last of its records, and for how long it has held
// something else.
type latest struct {
	summary replica.Summary
	apart   time.Duration
}

// follow does what another master's summary asks for, in the background: it may wait for
// the disk, for which no pulse may wait. While that is under way the next summary waits,
// and only the last one counts.
func (c *Cluster) follow(from peer.ID, s latest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, busy := c.follows[from]
	if c.ctx.Err() != nil {
		return
	}
	if c.follows[from] = &s; busy {
		return
	}
	c.spawn(func() {
		for s := c.nextLatest(from); s != nil; s = c.nextLatest(from) {
			c.followOnce(from, s)
		}
	})
}

// nextLatest takes the summary that waits; nil: none does.
func (c *Cluster) nextLatest(from peer.ID) *latest {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.follows[from]
	if s == nil {
		delete(c.follows, from)
	} else {
		c.follows[from] = nil
	}
	return s
}

func (c *Cluster) followOnce(from peer.ID, s *latest) {
	step, err := c.cfg.Replica.Next(c.ctx, from.String(), s.summary, s.apart)
	if err != nil && c.ctx.Err() == nil {
		c.cfg.States.State(slog.LevelError, "follow "+from.String(), "fails", "cannot follow another master", "master", from, "epoch", s.summary.Epoch, "err", err)
	}
	switch step {
	case replica.Pull:
		c.pull(from)
	case replica.Compare:
		c.merge(from)
	}
	c.cfg.Store.Exchanged()
}

// summary is what a master says of its records. What cannot be read of it says
// nothing.
func summary(m *liveness.MasterInfo) replica.Summary {
	s := replica.Summary{Epoch: m.Epoch, Cutoff: m.Cutoff, Wall: m.Wall, Fetching: m.Fetching || m.Joining, Nodes: m.Nodes}
	switch {
	case m.Connectivity == nil:
	case m.Joining:
		s.Holds = m.Connectivity.Holds
	default: // a master that is whole holds what those hold that it hears
		s.Holds = m.Connectivity.Masters
	}
	copy(s.Digest[:], m.Digest)
	for _, h := range m.Heads[:min(len(m.Heads), maxHeads)] {
		if id, err := cid.Cast(h); err == nil {
			s.Heads = append(s.Heads, id)
		}
	}
	return s
}
