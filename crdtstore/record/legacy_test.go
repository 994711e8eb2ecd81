package record

import (
	"errors"
	"testing"
)

// A sender that counts nothing is counted for.
func TestLegacyVersions(t *testing.T) {
	s := accept(t, State{}, report(0, 0, "a"), 1000)
	if v := s.Claims[0].Latest(); v != (Version{1000, 1}) {
		t.Errorf("first report has version %v, want 1000.1", v)
	}
	s = accept(t, s, report(0, 0, "b"), 2000)
	if v := s.Claims[0].Latest(); v != (Version{1000, 2}) {
		t.Errorf("changed report has version %v, want 1000.2", v)
	}
	if delta, err := Accept(s, report(0, 0, "b"), Acceptance{Now: 3000}); err != nil || !delta.IsZero() {
		t.Errorf("unchanged report: %+v, %v; want no news", delta, err)
	}
	s = accept(t, s, report(0, 0, "b", VM{SID: "1"}), 4000)
	if n := View(testNode, s); n.Seq != 3 || len(n.VMs) != 1 {
		t.Errorf("a VM more: %+v", n)
	}
	// A clock that was set back does not put an account behind.
	s = accept(t, s, report(0, 0, "c"), 10)
	if n := View(testNode, s); n.Seq != 4 || n.Hostname != "c" {
		t.Errorf("after the clock went back: %+v", n)
	}
}

func TestLegacyBootWithoutSeq(t *testing.T) {
	s := accept(t, State{}, report(7, 0, "a"), 1000)
	s = accept(t, s, report(7, 0, "b"), 1001)
	if v := s.Claims[0].Latest(); v != (Version{7, 2}) {
		t.Errorf("version %v, want 7.2", v)
	}
	if delta, err := Accept(s, report(7, 0, "b"), Acceptance{Now: 1002}); err != nil || !delta.IsZero() {
		t.Errorf("unchanged: %+v, %v; want no news", delta, err)
	}
	s = accept(t, s, report(8, 0, "b"), 1003)
	if v := s.Claims[0].Latest(); v != (Version{8, 1}) {
		t.Errorf("the next boot has version %v, want 8.1", v)
	}
	if delta, err := Accept(s, report(7, 0, "z"), Acceptance{Now: 1004}); err != nil || !delta.IsZero() {
		t.Errorf("the boot before: %+v, %v; want no news", delta, err)
	}
}

// Two masters that count for one legacy sender agree after they met, and the
// next change stands above both.
func TestLegacyAtTwoMasters(t *testing.T) {
	a := accept(t, accept(t, State{}, report(0, 0, "a1"), 1000), report(0, 0, "a2"), 1100)
	b := accept(t, State{}, report(0, 0, "b1"), 1050)
	s := Join(a, b)
	if n := View(testNode, s); n.Hostname != "b1" {
		t.Errorf("shown is %q, want that of the later boot", n.Hostname)
	}
	s = accept(t, s, report(0, 0, "a3"), 900)
	if n := View(testNode, s); n.Hostname != "a3" || n.Conflict != nil {
		t.Errorf("the next change: %+v", n)
	}
}

func TestLegacyAfterRemoval(t *testing.T) {
	const second = 1000
	s := accept(t, State{}, report(0, 0, "a"), 100*second)
	s = Join(s, s.Remove(200*second, "m", "ann", "gone"))
	r := report(0, 0, "a")
	for _, c := range []struct {
		name   string
		now    int64
		uptime uint64
		taken  bool
	}{
		{"still running", 210 * second, 110, false},
		{"started just before", 210 * second, 11, false},
		{"started just then", 210 * second, 10, true},
		{"does not say, to a slow clock", 150 * second, 0, true},
		{"started since", 210 * second, 5, true},
		{"does not say", 210 * second, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.UptimeS = c.uptime
			delta, err := Accept(s, r, Acceptance{Now: c.now})
			if !c.taken {
				if refused := new(RefusedError); !errors.As(err, &refused) || refused.Reason != RefusedRemoved {
					t.Fatalf("Accept = %+v, %v; want it refused as removed", delta, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			n := View(testNode, Join(s, delta))
			if n.RemovedAt != nil || n.Boot != uint64(c.now) || n.Seq != 1 {
				t.Errorf("shown %+v", n)
			}
		})
	}
}

// A removed boot that lies ahead of the clock does not lock a legacy sender out.
func TestLegacyAfterRemovalOfAFutureBoot(t *testing.T) {
	s := accept(t, State{}, report(9_000_000, 1, "a"), 1000)
	s = Join(s, s.Remove(1001, "m", "ann", "gone"))
	s = accept(t, s, report(0, 0, "a"), 1002)
	if n := View(testNode, s); n.RemovedAt != nil || n.Boot != 9_000_001 {
		t.Errorf("shown %+v", n)
	}
}
