package record

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"maps"
	"math"
	"slices"

	"pgregory.net/rapid"
)

// The generators draw from very small pools, so that the cases on which a merge
// can go wrong are the rule and not the exception: equal versions with unequal
// bytes, equal stamps, one key on both sides, a removal just at a boot. rapid
// prints the seed of a failure; -rapid.seed replays it, -rapid.checks runs more.

const testNode = "node-1"

// testKey returns the i-th of a few fixed keys.
func testKey(i int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i)}, ed25519.SeedSize))
}

func publicKey(i int) string { return string(testKey(i).Public().(ed25519.PublicKey)) }

var (
	testKeys = []string{"", publicKey(1), publicKey(2)}

	testProfiles = []Profile{
		{},
		{Hostname: "a"},
		{Hostname: "b", Labels: map[string]string{"x": "agent"}},
		{Hostname: "b", Trouble: []string{"t"}},
		{Hostname: "b", Total: Capacity{CRU: 2}, Labels: map[string]string{"x": "", "y": "agent"}},
	}
	testVMLists = [][]VM{
		nil,
		{{SID: "1", State: "running"}},
		{{SID: "1", State: "stopped"}, {SID: "2"}},
	}

	genProfileBody = rapid.SampledFrom(append([]string{"\xff"}, encodeAll(testProfiles, Profile.encode)...))
	genVMsBody     = rapid.SampledFrom(append([]string{"\xff"}, encodeAll(testVMLists, encodeVMs)...))
	genVersion     = rapid.Custom(func(t *rapid.T) Version {
		return Version{Boot: draw(t, "boot", uint64(1), 2, 3, 0), Seq: draw(t, "seq", uint64(1), 2, 0)}
	})
	genStamp = rapid.Custom(func(t *rapid.T) Stamp {
		return Stamp{Wall: draw(t, "wall", int64(1), 2, 3), Logical: draw(t, "logical", uint32(0), 1)}
	})
	genState = rapid.Custom(func(t *rapid.T) State {
		s := State{LastSeen: draw(t, "last_seen", int64(0), 1, 2)}
		for _, key := range slices.Sorted(slices.Values(testKeys)) {
			if draw(t, "claim", true, true, false, false, false) {
				s.Claims = append(s.Claims, drawClaim(t, key))
			}
		}
		for _, field := range []string{"", FieldDrain, FieldLabel + "x", FieldLabel + "z"} {
			if rapid.Bool().Draw(t, "word") {
				s.Overrides = append(s.Overrides, drawOverride(t, field))
			}
		}
		if rapid.Bool().Draw(t, "removal") {
			s.Removal = Removal{
				Boot: draw(t, "removed", uint64(1), 2, 0), Stamp: genStamp.Draw(t, "removal"),
				Master: draw(t, "master", "m1", "m2"),
				Reason: draw(t, "reason", "", "expired"), By: draw(t, "by", "", "ann"),
			}
		}
		if len(s.Claims) > 0 {
			s.Generation = draw(t, "generation", uint64(0), 0, 0, 1, 2)
		}
		return s.Bounded()
	})
)

func draw[T any](t *rapid.T, label string, from ...T) T {
	return rapid.SampledFrom(from).Draw(t, label)
}

func encodeAll[T any](in []T, encode func(T) string) (out []string) {
	for _, v := range in {
		out = append(out, encode(v))
	}
	return out
}

func drawClaim(t *rapid.T, key string) Claim {
	c := Claim{Key: key}
	if rapid.Bool().Draw(t, "first") {
		c.First = genStamp.Draw(t, "first")
	}
	c.RemovedBelow = draw(t, "removed below", uint64(0), 0, 0, 1, 2, 3, math.MaxUint64)
	account := func(body *rapid.Generator[string]) (a Account) {
		if rapid.Bool().Draw(t, "account") {
			a = Account{
				Version: genVersion.Draw(t, "version"), Body: body.Draw(t, "body"),
				Seal: draw(t, "seal", "", "s"), At: draw(t, "at", int64(0), 1, 2),
			}
		}
		return a
	}
	c.Profile, c.VMs = account(genProfileBody), account(genVMsBody)
	return c
}

