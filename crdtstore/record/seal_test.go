package record

import (
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"pgregory.net/rapid"
)

// drawSealed draws a state whose signed registers are genuine.
func drawSealed(t *rapid.T) State {
	s := State{LastSeen: draw(t, "seen", int64(0), 1)}
	for _, key := range []int{0, 1, 2} {
		for range rapid.IntRange(0, 2).Draw(t, "reports") {
			r := drawReport(t)
			r.Omitted, r.PublicKey, r.Signature = 0, nil, nil
			r.Boot, r.Seq = max(r.Boot, 1), max(r.Seq, 1)
			if key > 0 {
				r.Sign(testKey(key))
			}
			// Accepted by a master that knew nothing of the node's other keys.
			delta, err := Accept(State{}, r, Acceptance{Now: draw(t, "now", int64(1), 2)})
			if err != nil {
				t.Fatal(err)
			}
			switch draw(t, "part", "both", "profile", "vms") { // registers travel apart
			case "profile":
				delta.Claims[0].VMs = Account{}
			case "vms":
				delta.Claims[0].Profile = Account{}
			}
			s = Join(s, delta)
		}
	}
	return s
}

func TestVerifiedKeepsTheGenuine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawSealed(t), drawSealed(t)
		frozenA, was := freeze(a)
		if !frozenA.Verified(testNode).Equal(a) {
			t.Fatalf("a genuine register was dropped from %+v", a)
		}
		was.check(t)
		if j := Join(a, b); !j.Verified(testNode).Equal(j) {
			t.Fatalf("Join of genuine states is not genuine: %+v", j)
		}
		if c, ok := a.Verified("node-2").Owner(); ok && c.Key != "" {
			t.Fatalf("an account of one node passes for another: %+v", c)
		}
	})
}

// TestVerifiedDropsTheForged joins genuine registers with arbitrary ones, and
// looks that exactly the genuine are left.
func TestVerifiedDropsTheForged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		genuine, forged := drawSealed(t), genState.Draw(t, "forged")
		v := forged.Verified(testNode)
		for _, c := range v.Claims {
			if c.Key != "" && !c.isEmpty() {
				t.Fatalf("forged claim %+v was kept", c)
			}
		}
		if !v.Verified(testNode).Equal(v) {
			t.Fatalf("not idempotent: %+v", v)
		}
		if !forged.Dominates(v) {
			t.Fatalf("verifying added something: %+v", v)
		}
		// Verify first, then join: a forger cannot push the genuine out.
		safe := Join(genuine, v)
		for _, c := range genuine.Claims {
			is := safe.claim(c.Key)
			if len(safe.Claims) > MaxVMClaims {
				c.VMs = Account{} // too many claims for VMs
			}
			if c.Key != "" && v.Generation == 0 && (is.Profile != c.Profile || is.VMs != c.VMs) {
				t.Fatalf("the genuine %+v became %+v", c, is)
			}
		}
		if !safe.Verified(testNode).Equal(safe) {
			t.Fatalf("not genuine: %+v", safe)
		}
	})
}

