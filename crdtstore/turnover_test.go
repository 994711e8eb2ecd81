package crdtstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
)

// small lets the history be cut after few writes.
func small(_ int, cfg *crdtstore.Config) { cfg.EpochBytes, cfg.NoSync = 1000, true }

// until polls, for the store does this on its own time.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
	}
}

// churn changes each of ten nodes n times.
func churn(t *testing.T, s *crdtstore.Store, prefix string, boot uint64, n int) {
	t.Helper()
	for seq := range n {
		for i := range 10 {
			r := report(fmt.Sprintf("%s%d", prefix, i), boot, uint64(seq+1))
			r.Hostname = fmt.Sprint(boot, "/", seq)
			if _, err := s.Report(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestHistoryIsCut(t *testing.T) {
	dir := t.TempDir()
	cfg := crdtstore.Config{Dir: dir}
	small(0, &cfg)
	s, err := crdtstore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	churn(t, s, "n", 1, 20)
	if _, err := s.Remove(t.Context(), "n3", "test", ""); err != nil {
		t.Fatal(err)
	}
	before := digestOf(s)
	until(t, "the history is cut and the old epoch deleted", func() bool {
		h := s.Stats().History
		return h.Epoch >= 2 && h.Old == 0
	})
	// The cut may come before the last of the changes, so only what is lost or
	// kept twice would show.
	if h := s.Stats().History; h.Entries > 200 || digestOf(s) != before {
		t.Errorf("after: %+v, digest %s, was %s", h, digestOf(s), before)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "epochs")); len(left) != 1 {
		t.Errorf("left on disk: %v", left)
	}
	if got := digestOf(open(t, dir)); got != before {
		t.Errorf("digest %s after reopening, was %s", got, before)
	}
}

// Both sides of a split cut their histories, more than once on one side, and a
// third master was away all the time with something that nobody else knows.
func TestEpochsMergeAfterASplit(t *testing.T) {
	c := crdtstoretest.Start(t, 3, small)
	churn(t, c.Store(0), "n", 1, 1)
	c.WaitEqual()
	c.Cut(func(a, b int) bool { return a != b })
	churn(t, c.Store(0), "a", 1, 10)
	churn(t, c.Store(1), "b", 1, 10)
	churn(t, c.Store(2), "c", 1, 1)
	if _, err := c.Store(2).Remove(t.Context(), "n0", "test", ""); err != nil {
		t.Fatal(err)
	}
	cut := func(i int, epoch uint64) {
		until(t, fmt.Sprintf("master %d reaches epoch %d", i, epoch), func() bool { return c.Store(i).Stats().History.Epoch >= epoch })
	}
	cut(0, 2)
	cut(1, 2)
	churn(t, c.Store(1), "b", 2, 15)
	until(t, "master 1 can cut again", func() bool { return c.Store(1).Stats().History.Old == 0 || c.Store(1).Stats().History.Epoch > 2 })
	c.Stop(2)
	c.Heal()
	c.Open(2)
	c.WaitConnected()
	c.WaitEqual()
	until(t, "all are in one epoch and hold nothing older", func() bool {
		for i := range 3 {
			if h := c.Store(i).Stats().History; h.Epoch != c.Store(0).Stats().History.Epoch || h.Old != 0 {
				return false
			}
		}
		return true
	})
	c.WaitEqual()
	digest := digestOf(c.Store(0))
	for i := range 3 {
		page, err := c.Store(i).Nodes(crdtstore.NodeQuery{Limit: 1000})
		if err != nil || page.Total != 39 {
			t.Errorf("master %d lists %d nodes, want 39: %v", i, page.Total, err)
		}
		if n, _ := c.Store(i).Node("b4"); n.Boot != 2 {
			t.Errorf("master %d has b4 at boot %d", i, n.Boot)
		}
	}
	// Each alone has all of it on disk.
	for i := range 3 {
		c.Stop(i)
	}
	for i := range 3 {
		c.Open(i)
		if got := digestOf(c.Store(i)); got != digest {
			t.Errorf("master %d opens with digest %s, was %s", i, got, digest)
		}
		c.Stop(i)
	}
}
