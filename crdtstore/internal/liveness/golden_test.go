package liveness

import (
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/golden"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/wire"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// pulseFields is the schema that docs/protocol.md promises.
var pulseFields = golden.Fields{
	1: {Name: "master", Fields: golden.Fields{
		1: {Name: "name"}, 2: {Name: "version"}, 3: {Name: "rpc_urls"}, 4: {Name: "ui_urls"}, 5: {Name: "mesh_addrs"},
		6: {Name: "wall"}, 7: {Name: "nodes"}, 8: {Name: "digest"}, 9: {Name: "epoch"}, 10: {Name: "heads"},
		11: {Name: "contacts", Fields: golden.Fields{1: {Name: "id"}, 2: {Name: "addrs"}}},
		12: {Name: "cutoff"}, 13: {Name: "joining"}, 14: {Name: "edge_addrs"},
		15: {Name: "hearing", Fields: golden.Fields{1: {Name: "masters"}, 2: {Name: "nodes"}, 3: {Name: "holds"}}}, 16: {Name: "fetching"}, 17: {Name: "run"}, 18: {Name: "seq"}, 19: {Name: "announced"},
		20: {Name: "echoes", Fields: golden.Fields{1: {Name: "master"}, 2: {Name: "run"}, 3: {Name: "seq"}, 4: {Name: "direct"}}},
		21: {Name: "collisions", Fields: golden.Fields{1: {Name: "master"}, 2: {Name: "kept"}, 3: {Name: "refused"}}},
		22: {Name: "settings", Fields: golden.Fields{
			1: {Name: "offline_after_ms"}, 2: {Name: "retention_ms"},
			3: {Name: "others", Fields: golden.Fields{1: {Name: "name"}, 2: {Name: "value"}}},
		}},
		23: {Name: "ended", Fields: golden.Fields{1: {Name: "wall"}, 2: {Name: "logical"}, 3: {Name: "master"}, 4: {Name: "by"}, 5: {Name: "age_ms"}}},
	}},
	2: {Name: "pulses", Fields: golden.Fields{
		1: {Name: "node_id"}, 2: {Name: "boot"}, 3: {Name: "seq"}, 4: {Name: "age_ms"}, 5: {Name: "cru_bits"},
		6: {Name: "mru"}, 7: {Name: "sru"}, 8: {Name: "hru"}, 9: {Name: "slices"}, 10: {Name: "uptime_s"},
		11: {Name: "tunnel"},
	}},
}

func goldenMessage() Message {
	return Message{
		Master: &MasterInfo{
			Name: "birch", Version: "1.4.2",
			RPCURLs: []string{"http://10.0.0.2:9002"}, UIURLs: []string{"http://10.0.0.2:9001"},
			MeshAddrs: []string{"/ip4/10.0.0.2/tcp/9004", "/ip6/fd00::2/tcp/9004"},
			Wall:      1_760_000_000_000, Nodes: 2, Digest: []byte("sixteen bytes!!\x00"), Epoch: 7,
			Heads:    [][]byte{{0x01, 0x70, 0x12, 0x01, 0xaa}, {0x01, 0x70, 0x12, 0x01, 0xbb}},
			Contacts: []Contact{{"12D3KooWoak", []string{"/ip4/10.0.0.1/tcp/9004"}}},
			Cutoff:   1_740_000_000_000, Joining: true, EdgeAddrs: []string{"/ip4/10.0.0.2/tcp/9005"},
			Connectivity: &Connectivity{Masters: []string{"12D3KooWoak"}, Nodes: 2, Holds: []string{"12D3KooWoak"}}, Fetching: true,
			Run: "00000199c82cc000aaaaaaaaaaaaaaaa", Seq: 3600, Announced: 12,
			Echoes:     []Echo{{"12D3KooWoak", "00000199c82cc000bbbbbbbbbbbbbbbb", 1800, true}},
			Settings:   &Settings{OfflineAfter: 30 * time.Second, Retention: 720 * time.Hour, Others: []Setting{{"heartbeat-interval", "10s"}}},
			Collisions: []Collision{{"12D3KooWelm", "00000199c82cc000cccccccccccccccc", "00000199c82cc000dddddddddddddddd"}},
			Ended:      &Ended{1_760_000_000_000, 1, "12D3KooWoak", "ann", 90 * time.Second},
		},
		Pulses: []Pulse{
			{
				NodeID: "node-1", Version: record.Version{Boot: 1_760_000_000_000, Seq: 42}, Age: 1200 * time.Millisecond,
				Usage: record.Usage{CRU: 1.5, MRU: 8 << 30, SRU: 1 << 40, HRU: 2 << 40, Slices: 3}, UptimeS: 86_400,
				Tunnel: true,
			},
			{NodeID: "node-2"}, // a sender that does not count, heard just now
		},
	}
}

func TestGoldenPulse(t *testing.T) {
	want := goldenMessage()
	msgs := Encode(want.Master, want.Pulses)
	if len(msgs) != 1 {
		t.Fatalf("%d messages", len(msgs))
	}
	kept := golden.Check(t, "pulse", "The pulse of a master that has heard two nodes. Every field is in it.",
		golden.Message(t, msgs[0], pulseFields))
	if got, err := Decode(golden.Bytes(kept)); err != nil || text(got) != text(want) {
		t.Errorf("the kept pulse reads as\n%s, %v, want\n%s", text(got), err, text(want))
	}
}

// A newer version may add a field to each of the messages, of any kind. What this
// version knows stays what it is.
func TestGoldenPulseOfANewerVersion(t *testing.T) {
	const unknown = 77
	later := func(b []byte) []byte {
		b = protowire.AppendVarint(protowire.AppendTag(b, unknown, protowire.VarintType), 1<<40)
		b = protowire.AppendFixed32(protowire.AppendTag(b, unknown+1, protowire.Fixed32Type), 1)
		b = protowire.AppendFixed64(protowire.AppendTag(b, unknown+2, protowire.Fixed64Type), 1)
		return protowire.AppendString(protowire.AppendTag(b, unknown+3, protowire.BytesType), "of a later version")
	}
	want := goldenMessage()
	master := want.Master.append(later(nil))
	master = wire.AppendMessage(master, 11, func(b []byte) []byte { return wire.AppendString(later(b), 1, "12D3KooWelm") })
	msg := wire.AppendMessage(later(nil), 1, func(b []byte) []byte { return append(b, later(master)...) })
	for _, p := range want.Pulses {
		msg = wire.AppendMessage(msg, 2, func(b []byte) []byte { return later(p.append(later(b))) })
	}
	want.Master.Contacts = append(want.Master.Contacts, Contact{ID: "12D3KooWelm"})
	if got, err := Decode(later(msg)); err != nil || text(got) != text(want) {
		t.Errorf("it reads as\n%s, %v, want\n%s", text(got), err, text(want))
	}
}
