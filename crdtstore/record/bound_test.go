package record

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// manyKeys are more keys than a node id may be claimed by, the unsigned one among them.
var manyKeys = func() []string {
	keys := []string{""}
	for i := range MaxClaims + 8 {
		keys = append(keys, fmt.Sprintf("%032d", i))
	}
	return keys
}()

// genCrowd draws states of many claims and overrides, with more of both than are kept.
var genCrowd = rapid.Custom(func(t *rapid.T) State {
	s := State{Generation: draw(t, "generation", uint64(0), 0, 1)}
	first, last := rapid.IntRange(0, len(manyKeys)-1).Draw(t, "from"), rapid.IntRange(0, len(manyKeys)).Draw(t, "to")
	for _, key := range manyKeys[min(first, last):last] {
		if draw(t, "left out", false, false, false, true) {
			continue
		}
		s.Claims = append(s.Claims, Claim{
			Key: key, First: Stamp{Wall: draw(t, "first", int64(0), 1, 2)}, RemovedBelow: draw(t, "below", uint64(0), 0, 2),
			Profile: Account{Version: Version{draw(t, "boot", uint64(1), 2), 1}, Body: draw(t, "profile", "a", "b")},
			VMs:     Account{Version: Version{draw(t, "boot", uint64(1), 2), 1}, Body: draw(t, "vms", "", "c")},
		})
	}
	at := rapid.IntRange(0, MaxOverrides+20).Draw(t, "overrides from")
	for i := range rapid.IntRange(0, MaxOverrides+20-at).Draw(t, "overrides") {
		s.Overrides = append(s.Overrides, Override{Field: fmt.Sprintf("label/%04d", at+i), Stamp: Stamp{Wall: int64(i%3 + 1)}, Value: "=" + fmt.Sprint(i%2)})
	}
	return s
})

// unbounded is what many states come to where nothing is ever dropped but by generation.
func unbounded(states []State) (out State) {
	claims, overrides := map[string]Claim{}, map[string]Override{}
	for _, s := range states {
		out.Generation = max(out.Generation, s.Bounded().Generation)
	}
	for _, s := range states {
		for _, c := range s.Claims {
			if s.Generation == out.Generation {
				claims[c.Key] = c.join(claims[c.Key])
				c = claims[c.Key]
				claims[c.Key] = c
			}
		}
		for _, w := range s.Overrides {
			overrides[w.Field] = w.join(overrides[w.Field])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(claims)) {
		out.Claims = append(out.Claims, claims[k])
	}
	for _, k := range slices.Sorted(maps.Keys(overrides)) {
		out.Overrides = append(out.Overrides, overrides[k])
	}
	return out
}

// oracleBounds applies the bounds to all that was ever said, by their wording.
func oracleBounds(s State) State {
	signed := slices.DeleteFunc(slices.Clone(s.Claims), func(c Claim) bool { return c.Key == "" })
	switch {
	case len(s.Claims) <= 16:
	case len(signed) < 16:
		s.Claims = append(s.Claims[:1:1], signed...)
	default:
		s.Claims = signed[:16]
	}
	if s.Claims = slices.Clone(s.Claims); len(s.Claims) > 2 {
		for i := range s.Claims {
			s.Claims[i].VMs = Account{}
		}
	}
	s.Overrides = s.Overrides[:min(len(s.Overrides), 256)]
	return s
}

// TestBoundsDoNotDependOnTheOrder joins many states in many orders and groupings. All
// must come to what is left when the bounds are applied once, to everything.
func TestBoundsDoNotDependOnTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(genCrowd, 1, 6).Draw(t, "states")
		want := oracleBounds(unbounded(all))
		for range 3 {
			var left []State
			for _, i := range rapid.Permutation(indices(len(all))).Draw(t, "order") {
				left = append(left, all[i].Bounded())
			}
			for len(left) > 1 {
				i := rapid.IntRange(0, len(left)-2).Draw(t, "pair")
				left[i] = Join(left[i], left[i+1])
				if again := left[i].Bounded(); !again.Equal(left[i]) {
					t.Fatalf("a join of bounded states is not bounded:\n%+v\n%+v", left[i], again)
				}
				left = slices.Delete(left, i+1, i+2)
			}
			if !left[0].Equal(want) {
				t.Fatalf("joined to\n%+v\nand by the oracle to\n%+v", left[0], want)
			}
			if s, err := Decode(string(want.Encode())); err != nil || !s.Equal(want) {
				t.Fatalf("comes back as %+v, %v", s, err)
			}
		}
	})
}

// TestLawsOfCrowds are the laws of Join where there is more than is kept.
func TestLawsOfCrowds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genCrowd.Draw(t, "a").Bounded(), genCrowd.Draw(t, "b").Bounded(), genCrowd.Draw(t, "c").Bounded()
		for law, pair := range map[string][2]State{
			"commutative": {Join(a, b), Join(b, a)}, "associative": {Join(Join(a, b), c), Join(a, Join(b, c))},
			"idempotent": {Join(a, a), a}, "absorbing": {Join(Join(a, b), b), Join(a, b)}, "identity": {Join(State{}, a), a},
		} {
			if !pair[0].Equal(pair[1]) || !bytes.Equal(pair[0].Encode(), pair[1].Encode()) {
				t.Fatalf("not %s:\n%+v\n%+v", law, pair[0], pair[1])
			}
		}
	})
}

