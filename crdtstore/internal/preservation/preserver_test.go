package preservation

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// self is the id of the master under test.
const self = "self"

// tick is how often it looks.
const tick = 500 * time.Millisecond

// alone is a single master.
type alone struct{ limit time.Duration }

func (a alone) Observers(time.Time) []membership.Observer {
	return []membership.Observer{{ID: self, Reachable: true, OfflineAfter: a.limit}}
}

// laxer has one more master, which lets nodes be silent for longer.
type laxer struct {
	Masters
	limit time.Duration
}

func (l laxer) Observers(now time.Time) []membership.Observer {
	return append(l.Masters.Observers(now), membership.Observer{ID: "lax", Reachable: true, OfflineAfter: l.limit})
}

// published keeps events.
type published []Event

func (p *published) Happened(e Event) { *p = append(*p, e) }

// newConfig is that of a master which begins to listen now and knows no node.
func newConfig(t *testing.T) Config {
	const limit = 30 * time.Second
	return Config{
		Self: self, OfflineAfter: limit, Checkpoint: 5 * time.Minute, Began: time.Now(), Wall: time.Now,
		Path: filepath.Join(t.TempDir(), "preservation.json"), Logger: slog.New(slog.DiscardHandler),
		Table: table.New(), Board: liveness.New(self), Masters: alone{limit}, Publisher: &published{},
	}
}

// herd is a grid of nodes that beat every ten seconds, each at a time of its own, and the
// master that hears them.
type herd struct {
	*Preserver
	ids   []string
	rnd   *rand.Rand
	tick  int
	beats func(i int) bool // whether a heartbeat of node i arrives
}

func newHerd(t *testing.T, n int) *herd {
	h := &herd{Preserver: New(newConfig(t)), rnd: rand.New(rand.NewPCG(uint64(n), 1)), beats: func(int) bool { return true }}
	for i := range n {
		id := fmt.Sprint("n", i)
		st, err := record.Accept(record.State{}, record.Report{NodeID: id, Boot: 1, Seq: 1}, record.Acceptance{Now: 1})
		if err != nil {
			t.Fatal(err)
		}
		h.cfg.Table.Join(id, st)
		h.ids = append(h.ids, id)
	}
	h.Look(time.Now())
	h.run(time.Minute)
	if on, _, _ := h.count(); on != n {
		t.Fatalf("%d of %d nodes are online in the beginning", on, n)
	}
	return h
}

// run lets time pass. It calls each after every tick.
func (h *herd) run(d time.Duration, each ...func()) {
	const every = int(10 * time.Second / tick)
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(tick)
		h.tick++
		for i := h.tick % every; i < len(h.ids); i += every {
			if h.beats(i) {
				h.beat(h.ids[i])
			}
		}
		h.Look(time.Now())
		for _, f := range each {
			f()
		}
	}
}

func (h *herd) beat(id string) { h.cfg.Board.Beat(time.Now(), id, record.Version{}, nil, nil) }

func (h *herd) count() (online, suspect, offline int) {
	now := time.Now()
	heard, unheard := h.Listening(now)
	for e := range h.cfg.Table.All() {
		listening, observers := unheard, []record.Observer(nil)
		if at := h.cfg.Board.LastHeard(e.ID); !at.IsZero() {
			listening, observers = heard, []record.Observer{{Master: self, AgeS: now.Sub(at).Seconds(), Reachable: true}}
		}
		status, _ := record.Liveness(observers, listening)
		switch {
		case e.Removed:
		case status == record.Online:
			online++
		case status == record.Suspect:
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
				if _, on := h.Current(); on {
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
				p, on := h.Current()
				if !on || p.Late != n || p.Of != n {
					t.Errorf("preservation %+v, %v", p, on)
				}
				h.run(most * 30 * time.Second)
				h.want(t, "after the time", 0, 0, n)
				if _, on := h.Current(); on {
					t.Error("it goes on")
				}
				h.beat(h.ids[0])
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
		h.End("ann", "")
		h.want(t, "at once", 4, 0, 6)
		h.run(2*time.Minute, func() { h.want(t, "later", 4, 0, 6) })
		events := *h.cfg.Publisher.(*published)
		if len(events) != 2 || events[0].Type != EventBegan || events[1].Type != EventEnded || events[1].By != "ann" {
			t.Errorf("published are %+v", events)
		}
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
			h.cfg.Table.Join(id, h.cfg.Table.Get(id).State.Remove(time.Now().UnixMilli(), self, "ann", "gone"))
		}
		h.ids = h.ids[:10]
		h.run(time.Minute)
		h.want(t, "ten were removed", 9, 0, 1)
		if _, on := h.Current(); on {
			t.Error("nodes are missed that were removed")
		}
		h.beats = func(int) bool { return false }
		h.run(time.Minute)
		h.want(t, "silent", 0, 9, 1)
	})
}

// What was dead long before a restart is not missed after it: the records tell.
func TestDeadBeforeARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := halfDead(t, time.Hour)
		h.restart(t, time.Now())
		h.run(2*time.Minute, h.never(t))
		h.want(t, "after it", 4, 0, 6)
	})
}

// Nodes that another master hears, and lets be silent for longer, are late by its limit.
func TestLimitOfTheMasterThatHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHerd(t, 10)
		h.cfg.Masters = laxer{h.cfg.Masters, 5 * time.Minute}
		for _, id := range h.ids {
			h.cfg.Board.Merge(time.Now(), "lax", liveness.Pulse{NodeID: id})
		}
		h.beats = func(int) bool { return false }
		h.run(2*time.Minute, h.never(t))
		h.run(time.Minute)
		if p, on := h.Current(); !on || p.Late != 10 {
			t.Errorf("half of its limit is over: %+v, %v", p, on)
		}
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
			h.Look(time.Now())
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
		time.Sleep(2 * most * 30 * time.Second)
		h.run(5 * time.Second)
		h.want(t, "it wakes", 0, 10, 0)
		h.beats = func(int) bool { return true }
		h.run(11 * time.Second)
		h.want(t, "heard again", 10, 0, 0)
	})
}
