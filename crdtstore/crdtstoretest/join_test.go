package crdtstoretest_test

import (
	"context"
	"fmt"
	"os"
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
