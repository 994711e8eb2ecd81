package cluster

import (
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/antientropy"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// merge compares states with another master and joins them, in the background;
// one comparison at a time with each, and none while blocks come in.
func (c *Cluster) merge(with peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.merges[with] || c.pulls[with] != nil || c.fetching() || c.ctx.Err() != nil || !c.mesh.Admitted(with) {
		return
	}
	c.merges[with] = true
	c.spawn(func() {
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.merges, with)
		}()
		n, err := c.mergeOnce(with)
		switch {
		case err != nil && c.ctx.Err() == nil:
			c.cfg.States.State(slog.LevelInfo, "compare "+with.String(), "broke off", "comparing records broke off", "with", with, "err", err)
		case n > 0:
			c.cfg.Logger.Info("records differed and were merged", "with", with, "nodes", n)
		}
	})
}

func (c *Cluster) mergeOnce(with peer.ID) (int, error) {
	s, err := c.mesh.Host().NewStream(c.ctx, with, antientropy.Protocol)
	if err != nil {
		c.cfg.Replica.Compared(with.String(), 0, err)
		return 0, err
	}
	began := time.Now()
	c.cfg.Replica.Comparing(with.String())
	n, err := antientropy.Merge(c.ctx, s, c.cfg.Table, c.learned)
	c.cfg.Replica.Compared(with.String(), n, err)
	if err == nil {
		c.cfg.Members.Merged(with.String(), began)
		c.cfg.Store.Exchanged()
	}
	return n, err
}

// compared answers another master's comparison.
func (c *Cluster) compared(s network.Stream) {
	select {
	case c.serves <- struct{}{}:
		defer func() { <-c.serves }()
	default:
		_ = s.Reset() // busy; the other comes again
		return
	}
	if err := antientropy.Serve(c.ctx, s, c.cfg.Table, c.learned); err != nil && c.ctx.Err() == nil {
		with := s.Conn().RemotePeer()
		c.cfg.States.State(slog.LevelInfo, "compare "+with.String(), "broke off", "comparing records broke off", "with", with, "err", err)
	}
}

func (c *Cluster) learned(node string, st record.State) {
	c.cfg.Store.Arrives(time.Now(), node, st)
	c.cfg.Replica.Learned(node, st)
}
