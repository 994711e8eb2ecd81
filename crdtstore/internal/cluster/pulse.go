package cluster

import (
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
)

const (
	pulseEvery = time.Second
	// pulseGap is the least time between two pulses, when there is news.
	pulseGap = 50 * time.Millisecond
	// fullStateWindow is how long after another master has come everything that this
	// one hears is told, not only what is new: the other has missed the rest,
	// and may not hear the first pulses after it was admitted.
	fullStateWindow = 3 * time.Second
)

// expectFullState has everything told to a master that has come, or that is heard again after a
// silence, be it by way of another: it has missed pulses, and would take the
// nodes in them for silent.
func (c *Cluster) expectFullState() {
	c.mu.Lock()
	c.lastArrival = time.Now()
	c.mu.Unlock()
	c.PulseSoon()
}

// PulseSoon has the next pulse sent without waiting for its time.
func (c *Cluster) PulseSoon() {
	select {
	case c.soon <- struct{}{}:
	default:
	}
}

// pulse tells the others about once a second who this master is, what it holds
// and whom it has heard.
func (c *Cluster) pulse() {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	var published, watched time.Time // when everything was last told, and the others were looked at
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		case <-c.soon:
		}
		if c.leaving.Load() {
			return // a pulse behind our farewell would call us back
		}
		now := time.Now()
		c.mu.Lock()
		everything := now.Sub(c.lastArrival) < fullStateWindow && now.Sub(published) >= pulseEvery*9/10
		c.mu.Unlock()
		pulses := c.cfg.Board.Collect(now)
		if everything {
			published = now
			pulses = c.cfg.Board.Everything(now, 2*c.cfg.OfflineAfter)
		}
		for _, msg := range liveness.Encode(c.info(), pulses) {
			if err := c.gossip.Pulse(c.ctx, msg); err != nil && c.ctx.Err() == nil {
				c.cfg.States.State(slog.LevelWarn, "pulse", "fails", "cannot send a pulse", "err", err)
			}
		}
		if now.Sub(watched) >= pulseEvery/2 {
			watched = now
			c.look(now)
		}
		select { // however often soon is asked for
		case <-c.ctx.Done():
			return
		case <-time.After(pulseGap):
		}
	}
}

func (c *Cluster) info() *liveness.MasterInfo {
	cfg := &c.cfg
	digest, nodes := cfg.Table.Digest()
	m := &liveness.MasterInfo{
		Name: cfg.Name, Version: cfg.Version, RPCURLs: cfg.RPCURLs, UIURLs: cfg.UIURLs,
		MeshAddrs: c.mesh.Addrs(), Wall: cfg.Wall(), Nodes: nodes, Digest: digest[:],
		Epoch: cfg.History.Number(), Cutoff: cfg.History.Cutoff(), EdgeAddrs: cfg.EdgeAddrs, Settings: cfg.Settings,
	}
	_, m.Joining = cfg.Replica.Joining()
	c.mu.Lock()
	m.Fetching = c.fetching()
	c.mu.Unlock()
	now := time.Now()
	cfg.Collisions.Stamp(now, m)
	m.Announced = c.announcements.Load()
	for i, e := range m.Echoes {
		if id, err := peer.Decode(e.Master); err == nil {
			m.Echoes[i].Direct = c.plane.direct(now, id)
		}
	}
	m.Ended = cfg.Store.Ending(now)
	for _, h := range cfg.History.Heads() {
		m.Heads = append(m.Heads, h.Bytes())
	}
	alive := cfg.Members.Alive(now)
	m.Connectivity = &liveness.Connectivity{Masters: alive[:min(len(alive), membership.MaxObserved)], Nodes: cfg.Members.CountDirect(now)}
	if m.Joining {
		holds := cfg.Replica.Holds()
		m.Connectivity.Holds = holds[:min(len(holds), membership.MaxObserved)]
	}
	for _, k := range c.mesh.Contacts() {
		if !cfg.Members.Has(k.ID) {
			continue // never heard here, or not for longer than retention
		}
		m.Contacts = append(m.Contacts, liveness.Contact{ID: k.ID, Addrs: k.Addrs})
	}
	return m
}
