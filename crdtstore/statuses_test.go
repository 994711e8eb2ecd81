package crdtstore

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/watch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// naiveStatuses are the statuses as one would write them first: they look at every node.
type naiveStatuses struct {
	s   *Store
	was map[string]Status
}

func (w *naiveStatuses) step(now time.Time, tell func(string)) {
	m := w.s.at(now)
	for e := range w.s.table.All() {
		var v vital
		if m.vital(e, &v); w.was[e.ID] != v.status {
			w.was[e.ID] = v.status
			tell(e.ID)
		}
	}
}

// TestStatusesAgreeWithNaiveOnes lets nodes and masters come, fall silent and go, and
// compares at every tick what is told.
func TestStatusesAgreeWithNaiveOnes(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			limits := []*liveness.Settings{nil, {}, {OfflineAfter: 3 * time.Second}, {OfflineAfter: time.Minute}}
			s := inMemory(t)
			s.since = time.Now()
			s.setOfflineAfter(30 * time.Second)
			for i := range rnd.IntN(4) {
				s.knows(fmt.Sprint("n", i))
			}
			w, naive := newStatuses(s), &naiveStatuses{s, map[string]Status{}}
			naive.step(time.Now(), func(string) {})
			var told, want []string
			for tick := range 400 {
				for range rnd.IntN(4) {
					node, master := fmt.Sprint("n", rnd.IntN(8)), fmt.Sprint("m", rnd.IntN(3))
					switch rnd.IntN(12) {
					case 0:
						s.knows(node)
					case 1:
						if s.table.Get(node) != nil {
							s.goes(node)
							s.changed(node)
						}
					case 2, 3, 4, 5:
						s.board.Beat(time.Now(), node, record.Version{}, nil, nil)
					case 6, 7:
						s.board.Merge(time.Now(), master, liveness.Pulse{NodeID: node, Age: time.Duration(rnd.IntN(70)) * time.Second})
					case 8, 9, 10:
						s.members.Observe(time.Now(), master, &liveness.MasterInfo{Settings: limits[rnd.IntN(len(limits))]}, true)
					case 11:
						s.members.Left(time.Now(), master)
					}
				}
				// Sometimes nothing happens for a while, or the machine stood still.
				time.Sleep(time.Duration(1+rnd.IntN(2)*rnd.IntN(60)) * watch.Tick)
				told, want = told[:0], want[:0]
				now := time.Now()
				w.Step(now, func(id string, _ Status) { told = append(told, id) })
				naive.step(now, func(id string) { want = append(want, id) })
				slices.Sort(told)
				if !slices.Equal(told, want) {
					t.Fatalf("seed %d, tick %d: told of %q, want %q", seed, tick, told, want)
				}
			}
			if n := w.Scheduled(); n > int(2*time.Minute/watch.Tick)+2 {
				t.Errorf("seed %d: %d moments are kept in mind", seed, n)
			}
		})
	}
}

// knows lets the table hold a node's account, as when it comes from elsewhere.
func (s *Store) knows(id string) {
	boot := s.replica.State(id).Boot() + 1
	news, err := record.Accept(s.replica.State(id), Report{NodeID: id, Boot: boot, Seq: 1}, record.Acceptance{Now: 1})
	if err != nil {
		panic(err)
	}
	s.table.Join(id, news)
	s.changed(id)
}

// TestStatusesSurviveManyChanges: more changes than the buffer keeps.
func TestStatusesSurviveManyChanges(t *testing.T) {
	s := inMemory(t)
	s.knows("first")
	w := newStatuses(s)
	for i := range watch.Size + 1 {
		s.changes.Add(change{kind: NodeChange, id: fmt.Sprint(i)})
	}
	s.table.Join("n", record.State{LastSeen: 1})
	var told []string
	w.Step(time.Now(), func(id string, _ Status) { told = append(told, id) })
	if !slices.Equal(told, []string{"n"}) {
		t.Errorf("told of %q", told)
	}
}

// BenchmarkStatuses is one tick with 100,000 nodes that beat every 10 seconds. The
// beats themselves are not counted.
func BenchmarkStatuses(b *testing.B) {
	const nodes, ticks = 100_000, int(10 * time.Second / watch.Tick)
	s := inMemory(b)
	s.setOfflineAfter(30 * time.Second)
	ids := make([]string, nodes)
	now := time.Now()
	for i := range ids {
		ids[i] = fmt.Sprintf("n%06d", i)
		s.table.Join(ids[i], record.State{LastSeen: 1})
	}
	beat := func(tick int) {
		for i := tick % ticks; i < nodes; i += ticks {
			s.board.Beat(now, ids[i], record.Version{}, nil, nil)
		}
	}
	for tick := range ticks {
		beat(tick)
	}
	w := newStatuses(s)
	var took time.Duration
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(watch.Tick)
		beat(n)
		began := time.Now()
		w.Step(now, func(id string, _ Status) { b.Fatalf("%s has changed", id) })
		took += time.Since(began)
		n++
	}
	b.ReportMetric(float64(took.Microseconds())/float64(n), "µs/tick")
}
