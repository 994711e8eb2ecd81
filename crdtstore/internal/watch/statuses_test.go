package watch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// grid judges by what this master hears itself, and lets others count or not.
type grid struct {
	table   *table.Table
	board   *liveness.Board
	limit   time.Duration
	others  bool // what other masters hear counts
	judged  bool // others, as of the last instant
	now     time.Time
	changed []string
	lost    bool // some of changed is not known
}

func (g *grid) Changed() (ids []string, ok bool) {
	ids, ok = g.changed, !g.lost
	g.changed, g.lost = nil, false
	return ids, ok
}

func (g *grid) At(now time.Time) (all bool) {
	all = g.judged != g.others
	g.judged, g.now = g.others, now
	return all
}

func (g *grid) Status(e *table.Entry) (status record.Status, holds time.Duration, ends bool) {
	v, _ := g.board.Vital(e.ID, nil)
	holds = -1
	for _, o := range v.Observation {
		if o.Master == "self" || g.others {
			holds = max(holds, g.limit-g.now.Sub(o.At))
		}
	}
	if e.Removed || holds < 0 {
		return record.Offline, 0, false
	}
	return record.Online, holds, true
}

// TestStatusesAgreeWithNaiveOnes lets nodes be heard and fall silent, here and elsewhere,
// and compares at every tick with a look at each.
func TestStatusesAgreeWithNaiveOnes(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			g := &grid{table: table.New(), board: liveness.New("self"), limit: 30 * time.Second}
			s := NewStatuses(StatusOptions{Grid: g, Table: g.table, Board: g.board, OfflineAfter: g.limit, Began: time.Now()})
			was := map[string]record.Status{}
			var got, want []string
			for tick := range 300 {
				for range rnd.IntN(4) {
					id := fmt.Sprint("n", rnd.IntN(8))
					switch rnd.IntN(6) {
					case 0:
						g.table.Join(id, record.State{LastSeen: 1})
						if g.changed = append(g.changed, id); rnd.IntN(4) == 0 {
							g.changed, g.lost = nil, true
						}
					case 1, 2, 3:
						g.board.Beat(time.Now(), id, record.Version{}, nil, nil)
					case 4:
						g.board.Merge(time.Now(), "other", liveness.Pulse{NodeID: id, Age: time.Duration(rnd.IntN(40)) * time.Second})
					case 5:
						g.others = !g.others
					}
				}
				time.Sleep(time.Duration(1+rnd.IntN(2)*rnd.IntN(80)) * Tick)
				now := time.Now()
				got, want = got[:0], want[:0]
				s.Step(now, func(id string, is record.Status) { got = append(got, id+" "+string(is)) })
				for e := range g.table.All() {
					if is, _, _ := g.Status(e); is != was[e.ID] {
						was[e.ID] = is
						want = append(want, e.ID+" "+string(is))
					}
				}
				if slices.Sort(got); !slices.Equal(got, want) {
					t.Fatalf("seed %d, tick %d: published %q, want %q", seed, tick, got, want)
				}
			}
			if n, most := s.Scheduled(), int(g.limit/Tick)+2; n > most {
				t.Errorf("seed %d: %d ticks have nodes to look at, at most %d can", seed, n, most)
			}
		})
	}
}
