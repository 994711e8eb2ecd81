package record

import (
	"math"
	"slices"
)

// Acceptance is what a master knows when a report comes in.
type Acceptance struct {
	Now           int64 // Unix milliseconds by the accepting master's clock
	RequireSigned bool
}

// Accept turns a report into the state that it asserts over what is known. The
// caller joins the result into known; it is the zero State when the report says
// nothing new. It returns a [FieldError] or a [RefusedError] for a report that
// cannot be taken.
//
// Fields that an unsigned report leaves out are filled in from the same claim's
// account. This happens here and not in [Join]: "newer, but keep the non-empty"
// is not associative. Boot and seq of a legacy sender are assigned here too.
func Accept(known State, r Report, a Acceptance) (State, error) {
	if err := r.Validate(); err != nil {
		return State{}, err
	}
	if err := authorize(known, &r, a); err != nil {
		return State{}, err
	}
	a.Now = max(a.Now, 1) // 0 means never
	claim := known.claim(string(r.PublicKey))
	profileHidden := known.hides(claim, claim.Profile.Version.Boot)
	vmsHidden := known.hides(claim, claim.VMs.Version.Boot)

	if !r.signed() && r.Omitted != 0 && !profileHidden {
		was, err := DecodeProfile(claim.Profile.Body)
		if err == nil {
			r.Profile = r.Omitted.complete(r.Profile, was)
		}
	}
	profile, vms := r.Profile.encode(), encodeVMs(r.VMs)
	hasVMs := r.signed() || r.Omitted&OmittedVMs == 0

	if !r.signed() && (r.Boot == 0 || r.Seq == 0) {
		if r.Boot == 0 {
			r.Seq = 0 // counts within a boot that we were not told
		}
		latest := claim.Latest()
		same := !profileHidden && !claim.Profile.IsZero() && profile == claim.Profile.Body &&
			(!hasVMs || !known.keepsVMs(claim.Key) || !vmsHidden && vms == claim.VMs.Body)
		if same && (r.Boot == 0 || r.Boot == latest.Boot) {
			return State{}, nil
		}
		v, err := assignVersion(known, &r, claim, a.Now)
		if err != nil {
			return State{}, err
		}
		r.Boot, r.Seq = v.Boot, v.Seq
	}
	generation := known.generationOf(claim, r.Boot)
	if generation != known.Generation {
		claim = Claim{Key: claim.Key}
	} else if known.hides(claim, r.Boot) {
		return State{}, known.Removal.Refused(r.NodeID)
	}

	out := Claim{Key: claim.Key}
	if claim.First == (Stamp{}) {
		out.First = Stamp{Wall: a.Now}
	}
	sealProfile, sealVMs := "", ""
	if r.signed() {
		sealProfile, sealVMs = r.seals()
	}
	news := Account{r.AccountVersion(), profile, sealProfile, a.Now}
	if news.asserts(claim.Profile) {
		out.Profile = news
	}
	if hasVMs && (generation != known.Generation || known.keepsVMs(claim.Key)) {
		news = Account{r.AccountVersion(), vms, sealVMs, a.Now}
		if news.asserts(claim.VMs) {
			out.VMs = news
		}
	}
	if out.Profile.IsZero() && out.VMs.IsZero() {
		return State{}, nil
	}
	return State{Generation: generation, Claims: []Claim{out}, LastSeen: a.Now}, nil
}

// keepsVMs reports whether the bounds leave the VMs of a claim that joins those of s; see
// MaxVMClaims.
func (s State) keepsVMs(key string) bool {
	claims := len(s.Claims)
	if !slices.ContainsFunc(s.Claims, func(c Claim) bool { return c.Key == key }) {
		claims++
	}
	return claims <= MaxVMClaims
}

// generationOf returns the generation that a claim is made in. Where everything that is
// known was removed, another identity begins the next one: the removed claims make room,
// and their boots bar nobody else.
func (s State) generationOf(c Claim, boot uint64) uint64 {
	if _, owned := s.Owner(); owned || s.Generation == math.MaxUint64 {
		return s.Generation
	}
	// The claim's own boots are removed one by one, but those of Removal.Boot.
	known := slices.ContainsFunc(s.Claims, func(d Claim) bool { return c.Key == d.Key })
	if !known && len(s.Claims) > 0 || s.hides(Claim{}, boot) && boot > c.Boot() && !c.hides(boot) {
		return s.Generation + 1
	}
	return s.Generation
}

// asserts reports whether a would win over known for what it says, not for when
// it was accepted: the same account by way of two masters is no news.
func (a Account) asserts(known Account) bool {
	a.At = known.At
	return known.compare(a) < 0
}

// authorize decides whether the sender may speak for the node.
func authorize(known State, r *Report, a Acceptance) error {
	if r.signed() {
		if r.Boot == 0 || r.Seq == 0 {
			return fieldErrorf("boot", "and seq must be set in a signed report")
		}
		if !r.verified() {
			return &RefusedError{r.NodeID, RefusedSignature,
				"the signature does not fit; sign exactly what is sent, with the key in public_key"}
		}
	}
	if owner, ok := known.Owner(); ok && owner.Key != "" && owner.Key != string(r.PublicKey) {
		if !r.signed() {
			return &RefusedError{r.NodeID, RefusedUnsigned,
				"this node has signed before; sign with its key, or have an operator remove the node"}
		}
		return &RefusedError{r.NodeID, RefusedOtherKey,
			"the node id belongs to another key; use another node id, or have an operator remove the node"}
	}
	if a.RequireSigned && !r.signed() {
		return &RefusedError{r.NodeID, RefusedUnsigned, "this grid takes signed reports only"}
	}
	return nil
}

// assignVersion chooses boot and seq for a sender that left one of them out. A
// node that an operator removed is taken back only where its uptime shows that it
// has started after the removal, or says nothing.
func assignVersion(known State, r *Report, claim Claim, now int64) (Version, error) {
	v, latest := r.AccountVersion(), claim.Latest()
	if v.Boot == 0 {
		v.Boot = latest.Boot
		if started := now - int64(min(r.UptimeS, uint64(now)/1000))*1000; known.hides(claim, latest.Boot) {
			if r.UptimeS > 0 && started < known.Removal.Stamp.Wall && known.Removal.Reason != ReasonExpired {
				return v, &RefusedError{r.NodeID, RefusedRemoved,
					"an operator removed this node; restart it to register it anew"}
			}
			v.Boot = max(uint64(now), latest.Boot+1, claim.RemovedBelow)
		} else if v.Boot == 0 {
			v.Boot = uint64(now)
		}
	}
	if v.Seq == 0 {
		v.Seq = 1
		if v.Boot == latest.Boot {
			v.Seq = latest.Seq + 1
		}
	}
	return v, nil
}

func (s State) claim(key string) Claim {
	for _, c := range s.Claims {
		if c.Key == key {
			return c
		}
	}
	return Claim{Key: key}
}
