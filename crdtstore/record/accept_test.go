package record

import (
	"errors"
	"testing"

	"pgregory.net/rapid"
)

// TestAcceptAndJoinAgree takes any report over any state.
func TestAcceptAndJoinAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		known, r := drawKnown(t), drawReport(t)
		a := Acceptance{Now: draw(t, "now", int64(1), 2, 3, 10), RequireSigned: draw(t, "require", false, false, true)}
		delta, err := Accept(known, r, a)
		if err != nil {
			if refused, field := new(RefusedError), new(FieldError); !errors.As(err, &refused) && !errors.As(err, &field) {
				t.Fatalf("untyped error %v", err)
			}
			if !delta.IsZero() {
				t.Fatalf("refused, and yet it asserts %+v", delta)
			}
			return
		}
		now := Join(known, delta)
		if !now.Dominates(delta) {
			t.Fatalf("join does not take %+v over %+v", delta, known)
		}
		if delta.IsZero() {
			checkOld(t, known, r)
			return
		}
		checkTaken(t, known, now, delta, r, a)
		if again, err := Accept(now, r, a); err != nil || !again.IsZero() {
			t.Fatalf("the same report once more: %+v, %v", again, err)
		}
		if other, err := Accept(now, r, Acceptance{Now: a.Now + 5, RequireSigned: a.RequireSigned}); err != nil || !other.IsZero() {
			t.Fatalf("the same report later: %+v, %v", other, err)
		}
	})
}

// checkOld fails unless a report without news is no newer than what is known.
func checkOld(t *rapid.T, known State, r Report) {
	c := known.claim(string(r.PublicKey))
	if r.Boot > 0 && r.Seq > 0 && c.Profile.Version.Compare(r.AccountVersion()) < 0 {
		t.Fatalf("report %+v is newer than %+v and was not taken", r, c)
	}
}

// checkTaken fails unless what readers are shown is what was sent.
func checkTaken(t *rapid.T, known, now, delta State, r Report, a Acceptance) {
	if len(delta.Claims) != 1 || len(delta.Overrides) != 0 || !delta.Removal.IsZero() {
		t.Fatalf("a report asserted more than an account: %+v", delta)
	}
	if known.Dominates(delta) {
		t.Fatalf("nothing new, and yet a delta: %+v", delta)
	}
	if delta.LastSeen != a.Now {
		t.Fatalf("accepted at %d, seen at %d", a.Now, delta.LastSeen)
	}
	was, is := known.claim(string(r.PublicKey)), now.claim(string(r.PublicKey))
	if now.Generation != known.Generation {
		was = Claim{Key: was.Key}
	}
	v := delta.Claims[0].Latest()
	if r.Boot > 0 && r.Seq > 0 && v != r.AccountVersion() {
		t.Fatalf("sent as %v, kept as %v", r.AccountVersion(), v)
	}
	if now.hides(is, v.Boot) {
		t.Fatalf("account %v was taken, and is removed: %+v", v, now)
	}
	if now.Removed() {
		t.Fatalf("registered and still removed: %+v", now)
	}
	if was.Latest().Compare(v) >= 0 {
		return // one register only, or a tie
	}
	if is.Profile.Version != v || is.Latest() != v {
		t.Fatalf("version %v won and %v is shown", v, is.Latest())
	}
	if len(now.Claims) > MaxVMClaims {
		if is.Profile.Version != v || is.Profile.Body != r.Profile.encode() && r.Omitted == 0 || is.VMs != (Account{}) {
			t.Fatalf("sent %+v, kept %+v", r, is)
		}
		return
	}
	if r.Omitted == 0 && (is.Profile.Body != r.Profile.encode() || is.VMs.Body != encodeVMs(r.VMs) || is.VMs.Version != v) {
		t.Fatalf("sent %+v, kept %+v", r, is)
	}
	if r.Omitted&OmittedVMs != 0 && is.VMs != was.VMs {
		t.Fatalf("VMs were left out, and yet changed:\n%+v\n%+v", was.VMs, is.VMs)
	}
	if n := View(testNode, now); n.Signed == (len(r.PublicKey) > 0) && n.Conflict == nil && r.Omitted == 0 {
		if n.Hostname != r.Hostname || len(n.VMs) != len(r.VMs) || n.Boot != v.Boot || n.Seq != v.Seq {
			t.Fatalf("sent %+v, shown %+v", r, n)
		}
	}
}

