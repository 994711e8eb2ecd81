package crdtstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
)

// joiners starts a master with n nodes, and prepares another, which knows of the
// first when it is opened.
func joiners(t *testing.T, n int) *crdtstoretest.Cluster {
	t.Helper()
	c := crdtstoretest.Start(t, 2, func(_ int, cfg *crdtstore.Config) { cfg.NoSync = true })
	c.Stop(1)
	if err := os.RemoveAll(c.Dir(1)); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := c.Store(0).Report(t.Context(), report(fmt.Sprintf("n%05d", i), 1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func total(s *crdtstore.Store) int { return s.Stats().Nodes.Total }

// A new master is not healthy before it has what the others have, and can be asked
// and written to all the same.
func TestNewMasterFetchesEverythingFirst(t *testing.T) {
	c := joiners(t, 500)
	c.Cut(func(a, b int) bool { return true })
	c.Open(1)
	s := c.Store(1)
	if err := s.Health(); !errors.Is(err, crdtstore.ErrJoining) {
		t.Fatal("a new master is", err)
	}
	if p := s.Stats().Joining; p == nil || p.Nodes != 0 {
		t.Errorf("it is joining as %+v", p)
	}
	if _, err := s.Report(t.Context(), report("early", 1, 1)); err != nil {
		t.Error("it takes no report:", err)
	}
	c.Heal()
	until(t, "it is healthy", func() bool {
		// In this order: what it has when it says that it is well.
		healthy := s.Health() == nil
		if n := total(s); healthy && n < 501 {
			t.Fatalf("it is healthy with %d of 501 nodes", n)
		}
		return healthy
	})
	if s.Stats().Joining != nil {
		t.Error("it is still joining")
	}
	c.WaitEqual()
	c.Stop(1)
	c.Stop(0)
	c.Open(1)
	if err := c.Store(1).Health(); err != nil {
		t.Error("one that has joined before:", err)
	}
}

// A new master that is interrupted is new after a restart, and goes on.
func TestJoiningGoesOnAfterARestart(t *testing.T) {
	c := joiners(t, 3000)
	c.Open(1)
	s := c.Store(1)
	until(t, "something is here", func() bool { return total(s) > 0 })
	c.Cut(func(a, b int) bool { return true })
	had := total(s)
	c.Stop(1)
	if had == 3000 {
		t.Log("it was too fast to be interrupted")
		return
	}
	c.Open(1)
	s = c.Store(1)
	if err := s.Health(); !errors.Is(err, crdtstore.ErrJoining) || total(s) == 0 {
		t.Errorf("after a restart with %d nodes it is %v", total(s), err)
	}
	c.Heal()
	c.WaitEqual()
	until(t, "it is healthy", func() bool { return s.Health() == nil })
}

// Masters that are all new, and one that finds nobody, serve.
func TestNobodyToJoin(t *testing.T) {
	c := crdtstoretest.Start(t, 3, nil)
	for i := range 3 {
		until(t, "all are healthy", func() bool { return c.Store(i).Health() == nil })
	}
	dir := filepath.Join(t.TempDir(), "alone")
	var published atomic.Int64
	s, err := crdtstore.Open(context.Background(), crdtstore.Config{
		Dir: dir, Peers: []string{"127.0.0.1:1"}, Secret: "x", Listen: []string{"127.0.0.1:0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	began := time.Now()
	until(t, "it gives up", func() bool { published.Add(1); return s.Health() == nil })
	if time.Since(began) < time.Second || published.Load() < 2 {
		t.Error("it did not look for anybody")
	}
}
