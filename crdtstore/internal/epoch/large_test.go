package epoch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// unbounded is a state as programs could write it before states were bounded.
func unbounded() (s record.State) {
	body := strings.Repeat("x", record.MaxVMBytes)
	for i := range 8 {
		s.Claims = append(s.Claims, record.Claim{
			Key:     fmt.Sprintf("%032d", i),
			Profile: record.Account{Version: record.Version{Boot: 1, Seq: 1}, Body: "a"},
			VMs:     record.Account{Version: record.Version{Boot: 1, Seq: 1}, Body: body},
		})
	}
	return s
}

// A block that an older program wrote too large is no damage: what it says is read, and
// writing goes on. That it cannot be sent shows, so that the records go to a new epoch.
func TestLargeBlockIsNoDamage(t *testing.T) {
	dir := t.TempDir()
	m := start(t, "m1", dir)
	m.write("other", record.State{LastSeen: 5})
	if m.Stats().Large {
		t.Fatal("an epoch of small blocks has a large one")
	}
	if err := m.Put(t.Context(), []Write{{"large", unbounded()}}); err != nil {
		t.Fatal(err)
	}
	large := m.sent[len(m.sent)-1]
	if len(large.Raw) <= dag.MaxBlock {
		t.Fatalf("the block has only %d bytes", len(large.Raw))
	}
	if _, err := m.Block(t.Context(), large.Cid); !errors.Is(err, dag.ErrLarge) {
		t.Errorf("the block is given out: %v", err)
	}
	check := func(when string) {
		t.Helper()
		if err := m.Health(); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if !m.Stats().Large {
			t.Errorf("%s: that a block is too large does not show", when)
		}
	}
	check("asked for the block")
	m.write("next", record.State{LastSeen: 5})
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = start(t, "m1", dir)
	check("opened again")
	if got, want := m.table["large"], unbounded().Bounded(); len(got.Claims) != 8 || len(got.Encode()) > len(want.Encode()) {
		t.Errorf("%d claims of %d bytes are read", len(got.Claims), len(got.Encode()))
	}
	m.write("last", record.State{LastSeen: 5})
	if err := m.Adopt(t.Context(), 2, 0); err != nil {
		t.Fatal(err)
	}
	m.number.Store(2)
	if m.Stats().Large {
		t.Error("the next epoch has a large block too")
	}
	if err := m.Put(t.Context(), []Write{{"large", m.table["large"]}}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Block(t.Context(), m.Heads()[0]); err != nil {
		t.Errorf("what is left of the state cannot be sent: %v", err)
	}
}

// However many nodes fall into one bucket, a block holds what is written of them.
func TestSeenOfACrowdedBucket(t *testing.T) {
	var crowd []Seen
	for i := range 3*maxSeen + 5 {
		crowd = append(crowd, Seen{fmt.Sprintf("%08x%0120d", uint32(i)*2654435761, i), int64(1000 + i)})
	}
	dir := t.TempDir()
	m := start(t, "m1", dir)
	for _, n := range []int{5, maxSeen + 7, len(crowd)} { // it grows
		if err := m.PutSeen(t.Context(), []Bucket{{7, slices.Clone(crowd[:n])}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range m.sent {
		if _, err := m.Block(t.Context(), b.Cid); err != nil {
			t.Errorf("a block of %d bytes cannot be sent: %v", len(b.Raw), err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = start(t, "m1", dir)
	for _, s := range crowd {
		if m.table[s.Node].LastSeen != s.At {
			t.Fatalf("%s was seen at %d, want %d", s.Node, m.table[s.Node].LastSeen, s.At)
		}
	}
}
