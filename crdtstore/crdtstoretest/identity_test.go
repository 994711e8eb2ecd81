package crdtstoretest_test

import (
	"errors"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// recognised is how long it may take until all masters name a collision.
const recognised = 8 * time.Second

// starts starts a copy of a master's data directory beside it. It is not one of the masters
// that the grid watches.
func (g *grid) starts(of int) int {
	g.t.Helper()
	g.stop(of)
	n := g.Copy(of)
	g.open(of)
	g.sleep(3 * time.Second)
	g.Open(n)
	return n
}

// collides waits until each of some masters names the collision of an identity.
func (g *grid) collides(id string, masters ...int) {
	g.t.Helper()
	for began := time.Now(); ; g.sleep(50 * time.Millisecond) {
		missing := ""
		for _, m := range masters {
			if is, err := g.Store(m).Master(id); err != nil || is.Cause != crdtstore.CauseCollision || is.Reason == "" || is.Since.IsZero() {
				missing = g.Store(m).Name()
			}
		}
		if missing == "" {
			g.t.Logf("all name the collision after %s", time.Since(began))
			return
		}
		if time.Since(began) > recognised {
			g.t.Fatalf("%s does not name the collision after %s", missing, recognised)
		}
	}
}

// refuses fails the test unless a master is unhealthy and takes no writes for the identity
// that it shares.
func (g *grid) refuses(m int) {
	g.t.Helper()
	if err := g.Store(m).Health(); !errors.Is(err, crdtstore.ErrCollision) {
		g.t.Errorf("the copy says of its health: %v", err)
	}
	r := crdtstore.Report{NodeID: "lost", Boot: 1, Seq: uint64(time.Now().UnixMilli())}
	if _, err := g.Store(m).Report(g.t.Context(), r); !errors.Is(err, crdtstore.ErrUnavailable) || !errors.Is(err, crdtstore.ErrCollision) {
		g.t.Errorf("a write at the copy ends with %v", err)
	}
}

func (g *grid) healthy() {
	g.t.Helper()
	for m, up := range g.up {
		if err := g.Store(m).Health(); up && err != nil {
			g.t.Errorf("m%d is not healthy: %v", m, err)
		}
	}
}

// TestIdentityCopied has a copy of a master's data directory come, stay and go, in all the
// places that it may meet the others in.
func TestIdentityCopied(t *testing.T) {
	for _, c := range []struct {
		name    string
		masters int
		apart   func(copied int) func(a, b int) bool // nil: all meet all
	}{
		{"beside two others", 3, nil},
		{"beside one other", 2, nil},
		// The original is connected to m0, the copy to m2 only.
		{"where the original is not", 3, func(copied int) func(a, b int) bool {
			not := func(a, b int) bool { return a == 1 && b == 2 || a == copied && (b == 0 || b == 1) }
			return func(a, b int) bool { return not(a, b) || not(b, a) }
		}},
		// Nobody else is there, but the copy has the address of the original.
		{"beside the original alone", 2, func(copied int) func(a, b int) bool {
			return func(a, b int) bool { return a == 0 || b == 0 }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			scenario(t, c.masters, nil, func(g *grid) {
				id := g.Store(1).ID()
				if c.apart != nil {
					g.part(c.apart(c.masters)) // the copy's number
					g.sleep(20 * time.Second)
				}
				copied := g.starts(1)
				var all []int
				for m := range c.masters {
					if c.name != "beside the original alone" || m != 0 {
						all = append(all, m)
					}
				}
				g.collides(id, append(all, copied)...)
				g.refuses(copied)
				g.healthy()
				for range 20 { // what is refused stays so, and the others whole
					g.sleep(time.Second)
					g.refuses(copied)
					g.healthy()
				}
				if c.apart == nil {
					g.alive("beside a copy")
					g.direct("beside a copy")
				}
				g.Stop(copied)
				g.heal()
				g.alive("the copy is gone")
				g.direct("the copy is gone")
				g.sleep(15 * time.Second)
				for m := range c.masters {
					if is, err := g.Store(m).Master(id); err != nil || is.Cause != "" {
						t.Errorf("m%d still says %q (%v)", m, is.Cause, err)
					}
				}
			})
		})
	}
}

// TestRestartsAreNoCollision has masters be started again and again, in good order and
// not, also at other addresses. None of it is ever taken for a copy.
func TestRestartsAreNoCollision(t *testing.T) {
	scenario(t, 3, nil, func(g *grid) {
		for i := range 12 {
			m := g.rand.IntN(3)
			switch i % 3 {
			case 0:
				g.stop(m)
			case 1:
				g.vanish(m)
			case 2:
				g.vanish(m)
				g.Move(m)
			}
			g.sleep(time.Duration(g.rand.Int64N(int64(8 * time.Second))))
			g.open(m)
			for range 10 {
				g.sleep(time.Duration(g.rand.Int64N(int64(time.Second))))
				for o := range g.up {
					for _, is := range g.Store(o).Masters() {
						if is.Cause != "" {
							t.Fatalf("m%d says of %s: %s, %s", o, is.Name, is.Cause, is.Reason)
						}
					}
				}
				g.healthy()
			}
		}
		for m := range g.up {
			for _, o := range g.Store(m).Masters() {
				if o.Status != crdtstore.MasterSelf && o.Status != crdtstore.MasterAlive {
					t.Errorf("m%d sees %s as %s", m, o.Name, o.Status)
				}
			}
		}
	})
}

// TestOriginalRestartsBesideItsCopy has a master whose data directory was copied end, in
// good order or not, and start again while the copy lives. The copy has yielded, so the
// original serves again within seconds, though its run began later, and goes on doing so
// for longer than what was refused is remembered.
func TestOriginalRestartsBesideItsCopy(t *testing.T) {
	for name, c := range map[string]struct {
		masters int
		ends    func(g *grid, m int)
	}{
		"stopped":          {3, (*grid).stop},
		"vanished, of two": {2, (*grid).vanish},
	} {
		t.Run(name, func(t *testing.T) {
			scenario(t, c.masters, nil, func(g *grid) {
				id := g.Store(1).ID()
				copied := g.starts(1)
				g.collides(id, copied)
				for _, away := range []time.Duration{time.Second, 45 * time.Second} {
					c.ends(g, 1)
					g.heal()
					g.sleep(away)
					g.refuses(copied)
					g.open(1)
					for began := time.Now(); g.Store(1).Health() != nil; g.sleep(100 * time.Millisecond) {
						if time.Since(began) > reunion {
							t.Fatalf("after %s the original is not healthy: %v", away, g.Store(1).Health())
						}
					}
					for range 15 {
						g.sleep(5 * time.Second)
						g.healthy()
						g.refuses(copied)
						if t.Failed() {
							return
						}
					}
				}
				g.alive("beside a copy")
				g.Stop(copied)
			})
		})
	}
}
