package record

import (
	"cmp"
	"slices"
	"strings"
)

// State is everything that the masters know of one node. The zero State knows
// nothing and is the identity of [Join].
//
// A State is bounded: see [State.Bounded]. [Accept], [Decode] and [Join] return
// bounded states only, the last for bounded arguments.
type State struct {
	// Generation counts how often the node id has passed from removed claims to one of
	// another identity. The claims are those of this generation; Join drops those of an
	// earlier one. Above 0 there is at least one claim.
	Generation uint64
	Claims     []Claim    // ascending by Key, no Key twice
	Overrides  []Override // ascending by Field, no Field twice
	Removal    Removal
	LastSeen   int64 // Unix milliseconds; 0: never
}

// Join merges two states. It is commutative, associative and idempotent, and
// neither argument is modified; the result may share memory with both.
func Join(a, b State) State {
	s := State{
		Generation: max(a.Generation, b.Generation),
		Overrides:  keepOverrides(joinOverrides(a.Overrides, b.Overrides)),
		Removal:    a.Removal.join(b.Removal),
		LastSeen:   max(a.LastSeen, b.LastSeen),
	}
	switch cmp.Compare(a.Generation, b.Generation) {
	case 1:
		s.Claims = a.Claims
	case -1:
		s.Claims = b.Claims
	default:
		s.Claims = keepClaims(joinClaims(a.Claims, b.Claims))
	}
	return s
}

// Equal reports whether two states are the same.
func (s State) Equal(t State) bool {
	return s.Generation == t.Generation && s.LastSeen == t.LastSeen && s.Removal == t.Removal &&
		slices.Equal(s.Claims, t.Claims) && slices.Equal(s.Overrides, t.Overrides)
}

// SameClaims reports whether both states hold the same claims.
func (s State) SameClaims(t State) bool {
	return s.Generation == t.Generation && slices.Equal(s.Claims, t.Claims)
}

// Dominates reports whether s already holds everything that t holds, so that
// joining t into s changes nothing.
func (s State) Dominates(t State) bool { return Join(s, t).Equal(s) }

// IsZero reports whether the state knows nothing.
func (s State) IsZero() bool { return s.Equal(State{}) }

// Owner returns the claim that speaks for the node, and whether there is one.
// Accounts that a removal hides do not count. A signed claim stands before the
// unsigned one; among signed claims the one that was accepted first, then the
// one of the lesser key. A claim whose First has not arrived yet stands last.
func (s State) Owner() (Claim, bool) {
	var own Claim
	found := false
	for _, c := range s.Claims {
		if c.isEmpty() || s.Hides(c) {
			continue
		}
		if !found || before(c, own) {
			own, found = c, true
		}
	}
	return own, found
}

func before(c, d Claim) bool {
	if cs, ds := c.Key != "", d.Key != ""; cs != ds {
		return cs
	}
	if c.First == d.First {
		return c.Key < d.Key
	}
	return earlier(c.First, d.First) == c.First
}

// Removed reports whether the node was removed and has not come back since with
// a later boot.
func (s State) Removed() bool {
	_, ok := s.Owner()
	return !ok && !s.Removal.IsZero()
}

// Boot is the greatest boot that any claim has spoken of.
func (s State) Boot() uint64 {
	var boot uint64
	for _, c := range s.Claims {
		boot = max(boot, c.Boot())
	}
	return boot
}

// Seen is when the node last gave an account of itself or a sign of life, as far as
// the state knows, in Unix milliseconds by the clocks of the masters; 0: never.
func (s State) Seen() int64 {
	seen := s.LastSeen
	for _, c := range s.Claims {
		seen = max(seen, c.Profile.At, c.VMs.At)
	}
	return seen
}

// Newest is when anybody last said anything that the state knows: the node, an
// operator, or a master that removed it. The newest of a join is that of the newer
// part.
func (s State) Newest() int64 {
	newest := max(s.Seen(), s.Removal.Stamp.Wall)
	for _, w := range s.Overrides {
		newest = max(newest, w.Stamp.Wall)
	}
	return newest
}

// Override returns the override that prevails of a field, the zero Override where nobody has
// spoken of it.
func (s State) Override(field string) Override {
	i, ok := slices.BinarySearchFunc(s.Overrides, field, func(w Override, f string) int {
		return strings.Compare(w.Field, f)
	})
	if !ok {
		return Override{}
	}
	return s.Overrides[i]
}

// Set returns the state that asserts one new override of a field of s, stamped
// above the one that stands. now is in Unix milliseconds. Join it into s to let
// it take effect.
func (s State) Set(now int64, master, by, field, value string) State {
	return State{Overrides: []Override{{
		Field: field, Stamp: Next(now, s.Override(field).Stamp), Master: master, Value: value, By: by,
	}}}
}

// hides reports whether the accounts that a claim of s gives at a boot were removed.
// Removal.Boot is how removals were written once: it hides the accounts of everybody.
// An identity that takes the node id over begins a generation that it does not reach.
func (s State) hides(c Claim, boot uint64) bool {
	return c.hides(boot) || s.Generation == 0 && s.Removal.hides(boot)
}

// Hides reports whether all that a claim of s says was removed.
func (s State) Hides(c Claim) bool { return s.hides(c, c.Boot()) }

// RemovedBoot reports whether the greatest boot of some claim is this one, and was
// removed.
func (s State) RemovedBoot(boot uint64) bool {
	return slices.ContainsFunc(s.Claims, func(c Claim) bool {
		return !c.isEmpty() && c.Boot() == boot && s.Hides(c)
	})
}

// Remove returns the state that asserts the removal of every claim of s, each at the
// boots it has spoken of: what other identities say is not touched. It
// takes back every override s knows, so that a drain or a label does not outlive the
// node it was about; but an override that is set elsewhere at the same time prevails,
// for it may be about the node's next boot. So what is taken back is stamped just
// above the override it replaces, with no master: below everything else that anybody
// can set over that override, whatever the clocks.
func (s State) Remove(now int64, master, by, reason string) State {
	out := State{Generation: s.Generation, Removal: Removal{
		Boot: s.Removal.Boot, Stamp: Next(now, s.Removal.Stamp),
		Master: master, Reason: reason, By: by,
	}}
	for _, c := range s.Claims {
		out.Claims = append(out.Claims, Claim{Key: c.Key, RemovedBelow: above(c.Boot())})
	}
	for _, w := range s.Overrides {
		if w.Value != "" {
			out.Overrides = append(out.Overrides, Override{Field: w.Field, Stamp: Next(0, w.Stamp), By: by})
		}
	}
	return out
}

// joinSorted merges two ascending lists without duplicates into one, joining
// elements that compare equal. Where one list is empty the other is returned.
func joinSorted[T any](a, b []T, cmp func(T, T) int, join func(T, T) T) []T {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	out := make([]T, 0, max(len(a), len(b)))
	for len(a) > 0 && len(b) > 0 {
		switch c := cmp(a[0], b[0]); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, join(a[0], b[0])), a[1:], b[1:]
		}
	}
	out = append(out, a...)
	return append(out, b...)
}
