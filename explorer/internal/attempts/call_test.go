package attempts

import (
	"testing"

	"pgregory.net/rapid"
)

// TestAtMostOnce attempts calls in every order of beginnings and ends. Each attempt that is
// sent may be carried out, now or later, whether its answer arrives or not. A call that must
// not be repeated is carried out once at most; one that may be repeated is marked whenever it
// may be the second time; and that nothing was done is concluded only where it is so.
func TestAtMostOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Call{Repeatable: rapid.Bool().Draw(t, "repeatable")}
		ran, unmarked := 0, 0
		var open []bool // attempts under way: whether each was carried out
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if c.Open() != len(open) {
				t.Fatalf("%d attempts are open, not %d", c.Open(), len(open))
			}
			if rapid.Bool().Draw(t, "begin") {
				if !c.Next() {
					continue
				}
				marked, runs := c.Begin(), rapid.Bool().Draw(t, "carried out")
				if runs {
					if ran++; !marked {
						unmarked++
					}
				}
				open = append(open, runs)
				continue
			}
			if len(open) == 0 {
				continue
			}
			i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
			carriedOut := open[i]
			open = append(open[:i], open[i+1:]...)
			// That it was not sent is known only where it was not carried out.
			c.Ended(carriedOut || rapid.Bool().Draw(t, "sent"))
			if ran > 0 && !c.MayRun() {
				t.Fatal("it was carried out, and counts as if nothing was done")
			}
		}
		if ran > 1 && !c.Repeatable {
			t.Fatalf("it was carried out %d times", ran)
		}
		if unmarked > 1 {
			t.Fatalf("%d times it was carried out without a mark", unmarked)
		}
	})
}

func TestUnsentIsForgotten(t *testing.T) {
	var c Call
	for range 3 {
		if !c.Next() || c.Begin() || c.Next() {
			t.Fatal("a call that was never sent is not attempted again, or twice at a time")
		}
		c.Ended(false)
	}
	c.Begin()
	c.Ended(true)
	if c.Next() || !c.MayRun() {
		t.Error("a call that was sent is attempted again")
	}
}
