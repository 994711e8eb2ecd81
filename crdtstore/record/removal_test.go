package record

import (
	"testing"

	"pgregory.net/rapid"
)

func TestRemovalHides(t *testing.T) {
	s := accept(t, State{}, report(5, 3, "a", VM{SID: "1"}), 100)
	s = Join(s, s.Remove(200, "m", "ann", "broken"))
	if !s.Removed() {
		t.Fatal("not removed")
	}
	n := View(testNode, s)
	if n.RemovedAt == nil || n.RemovedAt.UnixMilli() != 200 || n.UpdatedAt.UnixMilli() != 200 {
		t.Errorf("removed at %v, updated at %v", n.RemovedAt, n.UpdatedAt)
	}
	if n.Hostname != "a" || len(n.VMs) != 1 || n.Seq != 3 {
		t.Errorf("a removed node is shown as it last was, not as %+v", n)
	}
	if _, ok := s.Owner(); ok {
		t.Error("a removed node has an owner")
	}
}

func TestLaterBootRegistersAnew(t *testing.T) {
	s := accept(t, State{}, report(5, 3, "a", VM{SID: "1"}), 100)
	s = Join(s, s.Say(150, "m", "ann", FieldDrain, "1"))
	s = Join(s, s.Remove(200, "m", "ann", "broken"))
	s = accept(t, s, report(6, 1, "b"), 300)
	n := View(testNode, s)
	if s.Removed() || n.RemovedAt != nil || n.Hostname != "b" || n.Boot != 6 || len(n.VMs) != 0 {
		t.Errorf("shown %+v", n)
	}
	if n.Drained {
		t.Error("a drain outlived the node that it was about")
	}
	s = Join(s, s.Say(1, "m2", "bob", FieldDrain, "1"))
	if !View(testNode, s).Drained {
		t.Error("a word by a slow clock after a removal has no effect")
	}
}

// Old accounts come back by Join only: from a master that was cut off for long.
func TestOldAccountsDoNotResurrect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := accept(t, State{}, report(3, 1, "a"), 100)
		cutOff := s
		for now := range int64(rapid.IntRange(1, 8).Draw(t, "reports")) {
			r := report(draw(t, "boot", uint64(1), 2, 3, 4), draw(t, "seq", uint64(1), 2, 3), "old", VM{SID: "old"})
			if rapid.Bool().Draw(t, "signed") {
				r.Sign(testKey(1))
			}
			if delta, err := Accept(cutOff, r, Acceptance{Now: 1_000_000 + now}); err == nil {
				cutOff = Join(cutOff, delta)
			}
		}
		s = Join(s, Removal{Boot: 4, Stamp: Stamp{Wall: 200}, Master: "m"}.state())
		met := Join(s, cutOff)
		if !met.Removed() || View(testNode, met).RemovedAt == nil {
			t.Fatalf("resurrected: %+v", met)
		}
		back := accept(t, met, signed(report(5, 1, "new"), 2), 300)
		if n := View(testNode, Join(back, cutOff)); n.Hostname != "new" || n.RemovedAt != nil || len(n.VMs) != 0 {
			t.Fatalf("the node that came back is shown as %+v", n)
		}
	})
}

func (r Removal) state() State { return State{Removal: r} }

// A removal hides what its master knew. The node that had booted again on the
// other side of the split is another life and stays.
func TestRemovalAgainstLaterBootOnTheOtherSide(t *testing.T) {
	start := accept(t, State{}, report(5, 1, "a"), 100)
	a := Join(start, start.Remove(900, "m1", "ann", "gone"))
	b := accept(t, start, report(6, 1, "b"), 200)
	if n := View(testNode, Join(a, b)); n.RemovedAt != nil || n.Hostname != "b" {
		t.Errorf("shown %+v", n)
	}
}

// Removal against a drain on the other side: the node is gone on both, and the
// later word decides what it finds if it comes back.
func TestRemovalAgainstDrain(t *testing.T) {
	start := accept(t, State{}, report(5, 1, "a"), 100)
	for _, c := range []struct {
		name            string
		removed, spoken int64
		drained         bool
	}{
		{"drained before", 300, 200, false},
		{"drained after", 200, 300, true},
		{"drained in the same millisecond", 300, 300, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := Join(start, start.Remove(c.removed, "m1", "ann", "gone"))
			b := Join(start, start.Say(c.spoken, "m2", "bob", FieldDrain, "1"))
			s := Join(b, a)
			if !s.Removed() {
				t.Error("a drain brought a removed node back")
			}
			if n := View(testNode, accept(t, s, report(6, 1, "b"), 400)); n.Drained != c.drained {
				t.Errorf("drained is %v when it comes back", n.Drained)
			}
		})
	}
}

func TestRemovalsOfBothSides(t *testing.T) {
	start := accept(t, State{}, report(5, 1, "a"), 100)
	a := Join(start, start.Remove(200, "m1", "ann", "gone"))
	b := Join(start, start.Remove(9_000, "m2", "bob", "gone"))
	s := Join(a, b)
	if !s.Removed() || s.Removal.By != "bob" {
		t.Errorf("removed on both sides: %+v", s.Removal)
	}
	later := accept(t, start, report(8, 1, "a"), 300)
	later = Join(later, later.Remove(10, "m3", "cyd", "gone"))
	if s = Join(s, later); !s.Removed() || s.Removal.Boot != 8 {
		t.Errorf("the removal of the later boot does not stand: %+v", s.Removal)
	}
}

// A removal takes every identity, and is stamped above every word.
func TestRemoveTakesEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawKnown(t)
		now := draw(t, "now", int64(0), 1, 2, 9)
		after := Join(s, s.Remove(now, "m", "ann", "gone"))
		if !after.Removed() {
			t.Fatalf("removed, and yet it has an owner: %+v", after)
		}
		n := View(testNode, after)
		if n.Drained || n.RemovedAt == nil {
			t.Fatalf("shown %+v", n)
		}
		for _, w := range s.Words {
			if after.Word(w.Field) != (Word{}) {
				t.Fatalf("word %+v outlived the removal %+v", w, after.Removal)
			}
		}
		if !after.Dominates(s) || s.Dominates(after) {
			t.Fatalf("a removal that is no news: %+v", after)
		}
	})
}

// Removing what nobody knows is as total as the rest.
func TestRemoveUnknownNode(t *testing.T) {
	s := State{}.Remove(100, "m", "ann", "gone")
	if n := View(testNode, s); !s.Removed() || n.RemovedAt == nil {
		t.Errorf("shown %+v", n)
	}
	if n := View(testNode, accept(t, s, report(1, 1, "a"), 200)); n.RemovedAt != nil {
		t.Errorf("shown %+v", n)
	}
}
