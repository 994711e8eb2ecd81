package record

import (
	"cmp"
	"math"
	"time"
)

// Version orders the accounts that a node gives of itself. Boot is chosen by
// the agent once per start and only ever grows (agents use the Unix time of the
// start in milliseconds, raised above the boot before); Seq counts within a
// boot. The zero Version stands before every other.
type Version struct {
	Boot uint64 `json:"boot"`
	Seq  uint64 `json:"seq"`
}

// Compare returns -1, 0 or 1 as v stands before, at or after w.
func (v Version) Compare(w Version) int {
	if c := cmp.Compare(v.Boot, w.Boot); c != 0 {
		return c
	}
	return cmp.Compare(v.Seq, w.Seq)
}

// Stamp is a hybrid logical clock reading: Wall in Unix milliseconds, Logical
// to order what falls into the same millisecond or behind a faster clock
// (Kulkarni et al., "Logical Physical Clocks", 2014).
type Stamp struct {
	Wall    int64
	Logical uint32
}

// Time is when the stamp was made by the clock of who made it, for display.
func (s Stamp) Time() time.Time { return fromMillis(s.Wall) }

// Compare returns -1, 0 or 1 as s stands before, at or after t.
func (s Stamp) Compare(t Stamp) int {
	if c := cmp.Compare(s.Wall, t.Wall); c != 0 {
		return c
	}
	return cmp.Compare(s.Logical, t.Logical)
}

// Next returns the stamp for a new override that replaces one stamped above, at
// wall clock time now (Unix milliseconds). The result is always greater than
// above, so a master whose clock runs behind can still have the last write, and
// one whose clock runs ahead cannot silence the others. Only above the greatest
// stamp of all, which no clock reaches, there is none; then it is returned itself.
func Next(now int64, above Stamp) Stamp {
	if now > above.Wall {
		return Stamp{Wall: now}
	}
	if above.Logical == ^uint32(0) {
		if above.Wall == math.MaxInt64 {
			return above
		}
		return Stamp{Wall: above.Wall + 1}
	}
	return Stamp{Wall: above.Wall, Logical: above.Logical + 1}
}