func drawOverride(t *rapid.T, field string) Override {
	return Override{
		Field: field, Stamp: genStamp.Draw(t, "word"), Master: draw(t, "master", "m1", "m2"),
		Value: draw(t, "value", "", "1", "=v", LabelUnset), By: draw(t, "by", "", "ann"),
	}
}

// drawReport draws a report with an explicit version, a legacy one, or one that
// leaves out fields; signed or not.
func drawReport(t *rapid.T) Report {
	r := Report{
		NodeID: testNode, Boot: draw(t, "boot", uint64(1), 2, 3, 0), Seq: draw(t, "seq", uint64(1), 2, 3, 0),
		Profile: rapid.SampledFrom(testProfiles).Draw(t, "profile"),
		VMs:     rapid.SampledFrom(testVMLists).Draw(t, "vms"),
		UptimeS: draw(t, "uptime", uint64(0), 1, 3600),
	}
	switch key := draw(t, "key", 0, 0, 1, 2); {
	case key > 0:
		r.Boot, r.Seq = max(r.Boot, 1), max(r.Seq, 1)
		r.Sign(testKey(key))
	case rapid.Bool().Draw(t, "omit"):
		r.Omitted = Omission(rapid.Uint32().Draw(t, "omitted"))
		r.Profile = r.Omitted.complete(r.Profile, Profile{})
		if r.Omitted&OmittedVMs != 0 {
			r.VMs = nil
		}
	}
	return r
}

// drawKnown draws a state: any at all, or one that grew out of reports and words.
func drawKnown(t *rapid.T) State {
	if rapid.Bool().Draw(t, "arbitrary") {
		return genState.Draw(t, "known")
	}
	var s State
	for now := range int64(rapid.IntRange(0, 6).Draw(t, "steps")) {
		now++
		switch draw(t, "step", "report", "report", "say", "remove") {
		case "report":
			if delta, err := Accept(s, drawReport(t), Acceptance{Now: now}); err == nil {
				s = Join(s, delta)
			}
		case "say":
			s = Join(s, s.Set(now, "m1", "ann", FieldDrain, draw(t, "value", "", "1")))
		case "remove":
			s = Join(s, s.Remove(now, "m1", "ann", "test"))
		}
	}
	return s
}

// report returns a small complete report.
func report(boot, seq uint64, hostname string, vms ...VM) Report {
	return Report{NodeID: testNode, Boot: boot, Seq: seq, Profile: Profile{Hostname: hostname}, VMs: vms}
}

// parse decodes a report from JSON.
func parse(t rapid.TB, in string) Report {
	t.Helper()
	var r Report
	if err := json.Unmarshal([]byte(in), &r); err != nil {
		t.Fatalf("report %s: %v", in, err)
	}
	return r
}

// accept joins what a report asserts into s, and fails the test if it is refused.
func accept(t rapid.TB, s State, r Report, now int64) State {
	t.Helper()
	delta, err := Accept(s, r, Acceptance{Now: now})
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	return Join(s, delta)
}

// frozen remembers a state and the memory behind it, spare capacity included.
type frozen struct {
	held, copied State
}

// freeze returns s on memory of its own with room to spare, for a later check.
func freeze(s State) (State, frozen) {
	spare := State{Claims: make([]Claim, 0, len(s.Claims)+3), Overrides: make([]Override, 0, len(s.Overrides)+3)}
	s.Claims = append(spare.Claims, s.Claims...)
	s.Overrides = append(spare.Overrides, s.Overrides...)
	for i := range 3 {
		s.Claims[:len(s.Claims)+3][len(s.Claims)+i].Key = "spare"
		s.Overrides[:len(s.Overrides)+3][len(s.Overrides)+i].Field = "spare"
	}
	return s, frozen{s, wholeCopy(s)}
}

func wholeCopy(s State) State {
	s.Claims = slices.Clone(s.Claims[:cap(s.Claims)])
	s.Overrides = slices.Clone(s.Overrides[:cap(s.Overrides)])
	return s
}

// check fails the test if anybody wrote into the state.
func (f frozen) check(t rapid.TB) {
	t.Helper()
	if !wholeCopy(f.held).Equal(f.copied) {
		t.Fatalf("an argument was modified:\nwas %+v\nis  %+v", f.copied, wholeCopy(f.held))
	}
}

func cloneReport(r Report) Report {
	r.Labels = maps.Clone(r.Labels)
	r.VMs = slices.Clone(r.VMs)
	return r
}
