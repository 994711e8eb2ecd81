package sim

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// bounded is how long masters that can talk may take to hold the same, after the
// last fault: epochs have to be followed and old ones retired. (INV-7)
const bounded = 90_000

// Failure is what a run has found to be wrong.
type Failure struct {
	At   time.Duration
	What string
}

func (f *Failure) String() string { return fmt.Sprintf("after %s: %s", f.At, f.What) }

// Result sums up a run.
type Result struct {
	Failure *Failure      // nil: all is well
	Facts   int           // writes that were acknowledged
	Epochs  uint64        // that the masters went through
	Heal    time.Duration // from the last fault until all held the same
	Digest  string
}

// newWorld returns the world of a plan, in which nothing has happened yet.
func newWorld(p Plan, trace func(line string)) *world {
	w := &world{
		plan: p, rnd: rand.New(rand.NewPCG(p.Seed, 2)), trace: trace,
		log: slog.New(slog.DiscardHandler),
	}
	for i := range p.Masters {
		w.cut = append(w.cut, make([]bool, p.Masters))
		m := newMaster(w, i)
		m.skew = p.Skews[i]
		w.masters = append(w.masters, m)
	}
	for i := range p.Nodes {
		a := &agent{node: fmt.Sprintf("n%d", i)}
		if i%2 == 1 {
			a.key = keyOf(100 + i)
		}
		w.reboot(a)
		w.agents = append(w.agents, a)
	}
	return w
}

// Run runs a plan. trace, which may be nil, is called with a line for each thing
// that happens.
func Run(p Plan, trace func(line string)) Result {
	w := newWorld(p, trace)
	for _, m := range w.masters {
		m.start()
	}
	left := len(p.Steps)
	for _, s := range p.Steps {
		w.after(s.At, func() { w.take(s); left-- })
	}
	for w.failed == nil && left > 0 {
		w.run(w.now + 1000)
	}

	healed := w.quiet()
	// All at once lose their power: what was acknowledged is on the disks.
	for _, m := range w.masters {
		m.stop(false)
	}

	w.tracef("all are killed")
	w.quiet()
	digest, _ := w.masters[0].digest()
	return Result{
		Failure: w.failed, Facts: len(w.facts), Epochs: w.masters[0].disk.Number(),
		Heal: time.Duration(healed) * time.Millisecond, Digest: fmt.Sprintf("%x", digest[:4]),
	}
}

// quiet ends all faults, waits until the masters hold the same, and checks that it
// is the right thing. It returns how long that took.
func (w *world) quiet() int64 {
	if w.failed != nil {
		return 0
	}
	w.calm = true
	w.heal()
	for _, m := range w.masters {
		m.disk.recover()
		m.disk.dieIn = 0
		if !m.up {
			m.start()
		}
	}
	w.tracef("no more faults")
	began := w.now
	for w.failed == nil && !w.equal() {
		if w.now-began > bounded {
			w.fail("INV-7: %s after the last fault the masters do not hold the same, or are still joining", time.Duration(w.now-began)*time.Millisecond)
			for _, m := range w.masters {
				d, quiet := m.digest()
				w.tracef("%s: digest %x, epoch %d of %d, cutoff %d, quiet %v, joining %v", m.id, d[:4], m.disk.Number(), len(m.disk.epochs), m.disk.Cutoff(), quiet, m.disk.joining)
			}
			return 0
		}
		w.run(w.now + 500)
	}
	took := w.now - began
	if w.failed == nil {
		w.verify()
	}
	w.calm = false
	return took
}
