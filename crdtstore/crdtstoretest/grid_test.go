package crdtstoretest_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
)

var (
	firstSeed = flag.Uint64("virtual.seed", 1, "seed of the first run of each scenario in virtual time")
	seeds     = flag.Uint64("virtual.seeds", 2, "how often each scenario in virtual time runs, with one seed after the other")
)

// slow is whether tests run many times slower, under the race detector.
var slow bool

// beatEvery is how often a node says that it lives.
const beatEvery = 10 * time.Second

// grid is a simulated cluster in a bubble, and nodes that speak to it. What the
// masters have acknowledged is remembered, to be asked for at the end. The seed
// decides who does what and when; how goroutines take turns it does not, so a run
// of one seed is much like the next and not always the same.
//
// Everything that a grid does is done by the goroutine of the test: one that waits
// for a mutex would keep the clock of the bubble from going on.
type grid struct {
	*crdtstoretest.Cluster
	t     *testing.T
	seed  uint64
	rand  *rand.Rand
	nodes []*node
	up    []bool                  // by master
	held  []string                // by master, the digest with which it vanished
	cut   func(a, b int) bool     // as last asked for
	wrong map[[2]string]time.Time // since when a master has called a node offline that is heard
}

// node is a machine, and what the masters have acknowledged about it.
type node struct {
	id        string
	homes     []int // the masters that it speaks to
	boot, seq uint64
	nextBeat  time.Time
	removable bool // operators remove it, and do not drain or label it

	acked   string // hostname in its last report, which is another in each
	bootAt  uint64 // of that report
	removed uint64 // the greatest boot that was removed
	drained bool
	label   string
}

// scenario plays a scenario with several seeds, each in a bubble of its own. What
// was acknowledged has to be there at its end, after the network is whole again
// and all masters run.
func scenario(t *testing.T, masters int, tune func(i int, cfg *crdtstore.Config), play func(g *grid)) {
	t.Helper()
	scenarios(t, *seeds, masters, tune, play)
}

func scenarios(t *testing.T, runs uint64, masters int, tune func(i int, cfg *crdtstore.Config), play func(g *grid)) {
	t.Helper()
	for seed := *firstSeed; seed < *firstSeed+runs; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("again: go test ./crdtstore/crdtstoretest -run '^%s$' -virtual.seed=%d", t.Name(), seed)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				g := newGrid(t, masters, seed, tune)
				play(g)
				g.end()
			})
		})
	}
}

func newGrid(t *testing.T, masters int, seed uint64, tune func(i int, cfg *crdtstore.Config)) *grid {
	g := &grid{
		t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), up: slices.Repeat([]bool{true}, masters),
		held: make([]string, masters), wrong: map[[2]string]time.Time{},
	}
	g.Cluster = crdtstoretest.StartSimulated(t, masters, seed, func(i int, cfg *crdtstore.Config) {
		cfg.NoSync = true // what is closed in good order is on disk all the same
		if tune != nil {
			tune(i, cfg)
		}
	})
	for i := range 6 * masters {
		n := &node{id: fmt.Sprintf("n%02d", i), boot: 1, homes: []int{i % masters}, removable: i%3 == 0}
		if i%2 == 0 {
			n.homes = append(n.homes, g.rand.IntN(masters))
		}
		n.nextBeat = time.Now().Add(time.Duration(g.rand.Int64N(int64(beatEvery))))
		g.nodes = append(g.nodes, n)
		g.report(n, n.homes[0])
	}
	g.whole("after the start")
	return g
}

// live lets time pass in which nodes beat, and about once a second act is done,
// which may be nil. Where tests run slowly, less time passes.
func (g *grid) live(d time.Duration, act func()) {
	g.t.Helper()
	if slow || testing.Short() {
		d = min(d/2, 3*time.Minute)
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		g.sleep(time.Millisecond + time.Duration(g.rand.Int64N(int64(2*time.Second))))
		if act != nil {
			act()
		}
	}
}

// sleep lets time pass in which nodes beat.
func (g *grid) sleep(d time.Duration) {
	g.t.Helper()
	for end := time.Now().Add(d); ; {
		g.beat()
		g.watch()
		left := time.Until(end)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, time.Second))
	}
}

func (g *grid) beat() {
	for _, n := range g.nodes {
		if time.Now().Before(n.nextBeat) {
			continue
		}
		n.nextBeat = time.Now().Add(beatEvery)
		n.seq++
		for _, m := range n.homes {
			if !g.up[m] {
				continue
			}
			if r, _ := g.Store(m).Beat(crdtstore.Beat{NodeID: n.id, Boot: n.boot, Seq: n.seq}); r.Register {
				g.report(n, m)
			}
		}
	}
}

func (g *grid) anyUp() bool { return slices.Contains(g.up, true) }

// act has a node or an operator say something to one of the masters that run.
func (g *grid) act() {
	m := g.rand.IntN(len(g.up))
	for !g.up[m] {
		m = g.rand.IntN(len(g.up))
	}
	g.actAt(m)
}

func (g *grid) actAt(m int) {
	n, s := g.nodes[g.rand.IntN(len(g.nodes))], g.Store(m)
	switch dice := g.rand.IntN(10); {
	case dice < 4:
		g.report(n, m)
	case dice < 5:
		n.boot, n.seq = n.boot+1, 0
		g.report(n, m)
	case n.removable:
		if v, err := s.Remove(g.t.Context(), n.id, "test", ""); g.took(err) {
			n.removed = max(n.removed, v.Boot)
		}
	case dice < 8:
		drained := !n.drained
		if _, err := s.Drain(g.t.Context(), n.id, drained, "test"); g.took(err) {
			n.drained = drained
		}
	default:
		label := fmt.Sprint(time.Now().UnixMilli())
		if _, err := s.Label(g.t.Context(), n.id, map[string]*string{"at": &label}, "test"); g.took(err) {
			n.label = label
		}
	}
	time.Sleep(2 * time.Millisecond) // whatever is said next is later, by any clock
}

// took reports whether a master acknowledged a word. It need not know the node.
func (g *grid) took(err error) bool {
	g.t.Helper()
	if err != nil && !errors.Is(err, crdtstore.ErrNotFound) {
		g.t.Fatal(err)
	}
	return err == nil
}

// report has a node tell a master of itself.
func (g *grid) report(n *node, m int) {
	g.t.Helper()
	n.seq++
	r := crdtstore.Report{NodeID: n.id, Boot: n.boot, Seq: n.seq}
	r.Hostname = fmt.Sprintf("%s-%d-%d", n.id, n.boot, n.seq)
	r.VMs = []crdtstore.VM{{SID: "vm-" + n.id, Name: r.Hostname, State: "running"}}
	_, err := g.Store(m).Report(g.t.Context(), r)
	if _, refused := errors.AsType[*crdtstore.RefusedError](err); refused && n.boot <= n.removed {
		return // it was removed, and this master knows
	}
	if err != nil {
		g.t.Fatal(err)
	}
	n.acked, n.bootAt = r.Hostname, n.boot
}