// TestEveryTamperingIsSeen changes every byte that a seal covers.
func TestEveryTamperingIsSeen(t *testing.T) {
	s := accept(t, State{}, signed(report(5, 7, "a", VM{SID: "1", State: "running"}), 1), 100)
	dropped := func(change string, c Claim, id string) {
		t.Helper()
		for _, got := range (State{Claims: []Claim{c}}).Verified(id).Claims {
			if got.Profile == c.Profile && got.VMs == c.VMs {
				t.Errorf("%s is not seen", change)
			}
		}
	}
	everyByte := func(s string, try func(string)) {
		for i := range len(s) {
			b := []byte(s)
			b[i] ^= 1
			try(string(b))
		}
		try(s[:len(s)-1])
		try(s + "\x00")
	}
	whole := s.Claims[0]
	for name, register := range map[string]func(*Claim) *Account{
		"profile": func(c *Claim) *Account { return &c.Profile },
		"vms":     func(c *Claim) *Account { return &c.VMs },
	} {
		tamper := func(change string, f func(*Account)) {
			t.Helper()
			c := whole
			f(register(&c))
			dropped(name+" "+change, c, testNode)
		}
		everyByte(register(&whole).Body, func(body string) {
			tamper("body", func(a *Account) { a.Body = body })
		})
		everyByte(register(&whole).Seal, func(seal string) {
			tamper("seal", func(a *Account) { a.Seal = seal })
		})
		tamper("boot", func(a *Account) { a.Version.Boot++ })
		tamper("boot", func(a *Account) { a.Version.Boot = 0 })
		tamper("seq", func(a *Account) { a.Version.Seq-- })
		tamper("boot and seq", func(a *Account) { a.Version = Version{7, 5} })
		tamper("without a seal", func(a *Account) { a.Seal = "" })
	}
	everyByte(whole.Key, func(key string) {
		c := whole
		c.Key = key
		if left := (State{Claims: []Claim{c}}).Verified(testNode).Claims; len(left) != 0 {
			t.Errorf("another key passes: %x", key)
		}
	})
	everyByte(testNode, func(id string) {
		if left := s.Verified(id).Claims; len(left) != 0 {
			t.Errorf("another node id passes: %q", id)
		}
	})
	swapped := whole
	swapped.Profile, swapped.VMs = whole.VMs, whole.Profile
	if left := (State{Claims: []Claim{swapped}}).Verified(testNode).Claims; len(left) != 0 {
		t.Errorf("registers pass for one another: %+v", left)
	}
}

// One forged register does not take the other, genuine one with it.
func TestVerifiedDropsOneRegister(t *testing.T) {
	s := accept(t, State{}, signed(report(5, 7, "a", VM{SID: "1"}), 1), 100)
	c := s.Claims[0]
	c.VMs.Body = encodeVMs([]VM{{SID: "2"}})
	left := State{Claims: []Claim{c}}.Verified(testNode).Claims
	if len(left) != 1 || left[0].Profile != c.Profile || !left[0].VMs.IsZero() {
		t.Errorf("left is %+v", left)
	}
}

// Nor does a forged claim take the genuine one behind it.
func TestVerifiedDropsOneClaim(t *testing.T) {
	genuine := accept(t, State{}, signed(report(5, 7, "b"), 1), 100)
	s := Join(genuine, State{Claims: []Claim{{Key: publicKey(2), Profile: Account{Version: Version{9, 9}}}}})
	if s.Claims[1].Key != publicKey(1) {
		t.Fatal("the genuine claim does not stand behind the forged one")
	}
	if left := s.Verified(testNode); !left.Equal(genuine) {
		t.Errorf("left is %+v", left)
	}
}

func TestSignMakesComplete(t *testing.T) {
	r := parse(t, `{"node_id":"node-1","boot":1,"seq":1}`)
	if r.Sign(testKey(1)); r.Omitted != 0 {
		t.Errorf("a signed report leaves out %b", r.Omitted)
	}
}

func TestVerifiedLeavesTheUnsigned(t *testing.T) {
	s := accept(t, State{}, report(5, 7, "a"), 100)
	if !s.Verified(testNode).Equal(s) {
		t.Error("an unsigned account was dropped")
	}
}

// The bytes that a node signs are fixed: agents of other makes compute them too.
func TestSignedBytes(t *testing.T) {
	r := signed(report(5, 7, "a", VM{SID: "2"}, VM{SID: "1"}), 1)
	r.Usage, r.UptimeS = Usage{CRU: 3}, 99 // not signed
	if !r.verified() {
		t.Error("usage and uptime are part of what is signed")
	}
	r.Trouble = []string{"made up"}
	if r.verified() {
		t.Error("trouble is not part of what is signed")
	}
	r.Trouble = nil
	r.VMs[0], r.VMs[1] = r.VMs[1], r.VMs[0]
	if !r.verified() {
		t.Error("the order of the VM list is part of what is signed")
	}
	message := []byte("hero_explorer account v1\n" + "\x00\x00\x00\x06" + testNode +
		"\x00\x00\x00\x00\x00\x00\x00\x05" + "\x00\x00\x00\x00\x00\x00\x00\x07" +
		sum256(r.Profile.encode()) + sum256(encodeVMs(r.VMs)))
	if !ed25519.Verify(ed25519.PublicKey(r.PublicKey), message, r.Signature) {
		t.Error("the signed bytes are not as documented")
	}
}

func sum256(s string) string {
	sum := sha256.Sum256([]byte(s))
	return string(sum[:])
}
