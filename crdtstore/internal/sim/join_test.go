package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// Masters that all begin with nothing and have the same list of peers are whole soon
// after the last of them was started, in whatever order they start, are killed and
// start again, while nodes report to those that run from the first moment on.
func TestOrdersOfJoining(t *testing.T) {
	// One letter an event: A, B, C start or start again; a, b are killed.
	seen := 0
	for _, order := range interleavings("ABC", "aA", "bB") {
		if !possible(order) {
			continue
		}
		for seed := range uint64(4) {
			rnd := rand.New(rand.NewPCG(seed, uint64(len(order))))
			gaps := make([]int64, len(order))
			for i := range gaps {
				gaps[i] = []int64{0, 10, 400, 1_500, 3_500, 7_000}[rnd.IntN(6)]
			}
			name := fmt.Sprintf("%s-%v", order, gaps)
			if took, trace := join(seed, order, gaps); took > 8_000 {
				t.Errorf("%s: masters are joining %d ms after the last event\n%s", name, took, strings.Join(trace, "\n"))
			}
			seen++
		}
	}
	if seen < 150 {
		t.Errorf("only %d runs", seen)
	}
}

// Masters that start together are whole within 5 s.
func TestJointStarts(t *testing.T) {
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		order := "ABCDEFG"[:2+rnd.IntN(6)]
		gaps := make([]int64, len(order))
		for i := range gaps {
			gaps[i] = rnd.Int64N(1_000 / int64(len(order)))
		}
		if took, trace := join(seed, order, gaps); took > 5_000 {
			t.Errorf("seed %d, %d masters: still joining after %d ms\n%s", seed, len(order), took, strings.Join(trace, "\n"))
		}
	}
}

// interleavings returns every way to merge words into one, each once.
func interleavings(words ...string) []string {
	var out []string
	var walk func(done string, rest []string)
	walk = func(done string, rest []string) {
		empty := true
		for i, w := range rest {
			if w == "" {
				continue
			}
			empty = false
			next := append([]string(nil), rest...)
			next[i] = w[1:]
			walk(done+w[:1], next)
		}
		if empty {
			out = append(out, done)
		}
	}
	walk("", words)
	return out
}

// possible reports whether each kill in an order is of a master that runs, and each start
// of one that does not.
func possible(order string) bool {
	up := map[rune]bool{}
	for _, e := range order {
		starts := e >= 'A' && e <= 'Z'
		who := []rune(strings.ToUpper(string(e)))[0]
		if up[who] == starts {
			return false
		}
		up[who] = starts
	}
	return true
}

// join plays an order of starts and kills, each so many milliseconds after the one before,
// and returns how long after the last all masters were whole.
func join(seed uint64, order string, gaps []int64) (took int64, trace []string) {
	n := 0
	for _, e := range order {
		if e >= 'A' && e <= 'Z' {
			n = max(n, int(e-'A')+1)
		}
	}
	p := Plan{Seed: seed, Masters: n, Nodes: 9, Delay: 50, EpochBytes: 1 << 20, Retention: 30 * 24 * time.Hour, Skews: make([]int64, n)}
	w := newWorld(p, func(line string) { trace = append(trace, line) })
	at := int64(0)
	for i, e := range order {
		at += gaps[i]
		w.after(at, func() {
			m := w.masters[(int(e)-'A')%('a'-'A')]
			if e >= 'a' {
				w.tracef("%s is killed", m.id)
				m.stop(false)
				return
			}
			w.tracef("%s starts", m.id)
			m.start()
		})
	}
	w.every(40, func() {
		m, a := w.masters[w.rnd.IntN(n)], w.agents[w.rnd.IntN(len(w.agents))]
		if m.up {
			w.report(a, m, complete)
			m.catchUp()
		}
	})
	w.run(at)
	for w.failed == nil && took < 60_000 && !w.allWhole() {
		w.run(w.now + 50)
		took = w.now - at
	}
	if w.failed != nil {
		return 1 << 40, trace
	}
	return took, trace
}

// every has something happen again and again.
func (w *world) every(ms int64, do func()) {
	w.after(ms, func() { do(); w.every(ms, do) })
}

func (w *world) allWhole() bool {
	for _, m := range w.masters {
		if !m.up || m.disk.joining {
			return false
		}
	}
	return true
}
