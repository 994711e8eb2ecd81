package page

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// TestFirstAgreesWithASort takes pages until there are no more, and compares with the
// whole list, sorted.
func TestFirstAgreesWithASort(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		all := make([]Place, rnd.IntN(60))
		for i := range all {
			all[i] = Place{Num: float64(rnd.IntN(4)), Str: fmt.Sprint(rnd.IntN(3)), ID: fmt.Sprint(i)}
		}
		order := Order{rnd.IntN(2) == 0}
		var got []Place
		var after *Place
		for {
			f := First[string]{Order: order, After: after, Limit: 1 + rnd.IntN(9)}
			for _, p := range all {
				f.Add(p, p.ID)
			}
			items, cursor := f.Sorted("kind")
			for _, it := range items {
				if it.Item != it.At.ID {
					t.Fatalf("seed %d: %+v", seed, it)
				}
				got = append(got, it.At)
			}
			if (cursor != "") != f.More() {
				t.Fatalf("seed %d: cursor %q, more: %v", seed, cursor, f.More())
			}
			if cursor == "" {
				break
			}
			p, err := Parse("kind", cursor)
			if err != nil {
				t.Fatal(err)
			}
			after = &p
		}
		slices.SortFunc(all, order.Compare)
		if !slices.Equal(got, all) {
			t.Errorf("seed %d: pages %v, sorted %v", seed, got, all)
		}
	}
}

func TestLimit(t *testing.T) {
	for limit, want := range map[int]int{0: DefaultLimit, 1: 1, MaxLimit: MaxLimit} {
		if got, err := Limit(limit); got != want || err != nil {
			t.Errorf("%d: %d, %v", limit, got, err)
		}
	}
	for _, limit := range []int{-1, MaxLimit + 1} {
		_, err := Limit(limit)
		if wrong, ok := errors.AsType[*record.FieldError](err); !ok || wrong.Field != "limit" {
			t.Errorf("%d: %v", limit, err)
		}
	}
}

func TestContainsFold(t *testing.T) {
	for _, c := range []struct {
		text, part string
		want       bool
	}{{"", "", true}, {"Node-1", "node", true}, {"Node-1", "1", true}, {"a", "ab", false}, {"ab", "b", true}, {"abc", "x", false}} {
		if got := ContainsFold(c.text, c.part); got != c.want {
			t.Errorf("%q contains %q: %v", c.text, c.part, got)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("node/", Cursor("node/", Place{1.5, "x", "y"}))
	f.Add("vm", "")
	f.Add("vm", "bnVsbA")
	f.Fuzz(func(t *testing.T, kind, cursor string) {
		p, err := Parse(kind, cursor)
		if err != nil {
			if !errors.Is(err, ErrCursor) {
				t.Fatal(err)
			}
			return
		}
		if again, err := Parse(kind, Cursor(kind, p)); err != nil || again != p {
			t.Errorf("%+v comes back as %+v, %v", p, again, err)
		}
	})
}
