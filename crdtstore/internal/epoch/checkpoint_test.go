package epoch

import (
	"encoding/hex"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func listed(t rapid.TB, b []byte) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	if err := decodeSeen(b, func(node string, at int64) { out[node] = at }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSeenComesBack(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		want := rapid.MapOf(rapid.StringMatching(`[a-c.:-]{1,4}`), rapid.Int64Range(1, 1<<50)).Draw(r, "seen")
		var list []Seen
		for node, at := range want {
			list = append(list, Seen{node, at})
		}
		if got := listed(r, EncodeSeen(list)); !maps.Equal(got, want) {
			r.Fatalf("%v comes back as %v", want, got)
		}
	})
}

// TestSeenFormat holds on to what is on disk and on the wire.
func TestSeenFormat(t *testing.T) {
	const want = "01d0860300046e30303100" + "0301" + "32e807" + "00016f01"
	got := hex.EncodeToString(EncodeSeen([]Seen{{"o", 49999}, {"n002", 49000}, {"n001", 50000}}))
	if got != want {
		t.Errorf("written as %s, want %s", got, want)
	}
	if k := SeenKey(0x0a, "m1"); k != "/s0a/m1" {
		t.Errorf("kept at %s", k)
	}
}

func TestSplitSeen(t *testing.T) {
	for b := range 256 {
		name := BucketName(byte(b))
		if n, ok := BucketNumber(name); !ok || int(n) != b {
			t.Errorf("%q is bucket %d, %v", name, n, ok)
		}
		if got, writer, ok := splitSeen(SeenKey(byte(b), "m")); !ok || int(got) != b || writer != "m" {
			t.Errorf("the key of %q is split into %d and %q", name, got, writer)
		}
		if record.ValidNodeID(name) == nil {
			t.Errorf("a node may be called %q", name)
		}
	}
	for _, key := range []string{"", "/s", "/s0a", "/s0a/", "/s0/m", "/s00a/m", "/sg0/m", "/s0A/m", "/s+1/m", "/s0a/m/x", "/n0a/m"} {
		if bucket, writer, ok := splitSeen(key); ok {
			t.Errorf("%q is split into %d and %q", key, bucket, writer)
		}
	}
}

func FuzzDecodeSeen(f *testing.F) {
	f.Add([]byte{})
	f.Add(EncodeSeen(nil))
	f.Add(EncodeSeen([]Seen{{"n1", 1700000000000}, {"n2", 1}, {"o", 1700000000001}}))
	f.Fuzz(func(t *testing.T, in []byte) {
		var list []Seen
		err := decodeSeen(in, func(node string, at int64) { list = append(list, Seen{node, at}) })
		if err != nil {
			if list != nil {
				t.Fatalf("%v, and %v was taken", err, list)
			}
			return
		}
		for _, s := range list {
			if record.ValidNodeID(s.Node) != nil || s.At <= 0 {
				t.Fatalf("took %+v", s)
			}
		}
		if string(EncodeSeen(list)) != string(in) {
			t.Fatalf("took %x, which is written %x", in, EncodeSeen(list))
		}
	})
}

// TestSeenIsKept follows lists through a crash, to another master and to the next
// epoch.
func TestSeenIsKept(t *testing.T) {
	a, b := start(t, "m1", t.TempDir()), start(t, "m2", t.TempDir())
	want := map[string]record.State{}
	for round := range int64(3) {
		var list []Seen
		for i := range int64(5) + round {
			at := 1000*round + i + 1
			list = append(list, Seen{fmt.Sprint("n", i), at})
			want[fmt.Sprint("n", i)] = seen(at)
		}
		if err := a.PutSeen(t.Context(), []Bucket{{7, list}, {9, []Seen{{"o", round + 1}}}}); err != nil {
			t.Fatal(err)
		}
	}
	want["o"] = seen(3)
	a.table = want // as the caller's is
	if err := b.take(a.all()...); err != nil {
		t.Fatal(err)
	}
	for what, m := range map[string]*master{"after a crash": a.crashed(), "on another master": b, "there after a crash": b.crashed()} {
		if !equalTables(m.table, want) {
			t.Errorf("%s: %v, want %v", what, m.table, want)
		}
		if left := m.missing(); len(left) > 0 {
			t.Errorf("%s it is on disk, and said to be missing: %q", what, left)
		}
	}
	a.adopt(2)
	if left := a.missing(); len(left) != len(want) {
		t.Errorf("the next epoch lacks %d nodes, want %d", len(left), len(want))
	}
}
