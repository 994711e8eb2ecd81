package crdtstore_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
)

// virtual runs a test with a cluster in virtual time.
func virtual(t *testing.T, masters int, tune func(i int, cfg *crdtstore.Config), play func(t *testing.T, c *crdtstoretest.Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		play(t, crdtstoretest.StartSimulated(t, masters, 1, func(i int, cfg *crdtstore.Config) {
			cfg.NoSync = true
			if tune != nil {
				tune(i, cfg)
			}
		}))
	})
}

// told returns the texts of what happened to a master, or to the grid, of one kind.
func told(s *crdtstore.Store, what string) (texts []string) {
	for _, o := range s.Occurrences() {
		if o.What == what {
			texts = append(texts, o.Text)
		}
	}
	return texts
}

func must(t *testing.T, _ any, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Two masters cannot talk, which both show, and say afterwards what came of it.
func TestSplitIsShownAndItsLossesAreNamed(t *testing.T) {
	virtual(t, 2, nil, func(t *testing.T, c *crdtstoretest.Cluster) {
		a, b := c.Store(0), c.Store(1)
		must2 := func(v any, err error) { t.Helper(); must(t, v, err) }
		for i := range 6 {
			must2(a.Report(t.Context(), report(fmt.Sprintf("n%d", i), 1, 1)))
		}
		must2(a.Drain(t.Context(), "n5", true, "before"))
		time.Sleep(10 * time.Second)
		if s := a.Splits(); len(s) != 0 || len(told(a, crdtstore.WhatSplit)) != 0 {
			t.Fatalf("while all is well: %+v, %q", s, told(a, crdtstore.WhatSplit))
		}
		c.Split(1)
		began := time.Now()
		time.Sleep(100 * time.Millisecond)
		must2(a.Drain(t.Context(), "n0", true, "ann"))
		must2(b.Drain(t.Context(), "n1", true, "bob"))
		time.Sleep(3 * time.Second)
		if s := a.Splits(); len(s) != 0 {
			t.Errorf("a split before its time: %+v", s)
		}
		time.Sleep(10 * time.Second)
		must2(b.Drain(t.Context(), "n0", false, "bob"))
		must2(a.Drain(t.Context(), "n5", false, "ann"))
		must2(a.Report(t.Context(), report("n2", 1, 2)))
		must2(b.Report(t.Context(), report("n2", 2, 1)))
		must2(b.Report(t.Context(), report("n3", 1, 2)))
		must2(a.Remove(t.Context(), "n4", "ann", ""))
		for i, s := range []*crdtstore.Store{a, b} {
			other := c.Store(1 - i)
			list := s.Stats().Convergence.Splits
			if len(list) != 1 {
				t.Fatalf("m%d shows %+v", i, list)
			}
			if got := list[0]; got.Master != other.ID() || got.Name != other.Name() || !got.Unreachable || got.Since.Sub(began).Abs() > 1500*time.Millisecond || got.LagS < 12 || got.Nodes < 3 {
				t.Errorf("m%d shows %+v", i, got)
			}
			if texts := told(s, crdtstore.WhatSplit); len(texts) != 1 || !strings.Contains(texts[0], other.Name()+" cannot be reached") {
				t.Errorf("m%d has told %q", i, texts)
			}
		}
		c.Heal()
		c.WaitEqual()
		time.Sleep(5 * time.Second)
		for i, s := range []*crdtstore.Store{a, b} {
			if list := s.Splits(); len(list) != 0 {
				t.Errorf("m%d still shows %+v", i, list)
			}
			texts := told(s, crdtstore.WhatMerged)
			if len(texts) != 1 {
				t.Fatalf("m%d has told %q", i, texts)
			}
			for _, part := range []string{
				"2 values were lost", "n2: account 1/2 gave way to 2/1",
				"n0: drained (by ann through m0) gave way to not drained (by bob through m1)",
			} {
				if !strings.Contains(texts[0], part) {
					t.Errorf("m%d has told %q, without %q", i, texts[0], part)
				}
			}
			// From the other side came n0, n1, n2 and n3 to m0, n0, n4 and n5 to m1.
			if want := []string{": 4 nodes merged", ": 2 nodes merged"}[i]; !strings.Contains(texts[0], want) {
				t.Errorf("m%d has told %q, want %q", i, texts[0], want)
			}
		}
	})
}

// Two sides of two masters each: who has no news of its own is told of too, and what was
// merged is counted once.
func TestSplitOfHalvesIsCountedOnce(t *testing.T) {
	virtual(t, 4, nil, func(t *testing.T, c *crdtstoretest.Cluster) {
		must2 := func(v any, err error) { t.Helper(); must(t, v, err) }
		must2(c.Store(0).Report(t.Context(), report("n0", 1, 1)))
		c.WaitEqual()
		time.Sleep(3 * time.Second)
		c.Split(2)
		time.Sleep(time.Minute)
		must2(c.Store(1).Drain(t.Context(), "n0", true, "ann"))
		time.Sleep(time.Second)
		must2(c.Store(3).Drain(t.Context(), "n0", false, "bob"))
		time.Sleep(time.Second)
		c.Heal()
		c.WaitEqual()
		time.Sleep(10 * time.Second)
		for i := range 4 {
			texts, lost := told(c.Store(i), crdtstore.WhatMerged), 0
			for _, text := range texts {
				if strings.Contains(text, "1 value was lost: n0: drained (by ann through m1) gave way to not drained (by bob through m3)") {
					lost++
				}
			}
			if len(texts) != 2 || lost != 1 {
				t.Errorf("m%d has told %q", i, texts)
			}
			if s := c.Store(i).Splits(); len(s) != 0 {
				t.Errorf("m%d shows %+v", i, s)
			}
		}
	})
}

// A grid in which something is always on its way is not called split.
func TestBusyGridIsNotSplit(t *testing.T) {
	virtual(t, 3, nil, func(t *testing.T, c *crdtstoretest.Cluster) {
		for seq := range uint64(600) {
			for i := range 3 {
				must(t, seq, func() error {
					_, err := c.Store(i).Report(t.Context(), report(fmt.Sprintf("n%d-%d", i, seq%7), 1, seq+1))
					return err
				}())
			}
			time.Sleep(20 * time.Millisecond)
		}
		for i := range 3 {
			if texts := told(c.Store(i), crdtstore.WhatSplit); len(texts) > 0 {
				t.Errorf("m%d has told %q", i, texts)
			}
		}
	})
}