// largest is a state of which everything is as large as it may be.
func largest(claims int) State {
	var s State
	stamp := Stamp{math.MaxInt64, math.MaxUint32}
	account := func(n int) Account {
		return Account{Version: Version{math.MaxUint64, math.MaxUint64}, Body: strings.Repeat("x", n), Seal: strings.Repeat("x", sealSize), At: math.MaxInt64}
	}
	for i := range claims {
		s.Claims = append(s.Claims, Claim{
			Key: manyKeys[1+i], First: stamp, Profile: account(maxProfileBytes), VMs: account(MaxVMBytes), RemovedBelow: math.MaxUint64,
		})
	}
	by := strings.Repeat("x", MaxBy)
	for i := range MaxOverrides {
		field := fmt.Sprintf("%s%0*d", FieldLabel, maxLabelName, i)
		s.Overrides = append(s.Overrides, Override{field, stamp, strings.Repeat("x", maxMaster), strings.Repeat("x", maxValue), by})
	}
	s.Removal = Removal{math.MaxUint64, stamp, strings.Repeat("x", maxMaster), strings.Repeat("x", MaxReason), by}
	s.LastSeen, s.Generation = math.MaxInt64, math.MaxUint64
	return s
}

// MaxState is what everybody relies on who has to find room for a state.
func TestNoStateIsLargerThanMaxState(t *testing.T) {
	for claims := range MaxClaims + 2 {
		s := largest(claims).Bounded()
		if claims > 0 && claims <= MaxVMClaims && !s.Equal(largest(claims)) {
			t.Errorf("of %d claims something within the bounds was dropped", claims)
		}
		if n := len(s.Encode()); n > MaxState {
			t.Errorf("a state of %d claims takes %d bytes, more than %d", claims, n, MaxState)
		}
	}
}

// The largest report that Validate takes fits into a claim.
func TestTheLargestReportIsKept(t *testing.T) {
	r := Report{NodeID: testNode, Boot: math.MaxInt64, Seq: math.MaxInt64}
	name := func(n int) string { return strings.Repeat("x", n) }
	r.Profile = Profile{
		Hostname: name(maxName), SocketPath: name(maxURL), MyceliumIP: name(maxName), Version: name(maxName),
		Location:    Location{name(maxName), name(maxName), 89.5, 179.5},
		Total:       Capacity{1e8 + 0.5, math.MaxUint64, math.MaxUint64, math.MaxUint64},
		SlicesTotal: math.MaxUint64, MachineID: name(maxName), AgentPath: name(maxURL), Labels: map[string]string{},
	}
	for i := range MaxLabels {
		r.Labels[fmt.Sprintf("%0*d", maxLabelName, i)] = name(maxName)
	}
	for range MaxTrouble {
		r.Trouble = append(r.Trouble, name(maxName))
	}
	for i := 0; len(encodeVMs(r.VMs)) < MaxVMBytes-1200; i++ {
		r.VMs = append(r.VMs, VM{SID: fmt.Sprintf("%0*d", maxName, i), Name: name(maxName), State: name(maxName), IP: name(maxName)})
	}
	s := accept(t, State{}, signed(r, 1), math.MaxInt64)
	if got, err := Decode(string(s.Encode())); err != nil || !got.Equal(s) || s.Claims[0].Profile.IsZero() || s.Claims[0].VMs.IsZero() {
		t.Errorf("not everything of it is kept: %v", err)
	}
}

// What does not fit is dropped by itself, and what stands beside it is kept.
func TestBoundedDropsWhatIsTooLarge(t *testing.T) {
	good := accept(t, State{}, signed(report(5, 1, "a", VM{SID: "1"}), 1), 100)
	good = Join(good, good.Set(150, "m", "ann", FieldDrain, "1"))
	large := strings.Repeat("é", 1<<20)
	for name, change := range map[string]func(s *State){
		"a profile":         func(s *State) { s.Claims[0].Profile = Account{Body: large} },
		"a VM list":         func(s *State) { s.Claims[0].VMs = Account{Body: large} },
		"a seal":            func(s *State) { s.Claims[0].VMs = Account{Seal: large} },
		"a key":             func(s *State) { s.Claims[0] = Claim{Key: large, First: Stamp{Wall: 1}} },
		"a field":           func(s *State) { s.Overrides[0].Field = large },
		"a value":           func(s *State) { s.Overrides[0].Value = large },
		"a master":          func(s *State) { s.Overrides[0].Master = large },
		"who said it":       func(s *State) { s.Overrides[0].By = large },
		"a reason":          func(s *State) { s.Removal = Removal{Boot: 1, Reason: large} },
		"who removed it":    func(s *State) { s.Removal = Removal{Boot: 1, By: large} },
		"a removing master": func(s *State) { s.Removal = Removal{Boot: 1, Master: large} },
	} {
		s := State{Claims: slices.Clone(good.Claims), Overrides: slices.Clone(good.Overrides)}
		change(&s)
		got, err := Decode(string(s.Encode()))
		if err != nil {
			t.Errorf("%s that is too large: %v", name, err)
			continue
		}
		if n := len(got.Encode()); n > 2000 || !got.Equal(s.Bounded()) || !got.Bounded().Equal(got) {
			t.Errorf("%s that is too large: %d bytes are kept", name, n)
		}
		if j := Join(good, got); !j.Dominates(good) || View(testNode, j).Hostname != "a" {
			t.Errorf("%s that is too large spoils what was known", name)
		}
		if !strings.Contains(large, got.Removal.Reason) || strings.Contains(got.Removal.Reason, "\xc3\xc3") {
			t.Errorf("%s: %q", name, got.Removal.Reason)
		}
	}
}
