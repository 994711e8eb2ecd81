package record

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestNextIsAlwaysAbove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		above := Stamp{
			Wall:    rapid.Int64Range(0, math.MaxInt64-1).Draw(t, "wall"),
			Logical: draw(t, "logical", uint32(0), 1, math.MaxUint32-1, math.MaxUint32),
		}
		now := rapid.Int64().Draw(t, "now")
		next := Next(now, above)
		if next.Compare(above) <= 0 {
			t.Fatalf("Next(%d, %+v) = %+v", now, above, next)
		}
		if now > above.Wall && next != (Stamp{Wall: now}) {
			t.Fatalf("Next(%d, %+v) = %+v, want the clock", now, above, next)
		}
		if now <= above.Wall && next.Wall > above.Wall+1 {
			t.Fatalf("Next(%d, %+v) = %+v runs ahead", now, above, next)
		}
	})
}

func TestVersionsAndStampsAreOrdered(t *testing.T) {
	versions := []Version{{}, {0, 1}, {1, 0}, {1, math.MaxUint64}, {2, 1}, {math.MaxUint64, 0}}
	for i, v := range versions {
		for j, w := range versions {
			if got := v.Compare(w); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%v.Compare(%v) = %d", v, w, got)
			}
		}
	}
	stamps := []Stamp{{0, 0}, {0, 1}, {1, 0}, {1, math.MaxUint32}, {2, 0}, {math.MaxInt64, math.MaxUint32}}
	for i, s := range stamps {
		for j, u := range stamps {
			if got := s.Compare(u); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%v.Compare(%v) = %d", s, u, got)
			}
		}
	}
}

// TestLastWordWins lets masters with clocks hours apart speak in turn, each
// having heard the one before.
func TestLastWordWins(t *testing.T) {
	const hour = 3_600_000
	ahead := map[string]int64{"fast": 5 * hour, "right": 0, "slow": -5 * hour, "stopped": -1 << 40}
	rapid.Check(t, func(t *rapid.T) {
		s := accept(t, State{}, report(1, 1, "a"), 100)
		for now := range int64(rapid.IntRange(1, 12).Draw(t, "words")) {
			master := draw(t, "master", "fast", "right", "slow", "stopped")
			value := draw(t, "value", "", "1")
			s = Join(s, s.Set(10*hour+now+ahead[master], master, "ann", FieldDrain, value))
			if w := s.Override(FieldDrain); w.Value != value || w.Master != master {
				t.Fatalf("%s said %q last, and %+v stands", master, value, w)
			}
			if n := View(testNode, s); n.Drained != (value != "") {
				t.Fatalf("%s said %q last, and drained is %v", master, value, n.Drained)
			}
		}
	})
}

// Words about different fields, said on the two sides of a split, all stand.
func TestWordsOfBothSidesStand(t *testing.T) {
	start := accept(t, State{}, report(1, 1, "a"), 100)
	other := accept(t, State{}, Report{NodeID: "node-2", Boot: 1, Seq: 1}, 100)
	a := Join(start, start.Set(5, "m1", "ann", FieldDrain, "1"))
	b := Join(start, start.Set(7_200_000, "m2", "bob", FieldLabel+"zone", "=eu"))
	n := View(testNode, Join(a, b))
	if !n.Drained || n.Labels["zone"] != "eu" {
		t.Errorf("drain and label: %+v", n)
	}
	b2 := Join(other, other.Set(9, "m2", "bob", FieldDrain, "1"))
	if !View("node-2", Join(b2, other)).Drained || !View(testNode, Join(a, start)).Drained {
		t.Error("drains of two nodes on two sides do not both stand")
	}
	both := Join(Join(start, start.Set(5, "m1", "ann", FieldDrain, "1")), start.Set(6, "m2", "bob", FieldDrain, "1"))
	if w := both.Override(FieldDrain); w.Value != "1" || w.By != "bob" {
		t.Errorf("drained on both sides: %+v", w)
	}
}

func TestLabelsOfOperatorStandOverThoseOfAgent(t *testing.T) {
	r := report(1, 1, "a")
	r.Labels = map[string]string{"zone": "agent", "rack": "agent"}
	s := accept(t, State{}, r, 100)
	s = Join(s, s.Set(200, "m", "ann", FieldLabel+"zone", "=operator"))
	s = Join(s, s.Set(201, "m", "ann", FieldLabel+"rack", LabelUnset))
	s = Join(s, s.Set(202, "m", "ann", FieldLabel+"empty", "="))
	n := View(testNode, s)
	if v, ok := n.Labels["empty"]; n.Labels["zone"] != "operator" || !ok || v != "" || len(n.Labels) != 2 {
		t.Errorf("labels %v", n.Labels)
	}
	back := Join(s, s.Set(300, "m", "ann", FieldLabel+"rack", ""))
	if n := View(testNode, back); n.Labels["rack"] != "agent" {
		t.Errorf("what the operator took back still hides the agent's label: %v", n.Labels)
	}
	r.Seq, r.Labels = 2, map[string]string{"zone": "agent-2"}
	if n = View(testNode, accept(t, s, r, 300)); n.Labels["zone"] != "operator" {
		t.Errorf("the agent's next report took the operator's label away: %v", n.Labels)
	}
	if s.Override("other") != (Override{}) {
		t.Error("Word of a field that nobody spoke of")
	}
}
