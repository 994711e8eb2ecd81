package record

import (
	"bytes"
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestJoinLaws(t *testing.T) {
	same := func(t *rapid.T, law string, a, b State) {
		t.Helper()
		if !a.Equal(b) {
			t.Fatalf("not %s:\n%+v\n%+v", law, a, b)
		}
		if !bytes.Equal(a.Encode(), b.Encode()) {
			t.Fatalf("not %s in bytes:\n%x\n%x", law, a.Encode(), b.Encode())
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genState.Draw(t, "a"), genState.Draw(t, "b"), genState.Draw(t, "c")
		ab := Join(a, b)
		same(t, "commutative", ab, Join(b, a))
		same(t, "associative", Join(ab, c), Join(a, Join(b, c)))
		same(t, "idempotent", Join(a, a), a)
		same(t, "absorbing", Join(ab, b), ab)
		same(t, "keeping the identity", Join(a, State{}), a)
		same(t, "keeping the identity", Join(State{}, a), a)
	})
}

func TestJoinKeepsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := Join(genState.Draw(t, "a"), genState.Draw(t, "b"))
		for i := 1; i < len(j.Claims); i++ {
			if j.Claims[i-1].Key >= j.Claims[i].Key {
				t.Fatalf("claims out of order: %+v", j.Claims)
			}
		}
		for i := 1; i < len(j.Overrides); i++ {
			if j.Overrides[i-1].Field >= j.Overrides[i].Field {
				t.Fatalf("overrides out of order: %+v", j.Overrides)
			}
		}
	})
}

// TestNothingWritesIntoStates calls whatever takes a state and looks at the
// memory behind the arguments afterwards.
func TestNothingWritesIntoStates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, was := freeze(drawKnown(t))
		b, other := freeze(genState.Draw(t, "b"))
		j := Join(a, b)
		Join(j, a)
		Join(j, a.Set(9, "m", "", FieldDrain, "1"))
		Join(j, a.Remove(9, "m", "", ""))
		a.Dominates(b)
		a.Verified(testNode)
		a.Encode()
		a.Digest(testNode)
		a.Override(FieldDrain)
		n := View(testNode, a)
		n.Labels["x"] = "a reader's own"

		r := drawReport(t)
		before := cloneReport(r)
		Accept(a, r, Acceptance{Now: 5})
		was.check(t)
		other.check(t)
		if r.encode() != before.encode() || !slices.Equal(r.VMs, before.VMs) || r.AccountVersion() != before.AccountVersion() {
			t.Fatalf("Accept changed the report:\nwas %+v\nis  %+v", before, r)
		}
	})
}

func TestDominatesIsThePartialOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genState.Draw(t, "a"), genState.Draw(t, "b"), genState.Draw(t, "c")
		if rapid.Bool().Draw(t, "related") {
			b = Join(a, b)
			c = Join(b, c)
		}
		if !a.Dominates(a) || !a.Dominates(State{}) {
			t.Fatalf("a state does not dominate itself or nothing: %+v", a)
		}
		if a.Dominates(b) && b.Dominates(a) && !a.Equal(b) {
			t.Fatalf("not antisymmetric:\n%+v\n%+v", a, b)
		}
		if a.Dominates(b) && b.Dominates(c) && !a.Dominates(c) {
			t.Fatalf("not transitive:\n%+v\n%+v\n%+v", a, b, c)
		}
		j := Join(a, b)
		if !j.Dominates(a) || !j.Dominates(b) {
			t.Fatalf("a join is no upper bound: %+v", j)
		}
		if c.Dominates(a) && c.Dominates(b) && !c.Dominates(j) {
			t.Fatalf("a join is not the least upper bound:\n%+v\n%+v", j, c)
		}
		if a.Dominates(b) != Join(b, a).Equal(a) {
			t.Fatalf("Dominates is not what Join induces:\n%+v\n%+v", a, b)
		}
	})
}

// TestRegistersExhaustively tries the laws on every triple out of a small domain
// of each register, ties of every kind among them.
func TestRegistersExhaustively(t *testing.T) {
	stamps := []Stamp{{}, {1, 0}, {1, 1}, {2, 0}}
	var accounts []Account
	for _, v := range []Version{{}, {1, 1}, {1, 2}, {2, 1}} {
		for _, body := range []string{"", "a"} {
			for _, seal := range []string{"", "s"} {
				for _, at := range []int64{0, 1} {
					accounts = append(accounts, Account{v, body, seal, at})
				}
			}
		}
	}
	var overrides []Override
	var removals []Removal
	for _, s := range stamps {
		for _, m := range []string{"", "m"} {
			for _, text := range []string{"", "x"} {
				for _, by := range []string{"", "b"} {
					overrides = append(overrides, Override{"drain", s, m, text, by})
					removals = append(removals, Removal{uint64(s.Wall), Stamp{1, s.Logical}, m, text, by})
				}
			}
		}
	}
	t.Run("account", func(t *testing.T) { everyTriple(t, accounts, Account.join, Account.compare) })
	t.Run("word", func(t *testing.T) { everyTriple(t, overrides, Override.join, Override.compare) })
	t.Run("removal", func(t *testing.T) { everyTriple(t, removals, Removal.join, Removal.compare) })
	t.Run("first", func(t *testing.T) { everyTriple(t, stamps, earlier, nil) })
	t.Run("identity", func(t *testing.T) {
		for _, a := range accounts {
			if a.join(Account{}) != a || (Account{}).join(a) != a {
				t.Errorf("the zero account is not the identity for %+v", a)
			}
		}
		for _, r := range removals {
			if r.join(Removal{}) != r || (Removal{}).join(r) != r {
				t.Errorf("the zero removal is not the identity for %+v", r)
			}
		}
	})
}

func everyTriple[T comparable](t *testing.T, all []T, join func(T, T) T, compare func(T, T) int) {
	t.Helper()
	for _, a := range all {
		if join(a, a) != a {
			t.Fatalf("not idempotent: %+v", a)
		}
		for _, b := range all {
			ab := join(a, b)
			if ab != join(b, a) {
				t.Fatalf("not commutative:\n%+v\n%+v", a, b)
			}
			if ab != a && ab != b {
				t.Fatalf("a join of two made up a third:\n%+v\n%+v\n%+v", a, b, ab)
			}
			if compare != nil && cmp.Compare(compare(a, b), 0) != -cmp.Compare(compare(b, a), 0) {
				t.Fatalf("order not antisymmetric:\n%+v\n%+v", a, b)
			}
			if compare != nil && (compare(a, b) == 0) != (a == b) {
				t.Fatalf("order not total:\n%+v\n%+v", a, b)
			}
			for _, c := range all {
				if join(ab, c) != join(a, join(b, c)) {
					t.Fatalf("not associative:\n%+v\n%+v\n%+v", a, b, c)
				}
			}
		}
	}
}