func TestAcceptTheSameReportTwice(t *testing.T) {
	for name, r := range map[string]Report{
		"unsigned": report(5, 1, "a", VM{SID: "1"}),
		"legacy":   report(0, 0, "a", VM{SID: "1"}),
		"signed":   signed(report(5, 1, "a", VM{SID: "1"}), 1),
	} {
		t.Run(name, func(t *testing.T) {
			s := accept(t, State{}, r, 100)
			if s.LastSeen != 100 || View(testNode, s).Hostname != "a" {
				t.Fatalf("not registered: %+v", s)
			}
			for _, now := range []int64{50, 100, 200} {
				delta, err := Accept(s, r, Acceptance{Now: now})
				if err != nil || !delta.IsZero() {
					t.Errorf("at %d: %+v, %v; want no news", now, delta, err)
				}
			}
		})
	}
}

// One report that reaches two masters is accepted at two times. That must not
// travel back and forth as news.
func TestAcceptOneReportAtTwoMasters(t *testing.T) {
	r := report(5, 1, "a", VM{SID: "1"})
	a, b := accept(t, State{}, r, 100), accept(t, State{}, r, 107)
	both := Join(a, b)
	if both.Claims[0].First.Wall != 100 || both.Claims[0].Profile.At != 107 {
		t.Errorf("joined to %+v", both.Claims[0])
	}
	if delta, err := Accept(both, r, Acceptance{Now: 300}); err != nil || !delta.IsZero() {
		t.Errorf("third time: %+v, %v; want no news", delta, err)
	}
}

func TestAcceptStaleReport(t *testing.T) {
	s := accept(t, State{}, report(5, 7, "new"), 100)
	for _, v := range []Version{{5, 6}, {4, 99}, {1, 1}} {
		delta, err := Accept(s, report(v.Boot, v.Seq, "old"), Acceptance{Now: 999})
		if err != nil || !delta.IsZero() {
			t.Errorf("%v after 5.7: %+v, %v; want no news", v, delta, err)
		}
	}
}

// Equal versions with unequal content: all masters keep the greater bytes.
func TestAcceptOneVersionTwice(t *testing.T) {
	low, high := report(5, 1, "a"), report(5, 1, "b")
	one := accept(t, accept(t, State{}, low, 100), high, 101)
	other := accept(t, accept(t, State{}, high, 100), low, 101)
	for _, s := range []State{one, other} {
		if got := View(testNode, s).Hostname; got != "b" {
			t.Errorf("shown is %q, want the greater", got)
		}
	}
}

// A report that brings one register only: the VM list arrives by another path.
func TestAcceptKeepsTheNewerRegister(t *testing.T) {
	vmsOnly := accept(t, State{}, report(5, 9, "late", VM{SID: "9"}), 100)
	vmsOnly.Claims[0].Profile = Account{}
	s := accept(t, vmsOnly, report(5, 3, "early", VM{SID: "3"}), 101)
	n := View(testNode, s)
	if n.Hostname != "early" || len(n.VMs) != 1 || n.VMs[0].SID != "9" || n.Seq != 9 {
		t.Errorf("shown %+v", n)
	}
}

func signed(r Report, key int) Report {
	r.Sign(testKey(key))
	return r
}

