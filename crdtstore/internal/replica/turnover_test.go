package replica

import (
	"fmt"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
)

// TestOutgrown: an epoch ends when it is much larger than the records, not when there
// are many of them or it is merely old.
func TestOutgrown(t *testing.T) {
	r := newOnDisk(t, "m1", t.TempDir())
	r.opts.EpochBytes = 1000
	for i := range 50 {
		node := fmt.Sprint("n", i)
		r.Learned(node, accountOf(node))
	}
	live := r.table.Bytes()
	for _, c := range []struct {
		times float64
		age   time.Duration
		want  bool
	}{
		{1, 0, false}, {1, 100 * time.Hour, false}, {2, 0, false}, {2, 2 * time.Hour, true}, {2.3, 0, true},
	} {
		if got := r.outgrown(uint64(c.times*float64(live)), c.age); got != c.want {
			t.Errorf("%g times the records, %s old: outgrown %v", c.times, c.age, got)
		}
	}
	r.opts.EpochBytes = 100 * live
	if r.outgrown(uint64(50*live), 0) {
		t.Error("an epoch that holds little is outgrown")
	}
}

// largeHistory is a history whose newest epoch has a block that cannot be sent, until the
// next one is adopted.
type largeHistory struct {
	History
	number uint64
}

func (h largeHistory) Stats() epoch.Stats {
	s := h.History.Stats()
	s.Large = s.Number == h.number
	return s
}

func TestLargeBlockEndsTheEpoch(t *testing.T) {
	r := newOnDisk(t, "m1", t.TempDir())
	r.Learned("n", accountOf("n"))
	number := r.history.Number()
	r.Replica.history = largeHistory{r.history, number}
	for range 3 {
		if err := r.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.history.Number(); n != number+1 {
		t.Errorf("in epoch %d, want %d", n, number+1)
	}
}
