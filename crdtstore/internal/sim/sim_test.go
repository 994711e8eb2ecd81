package sim

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seed    = flag.Uint64("sim.seed", 1, "the first seed")
	runs    = flag.Int("sim.runs", 150, "how many seeds, each one more than the one before")
	trace   = flag.Bool("sim.trace", false, "print what happens")
	planted = flag.Bool("sim.mutants", false, "plant faults into the code, and see whether they are found")
	shrink  = flag.Bool("sim.shrink", true, "look for a shorter run that fails too")
	every   = flag.Duration("sim.progress", time.Minute, "how often to say how far it is")
)

// TestSeeds runs one seed after the other, on all processors.
func TestSeeds(t *testing.T) {
	var next, facts, epochs atomic.Uint64
	var worst atomic.Int64
	next.Store(*seed)
	end, began := *seed+uint64(*runs), time.Now()
	stop := make(chan struct{})
	go func() {
		tick := time.NewTicker(*every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				t.Logf("at seed %d after %s, %d acknowledged writes", next.Load(), time.Since(began).Round(time.Second), facts.Load())
			case <-stop:
				return
			}
		}
	}()
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for !t.Failed() {
				s := next.Add(1) - 1
				if s >= end {
					return
				}
				var show func(string)
				if *trace {
					show = func(line string) { t.Log(line) }
				}
				r := Run(NewPlan(s), show)
				facts.Add(uint64(r.Facts))
				epochs.Add(r.Epochs)
				if h := int64(r.Heal); h > worst.Load() {
					worst.Store(h)
				}
				if r.Failure != nil {
					t.Errorf("seed %d: %v\n%s", s, r.Failure, explain(s))
				}
			}
		})
	}
	all.Wait()
	close(stop)
	t.Logf("%d seeds from %d in %s: %d acknowledged writes, %d epochs, the slowest took %s to heal",
		*runs, *seed, time.Since(began).Round(time.Millisecond), facts.Load(), epochs.Load(), time.Duration(worst.Load()))
}

// explain says how to run a failing seed again, and what of it is enough to fail.
func explain(seed uint64) string {
	if !*shrink {
		return ""
	}
	p := Shrink(NewPlan(seed), func(p Plan) bool { return Run(p, nil).Failure != nil })
	var b strings.Builder
	fmt.Fprintf(&b, "run it again: make sim SEED=%d RUNS=1\n", seed)
	fmt.Fprintf(&b, "shrunk to %d steps, %d masters, %d nodes, loss %.2f, duplication %.2f, clocks ahead by", len(p.Steps), p.Masters, p.Nodes, p.Loss, p.Duplication)
	for _, s := range p.Skews {
		fmt.Fprintf(&b, " %s", time.Duration(s)*time.Millisecond)
	}
	b.WriteString(":\n")
	for _, s := range p.Steps {
		fmt.Fprintln(&b, s)
	}
	b.WriteString("what happens:\n")
	Run(p, func(line string) { fmt.Fprintln(&b, line) })
	return b.String()
}

// TestRunsRepeat: a seed gives the same run every time, or a failure could not be
// looked into.
func TestRunsRepeat(t *testing.T) {
	for s := range uint64(20) {
		var one, two []string
		a := Run(NewPlan(s), func(l string) { one = append(one, l) })
		b := Run(NewPlan(s), func(l string) { two = append(two, l) })
		if a.Digest != b.Digest || a.Facts != b.Facts || strings.Join(one, "\n") != strings.Join(two, "\n") {
			t.Errorf("seed %d gave %+v and %+v", s, a, b)
		}
	}
}