func TestAcceptRefuses(t *testing.T) {
	owned := accept(t, State{}, signed(report(5, 1, "owner"), 1), 100)
	unsigned := accept(t, State{}, report(5, 1, "plain"), 100)
	removed := Join(owned, owned.Remove(200, "m", "ann", "gone"))
	tampered := signed(report(6, 1, "owner"), 1)
	tampered.Hostname = "thief"
	otherNode := signed(report(6, 1, "owner"), 1)
	otherNode.NodeID = "node-2"
	half := report(6, 1, "owner")
	half.PublicKey = []byte(publicKey(1))
	otherHalf := report(6, 1, "owner")
	otherHalf.Signature = signed(report(6, 1, "owner"), 1).Signature
	short := signed(report(6, 1, "owner"), 1)
	short.PublicKey = short.PublicKey[:31]

	for name, c := range map[string]struct {
		known  State
		report Report
		strict bool
		reason string // empty: taken
	}{
		"unsigned for a node that signs":   {owned, report(6, 1, "x"), false, RefusedUnsigned},
		"legacy for a node that signs":     {owned, report(0, 0, "x"), false, RefusedUnsigned},
		"another key":                      {owned, signed(report(6, 1, "x"), 2), false, RefusedOtherKey},
		"another key, older":               {owned, signed(report(1, 1, "x"), 2), false, RefusedOtherKey},
		"the owner":                        {owned, signed(report(6, 1, "x"), 1), false, ""},
		"tampered with":                    {State{}, tampered, false, RefusedSignature},
		"tampered with, for the owner":     {owned, tampered, false, RefusedSignature},
		"signed for another node":          {State{}, otherNode, false, RefusedSignature},
		"a key without a signature":        {State{}, half, false, RefusedSignature},
		"a signature without a key":        {State{}, otherHalf, false, RefusedSignature},
		"a key cut short":                  {State{}, short, false, RefusedSignature},
		"unsigned where signing is needed": {State{}, report(1, 1, "x"), true, RefusedUnsigned},
		"signed where signing is needed":   {State{}, signed(report(1, 1, "x"), 2), true, ""},
		"an unsigned node learns to sign":  {unsigned, signed(report(6, 1, "x"), 2), false, ""},
		"the removed boot":                 {removed, signed(report(5, 9, "x"), 1), false, RefusedRemoved},
		"a boot before the removed":        {removed, signed(report(4, 9, "x"), 1), false, RefusedRemoved},
		"the removed boot by another key":  {removed, signed(report(5, 9, "x"), 2), false, ""},
		"an earlier boot by another key":   {removed, signed(report(1, 1, "x"), 2), false, ""},
		"the removed boot, unsigned":       {removed, report(5, 9, "x"), false, ""},
		"a boot after the removed":         {removed, signed(report(6, 1, "x"), 1), false, ""},
		"a removed id taken by another":    {removed, signed(report(6, 1, "x"), 2), false, ""},
		"a removed id taken unsigned":      {removed, report(6, 1, "x"), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			delta, err := Accept(c.known, c.report, Acceptance{Now: 300, RequireSigned: c.strict})
			if c.reason == "" {
				if err != nil || delta.IsZero() {
					t.Fatalf("Accept = %+v, %v; want it taken", delta, err)
				}
				return
			}
			refused := new(RefusedError)
			if !errors.As(err, &refused) || refused.Reason != c.reason || refused.Hint == "" || refused.NodeID != c.report.NodeID {
				t.Fatalf("Accept: %v; want refused as %q with a hint", err, c.reason)
			}
			if !delta.IsZero() {
				t.Errorf("refused, and yet it asserts %+v", delta)
			}
		})
	}
}

func TestAcceptSignedNeedsAVersion(t *testing.T) {
	for _, v := range []Version{{}, {5, 0}, {0, 1}} {
		_, err := Accept(State{}, signed(report(v.Boot, v.Seq, "a"), 1), Acceptance{Now: 1})
		if field := new(FieldError); !errors.As(err, &field) || field.Field != "boot" {
			t.Errorf("signed at %v: %v; want an error for boot", v, err)
		}
	}
}

// What Accept refuses at one master may have been taken at another during a
// split. Then the identities stand beside each other and all readers agree.
func TestConflictingKeysAfterASplit(t *testing.T) {
	a := accept(t, State{}, signed(report(5, 1, "first"), 1), 100)
	b := accept(t, State{}, signed(report(9, 1, "second"), 2), 101)
	n := View(testNode, Join(a, b))
	if n.Hostname != "first" || !n.Signed {
		t.Errorf("shown is %q, want the one who came first", n.Hostname)
	}
	if n.Conflict == nil || len(n.Conflict.Claims) != 2 || n.Conflict.Since.UnixMilli() != 101 {
		t.Fatalf("conflict %+v", n.Conflict)
	}
	shown := 0
	for _, c := range n.Conflict.Claims {
		if c.Shown {
			shown++
			if c.Hostname != "first" {
				t.Errorf("shown is the claim %+v", c)
			}
		}
	}
	if shown != 1 {
		t.Errorf("%d claims are shown", shown)
	}
}
