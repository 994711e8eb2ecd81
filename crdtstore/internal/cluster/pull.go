package cluster

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dagsync"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/gossip"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
)

const maxPulls = 4 // transfers to other masters at one time

// pulling is a transfer from one master; moved is when it began, or something came.
type pulling struct{ moved atomic.Pointer[time.Time] }

// stalled is how long nothing may come in a transfer until another master is asked too.
const stalled = 3 * time.Second

// Announce sends new blocks to all.
func (c *Cluster) Announce(number uint64, blocks []dag.Block) {
	for _, msg := range dagsync.Announcements(number, blocks, gossip.MaxMessage/2) {
		msg = dagsync.Sequenced(msg, c.cfg.Run, c.announcements.Add(1))
		if err := c.gossip.Announce(c.ctx, msg); err != nil && c.ctx.Err() == nil {
			// The others see the new heads in the next pulse and fetch them.
			c.cfg.States.State(slog.LevelWarn, "announce", "fails", "cannot announce new records", "err", err)
		}
	}
}

// Announced is of [gossip.Handler]: it takes new blocks from another master.
func (c *Cluster) Announced(from peer.ID, data []byte) {
	step, err := c.cfg.Replica.Announced(c.ctx, from.String(), data)
	switch {
	case step == replica.Pull:
		c.pull(from)
	case errors.Is(err, dag.ErrBlock), errors.Is(err, dagsync.ErrMessage):
		c.cfg.States.State(slog.LevelWarn, "announcement "+from.String(), "bad", "bad announcement", "from", from, "err", err)
	case errors.Is(err, epoch.ErrEpoch), errors.Is(err, epoch.ErrClosed):
	case err != nil && c.ctx.Err() == nil:
		c.cfg.States.State(slog.LevelError, "announcement "+from.String(), "refused", "cannot take records of another master", "from", from, "err", err)
	}
}

// pull fetches what another master has and this one has not, in the background;
// one transfer at a time for each.
func (c *Cluster) pull(from peer.ID) {
	if !c.mesh.Admitted(from) {
		// It is heard through others, who have what it has.
		for _, id := range c.mesh.Peers() {
			c.pull(id)
		}
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin(from)
}

// begin begins a transfer, or puts it off while one is under way: masters mostly have
// the same, and what comes from two comes twice. It is called with mu held.
func (c *Cluster) begin(from peer.ID) {
	if c.ctx.Err() != nil {
		return
	}
	if c.pulls[from] != nil || c.fetching() {
		c.later[from] = true
		return
	}
	p := &pulling{}
	p.moves()
	c.pulls[from] = p
	c.spawn(func() {
		step := c.pullOnce(from, p)
		if step == replica.Compare {
			defer c.merge(from)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.pulls, from)
		next := c.later
		c.later = map[peer.ID]bool{}
		for id := range next {
			c.begin(id)
		}
	})
}

// fetching reports whether blocks come in. It is called with mu held.
func (c *Cluster) fetching() bool {
	for _, p := range c.pulls {
		if time.Since(*p.moved.Load()) < stalled {
			return true
		}
	}
	return false
}

func (p *pulling) moves() {
	now := time.Now()
	p.moved.Store(&now)
}

func (c *Cluster) pullOnce(from peer.ID, p *pulling) replica.Step {
	began, number := time.Now(), c.cfg.History.Number()
	s, err := c.mesh.Host().NewStream(c.ctx, from, dagsync.PullProtocol)
	if err != nil {
		c.cfg.Logger.Debug("cannot fetch records", "from", from, "err", err)
		return c.cfg.Replica.Pulled(from.String(), 0, err)
	}
	n, err := dagsync.Pull(c.ctx, s, c.cfg.History, func(blocks []dag.Block) error {
		defer p.moves()
		return c.cfg.History.Deliver(c.ctx, number, blocks)
	})
	switch {
	case err != nil && c.ctx.Err() == nil:
		// The next pulse shows that something is still missing.
		c.cfg.States.State(slog.LevelInfo, "fetch "+from.String(), "broke off", "fetching records broke off", "from", from, "blocks", n, "err", err)
	case n > 0:
		c.cfg.Logger.Debug("fetched records", "from", from, "blocks", n, "took", time.Since(began))
	}
	if err == nil {
		c.cfg.States.Ended("fetch " + from.String())
	}
	return c.cfg.Replica.Pulled(from.String(), n, err)
}

func (c *Cluster) serve(s network.Stream) {
	select {
	case c.serves <- struct{}{}:
		defer func() { <-c.serves }()
	default:
		_ = s.Reset() // busy; the puller comes again with the next pulse
		return
	}
	if _, err := dagsync.Serve(c.ctx, s, c.cfg.History); err != nil && c.ctx.Err() == nil {
		to := s.Conn().RemotePeer()
		c.cfg.States.State(slog.LevelInfo, "send "+to.String(), "broke off", "sending records broke off", "to", to, "err", err)
	}
}
