package sim

import (
	"context"
	"crypto/ed25519"
	"fmt"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/antientropy"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// forge has a faulty master make up an account of a node that signs, and hand it to all
// others: in a block, or when they compare states with it. Nobody may believe it.
func (w *world) forge(a *agent, m *master, how int) {
	if a.key == nil {
		return
	}
	s := w.forged(a, m.replica.State(a.node), how)
	if how%2 == 0 {
		w.tracef("%s forges a block about %s", m.id, a.node)
		m.forgeBlock(a.node, s)
		return
	}
	w.tracef("%s forges a state of %s", m.id, a.node)
	for _, o := range w.masters {
		if o == m || !m.talks(o) {
			continue
		}
		lies := table.New()
		lies.Join(a.node, s)
		here, there := newStream(1 << 30)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = antientropy.Serve(context.Background(), there, lies, func(string, record.State) {})
		}()
		_, _ = antientropy.Merge(context.Background(), here, o.table, func(node string, s record.State) { o.replica.Learned(node, s) })
		<-done
		o.catchUp()
	}
}

// forged is a later account of a node's key, without that key: under the signature of
// another, or under a genuine one of another text.
func (w *world) forged(a *agent, known record.State, how int) record.State {
	r := record.Report{NodeID: a.node, Boot: a.boot, Seq: a.seq + 1}
	r.Hostname = fmt.Sprintf("forged-%d", how%4)
	r.Sign(keyOf(how % 20))
	s, err := record.Accept(record.State{}, r, record.Acceptance{Now: w.time().UnixMilli()})
	if err != nil {
		panic(err)
	}
	c := &s.Claims[0]
	c.Key, c.First, s.Generation = string(a.key.Public().(ed25519.PublicKey)), record.Stamp{}, known.Generation
	if how%5 == 0 {
		s.Generation++ // which would drop all that is known
	}
	for _, was := range known.Claims {
		if was.Key == c.Key && how%3 == 0 {
			c.Profile.Seal, c.VMs.Seal = was.Profile.Seal, was.VMs.Seal
		}
	}
	return s
}

// forgeBlock writes a state as if it were one that the master has taken.
func (m *master) forgeBlock(node string, s record.State) {
	key := epoch.StateKey(node, epoch.Writer("forger", m.w.rnd.Uint32()))
	b := m.disk.cur().build([]dag.Element{{Key: key, Value: s.Encode()}})
	if m.disk.Deliver(context.Background(), m.disk.Number(), []dag.Block{b}) == nil {
		m.announce(m.disk.Number(), []dag.Block{b})
	}
}
