package crdtstoretest_test

import (
	"slices"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

const (
	// patience is how long the masters may take until they hold the same, once
	// they can all talk. It is virtual: a bound on what the protocols do, however
	// fast the machine.
	patience = 20 * time.Second
	// grace is how long a master may call a node offline that another one hears
	// which it thinks it reaches. It thinks so for 5 s after the other is cut off.
	grace = 6 * time.Second
)

// whole waits until all masters that run hold the same, and returns how long that
// took.
func (g *grid) whole(when string) time.Duration {
	g.t.Helper()
	began := time.Now()
	for !g.equal() {
		if time.Since(began) > patience {
			g.t.Fatalf("%s: the masters do not hold the same after %s: %s", when, patience, g.digests())
		}
		g.sleep(20 * time.Millisecond)
	}
	g.t.Logf("%s: equal digests after %s", when, time.Since(began))
	return time.Since(began)
}

func (g *grid) digest(m int) string { return g.Store(m).Masters()[0].Digest }

func (g *grid) digests() []string {
	var out []string
	for m, up := range g.up {
		if up {
			out = append(out, g.digest(m))
		}
	}
	return out
}

func (g *grid) equal() bool { return len(slices.Compact(g.digests())) == 1 }

// watch fails the test where a node is called offline for longer than a moment by
// a master that reaches one which hears the node.
func (g *grid) watch() {
	g.t.Helper()
	now := time.Now()
	for o, up := range g.up {
		if !up {
			continue
		}
		reached := map[string]bool{}
		for _, m := range g.Store(o).Masters() {
			reached[m.ID] = m.Status == crdtstore.MasterAlive || m.Status == crdtstore.MasterSelf
		}
		for _, n := range g.nodes {
			key := [2]string{g.Store(o).Name(), n.id}
			by := ""
			if v, err := g.Store(o).Node(n.id); err == nil && v.RemovedAt == nil && v.Status == crdtstore.Offline {
				by = g.heardBy(n, reached)
			}
			if by == "" {
				delete(g.wrong, key)
				continue
			}
			if g.wrong[key].IsZero() {
				g.wrong[key] = now
			}
			if now.Sub(g.wrong[key]) > grace {
				v, _ := g.Store(o).Node(n.id)
				g.t.Fatalf("%s calls %s offline, and reaches %s, which hears it; seen by: %+v", key[0], n.id, by, v.SeenBy)
			}
		}
	}
}

// heardBy names a master out of some that hears a node itself, if there is one.
func (g *grid) heardBy(n *node, masters map[string]bool) string {
	for m, up := range g.up {
		if !up || !masters[g.Store(m).ID()] {
			continue
		}
		v, err := g.Store(m).Node(n.id)
		if err != nil {
			continue
		}
		for _, w := range v.SeenBy {
			if w.Master == g.Store(m).ID() && w.Age() < g.Store(m).OfflineAfter()-grace {
				return g.Store(m).Name()
			}
		}
	}
	return ""
}

// end mends everything and checks what has to hold then: equal digests, everything
// that was acknowledged, and that each master has it on its own disk.
func (g *grid) end() {
	g.t.Helper()
	g.heal()
	for m, up := range g.up {
		if !up {
			g.open(m)
		}
	}
	g.whole("in the end")
	g.sleep(beatEvery + grace)
	g.check("in the end", crdtstore.Online)
	for m := range g.up {
		g.stop(m)
	}
	time.Sleep(time.Hour)
	for m := range g.up {
		g.open(m)
		g.checkOn("from disk alone", m, crdtstore.Suspect)
		g.stop(m)
	}
}

// check looks for everything that was acknowledged, on all masters that run.
func (g *grid) check(when string, status crdtstore.Status) {
	g.t.Helper()
	for m, up := range g.up {
		if up {
			g.checkOn(when, m, status)
		}
	}
}

func (g *grid) checkOn(when string, m int, status crdtstore.Status) {
	g.t.Helper()
	s := g.Store(m)
	for _, n := range g.nodes {
		v, err := s.Node(n.id)
		switch {
		case err != nil:
			g.t.Errorf("%s: %s does not know %s: %v", when, s.Name(), n.id, err)
		case n.bootAt <= n.removed:
			if v.RemovedAt == nil {
				g.t.Errorf("%s: on %s, %s is back, at boot %d; it was removed at boot %d", when, s.Name(), n.id, v.Boot, n.removed)
			}
		case v.RemovedAt != nil:
			g.t.Errorf("%s: on %s, %s is removed; it came back at boot %d and was removed at %d", when, s.Name(), n.id, n.bootAt, n.removed)
		case v.Hostname != n.acked || len(v.VMs) != 1 || v.VMs[0].Name != n.acked:
			g.t.Errorf("%s: %s has %s as %s, want %s", when, s.Name(), n.id, v.Hostname, n.acked)
		case !n.removable && (v.Drained != n.drained || v.Labels["at"] != n.label):
			g.t.Errorf("%s: on %s, %s is drained: %v, labelled %q, want %v, %q", when, s.Name(), n.id, v.Drained, v.Labels["at"], n.drained, n.label)
		case v.Status != status:
			g.t.Errorf("%s: on %s, %s is %s, want %s; seen by %+v", when, s.Name(), n.id, v.Status, status, v.SeenBy)
		}
	}
}

// The network and the masters.

func (g *grid) heal() { g.part(nil) }

// part keeps from b what a sends where cut is true; nil: nothing.
func (g *grid) part(cut func(a, b int) bool) {
	g.cut = cut
	if cut == nil {
		g.Heal()
		return
	}
	g.Cut(cut)
}

// open starts a master. What it held when it vanished has to be there.
func (g *grid) open(m int) {
	g.t.Helper()
	g.Open(m)
	g.up[m] = true
	if is := g.digest(m); g.held[m] != "" && g.held[m] != is {
		g.t.Errorf("%s opens with digest %s, held %s", g.Store(m).Name(), is, g.held[m])
	}
	g.held[m] = ""
}

func (g *grid) stop(m int) {
	g.up[m] = false
	g.Stop(m)
}

// vanish stops a master without a word to the others.
func (g *grid) vanish(m int) {
	g.t.Helper()
	was := g.cut
	g.part(func(a, b int) bool { return a == m || b == m || was != nil && was(a, b) })
	g.sleep(time.Second) // until nothing is under way to it
	g.held[m] = g.digest(m)
	g.stop(m)
	g.part(was)
}
