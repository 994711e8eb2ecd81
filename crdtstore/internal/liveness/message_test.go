package liveness

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func drawPulse(r *rapid.T) Pulse {
	return Pulse{
		NodeID:  rapid.StringMatching(`[A-Za-z0-9._:-]{1,128}`).Draw(r, "id"),
		Version: record.Version{Boot: rapid.Uint64().Draw(r, "boot"), Seq: rapid.Uint64().Draw(r, "seq")},
		Usage: record.Usage{
			CRU: rapid.Float64Range(0, 1e9).Draw(r, "cru"), MRU: rapid.Uint64().Draw(r, "mru"),
			SRU: rapid.Uint64().Draw(r, "sru"), HRU: rapid.Uint64().Draw(r, "hru"), Slices: rapid.Uint64().Draw(r, "slices"),
		},
		UptimeS: rapid.Uint64().Draw(r, "uptime"),
		Age:     time.Duration(rapid.Int64Range(0, 366*24*3600*1000).Draw(r, "age")) * time.Millisecond,
	}
}

func drawMaster(r *rapid.T) *MasterInfo {
	texts := rapid.SliceOfN(rapid.StringN(1, 20, 60), 0, 3)
	return &MasterInfo{
		Name: rapid.String().Draw(r, "name"), Version: rapid.String().Draw(r, "version"),
		RPCURLs: texts.Draw(r, "rpc"), UIURLs: texts.Draw(r, "ui"), MeshAddrs: texts.Draw(r, "mesh"),
		Wall: rapid.Int64().Draw(r, "wall"), Nodes: rapid.IntRange(0, math.MaxInt32).Draw(r, "nodes"),
		Digest: rapid.SliceOfN(rapid.Byte(), 0, 16).Draw(r, "digest"), Epoch: rapid.Uint64().Draw(r, "epoch"),
		Heads: rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 40), 0, 4).Draw(r, "heads"),
		Contacts: rapid.SliceOfN(rapid.Custom(func(r *rapid.T) Contact {
			return Contact{ID: rapid.String().Draw(r, "id"), Addrs: texts.Draw(r, "addrs")}
		}), 0, 3).Draw(r, "contacts"),
		Connectivity: rapid.SampledFrom([]*Connectivity{nil, {}, {Masters: []string{"a", "b"}}, {Nodes: 7}}).Draw(r, "hearing"),
		Settings:     rapid.SampledFrom([]*Settings{nil, {}, {OfflineAfter: 3 * time.Second}, {Retention: time.Hour, Others: []Setting{{"a", "b"}, {"c", ""}}}}).Draw(r, "settings"),
	}
}

// text shows a message with empty and missing lists alike.
func text(m Message) string {
	s := ""
	if m.Master != nil {
		one := *m.Master
		if one.Connectivity != nil {
			s, one.Connectivity = fmt.Sprintf("%+v", *one.Connectivity), nil
		}
		if one.Settings != nil {
			s, one.Settings = s+fmt.Sprintf("%+v", *one.Settings), nil
		}
		if one.Ended != nil {
			s, one.Ended = s+fmt.Sprintf("%+v", *one.Ended), nil
		}
		s += fmt.Sprintf("%+v", one)
	}
	return s + fmt.Sprintf("%+v", m.Pulses)
}

func TestMessagesComeBack(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := drawMaster(r)
		pulses := rapid.SliceOfN(rapid.Custom(drawPulse), 0, 20).Draw(r, "pulses")
		msgs := Encode(m, pulses)
		if len(msgs) != 1 {
			r.Fatalf("%d messages", len(msgs))
		}
		got, err := Decode(msgs[0])
		if want := (Message{m, pulses}); err != nil || text(got) != text(want) {
			r.Fatalf("comes back as\n%s, %v, went in as\n%s", text(got), err, text(want))
		}
	})
}

func TestAgesAreClippedAndRounded(t *testing.T) {
	for age, want := range map[time.Duration]time.Duration{
		-time.Second: 0, 1500 * time.Microsecond: time.Millisecond, math.MaxInt64: 366 * 24 * time.Hour,
	} {
		got, err := Decode(Encode(&MasterInfo{}, []Pulse{{NodeID: "n", Age: age}})[0])
		if err != nil || got.Pulses[0].Age != want {
			t.Errorf("%s comes back as %+v, %v", age, got.Pulses, err)
		}
	}
}

