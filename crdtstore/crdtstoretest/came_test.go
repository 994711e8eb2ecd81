package crdtstoretest_test

import (
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// TestAReturningMasterIsToldEverything has a master miss the pulses of another one that
// alone hears the nodes. When the two can talk again it is told of all nodes at once, not
// of each when that beats the next time.
func TestAReturningMasterIsToldEverything(t *testing.T) {
	const soon = 2500 * time.Millisecond // two pulses
	for _, c := range []struct {
		name    string
		masters int
		away    func(g *grid)
	}{
		{"after a split", 2, func(g *grid) {
			g.part(func(a, b int) bool { return true })
			g.sleep(g.Store(0).OfflineAfter() + beatEvery)
			g.heal()
		}},
		{"after a restart", 2, func(g *grid) {
			g.vanish(1)
			g.held[1] = ""
			g.sleep(g.Store(0).OfflineAfter())
			g.open(1)
		}},
		{"by way of another", 3, func(g *grid) {
			apart := func(a, b int) bool { return a+b == 1 } // m0 and m1
			g.part(apart)
			g.sleep(time.Minute)
			g.part(func(a, b int) bool { return apart(a, b) || a+b == 2 }) // and m0 and m2
			g.sleep(g.Store(0).OfflineAfter() + beatEvery)
			g.part(apart)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			scenario(t, c.masters, nil, func(g *grid) {
				for _, n := range g.nodes {
					n.homes = []int{0}
				}
				g.sleep(2 * beatEvery)
				c.away(g)
				for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
					if m, err := g.Store(1).Master(g.Store(0).ID()); err == nil && m.Status == crdtstore.MasterAlive {
						break
					}
					if time.Since(began) > reunion {
						t.Fatal("m1 does not hear m0")
					}
				}
				time.Sleep(soon)
				for _, n := range g.nodes {
					if v, err := g.Store(1).Node(n.id); err != nil || v.Status != crdtstore.Online {
						t.Errorf("%v after m1 hears m0 again, it says of %s: %s, %s (%v)", soon, n.id, v.Status, v.Reason, err)
					}
				}
				g.heal()
			})
		})
	}
}
