package runs

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }

func TestLatePulseAfterLeaving(t *testing.T) {
	tab := New()
	for seq := uint64(1); seq <= 3; seq++ {
		if v, _ := tab.Observe(at(float64(seq)), "x", Pulse{Run: "1", Seq: seq}); v != Current {
			t.Fatal(v)
		}
	}
	if !tab.Left("x", "1") {
		t.Error("the run that left is not the one that lives")
	}
	for _, p := range []Pulse{{Run: "1", Seq: 4}, {Run: "1", Seq: 3}, {Run: "1", Seq: 100, Echo: 50}} {
		if v, _ := tab.Observe(at(60), "x", p); v != Late {
			t.Errorf("%+v behind the farewell is %v", p, v)
		}
	}
	if v, _ := tab.Observe(at(60), "x", Pulse{Run: "2", Seq: 1}); v != Current {
		t.Errorf("the next run is %v", v)
	}
	if tab.Left("x", "1") {
		t.Error("an earlier run leaves once more for the one that lives")
	}
}

func TestOvertaken(t *testing.T) {
	tab := New()
	tab.Observe(at(0), "x", Pulse{Run: "1", Seq: 5})
	if v, _ := tab.Observe(at(0), "x", Pulse{Run: "1", Seq: 4}); v != Late {
		t.Errorf("a pulse that was overtaken is %v", v)
	}
	tab.Observe(at(1), "x", Pulse{Run: "2", Seq: 1})
	if v, _ := tab.Observe(at(1), "x", Pulse{Run: "1", Seq: 6}); v != Late {
		t.Errorf("a pulse of an earlier run is %v", v)
	}
}

// Pulses of a run come in after the next one was heard, and heard us.
func TestLateBehindTheNextRun(t *testing.T) {
	tab := New()
	first := tab.Next()
	tab.Observe(at(0), "x", Pulse{Run: "1", Seq: 1, Echo: first})
	tab.Observe(at(1), "x", Pulse{Run: "2", Seq: 1, Echo: tab.Next()})
	tab.Observe(at(2), "x", Pulse{Run: "2", Seq: 2, Echo: tab.Next()})
	for seq := uint64(2); seq < 5; seq++ {
		if v, c := tab.Observe(at(3), "x", Pulse{Run: "1", Seq: seq, Echo: first}); v != Late || c != nil {
			t.Fatalf("a late pulse is %v and %+v", v, c)
		}
	}
}

// A clock that was put back between two runs has the later one sort first.
func TestClockPutBack(t *testing.T) {
	tab := New()
	tab.Observe(at(0), "x", Pulse{Run: "9", Seq: 5})
	for s := 1.0; s < 10; s++ {
		n := tab.Next()
		v, c := tab.Observe(at(s), "x", Pulse{Run: "1", Seq: uint64(s), Echo: n - 1})
		if c != nil {
			t.Fatalf("a restart is taken for a copy: %+v", c)
		}
		if s > 5 && v != Current {
			t.Errorf("the run that lives is %v after %v s", v, s)
		}
	}
	tab.Met(at(10), "x", "0")
	if v, _ := tab.Observe(at(10), "x", Pulse{Run: "0", Seq: 1}); v != Current {
		t.Errorf("a run that was met is %v", v)
	}
}

func TestYieldedLoses(t *testing.T) {
	tab := New()
	tab.Met(at(0), "x", "1")
	if c := tab.Both(at(0), "x", "1", "2"); c == nil || c.Kept != "1" || c.Refused != "2" {
		t.Fatalf("%+v", c)
	}
	if c := tab.Asks(at(1), "x", "2", true); c == nil || c.Kept != "1" {
		t.Errorf("the copy is admitted: %+v", c)
	}
	// The original is started anew. The copy has been there for longer, and has yielded.
	if c := tab.Asks(at(2), "x", "3", false); c != nil {
		t.Fatalf("%+v", c)
	}
	tab.Left("x", "1")
	tab.Met(at(3), "x", "3")
	if c := tab.Asks(at(4), "x", "2", true); c == nil || c.Kept != "3" || c.Refused != "2" {
		t.Errorf("the copy is admitted: %+v", c)
	}
	if c := tab.Both(at(5), "x", "2", "3"); c != nil && c.Kept != "3" {
		t.Errorf("%+v", c)
	}
	// The original is gone for good.
	tab.Left("x", "3")
	if c := tab.Asks(at(10), "x", "2", false); c != nil {
		t.Errorf("the copy is refused though it is alone: %+v", c)
	}
}

