package record

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

// What a faulty or hostile master, agent or clock can say must neither break the
// laws nor make a node impossible to show.

// Times below 1970 would stand below the zero values that mean "never".
func TestDecodeRefusesTimesBefore1970(t *testing.T) {
	for name, s := range map[string]State{
		"last seen": {LastSeen: -1},
		"account":   {Claims: []Claim{{Profile: Account{At: -1}}}},
		"first":     {Claims: []Claim{{First: Stamp{Wall: -1}}}},
		"word":      {Overrides: []Override{{Stamp: Stamp{Wall: -1}}}},
		"removal":   {Removal: Removal{Stamp: Stamp{Wall: math.MinInt64}}},
	} {
		if got, err := Decode(string(s.Encode())); !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: Decode = %+v, %v; want an error", name, got, err)
		}
	}
}

// A master whose clock stands before 1970 still writes what others can read.
func TestAcceptBefore1970(t *testing.T) {
	for _, now := range []int64{0, -1, math.MinInt64} {
		delta, err := Accept(State{}, report(0, 0, "a"), Acceptance{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		delta = Join(delta, delta.Set(now, "m", "", FieldDrain, "1"))
		delta = Join(delta, delta.Remove(now, "m", "", ""))
		if got, err := Decode(string(delta.Encode())); err != nil || !got.Equal(delta) {
			t.Errorf("at %d: %+v, %v", now, delta, err)
		}
		if delta.Claims[0].First == (Stamp{}) || delta.Boot() > math.MaxInt64 {
			t.Errorf("at %d: %+v", now, delta)
		}
	}
}

// One clock at the end of time must not make every list of nodes fail.
func TestEveryTimeCanBeShown(t *testing.T) {
	const end = math.MaxInt64
	s := accept(t, State{}, report(1, 1, "a", VM{SID: "1"}), end)
	s = Join(s, s.Set(end, "m", "", FieldDrain, "1"))
	for _, s := range []State{s, Join(s, s.Remove(end, "m", "", ""))} {
		n := View(testNode, s)
		if _, err := json.Marshal(n); err != nil {
			t.Errorf("cannot be shown: %v", err)
		}
		if n.LastSeen.Year() != 9999 {
			t.Errorf("the end of time is %v", n.LastSeen)
		}
	}
}

func TestNextAtTheEndOfTime(t *testing.T) {
	end := Stamp{math.MaxInt64, math.MaxUint32}
	if got := Next(5, end); got != end {
		t.Errorf("Next(5, %v) = %v", end, got)
	}
}

// JSON has no word for NaN: one such number would make every list of nodes fail.
func TestDecodeProfileRefusesWhatIsNoNumber(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for name, p := range map[string]Profile{
			"cru":       {Total: Capacity{CRU: v}},
			"latitude":  {Location: Location{Latitude: v}},
			"longitude": {Location: Location{Longitude: v}},
		} {
			if _, err := DecodeProfile(p.encode()); !errors.Is(err, ErrEncoding) {
				t.Errorf("%s %v: %v; want an error", name, v, err)
			}
			s := State{Claims: []Claim{{Profile: Account{Version: Version{1, 1}, Body: p.encode()}}}}
			if _, err := json.Marshal(View(testNode, s)); err != nil {
				t.Errorf("%s %v cannot be shown: %v", name, v, err)
			}
		}
	}
}

// An age beyond what a duration holds must not overflow into "just now".
func TestOverflowingAgeIsOld(t *testing.T) {
	for _, age := range []float64{math.MaxInt64 / 1e9, 1e10, 1e300, math.Inf(1), math.NaN()} {
		if status, _ := Liveness([]Observer{{Master: "m", AgeS: age, Reachable: true}}, Listening{For: time.Hour, OfflineAfter: 30 * time.Second}); status != Offline {
			t.Errorf("heard %v s ago and %s", age, status)
		}
	}
	if got := (Observer{AgeS: -5}).Age(); got != 0 {
		t.Errorf("heard in the future: age %v", got)
	}
}

// The claim whose First has not arrived yet is not the first of all.
func TestOwnerWithoutFirst(t *testing.T) {
	first := accept(t, State{}, signed(report(5, 1, "first"), 1), 100)
	late := accept(t, State{}, signed(report(6, 1, "late"), 2), 200)
	late.Claims[0].First = Stamp{} // as in a later delta, which leaves it to the earlier one
	if n := View(testNode, Join(first, late)); n.Hostname != "first" {
		t.Errorf("shown is %q", n.Hostname)
	}
}

// A removed node that comes back without VMs at first, and then with the same
// list as before the removal.
func TestLegacyTellsOfTheSameVMsAfterRemoval(t *testing.T) {
	s := accept(t, State{}, report(0, 0, "a", VM{SID: "1"}), 100)
	s = Join(s, s.Remove(200, "m", "ann", "gone"))
	s = accept(t, s, parse(t, `{"node_id":"node-1","hostname":"a"}`), 300)
	if n := View(testNode, s); n.RemovedAt != nil || len(n.VMs) != 0 {
		t.Fatalf("shown %+v", n)
	}
	s = accept(t, s, report(0, 0, "a", VM{SID: "1"}), 400)
	if n := View(testNode, s); len(n.VMs) != 1 {
		t.Errorf("the VMs are taken for no news: %+v", n)
	}
}

// What a removal hides does not complete a report, even where the other
// register of the same claim is of a later boot.
func TestOmittedIsNotTakenFromAHiddenProfile(t *testing.T) {
	s := accept(t, State{}, parse(t, fullReport), 100)
	s = Join(s, s.Remove(200, "m", "ann", "gone"))
	later := accept(t, State{}, report(6, 1, "", VM{SID: "2"}), 300)
	later.Claims[0].Profile = Account{} // which travels by another way
	s = accept(t, Join(s, later), parse(t, `{"node_id":"node-1","boot":6,"seq":2,"hostname":"new"}`), 400)
	if n := View(testNode, s); n.Hostname != "new" || n.Total.CRU != 0 || len(n.VMs) != 1 {
		t.Errorf("shown %+v", n)
	}
}

// An uptime that overflows does not pass for a start after the removal.
func TestLegacyUptimeOverflow(t *testing.T) {
	s := accept(t, State{}, report(0, 0, "a"), 100_000)
	s = Join(s, s.Remove(200_000, "m", "ann", "gone"))
	for _, uptime := range []uint64{110, 1 << 40, math.MaxInt64, math.MaxInt64/1000 + 1, math.MaxUint64} {
		r := report(0, 0, "a")
		r.UptimeS = uptime
		if delta, err := Accept(s, r, Acceptance{Now: 210_000}); err == nil {
			t.Errorf("up for %d s: %+v", uptime, delta)
		}
	}
}

// A sender that counts, but not its boots, starts again at 1.
func TestLegacySeqWithoutBoot(t *testing.T) {
	s := accept(t, State{}, report(0, 50, "a"), 1000)
	s = accept(t, s, report(0, 1, "b"), 2000)
	if n := View(testNode, s); n.Hostname != "b" {
		t.Errorf("shown is %q after a restart", n.Hostname)
	}
}

// A claim that says nothing is not the last that was heard of a removed node.
func TestRemovedNodeBesideAnEmptyClaim(t *testing.T) {
	s := State{Claims: []Claim{{Key: publicKey(1)}}}
	s = Join(s, s.Remove(1, "m", "", ""))
	if n := View(testNode, s); n.Signed {
		t.Errorf("shown %+v", n)
	}
}

// encoding/json takes names in any case; so must the search for what is left out.
func TestReportJSONInAnyCase(t *testing.T) {
	known := accept(t, State{}, parse(t, fullReport), 100)
	r := parse(t, `{"node_id":"node-1","boot":5,"seq":2,"Hostname":"i","LOCATION":{"City":"Gent"},"VMs":[]}`)
	n := View(testNode, accept(t, known, r, 200))
	if n.Hostname != "i" || n.Location.City != "Gent" || n.Location.Country != "BE" || len(n.VMs) != 0 || n.Version != "1" {
		t.Errorf("shown %+v", n)
	}
}

func TestReportJSONNamesWhatIsNotBase64(t *testing.T) {
	for in, field := range map[string]string{
		`{"public_key":"*"}`:                     "public_key",
		`{"signature":"*"}`:                      "signature",
		`{"public_key":"AA==","signature":"AA"}`: "signature",
		`5`:                                      "report",
		`["x"]`:                                  "report",
	} {
		var r Report
		err := json.Unmarshal([]byte(in), &r)
		if got := new(FieldError); !errors.As(err, &got) || got.Field != field {
			t.Errorf("%s: %v; want an error for %s", in, err, field)
		}
	}
}

// Errors speak of JSON, not of Go.
func TestReportJSONErrorsSpeakJSON(t *testing.T) {
	for _, in := range []string{`{"location":5}`, `{"vms":5}`, `{"labels":[]}`, `{"boot":"x"}`, `{"total":{"cru":"x"}}`, `{"public_key":[300]}`, `[]`} {
		var r Report
		err := json.Unmarshal([]byte(in), &r)
		if err == nil || strings.Contains(err.Error(), "record.") || strings.Contains(err.Error(), "map[") || strings.Contains(err.Error(), "uint") {
			t.Errorf("%s: %v", in, err)
		}
	}
}