func TestManyPulsesAreCutIntoMessages(t *testing.T) {
	var pulses []Pulse
	for i := range 30_000 {
		pulses = append(pulses, Pulse{NodeID: fmt.Sprintf("node-%06d", i), Version: record.Version{Boot: 1 << 40, Seq: uint64(i)}})
	}
	msgs := Encode(&MasterInfo{Name: "m"}, pulses)
	if len(msgs) < 2 {
		t.Fatalf("%d messages", len(msgs))
	}
	var got []Pulse
	for i, msg := range msgs {
		if len(msg) > maxChunk+512 {
			t.Errorf("message %d has %d bytes", i, len(msg))
		}
		m, err := Decode(msg)
		if err != nil || (m.Master != nil) != (i == 0) || len(m.Pulses) == 0 {
			t.Fatalf("message %d: %v, %d pulses, %v", i, m.Master, len(m.Pulses), err)
		}
		got = append(got, m.Pulses...)
	}
	if !reflect.DeepEqual(got, pulses) {
		t.Errorf("%d pulses come back", len(got))
	}
}

func TestDecodeOfANewerVersion(t *testing.T) {
	msg := Encode(&MasterInfo{Name: "m"}, []Pulse{{NodeID: "n"}})[0]
	msg = protowire.AppendString(protowire.AppendTag(msg, 99, protowire.BytesType), "more")
	msg = protowire.AppendFixed32(protowire.AppendTag(msg, 100, protowire.Fixed32Type), 7)
	if m, err := Decode(msg); err != nil || m.Master.Name != "m" || len(m.Pulses) != 1 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestUsageThatIsNoAmountIsLeftOut(t *testing.T) {
	for _, cru := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1} {
		m, err := Decode(Encode(&MasterInfo{}, []Pulse{{NodeID: "n", Usage: record.Usage{CRU: cru}}})[0])
		if err != nil || m.Pulses[0].Usage.CRU != 0 {
			t.Errorf("%v comes back as %v, %v", cru, m.Pulses, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	full := &MasterInfo{
		Name: "m", RPCURLs: []string{"http://h"}, MeshAddrs: []string{"/ip4/1.2.3.4/tcp/9004"}, Wall: -1,
		Digest: make([]byte, 16), Heads: [][]byte{{1, 2}}, Contacts: []Contact{{"id", []string{"a"}}},
		Settings: &Settings{OfflineAfter: time.Second, Retention: time.Hour, Others: []Setting{{"heartbeat-interval", "10s"}}},
	}
	f.Add(Encode(full, []Pulse{{NodeID: "n", Age: time.Second, Usage: record.Usage{CRU: 1.5}}})[0])
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := Decode(in)
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Fatal(err)
			}
			return
		}
		for _, p := range m.Pulses {
			if p.Age < 0 || !(p.Usage.CRU >= 0 && p.Usage.CRU <= math.MaxFloat32) {
				t.Fatalf("%+v", p)
			}
		}
		if m.Master == nil {
			m.Master = &MasterInfo{}
		}
		if m.Master.Nodes < 0 {
			t.Fatal("a negative count")
		}
		// What was understood is understood again.
		var again Message
		for i, msg := range Encode(m.Master, m.Pulses) {
			part, err := Decode(msg)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				again.Master = part.Master
			}
			again.Pulses = append(again.Pulses, part.Pulses...)
		}
		if text(again) != text(m) && len(m.Master.Contacts) == 0 && noEmpty(m.Master) {
			t.Errorf("%s comes back as\n%s", text(m), text(again))
		}
	})
}

// noEmpty reports whether no list has an empty text, which is not written.
func noEmpty(m *MasterInfo) bool {
	for _, list := range [][]string{m.RPCURLs, m.UIURLs, m.MeshAddrs} {
		for _, s := range list {
			if s == "" {
				return false
			}
		}
	}
	for _, h := range m.Heads {
		if len(h) == 0 {
			return false
		}
	}
	return true
}
