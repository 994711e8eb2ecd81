package sim

import (
	"context"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// fact is something that a caller was told is on disk.
type fact struct {
	node  string
	state record.State
	by    *master
}

func (w *world) acknowledge(f fact) {
	if !f.state.IsZero() {
		w.facts = append(w.facts, f)
	}
}

// known reports whether a state holds a fact, or may have forgotten it.
func (w *world) known(st record.State, f fact, cutoff int64) bool {
	return st.Dominates(f.state) || f.state.Newest() < cutoff
}

// rebuilt checks that what a process finds on its disk holds everything that
// processes on that disk have acknowledged (INV-5).
func (w *world) rebuilt(m *master) {
	for _, f := range w.facts {
		if f.by == m && !m.rotten && !w.known(m.replica.State(f.node), f, m.disk.Cutoff()) {

			w.fail("INV-5: %s acknowledged something about %s, and does not find it on its disk", m.id, f.node)
		}
	}
}

// checked is a disk that sees to INV-6: what is deleted is not needed.
type checked struct {
	*disk
	m *master
}

func (c checked) Retire(ctx context.Context) error {
	if !c.dead && !c.full {
		held := c.cur().held()
		for e := range c.m.table.All() {
			if !held[e.ID].Dominates(e.State) {
				c.m.w.fail("INV-6: %s deletes an epoch, and the newer one does not hold all that it knows of %s", c.m.id, e.ID)
			}
		}
	}
	return c.disk.Retire(ctx)
}

// snapshot is what a process held at some time.
type snapshot struct {
	life   uint64
	states map[string]record.State
}

// snapshots returns what all running masters but one hold.
func (w *world) snapshots(but *master) map[*master]snapshot {
	out := map[*master]snapshot{}
	for _, m := range w.masters {
		if m == but || !m.up {
			continue
		}
		s := snapshot{m.life, map[string]record.State{}}
		for e := range m.table.All() {
			s.states[e.ID] = e.State
		}
		out[m] = s
	}
	return out
}

// whole checks a master that has just stopped joining: whatever a master held when it
// began, that it has heard just now and can talk with, it holds too.
func (w *world) whole(m *master) {
	w.tracef("%s is whole", m.id)
	for o, s := range m.before {
		if at, heard := m.observedAt[o.id]; !heard || w.now-at > recent || !o.up || o.life != s.life || !m.talks(o) {
			continue
		}
		for node, st := range s.states {
			if st.Newest() >= m.disk.Cutoff() && !m.replica.State(node).Dominates(st) {
				w.fail("%s says that it is whole, and does not hold what %s held of %s before it began", m.id, o.id, node)
			}
		}
	}
	m.before = nil
}

// equal reports whether all masters hold the same and have nothing more to do.
func (w *world) equal() bool {
	first, _ := w.masters[0].digest()
	for _, m := range w.masters {
		if d, quiet := m.digest(); !quiet || m.disk.joining || d != first || m.disk.Number() != w.masters[0].disk.Number() {
			return false
		}
	}
	return true
}

// verify checks what must hold once all masters are quiet.
func (w *world) verify() {
	cutoff := int64(0)
	for _, m := range w.masters {
		cutoff = max(cutoff, m.disk.Cutoff())
	}
	for _, m := range w.masters {
		for _, f := range w.facts {
			if !w.known(m.replica.State(f.node), f, cutoff) {
				w.fail("%s acknowledged something about %s, and %s does not hold it", f.by.id, f.node, m.id)
			}
		}
	}
	for _, m := range w.masters {
		held := m.disk.cur().held()
		for e := range m.table.All() {
			if !held[e.ID].Dominates(e.State) {
				w.fail("INV-5: %s shows something of %s that is not on its disk", m.id, e.ID)
			}
		}
	}
	first := w.masters[0]
	for _, m := range w.masters[1:] {
		for e := range m.table.All() {
			if s := first.replica.State(e.ID); !s.Equal(e.State) || s.Encode() != nil && string(s.Encode()) != string(e.State.Encode()) {
				w.fail("equal digests, and %s and %s hold %s differently", first.id, m.id, e.ID)
			}
		}
	}
	for _, a := range w.agents {
		st := first.replica.State(a.node)
		owner, shown := st.Owner()
		if below := w.removedBelow(a.node, st.Generation, owner.Key); shown && owner.Boot() < below {
			w.fail("%s was removed below boot %d and is shown at boot %d", a.node, below, owner.Boot())
		}
		if !st.Verified(a.node).SameClaims(st) {
			w.fail("%s was forged, and that is believed: %+v", a.node, st.Claims)
		}
		if own := a.key == nil == (owner.Key == ""); shown && own && owner.Boot() > max(a.boot, 20) {
			w.fail("%s is shown at boot %d, it was never at more than %d", a.node, owner.Boot(), a.boot)
		}
		if st.Removal.Reason == record.ReasonExpired && st.Removed() && a.alive && a.boot == st.Boot() {
			w.fail("%s expired while it lived", a.node)
		}
	}
}

// removedBelow is the boot below which an operator was told that the accounts of an
// identity are removed; 0: never.
func (w *world) removedBelow(node string, generation uint64, key string) (boot uint64) {
	for _, f := range w.facts {
		for _, c := range f.state.Claims {
			if f.node == node && f.state.Generation == generation && c.Key == key {
				boot = max(boot, c.RemovedBelow)
			}
		}
	}
	return boot
}
