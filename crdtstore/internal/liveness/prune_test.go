package liveness

import (
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func TestPruneForgetsWhatNobodyKnows(t *testing.T) {
	b, now := New("self"), time.Unix(1_700_000_000, 0)
	for id, age := range map[string]time.Duration{"known": 3 * time.Hour, "unknown": 3 * time.Hour, "recent": time.Minute} {
		b.Merge(now, "m1", Pulse{NodeID: id, Age: age})
	}
	b.Beat(now.Add(-3*time.Hour), "pending", record.Version{Boot: 1, Seq: 1}, nil, nil)
	b.Prune(now, time.Hour, func(id string) bool { return id == "known" })
	for id, want := range map[string]bool{"known": true, "unknown": false, "recent": true, "pending": true} {
		if _, ok := b.Vital(id, nil); ok != want {
			t.Errorf("%s is on the board: %v, want %v", id, ok, want)
		}
	}
	if n := len(b.Collect(now)); n != 1 {
		t.Errorf("%d pulses to tell, want that of pending", n)
	}
	b.Prune(now, time.Hour, func(string) bool { return false })
	if _, ok := b.Vital("pending", nil); ok {
		t.Error("pending is on the board after it was told")
	}
}
