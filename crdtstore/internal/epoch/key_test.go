package epoch

import (
	"strings"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const someMaster = "12D3KooWEnPUoyXCo1sfmt6oNNEaGBZ6vBxyGjTvXzLPdEWHdVTZ"

func TestKeysSurviveHostileNodeIDs(t *testing.T) {
	ids := []string{
		".", "..", "...", ":", "-", "_", "a", "n", "..:..", ".-.", "a:b", "c:", ":c", "v", "p",
		strings.Repeat("a", 128), strings.Repeat(".", 128), strings.Repeat(":", 128), someMaster,
	}
	for _, id := range ids {
		checkKey(t, id)
	}
	rapid.Check(t, func(r *rapid.T) {
		checkKey(r, rapid.StringMatching(`[A-Za-z0-9._:-]{1,128}`).Draw(r, "id"))
	})
}

func checkKey(t rapid.TB, id string) {
	t.Helper()
	if err := record.ValidNodeID(id); err != nil {
		t.Fatal(err)
	}
	k := stateKey(id, someMaster)
	node, master, ok := SplitKey(k.String())
	if !ok || node != id || master != someMaster {
		t.Errorf("%q gives %s, which is split into %q, %q, %v", id, k, node, master, ok)
	}
	// go-ds-crdt cleans keys as paths; ours must be clean already.
	if clean := ds.NewKey(k.String()); clean != k {
		t.Errorf("%q gives the key %s, which cleans to %s", id, k, clean)
	}
	if below := ds.NewKey("/c/s/k").ChildString(k.String()).String(); below != "/c/s/k"+k.String() {
		t.Errorf("%q is kept below %s", id, below)
	}
}

func TestSplitKeyRefusesWhatStateKeyDoesNotMake(t *testing.T) {
	for _, key := range []string{
		"", "/", "/n", "/n/", "/n/m", "/na", "/na/", "na/m", "/xa/m", "/na/m/x", "//na/m", "/c/s/k/na/m",
	} {
		if node, master, ok := SplitKey(key); ok {
			t.Errorf("%q is split into %q and %q", key, node, master)
		}
	}
}

func FuzzSplitKey(f *testing.F) {
	f.Add("/na/m")
	f.Add("/n../..")
	f.Add("/n//m")
	f.Fuzz(func(t *testing.T, key string) {
		node, master, ok := SplitKey(key)
		if ok && stateKey(node, master).String() != key {
			t.Errorf("%q is split into %q and %q, which make %s", key, node, master, stateKey(node, master))
		}
	})
}
