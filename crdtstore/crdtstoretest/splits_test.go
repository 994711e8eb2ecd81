package crdtstoretest_test

import (
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/seam"
)

// Two halves cannot talk, and everybody goes on.
func TestHalves(t *testing.T) {
	scenario(t, 4, nil, func(g *grid) {
		g.part(func(a, b int) bool { return (a < 2) != (b < 2) })
		g.live(2*time.Minute, g.act)
		g.heal()
		g.whole("healed")
	})
}

// Two masters cannot talk for an hour. It takes longer than the others, so it runs
// for half as many seeds.
func TestAnHourApart(t *testing.T) {
	scenarios(t, max(1, *seeds/2), 2, nil, func(g *grid) {
		g.part(func(a, b int) bool { return a != b })
		g.live(time.Hour, g.act)
		g.heal()
		g.whole("healed")
	})
}

// What one master sends does not reach another one, which it hears.
func TestOneWay(t *testing.T) {
	scenario(t, 3, nil, func(g *grid) {
		mute := g.rand.IntN(3)
		deaf := (mute + 1 + g.rand.IntN(2)) % 3
		g.part(func(a, b int) bool { return a == mute && b == deaf })
		g.live(2*time.Minute, g.act)
		g.whole("by way of the third") // before it is mended
		// Now nobody hears that one.
		g.part(func(a, _ int) bool { return a == mute })
		g.live(time.Minute, g.act)
		g.heal()
		g.whole("healed")
	})
}

// The link between two masters comes and goes.
func TestFlapping(t *testing.T) {
	scenario(t, 3, nil, func(g *grid) {
		for range 15 {
			g.part(func(a, b int) bool { return (a == 0) != (b == 0) })
			g.flap()
			g.heal()
			g.flap()
		}
		g.whole("the link is steady")
	})
}

// flap lets half a second to ten seconds pass.
func (g *grid) flap() {
	g.live(500*time.Millisecond+time.Duration(g.rand.Int64N(int64(9500*time.Millisecond))), g.act)
}

// Two masters reach each other only through a third, and then not even that for a
// while.
func TestBridge(t *testing.T) {
	scenario(t, 3, nil, func(g *grid) {
		apart := func(a, b int) bool { return a != 1 && b != 1 }
		g.part(apart)
		g.live(2*time.Minute, g.act)
		g.whole("over the bridge")
		g.indirect(0, 2, true)
		g.indirect(0, 1, false)
		g.vanish(1)
		g.live(time.Minute, g.act)
		g.open(1)
		g.whole("the bridge is back")
		// One end of the bridge breaks, and the other does not notice.
		g.part(func(a, b int) bool { return a == 0 || b == 0 })
		g.live(90*time.Second, g.act)
		g.part(apart)
		g.live(30*time.Second, g.act)
		g.whole("the other end is back")
		g.heal()
		g.live(30*time.Second, g.act)
		g.indirect(0, 2, false)
	})
}

// indirect checks whether a master says of another one that nothing goes straight between
// them, and has not for a while.
func (g *grid) indirect(m, other int, want bool) {
	g.t.Helper()
	row, err := g.Store(m).Master(g.Store(other).ID())
	if err != nil {
		g.t.Fatal(err)
	}
	if is := !row.Direct && !row.Since.IsZero() && row.Reason != ""; is != want || row.Status != crdtstore.MasterAlive {
		g.t.Errorf("m%d shows m%d as %s, direct %v, since %v, %q", m, other, row.Status, row.Direct, row.Since, row.Reason)
	}
}

// Packets are lost, come twice and overtake each other.
func TestBadWeather(t *testing.T) {
	scenario(t, 3, nil, func(g *grid) {
		weather := crdtstoretest.Link{
			Delay:  time.Duration(1+g.rand.IntN(100)) * time.Millisecond,
			Jitter: time.Duration(1+g.rand.IntN(100)) * time.Millisecond,
			Loss:   0.05 + 0.15*g.rand.Float64(), Twice: 0.1 * g.rand.Float64(),
		}
		g.t.Logf("%+v", weather)
		g.Links(func(int, int) crdtstoretest.Link { return weather })
		g.live(2*time.Minute, g.act)
		g.whole("in bad weather")
	})
}

// The clocks of the masters are hours apart, and jump. Whatever they say, who has
// the last word has it, and nobody is called offline who is heard.
func TestClocksApart(t *testing.T) {
	var ahead [3]atomic.Int64
	tune := func(i int, cfg *crdtstore.Config) {
		seam.Of(cfg).Wall = func() time.Time { return time.Now().Add(time.Duration(ahead[i].Load())) }
	}
	scenario(t, 3, tune, func(g *grid) {
		jump := func() {
			ahead[g.rand.IntN(len(ahead))].Store(g.rand.Int64N(int64(12*time.Hour)) - int64(6*time.Hour))
		}
		for range ahead {
			jump()
		}
		g.live(3*time.Minute, func() {
			g.act()
			if g.rand.IntN(5) == 0 {
				jump()
			}
			g.sleep(200 * time.Millisecond) // so that the others know what was said
		})
		g.whole("with clocks apart")
		for i := range ahead {
			for _, m := range g.Store(i).Masters()[1:] {
				o := slices.IndexFunc([]int{0, 1, 2}, func(o int) bool { return g.Store(o).ID() == m.ID })
				want := time.Duration(ahead[o].Load() - ahead[i].Load()).Seconds()
				if math.Abs(m.ClockSkewS-want) > 1 {
					g.t.Errorf("m%d sees the clock of m%d %v s ahead, it is %v s", i, o, m.ClockSkewS, want)
				}
			}
		}
	})
}
