package sim

import (
	"slices"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// backup is what a master held at some time.
type backup map[string]record.State

// strike does a step that befalls one master, or all.
func (w *world) strike(s Step, m *master) {
	switch s.What {
	case "crash":
		w.tracef("%s is killed", m.id)
		m.stop(false)
		w.back(m, int64(s.B%10_000))
	case "die":
		m.disk.dieIn = 1 + s.B%4
	case "stop":
		w.tracef("%s leaves", m.id)
		m.stop(true)
		w.back(m, int64(s.B%10_000))
	case "absent":
		w.tracef("%s is away", m.id)
		m.stop(s.B%2 == 0)
		w.back(m, 20_000+int64(s.B%30_000))
	case "full":
		w.tracef("the disk of %s is full", m.id)
		m.disk.full = true
		w.after(int64(s.B%15_000), m.disk.recover)
	case "step":
		m.skew += int64(s.B-1<<15) * 1000
		w.tracef("the clock of %s steps, it is %s ahead", m.id, time.Duration(m.skew)*time.Millisecond)
	case "backup":
		if m.up {
			b := backup{}
			for e := range m.table.All() {
				b[e.ID] = e.State
			}
			w.backups = append(w.backups, b)
			w.tracef("%s is backed up, %d nodes", m.id, len(b))
		}
	case "restore":
		if m.up && len(w.backups) > 0 {
			b := w.backups[s.B%len(w.backups)]
			for _, a := range w.agents {
				if st, ok := b[a.node]; ok && st.Newest() >= m.disk.Cutoff() {
					f, _ := m.replica.Learned(a.node, st)
					m.promise(f, fact{node: a.node, state: st, by: m})
				}
			}
			w.tracef("a backup is restored at %s", m.id)
		}
	case "rot":
		m.stop(s.B%2 == 0)
		w.rot(m)
		w.back(m, int64(s.B%10_000))
	case "wipe":
		m.stop(s.B%2 == 0)
		w.wipe(m)
		w.back(m, int64(s.B%10_000))
	case "burst": // enough to fill epochs
		if m.up {
			for i := range 20 {
				w.after(int64(i*30), func() {
					if a := w.agents[(s.B+i)%len(w.agents)]; m.up && a.alive {
						w.report(a, m, complete)
						m.catchUp()
					}
				})
			}
		}
	case "month":
		w.pass(31 * day)
	case "rest":
		w.pass(int64(s.B % 20_000))
	}
}

// rot takes a value out of the disk of a master that does not run, and leaves the
// block that wrote it: so it is after a fault in the base, or of the disk. It takes
// only what another master has safely.
func (w *world) rot(m *master) {
	for key, v := range m.disk.cur().sorted() {
		for _, o := range w.masters {
			s := o.disk.cur()
			if o == m || s.synced != len(s.txns) {
				continue
			}
			safe, held := true, s.held()
			_ = epoch.Decode(key, v.bytes, func(node string, st record.State) { safe = safe && held[node].Dominates(st) })
			if safe {
				delete(m.disk.cur().values, key)
				m.rotten = true
				w.tracef("%s has lost what its disk held at %s", m.id, key)
				break
			}
		}
	}
}

// wipe empties the disk of a master that does not run, if others have on theirs all
// that it holds.
func (w *world) wipe(m *master) {
	for node, st := range m.disk.held() {
		if !slices.ContainsFunc(w.masters, func(o *master) bool {
			s := o.disk.cur()
			return o != m && s.synced == len(s.txns) && o.disk.held()[node].Dominates(st)
		}) {
			return
		}
	}
	m.disk.wipe()
	m.rotten = true
	w.tracef("the disk of %s is empty", m.id)
}

// back starts a master again later.
func (w *world) back(m *master, ms int64) {
	w.after(ms, func() {
		if !m.up {
			w.tracef("%s is back", m.id)
			m.start()
		}
	})
}

// pass lets time pass at once; what is on its way comes as much later. In all that
// time the agents that live have been heard, as the running masters have noted.
func (w *world) pass(ms int64) {
	w.now += ms
	for i := range w.queue {
		w.queue[i].at += ms
	}
	w.tracef("%s have passed", time.Duration(ms)*time.Millisecond)
	for _, m := range w.masters {
		if m.up && ms >= day {
			m.replica.Checkpoint()
		}
	}
}
