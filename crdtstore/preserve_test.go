package crdtstore

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/watch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// herd is a grid of nodes that beat every ten seconds, each at a time of its own.
type herd struct {
	s     *Store
	w     *statuses
	ids   []string
	rnd   *rand.Rand
	tick  int
	beats func(i int) bool // whether a heartbeat of node i arrives
}

func newHerd(t *testing.T, n int) *herd {
	s := inMemory(t)
	s.since = time.Now()
	s.setOfflineAfter(30 * time.Second)
	h := &herd{s: s, rnd: rand.New(rand.NewPCG(uint64(n), 1)), beats: func(int) bool { return true }}
	for i := range n {
		h.ids = append(h.ids, fmt.Sprint("n", i))
		s.knows(h.ids[i])
	}
	h.w = newStatuses(s)
	h.run(time.Minute)
	if on, _, _ := h.count(); on != n {
		t.Fatalf("%d of %d nodes are online in the beginning", on, n)
	}
	return h
}

// run lets time pass. It calls each after every tick.
func (h *herd) run(d time.Duration, each ...func()) {
	const every = int(10 * time.Second / watch.Tick)
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(watch.Tick)
		h.tick++
		for i := h.tick % every; i < len(h.ids); i += every {
			if h.beats(i) {
				h.s.board.Beat(time.Now(), h.ids[i], record.Version{}, nil, nil)
			}
		}
		h.w.Step(time.Now(), func(string, Status) {})
		for _, f := range each {
			f()
		}
	}
}

func (h *herd) count() (online, suspect, offline int) {
	m := h.s.at(time.Now())
	for e := range h.s.table.All() {
		var v vital
		m.vital(e, &v)
		switch {
		case e.Removed:
		case v.status == Online:
			online++
		case v.status == Suspect:
			suspect++
		default:
			offline++
		}
	}
	return online, suspect, offline
}

func (h *herd) want(t *testing.T, what string, online, suspect, offline int) {
	t.Helper()
	if on, s, off := h.count(); on != online || s != suspect || off != offline {
		t.Errorf("%s: %d online, %d suspect, %d offline, want %d, %d, %d", what, on, s, off, online, suspect, offline)
	}
}

// A few dead nodes are offline in time, however small the grid and however great.
func TestDeadNodesAreNotPreserved(t *testing.T) {
	for n, dead := range map[int]int{1: 1, 2: 2, 3: 1, 4: 2, 9: 4, 10: 2, 100: 25, 1000: 250, 100_000: 20_000} {
		t.Run(fmt.Sprint(dead, " of ", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHerd(t, n)
				h.beats = func(i int) bool { return i >= dead }
				h.run(30*time.Second + 2*time.Second)
				h.want(t, "dead", n-dead, 0, dead)
			})
		})
	}
}

// Half of all heartbeats are lost for five minutes: no node is offline.
func TestHalfOfTheBeatsAreLost(t *testing.T) {
	for _, n := range []int{20, 100, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHerd(t, n)
				h.beats = func(int) bool { return h.rnd.IntN(2) == 0 }
				h.run(5*time.Minute, func() {
					if _, _, offline := h.count(); offline > 0 {
						t.Fatalf("%d nodes are offline", offline)
					}
				})
				h.beats = func(int) bool { return true }
				h.run(11 * time.Second)
				h.want(t, "after it", n, 0, 0)
				h.run(20 * time.Second)
				if _, on := h.s.preservation(); on {
					t.Error("it is preserved still")
				}
			})
		})
	}
}

// The whole grid falls silent: its nodes are suspect, after the time offline, and each
// comes back with one heartbeat.
func TestSilentGrid(t *testing.T) {
	for _, n := range []int{3, 10, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHerd(t, n)
				h.beats = func(int) bool { return false }
				h.run(41 * time.Second)
				h.want(t, "silent", 0, n, 0)
				p, on := h.s.preservation()
				if !on || p.Late != n || p.Of != n {
					t.Errorf("preservation %+v, %v", p, on)
				}
				if node, _ := h.s.Node(h.ids[0]); node.Status != Suspect || node.Reason == "" {
					t.Errorf("%s, %q", node.Status, node.Reason)
				}
				h.run(preserveTimes * 30 * time.Second)
				h.want(t, "after the time", 0, 0, n)
				if _, on := h.s.preservation(); on {
					t.Error("it goes on")
				}
				h.s.board.Beat(time.Now(), h.ids[0], record.Version{}, nil, nil)
				h.want(t, "one is back", 1, 0, n-1)
			})
		})
	}
}

// Most nodes come back: the few that do not are offline then, not when the time is over.
func TestPreservationEndsWithTheReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHerd(t, 100)
		h.beats = func(int) bool { return false }
		h.run(time.Minute)
		h.want(t, "silent", 0, 100, 0)
		h.beats = func(i int) bool { return i >= 5 }
		h.run(15 * time.Second)
		h.want(t, "back", 95, 0, 5)
	})
}

// What an operator says counts, and is not undone by the same silence.
func TestOperatorEndsPreservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHerd(t, 10)
		h.beats = func(i int) bool { return i >= 6 }
		h.run(35 * time.Second)
		h.want(t, "silent", 4, 6, 0)
		if n := h.s.EndPreservation(t.Context(), "ann"); n != 1 {
			t.Errorf("%d masters heard it", n)
		}
		h.want(t, "at once", 4, 0, 6)
		h.run(2*time.Minute, func() { h.want(t, "later", 4, 0, 6) })
	})
}

// What was dead before the others fell silent stays offline, and what is taken away by
// an operator is not missed.
func TestWhatIsNotPreserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHerd(t, 20)
		h.beats = func(i int) bool { return i > 0 }
		h.run(2 * time.Minute)
		for _, id := range h.ids[10:] {
			h.s.goes(id)
			h.s.changed(id)
		}
		h.ids = h.ids[:10]
		h.run(time.Minute)
		h.want(t, "ten were removed", 9, 0, 1)
		if _, on := h.s.preservation(); on {
			t.Error("nodes are missed that were removed")
		}
		h.beats = func(int) bool { return false }
		h.run(time.Minute)
		h.want(t, "silent", 0, 9, 1)
	})
}

// A master that stood still hears nobody meanwhile, which says nothing about the nodes,
// however few they are. Those that are dead are offline a while later.
func TestMasterThatStoodStill(t *testing.T) {
	for _, n := range []int{1, 2, 10} {
		synctest.Test(t, func(t *testing.T) {
			h := newHerd(t, n)
			time.Sleep(5 * time.Minute)
			h.want(t, "asked before it has looked", 0, n, 0)
			h.w.Step(time.Now(), func(string, Status) {})
			h.want(t, "after a look", 0, n, 0)
			h.beats = func(i int) bool { return i > 0 }
			h.run(11 * time.Second)
			h.want(t, "heard again", n-1, 1, 0)
			h.run(25 * time.Second)
			h.want(t, "one is dead", n-1, 0, 1)
		})
	}
}

// It is so too where the grid was silent already: the time in which this master could
// not hear does not count.
func TestStoodStillInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHerd(t, 10)
		h.beats = func(int) bool { return false }
		h.run(time.Minute)
		h.want(t, "silent", 0, 10, 0)
		time.Sleep(2 * preserveTimes * 30 * time.Second)
		h.run(5 * time.Second)
		h.want(t, "it wakes", 0, 10, 0)
		h.beats = func(int) bool { return true }
		h.run(11 * time.Second)
		h.want(t, "heard again", 10, 0, 0)
	})
}
