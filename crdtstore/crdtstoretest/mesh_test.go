package crdtstoretest_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

const (
	// reunion is how long two masters that can exchange packets may take until they
	// see each other alive and records arrive in one hop.
	reunion = 10 * time.Second
	// oneHop is how long a record may be under way then.
	oneHop = 500 * time.Millisecond
)

// propagates writes 50 records at one master and measures the slowest on its way to
// another.
func (g *grid) propagates(from, to int) time.Duration {
	g.t.Helper()
	slowest := time.Duration(0)
	for range 50 {
		n := g.nodes[g.rand.IntN(len(g.nodes))]
		g.report(n, from)
		began := time.Now()
		for {
			if v, err := g.Store(to).Node(n.id); err == nil && v.Hostname == n.acked {
				break
			}
			if time.Since(began) > reunion {
				g.t.Fatalf("a record of m%d is not on m%d after %s", from, to, reunion)
			}
			time.Sleep(time.Millisecond)
		}
		slowest = max(slowest, time.Since(began))
		g.sleep(100 * time.Millisecond)
	}
	return slowest
}

// direct fails the test unless records of each master are on each other one within
// oneHop.
func (g *grid) direct(when string) {
	g.t.Helper()
	if late := g.late(); late != "" {
		g.t.Errorf("%s: %s", when, late)
	}
}

// late names two masters between which records take longer than one hop, if there are any.
func (g *grid) late() string {
	for a, up := range g.up {
		for b, too := range g.up {
			if a == b || !up || !too {
				continue
			}
			if slowest := g.propagates(a, b); slowest > oneHop {
				return fmt.Sprintf("the slowest of 50 records of m%d took %s to m%d, want at most %s", a, slowest, b, oneHop)
			}
		}
	}
	return ""
}

// becomesDirect is direct for a connection that may still send again what was lost: all is
// well within reunion.
func (g *grid) becomesDirect(when string) {
	g.t.Helper()
	for began := time.Now(); ; {
		late := g.late()
		if late == "" {
			return
		}
		if time.Since(began) > reunion {
			g.t.Fatalf("%s: still after %s, %s", when, reunion, late)
		}
	}
}

// TestAStreamDies has the streams die over which announcements go, while the connection
// stands. Masters are two here, so that no third one hides what is broken.
func TestAStreamDies(t *testing.T) {
	for _, c := range []struct {
		name   string
		breaks func(g *grid)
	}{
		{"of one", func(g *grid) { g.resets(0, 1) }},
		{"of both", func(g *grid) { g.resets(0, 1); g.resets(1, 0) }},
		{"again and again", func(g *grid) {
			for range 6 {
				g.resets(0, 1)
				g.sleep(reunion / 5)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			scenario(t, 2, nil, func(g *grid) {
				c.breaks(g)
				g.sleep(reunion)
				g.direct(fmt.Sprint("after streams ", c.name))
			})
		})
	}
}

// TestASubscriptionIsLost has one master forget what another one has subscribed to, while
// nothing else is wrong: it is silent, and does not know.
func TestASubscriptionIsLost(t *testing.T) {
	const announce, pulse = "/hero-explorer/announce/1", "/hero-explorer/pulse/1"
	for name, topics := range map[string][]string{"of announcements": {announce}, "of pulses": {pulse}, "of both": {announce, pulse}} {
		for _, masters := range []int{2, 3} {
			t.Run(fmt.Sprint(name, ", ", masters, " masters"), func(t *testing.T) {
				scenario(t, masters, nil, func(g *grid) {
					before := g.Store(1).Stats().Convergence.Rebuilt
					for _, topic := range topics {
						g.Unsubscribe(1, 0, topic)
					}
					shown := false
					for began := time.Now(); time.Since(began) < reunion; g.sleep(200 * time.Millisecond) {
						g.report(g.nodes[0], 0)
						is, err := g.Store(1).Master(g.Store(0).ID())
						shown = shown || err == nil && !is.Direct && is.Status == crdtstore.MasterAlive
					}
					if c := g.Store(1).Stats().Convergence; c.Rebuilt == before || masters == 2 && topics[0] == announce && len(topics) == 1 && c.Gaps == 0 {
						t.Errorf("m1 has not noticed that nothing arrives from m0: %+v", c)
					}
					if slices.Contains(topics, pulse) && masters == 3 && !shown {
						t.Error("m1 did not show that nothing arrives straight from m0")
					}
					g.alive("made anew")
					g.direct("made anew")
				})
			})
		}
	}
}

func (g *grid) resets(a, b int) {
	g.t.Helper()
	if g.ResetStreams(a, b, "/meshsub/") == 0 {
		g.t.Errorf("there is no stream of announcements from m%d to m%d", a, b)
	}
}

// alive fails the test unless every master that runs sees every other one alive within
// reunion.
func (g *grid) alive(when string) {
	g.t.Helper()
	for began := time.Now(); ; g.sleep(50 * time.Millisecond) {
		missing := g.missing()
		if missing == "" {
			g.t.Logf("%s: all see all alive after %s", when, time.Since(began))
			return
		}
		if time.Since(began) > reunion {
			g.t.Fatalf("%s: after %s, %s", when, reunion, missing)
		}
	}
}

func (g *grid) missing() string {
	for a, up := range g.up {
		for b, too := range g.up {
			if a == b || !up || !too {
				continue
			}
			if m, err := g.Store(a).Master(g.Store(b).ID()); err != nil || m.Status != crdtstore.MasterAlive {
				return fmt.Sprintf("m%d sees m%d as %q (%v)", a, b, m.Status, err)
			}
		}
	}
	return ""
}

// TestAHostMoves has a master come back under its id at another address, while the others
// have not noticed that it was gone.
func TestAHostMoves(t *testing.T) {
	for _, masters := range []int{2, 3} {
		t.Run(fmt.Sprint(masters, " masters"), func(t *testing.T) {
			scenario(t, masters, nil, func(g *grid) {
				for range 3 {
					g.vanish(1)
					g.held[1] = ""
					g.Move(1)
					g.open(1)
					g.alive("after the move")
					g.direct("after the move")
				}
			})
		})
	}
}

// TestHalfDead has packets get through in one direction only, for shorter and longer than
// it takes to notice.
func TestHalfDead(t *testing.T) {
	for _, d := range []time.Duration{time.Second, 3 * time.Second, 5 * time.Second, 20 * time.Second, 2 * time.Minute} {
		t.Run(d.String(), func(t *testing.T) {
			scenario(t, 2, nil, func(g *grid) {
				g.part(func(a, b int) bool { return a == 0 && b == 1 })
				g.live(d, nil)
				g.heal()
				g.alive("healed")
				g.becomesDirect("healed")
			})
		})
	}
}
