package record

import (
	"cmp"
	"math"
	"strings"
)

// Account is a register that only the node's agent advances: the greater
// Version wins. Two unequal accounts of one version can only come from an agent
// that counts wrongly or from a forger; then the greater bytes win, so that all
// masters still agree.
type Account struct {
	Version Version
	// Body is the canonical encoding of a [Profile] or of a VM list.
	Body string
	// Seal is the node's signature block, empty for an unsigned account.
	Seal string
	// At is when a master accepted the account, in Unix milliseconds by that
	// master's clock. It breaks the last tie and is shown; it decides nothing.
	At int64
}

// IsZero reports whether nothing was ever asserted.
func (a Account) IsZero() bool { return a == Account{} }

func (a Account) compare(b Account) int {
	if c := a.Version.Compare(b.Version); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Body, b.Body); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Seal, b.Seal); c != 0 {
		return c
	}
	return cmp.Compare(a.At, b.At)
}

func (a Account) join(b Account) Account {
	if a.compare(b) < 0 {
		return b
	}
	return a
}

// Claim is the account of one identity: of the holder of an ed25519 key, or of
// everybody who sends unsigned reports (the empty Key). Accounts of different
// identities never overwrite each other; [State.Owner] chooses which is shown.
type Claim struct {
	// Key is the raw ed25519 public key (32 bytes), or empty.
	Key string
	// First is when the claim was first accepted, by the accepting master's
	// clock. Join keeps the least; the zero Stamp counts as never.
	First   Stamp
	Profile Account
	VMs     Account
	// RemovedBelow hides the accounts of all boots below it; 0: nothing was removed.
	// The greatest boot of all is hidden by the greatest value. Join keeps the greater.
	RemovedBelow uint64
}

func (c Claim) isEmpty() bool { return c.Profile.IsZero() && c.VMs.IsZero() }

func (c Claim) hides(boot uint64) bool {
	return boot < c.RemovedBelow || c.RemovedBelow == math.MaxUint64
}

// above is the RemovedBelow that hides a boot.
func above(boot uint64) uint64 {
	if boot == math.MaxUint64 {
		return boot
	}
	return boot + 1
}

func (c Claim) join(d Claim) Claim {
	c.First = earlier(c.First, d.First)
	c.Profile = c.Profile.join(d.Profile)
	c.VMs = c.VMs.join(d.VMs)
	c.RemovedBelow = max(c.RemovedBelow, d.RemovedBelow)
	return c
}

// Boot is the greatest boot that the claim has spoken of.
func (c Claim) Boot() uint64 { return max(c.Profile.Version.Boot, c.VMs.Version.Boot) }

// Latest is the greatest version in the claim.
func (c Claim) Latest() Version {
	if c.Profile.Version.Compare(c.VMs.Version) < 0 {
		return c.VMs.Version
	}
	return c.Profile.Version
}

func earlier(s, t Stamp) Stamp {
	switch zero := (Stamp{}); {
	case s == zero:
		return t
	case t == zero || s.Compare(t) < 0:
		return s
	}
	return t
}

func joinClaims(a, b []Claim) []Claim {
	return joinSorted(a, b,
		func(c, d Claim) int { return strings.Compare(c.Key, d.Key) },
		Claim.join)
}
