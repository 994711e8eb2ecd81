package membership

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever masters go and come, each node passes only from one that is gone, or to one
// that has come; every master that stays counts what it adopts, and together they count
// everything.
func TestSharesPassToWhoIsResponsible(t *testing.T) {
	var nodes []string
	for i := range 300 {
		nodes = append(nodes, fmt.Sprintf("n%03d", i))
	}
	rapid.Check(t, func(r *rapid.T) {
		some := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), 1, 5, rapid.ID[string])
		before, after := some.Draw(r, "before"), some.Draw(r, "after")
		counted, want := 0, 0
		for _, n := range nodes {
			was, is := Rendezvous(n, before), Rendezvous(n, after)
			if !slices.Contains(after, is) {
				r.Fatalf("%s is left to %s, which is gone", n, is)
			}
			if was == is {
				continue
			}
			want++
			if slices.Contains(after, was) && slices.Contains(before, is) {
				r.Fatalf("%s passes from %s to %s, and both stay", n, was, is)
			}
		}
		for _, self := range after {
			adopted, given := handover(slices.Values(nodes), before, after, self)
			for was, n := range adopted {
				counted += n
				if _, back := handover(slices.Values(nodes), after, before, self); back[was] != n {
					r.Errorf("%s adopts %d nodes of %s and gives %d back", self, n, was, back[was])
				}
			}
			for is := range given {
				if slices.Contains(before, is) {
					r.Errorf("%s gives nodes to %s, which was there", self, is)
				}
			}
		}
		if counted != want {
			r.Errorf("the others count %d nodes, %d have passed", counted, want)
		}
	})
}

func TestShareChangesOnlyWithItsMaster(t *testing.T) {
	all := []string{"m1", "m2", "m3", "m4"}
	count := map[string]int{}
	for i := range 2000 {
		node := string(rune('a'+i%26)) + time.Duration(i).String()
		owner := Rendezvous(node, all)
		count[owner]++
		for _, gone := range all {
			var left []string
			for _, m := range all {
				if m != gone {
					left = append([]string{m}, left...) // in another order
				}
			}
			if now := Rendezvous(node, left); gone != owner && now != owner {
				t.Fatalf("%s goes from %s to %s because %s is gone", node, owner, now, gone)
			}
		}
	}
	for _, m := range all {
		if count[m] < 400 || count[m] > 600 {
			t.Errorf("of 2,000 nodes, shares are %v", count)
			break
		}
	}
}
