package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Plan is what happens in a run, but for chance on the network and the disks, which
// follows from the seed too.
type Plan struct {
	Seed        uint64
	Masters     int
	Nodes       int
	Loss        float64 // share of messages that get lost
	Duplication float64 // share that arrive twice
	Delay       int64   // of a message at most, milliseconds; some take ten times as long
	EpochBytes  int
	Large       bool // who claims a node id of others sends as much as is taken
	Retention   time.Duration
	Skews       []int64 // of the masters' clocks, milliseconds
	Steps       []Step
}

// Step is one thing that happens.
type Step struct {
	At   int64 // milliseconds since the start
	What string
	A, B int // masters, nodes or a number, as What says
}

func (s Step) String() string {
	return fmt.Sprintf("%9.3fs %s %d %d", float64(s.At)/1000, s.What, s.A, s.B)
}

// What can happen, and how often among the kinds that a run has. Those of weight 0
// are in every run.
var kindsOfSteps = []struct {
	what   string
	weight int
}{
	{"report", 30}, {"drain", 6}, {"undrain", 4}, {"label", 6}, {"remove", 5}, {"reboot", 6}, {"seen", 4},
	{"halves", 3}, {"oneway", 3}, {"isolate", 3}, {"bridge", 2}, {"flap", 4}, {"heal", 4},
	{"rot", 2}, {"wipe", 2}, {"crash", 3}, {"die", 4}, {"stop", 2}, {"absent", 2}, {"full", 2}, {"step", 2},
	{"backup", 2}, {"restore", 2}, {"burst", 4}, {"rest", 3}, {"month", 1}, {"silent", 1},
	{"claim", 12}, {"forge", 3},
}

// NewPlan makes the plan of a seed. A run has some of the kinds of faults, not all:
// so each is met alone, with any other, and often.
func NewPlan(seed uint64) Plan {
	rnd := rand.New(rand.NewPCG(seed, 1))
	p := Plan{
		Seed: seed, Masters: 2 + rnd.IntN(3), Nodes: 1 + rnd.IntN(6),
		Delay: 2 + rnd.Int64N(80), EpochBytes: (6 + rnd.IntN(40)) * 100, Retention: 30 * 24 * time.Hour,
	}
	if rnd.IntN(20) == 0 {
		p.Masters = 5 + rnd.IntN(3)
	}
	if rnd.IntN(2) == 0 {
		p.Loss = rnd.Float64() * rnd.Float64()
	}
	if rnd.IntN(2) == 0 {
		p.Duplication = rnd.Float64() / 2
	}
	p.Large = rnd.IntN(25) == 0
	p.Skews = make([]int64, p.Masters)
	switch rnd.IntN(6) {
	case 0, 1: // clocks hours apart
		for i := range p.Skews {
			p.Skews[i] = rnd.Int64N(12*3600*1000) - 6*3600*1000
		}
	case 2: // one that was never set, or set wrongly
		p.Skews[rnd.IntN(p.Masters)] = []int64{-50 * 365 * day, 3 * 365 * day}[rnd.IntN(2)]
	}
	var total int
	weights := make([]int, len(kindsOfSteps))
	for i, k := range kindsOfSteps {
		if i < 2 || rnd.IntN(2) == 0 {
			weights[i] = k.weight
			total += k.weight
		}
	}
	length := int64(10_000 + rnd.IntN(40_000))
	for range 20 + rnd.IntN(80) {
		n := rnd.IntN(total)
		i := 0
		for ; n >= weights[i]; i++ {
			n -= weights[i]
		}
		p.Steps = append(p.Steps, Step{rnd.Int64N(length), kindsOfSteps[i].what, rnd.IntN(1 << 16), rnd.IntN(1 << 16)})
	}
	return p
}

// take does one step.
func (w *world) take(s Step) {
	m, o := w.masters[s.A%len(w.masters)], w.masters[s.B%len(w.masters)]
	a := w.agents[s.B%len(w.agents)]
	switch s.What {
	case "report":
		if m.up && a.alive {
			w.report(a, m, []int{complete, complete, partial, repeated, legacy, cloned}[s.A/8%6])
		}
	case "drain", "undrain":
		if m.up {
			w.drain(a, m, s.What == "drain")
		}
	case "claim":
		if m.up {
			w.claim(a, m, s.A/8%20)
		}
	case "forge":
		if m.up {
			w.forge(a, m, s.A/8)
		}
	case "label":
		if m.up {
			w.speak(a, m, "label/l", fmt.Sprintf("=%d", s.A%4))
		}
	case "remove":
		if m.up {
			w.remove(a, m)
		}
	case "reboot":
		w.tracef("%s boots", a.node)
		w.reboot(a)
	case "silent":
		w.tracef("%s falls silent", a.node)
		a.alive = false
	case "seen":
		if m.up {
			m.replica.Checkpoint()
		}
	case "halves":
		w.tracef("the masters are split at %d", 1+s.A%len(w.masters))
		w.split(func(a, b int) bool { return (a < 1+s.A%len(w.masters)) != (b < 1+s.A%len(w.masters)) })
	case "isolate":
		w.tracef("%s is cut off", m.id)
		w.split(func(a, b int) bool { return a == m.index || b == m.index })
	case "bridge":
		w.tracef("the masters meet only through %s", m.id)
		w.split(func(a, b int) bool { return a != m.index && b != m.index })
	case "oneway":
		w.tracef("nothing that %s sends reaches %s", m.id, o.id)
		w.cut[m.index][o.index] = m != o
	case "flap":
		w.tracef("the link from %s to %s flaps", m.id, o.id)
		for i := range 4 + s.A%8 {
			w.after(int64(i*(100+s.B%2000)), func() {
				cut := m != o && i%2 == 0 && !w.calm
				w.cut[m.index][o.index], w.cut[o.index][m.index] = cut, cut
			})
		}
	case "heal":
		w.tracef("the network is whole")
		w.heal()
	default:
		w.strike(s, m)
	}
	for _, m := range w.masters {
		m.catchUp()
	}
}
