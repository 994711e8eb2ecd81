package crdtstoretest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
)

// An operator ends preservation at one master. It stays ended on all: on those that were
// told at once, on one that was cut off then, and on those that start afterwards, one after
// the other.
func TestPreservationStaysEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := crdtstoretest.StartSimulated(t, 3, 1, func(_ int, cfg *crdtstore.Config) { cfg.OfflineAfter = 15 * time.Second })
		const nodes, dead = 10, 6
		up := []bool{true, true, true}
		alive := 0 // from this one on
		live := func(d time.Duration, each func(*crdtstore.Store)) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
				for m, is := range up {
					if !is {
						continue
					}
					for i := alive; i < nodes; i++ {
						_, _ = c.Store(m).Beat(crdtstore.Beat{NodeID: fmt.Sprint("n", i)})
					}
					if each != nil {
						each(c.Store(m))
					}
				}
			}
		}
		for i := range nodes {
			if _, err := c.Store(0).Report(t.Context(), crdtstore.Report{NodeID: fmt.Sprint("n", i)}); err != nil {
				t.Fatal(err)
			}
		}
		c.WaitEqual()
		live(40*time.Second, nil)
		alive = dead
		live(20*time.Second, nil)
		for m := range 3 {
			if c.Store(m).Stats().Preservation == nil {
				t.Fatalf("master %d does not preserve", m)
			}
		}

		c.Split(2) // the third is cut off
		live(10*time.Second, nil)
		if n := c.Store(0).EndPreservation(t.Context(), "Ann Lee"); n != 2 {
			t.Errorf("%d masters have heard it", n)
		}
		c.Heal()
		live(15*time.Second, nil)
		ended := func(s *crdtstore.Store) {
			if p := s.Stats().Preservation; p != nil {
				t.Fatalf("master %s preserves %+v, which was ended", s.Name(), p)
			}
		}
		live(time.Minute, ended)
		by := ""
		page, err := c.Store(2).Events(crdtstore.EventQuery{Kind: crdtstore.GridEvent})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Events {
			if o.Type == crdtstore.EventPreservationEnded {
				by = o.By
			}
		}
		if want := "Ann Lee through " + c.Store(0).ID(); by != want && by != "Ann Lee through "+c.Store(1).ID() {
			t.Errorf("the third says that %q ended it, want %q", by, want)
		}
		for m := range 3 {
			c.Stop(m)
			up[m] = false
			live(5*time.Second, ended)
			c.Open(m)
			up[m] = true
			live(time.Minute, ended)
		}
		for m := range 3 {
			for i := range nodes {
				n, err := c.Store(m).Node(fmt.Sprint("n", i))
				if want := map[bool]crdtstore.Status{true: crdtstore.Offline, false: crdtstore.Online}[i < dead]; err != nil || n.Status != want {
					t.Errorf("master %d calls node %d %s, want %s; %v", m, i, n.Status, want, err)
				}
			}
		}
	})
}