func TestBounded(t *testing.T) {
	tab := New()
	for i := range 3 * maxMasters {
		tab.Observe(at(0), fmt.Sprint(i), Pulse{Run: "1", Seq: 1})
	}
	for i := range 100 {
		tab.Observe(at(float64(i)), "0", Pulse{Run: fmt.Sprintf("%03d", i+1), Seq: 1, Echo: uint64(i)})
	}
	if len(tab.of) != maxMasters || len(tab.of["0"].lives) != maxLives {
		t.Errorf("%d masters, %d runs of one", len(tab.of), len(tab.of["0"].lives))
	}
	for _, l := range tab.of["0"].lives {
		if len(l.after) >= maxLives {
			t.Errorf("a run remembers %d others", len(l.after))
		}
	}
}

// process is a run of a master in the model: it hears our pulses and sends its own.
type process struct {
	run   string
	seq   uint64
	heard uint64
}

// wire is what is under way. It may take as long as it likes, and be overtaken.
type wire struct {
	ours   []uint64 // numbers of our pulses, on their way to whoever lives then
	theirs []Pulse
}

// TestRestartsNeverCollide plays histories in which one directory has one run at a time,
// and every message may be late, be lost, come twice, or overtake others. Clocks may be put
// back between runs. It may never look like a copy.
func TestRestartsNeverCollide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab, w, now, restarts := New(), wire{}, at(0), 0
		p := &process{run: "100-0"}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "ms")) * time.Millisecond)
			switch rapid.SampledFrom([]string{"ours", "theirs", "take", "hear", "restart"}).Draw(t, "step") {
			case "ours":
				w.ours = append(w.ours, tab.Next())
			case "theirs":
				p.seq++
				w.theirs = append(w.theirs, Pulse{p.run, p.seq, p.heard})
			case "take":
				if len(w.ours) > 0 {
					p.heard = max(p.heard, rapid.SampledFrom(w.ours).Draw(t, "which"))
				}
			case "hear":
				if len(w.theirs) > 0 {
					_, c := tab.Observe(now, "x", rapid.SampledFrom(w.theirs).Draw(t, "which"))
					if c != nil {
						t.Fatalf("taken for a copy: %+v", c)
					}
				}
			case "restart":
				// Our pulses that are under way may still reach the next run.
				// No two runs have one name: that is at random, behind the time.
				restarts++
				p = &process{run: fmt.Sprintf("%d-%d", rapid.IntRange(100, 999).Draw(t, "began"), restarts)}
			}
		}
	})
}

// TestCopiesAlwaysCollide has two runs live at once, of which one is heard first. As long
// as messages get through at all it is found within a few rounds, and the same run is kept,
// whoever was heard first.
func TestCopiesAlwaysCollide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := New()
		both := []*process{{run: "1"}, {run: "2"}}
		if rapid.Bool().Draw(t, "the later one is heard first") {
			slices.Reverse(both)
		}
		var found *Collision
		rounds := rapid.IntRange(0, 5).Draw(t, "rounds alone") + 6
		for round := range rounds {
			n := tab.Next()
			for i, p := range both {
				if i == 1 && round < rounds-6 {
					continue // it does not live yet
				}
				p.heard = n - uint64(rapid.IntRange(0, int(min(n, 1))).Draw(t, "behind"))
				p.seq++
				_, c := tab.Observe(at(float64(round)), "x", Pulse{p.run, p.seq, p.heard})
				if found == nil {
					found = c
				}
			}
		}
		if found == nil || found.Kept != "1" || found.Refused != "2" {
			t.Fatalf("found %+v", found)
		}
		if open, _ := tab.Look(at(float64(rounds))); len(open) != 1 {
			t.Errorf("open: %+v", open)
		}
		if v, _ := tab.Observe(at(float64(rounds)), "x", Pulse{"2", 1000, 1000}); v != Refused {
			t.Errorf("a pulse of the copy is %v", v)
		}
		if open, over := tab.Look(at(float64(rounds) + 20)); len(open) != 0 || len(over) != 1 {
			t.Errorf("after both fell silent: open %+v, over %v", open, over)
		}
	})
}
