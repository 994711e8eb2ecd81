package crdtstore_test

import (
	"fmt"
	"slices"
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

// eventTexts returns the texts of what happened to a master, or to the grid, of one kind.
func eventTexts(s *crdtstore.Store, what string) (texts []string) {
	for _, o := range s.AllEvents() {
		if o.Type == what {
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
func TestSplitIsShownAndWhatGaveWayIsNamed(t *testing.T) {
	virtual(t, 2, nil, func(t *testing.T, c *crdtstoretest.Cluster) {
		a, b := c.Store(0), c.Store(1)
		must2 := func(v any, err error) { t.Helper(); must(t, v, err) }
		for i := range 6 {
			must2(a.Report(t.Context(), report(fmt.Sprintf("n%d", i), 1, 1)))
		}
		must2(a.Drain(t.Context(), "n5", true, "before"))
		time.Sleep(10 * time.Second)
		if s := a.Stats().Convergence.Splits; len(s) != 0 || len(eventTexts(a, crdtstore.EventSplit)) != 0 {
			t.Fatalf("while all is well: %+v, %q", s, eventTexts(a, crdtstore.EventSplit))
		}
		c.Split(1)
		began := time.Now()
		time.Sleep(100 * time.Millisecond)
		must2(a.Drain(t.Context(), "n0", true, "ann"))
		must2(b.Drain(t.Context(), "n1", true, "bob"))
		time.Sleep(3 * time.Second)
		if s := a.Stats().Convergence.Splits; len(s) != 0 {
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
			if texts := eventTexts(s, crdtstore.EventSplit); len(texts) != 1 || !strings.Contains(texts[0], other.Name()+" cannot be reached") {
				t.Errorf("m%d has told %q", i, texts)
			}
		}
		c.Heal()
		c.WaitEqual()
		time.Sleep(5 * time.Second)
		for i, s := range []*crdtstore.Store{a, b} {
			if list := s.Stats().Convergence.Splits; len(list) != 0 {
				t.Errorf("m%d still shows %+v", i, list)
			}
			texts := eventTexts(s, crdtstore.EventMerged)
			if len(texts) != 1 {
				t.Fatalf("m%d has told %q", i, texts)
			}
			// Changed were n0, n2, n4 and n5 on the side of m0, and n0, n1, n2 and n3 on that
			// of m1, where n0 and n2 prevail.
			for _, part := range []string{
				", after 1", []string{"nodes changed here: 4, there: 4;", "nodes changed here: 4, there: 2;"}[i],
				"overrides that gave way: 1, n0: drained by ann through m0 gave way to no longer drained by bob through m1",
			} {
				if !strings.Contains(texts[0], part) {
					t.Errorf("m%d has told %q, without %q", i, texts[0], part)
				}
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
			texts, gaveWay := eventTexts(c.Store(i), crdtstore.EventMerged), 0
			for _, text := range texts {
				if strings.Contains(text, "overrides that gave way: 1, n0: drained by ann through m1 gave way to no longer drained by bob through m3") {
					gaveWay++
				}
			}
			if len(texts) != 2 || gaveWay != 1 {
				t.Errorf("m%d has told %q", i, texts)
			}
			if s := c.Store(i).Stats().Convergence.Splits; len(s) != 0 {
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
			if texts := eventTexts(c.Store(i), crdtstore.EventSplit); len(texts) > 0 {
				t.Errorf("m%d has told %q", i, texts)
			}
		}
	})
}

// beats has nodes speak to some masters for a time, every 10 s.
func beats(t *testing.T, d time.Duration, nodes int, seq *uint64, masters ...*crdtstore.Store) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Second) {
		*seq++
		for n := range nodes {
			for _, s := range masters {
				if r, err := s.Beat(crdtstore.Beat{NodeID: fmt.Sprintf("n%d", n), Boot: 1, Seq: *seq}); err != nil || r.Register {
					t.Fatalf("%s: %+v, %v", s.Name(), r, err)
				}
			}
		}
	}
}

func statusOf(t *testing.T, s, of *crdtstore.Store) crdtstore.Master {
	t.Helper()
	m, err := s.Master(of.ID())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// No beat reaches one of three masters any more. No node goes offline for it, and all say
// which master is partially connected.
func TestDeafMaster(t *testing.T) {
	virtual(t, 3, nil, func(t *testing.T, c *crdtstoretest.Cluster) {
		a, b, partial := c.Store(0), c.Store(1), c.Store(2)
		for n := range 50 {
			_, err := a.Report(t.Context(), report(fmt.Sprintf("n%d", n), 1, 1))
			must(t, nil, err)
		}
		c.WaitEqual()
		all, seq := []*crdtstore.Store{a, b, partial}, uint64(1)
		beats(t, 2*time.Minute, 50, &seq, all...)
		for _, s := range all {
			for _, of := range all {
				if m := statusOf(t, s, of); m.PartiallyConnected || m.Hears != 50 || len(m.HeardBy) == 0 {
					t.Errorf("%s sees %+v", s.Name(), m)
				}
			}
		}
		beats(t, 90*time.Second, 50, &seq, a, b)
		for _, s := range all {
			for _, of := range all {
				want := ""
				if of == partial {
					want = "hears 0 of the 50 nodes that m"
				}
				if m := statusOf(t, s, of); m.PartiallyConnected != (of == partial) || !strings.HasPrefix(m.Reason, want) || m.Reason != "" && want == "" {
					t.Errorf("%s sees %s as %+v", s.Name(), of.Name(), m)
				}
			}
			if texts := eventTexts(s, crdtstore.EventPartiallyConnected); len(texts) != 1 || !strings.HasPrefix(texts[0], "m2 hears 0 of the 50 nodes that m") {
				t.Errorf("%s has told %q", s.Name(), texts)
			}
			if n := s.Stats().Nodes; n.Online != 50 {
				t.Errorf("%s counts %+v", s.Name(), n)
			}
		}
		beats(t, time.Minute, 50, &seq, all...)
		for _, s := range all {
			if m := statusOf(t, s, partial); m.PartiallyConnected || m.Reason != "" || m.Hears != 50 {
				t.Errorf("%s sees %+v", s.Name(), m)
			}
			if texts := eventTexts(s, crdtstore.EventFullyConnected); len(texts) != 1 || texts[0] != "m2 hears 50 nodes again" {
				t.Errorf("%s has told %q", s.Name(), texts)
			}
		}
	})
}

// Two masters that reach each other only by way of a third still hear of each other, and
// who is heard by whom is shown.
func TestHeardOverABridge(t *testing.T) {
	virtual(t, 3, nil, func(t *testing.T, c *crdtstoretest.Cluster) {
		a, bridge, b := c.Store(0), c.Store(1), c.Store(2)
		c.Cut(func(x, y int) bool { return x != 1 && y != 1 })
		time.Sleep(time.Minute)
		for _, s := range []*crdtstore.Store{a, b} {
			other := a
			if s == a {
				other = b
			}
			m := statusOf(t, s, other)
			if m.Status != crdtstore.MasterAlive || m.RTTms != 0 || len(m.HeardBy) != 1 || m.HeardBy[0] != bridge.ID() {
				t.Errorf("%s sees %+v", s.Name(), m)
			}
			if len(s.Stats().Convergence.Splits) > 0 {
				t.Errorf("%s shows %+v", s.Name(), s.Stats().Convergence.Splits)
			}
		}
	})
}

// A master that is gone for longer than retention is forgotten by all, also while they
// talk to each other of whom they know, and is welcome with what it has when it returns.
func TestGoneMasterIsForgottenAndWelcomedBack(t *testing.T) {
	tune := func(_ int, cfg *crdtstore.Config) { cfg.Retention = 4 * time.Minute }
	virtual(t, 4, tune, func(t *testing.T, c *crdtstoretest.Cluster) {
		gone, id := 3, c.Store(3).ID()
		c.Cut(func(a, b int) bool { return (a == gone) != (b == gone) })
		time.Sleep(5 * time.Second)
		_, err := c.Store(gone).Report(t.Context(), report("of-the-lost", 1, 1))
		must(t, nil, err)
		c.Stop(gone)
		time.Sleep(3 * time.Minute)
		for i := range gone {
			if m, err := c.Store(i).Master(id); err != nil || m.Status != crdtstore.MasterDown {
				t.Errorf("before its time, m%d sees %+v, %v", i, m, err)
			}
		}
		time.Sleep(2 * time.Minute)
		// One that starts now, with what it knew, forgets it as well.
		c.Stop(2)
		c.Open(2)
		time.Sleep(2 * time.Minute)
		for i := range gone {
			// It is configured, and so it is still tried and shown, like one that never came.
			if m, err := c.Store(i).Master(id); err == nil && m.Status != crdtstore.MasterNeverMet {
				t.Errorf("m%d still knows %+v", i, m)
			}
			if ids := c.Store(i).Seeks(); slices.Contains(ids, id) || len(ids) != gone-1 {
				t.Errorf("m%d still looks for %q", i, ids)
			}
			if s := c.Store(i).Stats().Convergence.Splits; len(s) > 0 {
				t.Errorf("m%d shows %+v", i, s)
			}
			if c.Store(i).CountsClock(id) {
				t.Errorf("the clock of m3 still counts at m%d", i)
			}
			texts := eventTexts(c.Store(i), crdtstore.EventForgotten)
			if i < 2 && (len(texts) != 1 || texts[0] != "m3 has been gone for more than 4m0s and is forgotten") {
				t.Errorf("m%d has told %q", i, texts)
			}
		}
		c.Heal()
		c.Open(gone)
		c.WaitConnected()
		c.WaitEqual()
		for i := range c.Len() {
			if n, err := c.Store(i).Node("of-the-lost"); err != nil || n.RemovedAt != nil {
				t.Errorf("m%d: %+v, %v", i, n, err)
			}
		}
	})
}

// shares returns how many nodes each master holds itself responsible for, and fails the
// test where a node has none or several.
func shares(t *testing.T, nodes int, masters ...*crdtstore.Store) map[string]int {
	t.Helper()
	out := map[string]int{}
	for n := range nodes {
		id, by := fmt.Sprintf("n%d", n), 0
		for _, s := range masters {
			if s.Responsible(id) == s.ID() {
				out[s.Name()]++
				by++
			}
		}
		if by != 1 {
			t.Errorf("%d masters are responsible for %s", by, id)
		}
	}
	return out
}

// The share of a master that is gone passes to the others, who say so, and it has it back
// when it returns, also after masters disagreed about who lives.
func TestAdoption(t *testing.T) {
	const count = 100
	tune := func(_ int, cfg *crdtstore.Config) { cfg.Checkpoint, cfg.EpochBytes = 20*time.Second, 8<<10 }
	virtual(t, 3, tune, func(t *testing.T, c *crdtstoretest.Cluster) {
		a, b, lost := c.Store(0), c.Store(1), c.Store(2)
		for n := range count {
			_, err := a.Report(t.Context(), report(fmt.Sprintf("n%d", n), 1, 1))
			must(t, nil, err)
		}
		c.WaitEqual()
		seq := uint64(1)
		beats(t, 30*time.Second, count-10, &seq, a, b, lost)
		// Ten nodes speak to the lost one alone.
		for n := count - 10; n < count; n++ {
			_, _ = lost.Beat(crdtstore.Beat{NodeID: fmt.Sprintf("n%d", n), Boot: 1, Seq: 10})
		}
		beats(t, time.Second, count-10, &seq, a, b, lost)
		was := shares(t, count, a, b, lost)
		name, mine := lost.Name(), was[lost.Name()]

		// a and b part for a while as well, and both do what each thinks is its own.
		c.Cut(func(int, int) bool { return true })
		beats(t, 90*time.Second, count-10, &seq, a, b, lost)
		for _, s := range []*crdtstore.Store{a, b, lost} {
			if s.Responsible("n1") != s.ID() {
				t.Errorf("%s, which is alone, leaves a node to another", s.Name())
			}
		}
		c.Split(2)
		beats(t, 30*time.Second, count-10, &seq, a, b)
		is := shares(t, count, a, b)
		if is["m0"]+is["m1"] != count {
			t.Errorf("the shares are %v", is)
		}
		for _, s := range []*crdtstore.Store{a, b} {
			var got int
			for _, text := range eventTexts(s, crdtstore.EventAdopted) {
				if strings.Contains(text, " of "+name+", which is down") {
					_, _ = fmt.Sscanf(text, "adopted %d", &got)
					if !strings.HasSuffix(text, "; 10 nodes were heard by it alone") {
						t.Errorf("%s has told %q", s.Name(), text)
					}
				}
			}
			if got == 0 {
				t.Errorf("%s has told %q", s.Name(), eventTexts(s, crdtstore.EventAdopted))
			}
		}
		c.Heal()
		c.WaitConnected()
		c.WaitEqual()
		beats(t, 10*time.Second, count-10, &seq, a, b, lost)
		if again := shares(t, count, a, b, lost); again[name] != mine || again["m0"] != was["m0"] || again["m1"] != was["m1"] {
			t.Errorf("the shares are %v, were %v", again, was)
		}
		given := 0
		for _, s := range []*crdtstore.Store{a, b} {
			for _, text := range eventTexts(s, crdtstore.EventGiven) {
				var n int
				if _, err := fmt.Sscanf(text, "gave %d nodes back to "+name, &n); err == nil {
					given += n
				}
			}
		}
		if given != mine {
			t.Errorf("%d nodes were given back, want %d", given, mine)
		}

		// One that leaves is stood in for at once.
		c.Stop(2)
		time.Sleep(2 * time.Second)
		adopted := 0
		for _, s := range []*crdtstore.Store{a, b} {
			for _, text := range eventTexts(s, crdtstore.EventAdopted) {
				var n int
				if _, err := fmt.Sscanf(text, "adopted %d nodes of "+name+", which has left", &n); err == nil {
					adopted += n
				}
			}
		}
		if adopted != mine {
			t.Errorf("%d nodes were adopted, want %d", adopted, mine)
		}
		shares(t, count, a, b)
		c.WaitEqual()
	})
}
