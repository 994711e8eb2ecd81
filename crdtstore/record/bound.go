package record

import (
	"crypto/ed25519"
	"slices"
	"unicode/utf8"
)

// Bounds of a State. They hold for what is kept of a node whoever says it, so that
// every state can be written, sent and read again: see [State.Bounded].
const (
	// MaxClaims is how many identities may claim one node id in a generation. Of more,
	// those of the least keys are kept, and the unsigned senders last of all.
	MaxClaims = 16
	// MaxVMClaims is how many claims there may be for their VMs to be kept. Where more
	// identities claim a node id, its VMs are not known until it is removed.
	MaxVMClaims = 2
	// MaxOverrides is how many fields of a node an operator may have spoken of. Of more,
	// those that sort first are kept; labels that were taken away again count.
	MaxOverrides = 4 * MaxLabels
	// MaxState is more than any state takes, encoded, in bytes.
	MaxState = 896 << 10
	// MaxBy is how many bytes of the name of an operator are kept.
	MaxBy = 256
	// MaxReason is how many bytes of the reason of a removal are kept.
	MaxReason = 256

	maxKey          = ed25519.PublicKeySize
	maxProfileBytes = 32 << 10 // of a profile, encoded
	maxMaster       = 64       // bytes of a master's id
	maxField        = len(FieldLabel) + maxLabelName
	maxValue        = 1 + maxName
)

// Bounded returns what the bounds leave of a state that may have come from anywhere.
// What an identity or an operator says in one piece is kept as it is or not at all;
// names of operators and reasons of removals are cut.
//
// Join is associative over bounded states because each bound depends on nothing that a
// later join could change. An account or override is too large by itself. Which claims and
// overrides are too many follows from their keys and fields alone, so what was dropped once
// has as many before it in every later join too. And that there are too many claims for
// VMs stays so, for the number of claims in a generation only grows.
func (s State) Bounded() State {
	s.Claims = keepClaims(boundClaims(s.Claims))
	s.Overrides = keepOverrides(boundOverrides(s.Overrides))
	s.Removal.By = cut(s.Removal.By, MaxBy)
	s.Removal.Reason = cut(s.Removal.Reason, MaxReason)
	s.Removal.Master = cut(s.Removal.Master, maxMaster)
	if len(s.Claims) == 0 {
		s.Generation = 0
	}
	return s
}

func (a Account) fits(body int) bool { return len(a.Body) <= body && len(a.Seal) <= sealSize }

// boundClaims drops the accounts that are too large.
func boundClaims(list []Claim) []Claim {
	large := func(c Claim) bool {
		return len(c.Key) > maxKey || !c.Profile.fits(maxProfileBytes) || !c.VMs.fits(MaxVMBytes)
	}
	if !slices.ContainsFunc(list, large) {
		return list
	}
	var out []Claim
	for _, c := range list {
		if !c.Profile.fits(maxProfileBytes) {
			c.Profile = Account{}
		}
		if !c.VMs.fits(MaxVMBytes) {
			c.VMs = Account{}
		}
		if len(c.Key) <= maxKey {
			out = append(out, c)
		}
	}
	return out
}

// keepClaims drops the claims that are too many, and the VMs of too many claims.
func keepClaims(list []Claim) []Claim {
	if len(list) > MaxClaims {
		if list[0].Key == "" {
			list = list[1:]
		}
		list = list[:MaxClaims:MaxClaims]
	}
	if len(list) <= MaxVMClaims || !slices.ContainsFunc(list, func(c Claim) bool { return !c.VMs.IsZero() }) {
		return list
	}
	list = slices.Clone(list)
	for i := range list {
		list[i].VMs = Account{}
	}
	return list
}

func boundOverrides(list []Override) []Override {
	if !slices.ContainsFunc(list, func(w Override) bool { return w != w.bounded() }) {
		return list
	}
	var out []Override
	for _, w := range list {
		if w = w.bounded(); w != (Override{}) {
			out = append(out, w)
		}
	}
	return out
}

// bounded returns the zero Override for one that is too large.
func (w Override) bounded() Override {
	if len(w.Field) > maxField || len(w.Value) > maxValue || len(w.Master) > maxMaster {
		return Override{}
	}
	w.By = cut(w.By, MaxBy)
	return w
}

func keepOverrides(list []Override) []Override {
	n := min(len(list), MaxOverrides)
	return list[:n:n]
}

// cut shortens a text to so many bytes, between two characters.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
