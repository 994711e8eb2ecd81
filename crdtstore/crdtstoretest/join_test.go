package crdtstoretest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
)

// Masters that start together with empty directories and one list of peers, while nodes
// register from the first moment on, are healthy within five seconds, and hold what each
// of them was told.
func TestEmptyMastersStartTogether(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+*seeds; seed++ {
		for _, masters := range []int{3, 5} {
			t.Run(fmt.Sprintf("masters=%d/seed=%d", masters, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { startTogether(t, masters, seed) })
			})
		}
	}
}

func startTogether(t *testing.T, masters int, seed uint64) {
	c := crdtstoretest.StartSimulated(t, masters, seed, func(_ int, cfg *crdtstore.Config) { cfg.NoSync = true })
	for i := range masters {
		c.Stop(i)
		if err := os.RemoveAll(c.Dir(i)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var told int
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if s := c.Store(told % masters); s != nil {
				r := crdtstore.Report{NodeID: fmt.Sprintf("n%04d", told), Boot: 1, Seq: 1}
				if _, err := s.Report(t.Context(), r); err != nil {
					t.Error(err)
				}
				told++
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	began := time.Now()
	c.OpenAll()
	c.WaitHealthy()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("they were healthy after %s", took)
	}
	cancel()
	<-done
	c.WaitEqual()
	for i := range masters {
		if n := c.Store(i).Stats().Nodes.Total; n != told || told == 0 {
			t.Errorf("m%d shows %d of %d nodes", i, n, told)
		}
	}
}

// TestADirectoryIsLost has a master lose its data directory, and its identity with it, in
// a grid without a secret. The others remember who was at its address and refuse the new
// one. It does not serve an empty list: the records exist. It does when it is let in, or
// when the others are gone.
func TestADirectoryIsLost(t *testing.T) {
	noSecret := func(_ int, cfg *crdtstore.Config) { cfg.Secret = "" }
	lost := func(g *grid) {
		g.stop(2)
		if err := os.RemoveAll(g.Dir(2)); err != nil {
			g.t.Fatal(err)
		}
		g.open(2)
		for range 30 {
			g.sleep(2 * time.Second)
			err := g.Store(2).Health()
			if !errors.Is(err, crdtstore.ErrJoining) || !strings.Contains(err.Error(), "another master was at") {
				g.t.Fatalf("the health of a master that is refused is %v", err)
			}
		}
	}
	healthy := func(g *grid, within time.Duration) {
		for began := time.Now(); g.Store(2).Health() != nil; g.sleep(100 * time.Millisecond) {
			if time.Since(began) > within {
				g.t.Fatalf("it is not healthy: %v", g.Store(2).Health())
			}
		}
	}
	t.Run("and let in", func(t *testing.T) {
		scenarios(t, 1, 3, noSecret, func(g *grid) {
			lost(g)
			for m := range 2 {
				g.stop(m)
				if err := os.Remove(filepath.Join(g.Dir(m), "pins.json")); err != nil {
					t.Fatal(err)
				}
				g.open(m)
			}
			healthy(g, reunion)
		})
	})
	t.Run("and alone", func(t *testing.T) {
		scenarios(t, 1, 3, noSecret, func(g *grid) {
			lost(g)
			g.stop(0)
			g.stop(1)
			healthy(g, reunion+15*time.Second) // for so long it counts what they said
			for m := range 2 {
				if err := os.Remove(filepath.Join(g.Dir(m), "pins.json")); err != nil {
					t.Fatal(err)
				}
				g.open(m)
			}
		})
	})
}
