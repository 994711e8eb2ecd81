package record

import (
	"cmp"
	"strings"
)

// Fields of a node that an operator may speak about.
const (
	// FieldDrain is set to "1" while the node is drained.
	FieldDrain = "drain"
	// FieldLabel, followed by a label's name, carries that label's value behind
	// "=", or LabelUnset where the operator took the label away.
	FieldLabel = "label/"
	LabelUnset = "-"
)

// Override is what an operator set of one field. The last writer wins: by Stamp,
// then by Master, Value and By, so that the order is total.
type Override struct {
	Field  string
	Stamp  Stamp
	Master string // id of the master through which it was said
	Value  string // empty: as if nothing had been said
	By     string // who said it, for display
}

func (w Override) compare(v Override) int {
	if c := w.Stamp.Compare(v.Stamp); c != 0 {
		return c
	}
	return cmp.Or(
		cmp.Compare(w.Master, v.Master),
		cmp.Compare(w.Value, v.Value),
		cmp.Compare(w.By, v.By))
}

func (w Override) join(v Override) Override {
	if w.compare(v) < 0 {
		return v
	}
	return w
}

func joinOverrides(a, b []Override) []Override {
	return joinSorted(a, b,
		func(w, v Override) int { return strings.Compare(w.Field, v.Field) },
		Override.join)
}

// ReasonExpired is the reason of a removal that no operator asked for: the node was
// silent for too long.
const ReasonExpired = "expired"

// Removal says when the node was removed last, by whom and why. What is removed stands
// in the claims (Claim.RemovedBelow). The zero Removal: never. Overrides it leaves alone;
// see [State.Remove].
type Removal struct {
	// Boot, in states of schema version 1, hides the accounts of all claims up to this
	// boot. It is kept as it is.
	Boot   uint64
	Stamp  Stamp
	Master string
	Reason string
	By     string
}

// IsZero reports whether the node was never removed.
func (r Removal) IsZero() bool { return r == Removal{} }

func (r Removal) compare(q Removal) int {
	if c := cmp.Compare(r.Boot, q.Boot); c != 0 {
		return c
	}
	if c := r.Stamp.Compare(q.Stamp); c != 0 {
		return c
	}
	return cmp.Or(
		cmp.Compare(r.Master, q.Master),
		cmp.Compare(r.Reason, q.Reason),
		cmp.Compare(r.By, q.By))
}

func (r Removal) join(q Removal) Removal {
	if r.compare(q) < 0 {
		return q
	}
	return r
}

// hides reports whether an account of the given boot is gone.
func (r Removal) hides(boot uint64) bool { return !r.IsZero() && boot <= r.Boot }
