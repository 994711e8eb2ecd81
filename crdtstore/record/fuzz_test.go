package record

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{SchemaVersion})
	f.Add(typicalState(f, 1).Encode())
	for _, g := range goldenStates(f) {
		f.Add(g.state.Encode())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := Decode(string(in))
		if err != nil {
			if !errors.Is(err, ErrEncoding) || !s.IsZero() {
				t.Fatalf("%+v, %v", s, err)
			}
			return
		}
		if string(s.Encode()) != string(in) {
			t.Fatalf("took %x, which is written %x", in, s.Encode())
		}
		if j := Join(s, s); !j.Equal(s) || !Join(s, State{}).Equal(s) || !s.Dominates(State{}) {
			t.Fatalf("the laws do not hold for %+v", s)
		}
		if v := s.Verified(testNode); !s.Dominates(v) || !v.Verified(testNode).Equal(v) {
			t.Fatalf("verified to %+v", v)
		}
		if _, err := json.Marshal(View(testNode, s)); err != nil {
			t.Fatalf("cannot be shown: %v", err)
		}
		if !Join(s, s.Remove(1, "m", "", "")).Removed() {
			t.Fatalf("cannot be removed: %+v", s)
		}
		if delta, err := Accept(s, report(1, 1, "h"), Acceptance{Now: 1}); err == nil && !Join(s, delta).Dominates(delta) {
			t.Fatalf("%+v is not taken over %+v", delta, s)
		}
	})
}

func FuzzDecodeProfile(f *testing.F) {
	f.Add(typicalReport(1).Profile.encode())
	for _, p := range testProfiles {
		f.Add(p.encode())
	}
	f.Fuzz(func(t *testing.T, in string) {
		p, err := DecodeProfile(in)
		if err != nil {
			if !errors.Is(err, ErrEncoding) || !reflect.DeepEqual(p, Profile{}) {
				t.Fatalf("%+v, %v", p, err)
			}
			return
		}
		if p.encode() != in {
			t.Fatalf("took %x, which is written %x", in, p.encode())
		}
	})
}

func FuzzDecodeVMs(f *testing.F) {
	f.Add(encodeVMs(typicalReport(1).VMs))
	for _, vms := range testVMLists {
		f.Add(encodeVMs(vms))
	}
	f.Fuzz(func(t *testing.T, in string) {
		vms, err := DecodeVMs(in)
		if err != nil {
			if !errors.Is(err, ErrEncoding) || vms != nil {
				t.Fatalf("%+v, %v", vms, err)
			}
			return
		}
		if encodeVMs(vms) != in {
			t.Fatalf("took %x, which is written %x", in, encodeVMs(vms))
		}
		if b, err := json.Marshal(vms); err != nil {
			t.Fatalf("cannot be shown: %v in %s", err, b)
		}
	})
}

func FuzzReportJSON(f *testing.F) {
	f.Add([]byte(fullReport))
	f.Add([]byte(`{"node_id":"n","boot":1,"seq":1,"location":null,"labels":{"a":"b"},"vms":[{"sid":"1"}]}`))
	f.Add([]byte(`{"node_id":"n","vms":null,"total":{"cru":0.5},"public_key":"AA==","signature":"AA=="}`))
	known := typicalState(f, 1)
	f.Fuzz(func(t *testing.T, in []byte) {
		var r Report
		if err := json.Unmarshal(in, &r); err != nil {
			return
		}
		valid := r.Validate()
		if field := new(FieldError); valid != nil && !errors.As(valid, &field) {
			t.Fatalf("untyped error %v", valid)
		}
		for _, s := range []State{{}, known} {
			delta, err := Accept(s, r, Acceptance{Now: 1_760_000_009_000})
			if err != nil {
				continue
			}
			if valid != nil {
				t.Fatalf("not valid (%v), and accepted", valid)
			}
			if !Join(s, delta).Dominates(delta) {
				t.Fatalf("%+v is not taken", delta)
			}
			if got, err := Decode(string(delta.Encode())); err != nil || !got.Equal(delta) {
				t.Fatalf("%+v does not come back: %v", delta, err)
			}
			if _, err := json.Marshal(View(r.NodeID, Join(s, delta))); err != nil {
				t.Fatalf("cannot be shown: %v", err)
			}
		}
		if valid != nil {
			return
		}
		p, err := DecodeProfile(r.Profile.encode())
		if err != nil || p.encode() != r.Profile.encode() {
			t.Fatalf("the profile does not come back: %v", err)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("accepted and cannot be written: %v", err)
		}
		var back Report
		if err := json.Unmarshal(again, &back); err != nil || back.Profile.encode() != r.Profile.encode() || encodeVMs(back.VMs) != encodeVMs(r.VMs) {
			t.Fatalf("%s came back as %s, %v", in, again, err)
		}
	})
}
