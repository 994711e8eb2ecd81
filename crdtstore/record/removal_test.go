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
	s = Join(s, s.Set(150, "m", "ann", FieldDrain, "1"))
	s = Join(s, s.Remove(200, "m", "ann", "broken"))
	s = accept(t, s, report(6, 1, "b"), 300)
	n := View(testNode, s)
	if s.Removed() || n.RemovedAt != nil || n.Hostname != "b" || n.Boot != 6 || len(n.VMs) != 0 {
		t.Errorf("shown %+v", n)
	}
	if n.Drained {
		t.Error("a drain outlived the node that it was about")
	}
	s = Join(s, s.Set(1, "m2", "bob", FieldDrain, "1"))
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

// Removal against a drain on the other side: both stand, whatever the clocks
// say. The node is gone, and if it comes back it is drained.
func TestRemovalAgainstDrain(t *testing.T) {
	start := accept(t, State{}, report(5, 1, "a"), 100)
	undrained := Join(start, start.Set(150, "m1", "ann", FieldDrain, "1"))
	undrained = Join(undrained, undrained.Set(160, "m1", "ann", FieldDrain, ""))
	drained := Join(start, start.Set(150, "m1", "ann", FieldDrain, "1"))
	for name, start := range map[string]State{"never drained": start, "undrained": undrained, "drained": drained} {
		for _, spoken := range []int64{0, 1, 160, 200, 300, 400} {
			a := Join(start, start.Remove(300, "m1", "ann", "gone"))
			b := Join(start, start.Set(spoken, "m2", "bob", FieldDrain, "1"))
			s := Join(b, a)
			if !s.Removed() {
				t.Errorf("%s: a drain brought a removed node back", name)
			}
			if n := View(testNode, accept(t, s, report(6, 1, "b"), 400)); !n.Drained {
				t.Errorf("%s: drained at %d on the other side, and not when it comes back", name, spoken)
			}
		}
	}
}

// Both sides remove a node. On one it has come back and was drained since: the
// other side's removal is about the life before, however late it was.
func TestRemovalAgainstDrainOfALaterBoot(t *testing.T) {
	start := accept(t, State{}, report(3, 1, "a"), 50)
	start = Join(start, start.Set(60, "m1", "ann", FieldDrain, "1"))
	a := Join(start, start.Remove(100, "m1", "ann", "gone"))
	a = accept(t, a, report(4, 1, "a"), 120)
	if View(testNode, a).Drained {
		t.Fatal("a drain outlived the node that it was about")
	}
	a = Join(a, a.Set(150, "m1", "ann", FieldDrain, "1"))
	b := Join(start, start.Set(160, "m2", "bob", FieldLabel+"x", "=old"))
	b = Join(b, b.Remove(200, "m2", "bob", "gone"))
	n := View(testNode, Join(a, b))
	if n.RemovedAt != nil || n.Boot != 4 || !n.Drained || len(n.Labels) != 0 {
		t.Errorf("shown %+v", n)
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
	if s = Join(s, later); !s.Removed() {
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
		for _, w := range s.Overrides {
			if after.Override(w.Field).Value != "" {
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
