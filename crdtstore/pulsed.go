package crdtstore

import (
	"bytes"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Bounds on what one pulse may make this master remember.
const (
	maxHeads = 64
	maxURLs  = 16
)

// pulsed takes a pulse of another master.
func (c *cluster) pulsed(from peer.ID, data []byte) {
	msg, err := liveness.Decode(data)
	if err != nil {
		c.store.log.Warn("bad pulse", "from", from, "err", err)
		return
	}
	now := time.Now()
	for _, p := range msg.Pulses {
		if record.ValidNodeID(p.NodeID) == nil {
			c.store.board.Merge(now, from.String(), p)
		}
	}
	if msg.Master != nil {
		c.heard(now, from, msg.Master)
	}
}

func (c *cluster) heard(now time.Time, from peer.ID, m *liveness.MasterInfo) {
	for _, list := range []*[]string{&m.RPCURLs, &m.UIURLs, &m.MeshAddrs} {
		*list = (*list)[:min(len(*list), maxURLs)]
	}
	digest, _ := c.store.table.Digest()
	if c.dir.heard(now, from.String(), m, bytes.Equal(m.Digest, digest[:])) {
		c.store.hub.add(change{kind: MasterEvent, id: from.String()})
	}
	contacts := []p2p.Contact{{ID: from.String(), Addrs: m.MeshAddrs}}
	for _, k := range m.Contacts {
		contacts = append(contacts, p2p.Contact{ID: k.ID, Addrs: k.Addrs})
	}
	c.mesh.Learn(contacts)
	if !c.follow(m.Epoch, from) {
		return
	}
	for _, h := range m.Heads[:min(len(m.Heads), maxHeads)] {
		id, err := cid.Cast(h)
		if err != nil {
			return
		}
		if has, err := c.store.history.Has(c.ctx, id); err == nil && !has {
			c.pull(from)
			return
		}
	}
	// All blocks it has are here. If it holds something else all the same, and
	// not only for the moment that things take on their way, compare states.
	if c.dir.differsFor(now, from.String()) > settle {
		c.merge(from)
	}
}
