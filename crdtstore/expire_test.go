package crdtstore_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// A node that is silent for longer than retention is removed, and can come back
// with a greater boot; after ten times as long nothing is remembered of it. One that
// beats is kept.
func TestSilentNodesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cfg := crdtstore.Config{Dir: dir, Retention: 20 * time.Minute, Checkpoint: time.Minute, EpochBytes: 2000, EpochAge: time.Minute, NoSync: true}
		s, err := crdtstore.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"lives", "silent", "gone"} {
			if _, err := s.Report(t.Context(), report(id, 1, 1)); err != nil {
				t.Fatal(err)
			}
		}
		seq := uint64(1)
		pass := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Second) {
				seq++
				_, _ = s.Beat(crdtstore.Beat{NodeID: "lives", Boot: 1, Seq: seq})
			}
		}
		pass(17 * time.Minute)
		if n := s.Stats().Nodes; n.Total != 3 || n.Removed != 0 {
			t.Fatalf("before retention has passed: %+v", n)
		}
		pass(10 * time.Minute)
		if n := s.Stats().Nodes; n.Total != 1 || n.Removed != 2 {
			t.Fatalf("after retention has passed: %+v", n)
		}
		if r, err := s.Beat(crdtstore.Beat{NodeID: "silent", Boot: 1, Seq: 9}); !isExpired(err) {
			t.Errorf("a beat of an expired node: %+v, %v", r, err)
		}
		if r, err := s.Beat(crdtstore.Beat{NodeID: "silent"}); !r.Register || err != nil {
			t.Errorf("a beat of an expired node that does not count: %+v, %v", r, err)
		}
		if _, err := s.Report(t.Context(), report("silent", 1, 9)); !isExpired(err) {
			t.Error("a report of an expired boot:", err)
		}
		if _, err := s.Report(t.Context(), report("silent", 2, 1)); err != nil {
			t.Error("a report of a greater boot:", err)
		}
		if n := s.Stats().Nodes; n.Total != 2 {
			t.Errorf("it came back: %+v", n)
		}

		pass(208 * time.Minute)
		if n := s.Stats().Nodes; n.Total != 1 || n.Removed != 1 {
			t.Errorf("after ten times retention: %+v", n)
		}
		if _, err := s.Node("gone"); !errors.Is(err, crdtstore.ErrNotFound) {
			t.Error("it is still known:", err)
		}
		synctest.Wait() // a checkpoint may be due at this very moment
		digest := digestOf(s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = crdtstore.Open(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if got := digestOf(s); got != digest {
			t.Errorf("digest %s after a restart, was %s", got, digest)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func isExpired(err error) bool {
	var refused *crdtstore.RefusedError
	return errors.As(err, &refused) && refused.Reason == record.RefusedExpired
}
