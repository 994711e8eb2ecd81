package epoch

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	pb "github.com/ipfs/go-ds-crdt/pb"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// The tests in this file are named after what go-ds-crdt does by itself, and
// show that a Log does not.

// By itself: the value of the greater DAG height wins, so after a split the side
// that wrote more often wins, however old what it says.
func TestTrapHeightDecidesNotVersion(t *testing.T) {
	chatty, quiet := start(t, "m1", t.TempDir()), start(t, "m2", t.TempDir())
	for i := range 50 {
		chatty.write("n", account(1, uint64(i+1), "old"))
	}
	quiet.write("n", account(2, 1, "new"))
	if err := errors.Join(chatty.take(quiet.all()...), quiet.take(chatty.all()...)); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*master{chatty, quiet, chatty.crashed(), quiet.crashed()} {
		if owner, _ := m.table["n"].Owner(); owner.Latest() != (record.Version{Boot: 2, Seq: 1}) {
			t.Errorf("%s: n stands at %v", m.id, owner.Latest())
		}
	}
}

// By itself: one key twice in one batch gives different values under the same
// heads, depending on which replica made the block.
func TestTrapSameKeyTwiceInOneBatch(t *testing.T) {
	one, two := put("n", "m9", seen(1)), put("n", "m9", seen(2))
	for _, order := range [][]*pb.Element{{one, two}, {two, one}} {
		b := block(t, &pb.Delta{Priority: 1, Elements: order})
		m := start(t, "m1", t.TempDir())
		if err := m.take(b); err != nil {
			t.Fatal(err)
		}
		if m.table["n"].LastSeen != 2 {
			t.Errorf("applied %v", m.table)
		}
		if again := m.crashed(); again.table["n"].LastSeen != 2 {
			t.Errorf("rebuilds to %v", again.table)
		}
	}
	// A Log does not make such blocks.
	m := start(t, "m1", t.TempDir())
	for i := range 20 {
		m.write("n", seen(int64(i)))
	}
	for _, b := range m.sent {
		elements, err := b.Elements()
		if err != nil || len(elements) != 1 {
			t.Errorf("%d elements, %v", len(elements), err)
		}
	}
}

// By itself: a Delete that races a Put gives different values, and one delete
// costs quadratic time. No block with a tombstone gets in, and none of it.
func TestTrapDeleteRacesPut(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	m.write("n", seen(1))
	bad := block(t, &pb.Delta{
		Priority: 2, Elements: []*pb.Element{put("o", "m9", seen(1))},
		Tombstones: []*pb.Element{{Key: stateKey("n", "m1").String(), Id: "x"}},
	}, m.Heads()...)
	good := block(t, &pb.Delta{Priority: 3, Elements: []*pb.Element{put("p", "m9", seen(1))}}, bad.Cid)
	if err := m.take(bad); !errors.Is(err, dag.ErrBlock) {
		t.Error("a tombstone was taken:", err)
	}
	if err := m.take(good); !errors.Is(err, ErrMissing) {
		t.Error("a block upon a refused one was taken:", err)
	}
	if len(m.table) != 1 || len(m.all()) != 1 {
		t.Errorf("holds %v in %d blocks", m.table, len(m.all()))
	}
	m.write("n", seen(2)) // and the log goes on
	if again := m.crashed(); again.table["n"].LastSeen != 2 {
		t.Errorf("rebuilds to %v", again.table)
	}
}

// By itself: a walk down a branch that is cut off can leave a gap for good.
func TestTrapWalkCutOffLeavesGap(t *testing.T) {
	a := start(t, "m1", t.TempDir())
	for i := range 12 {
		a.write(fmt.Sprintf("n%d", i), seen(1))
	}
	b := start(t, "m2", t.TempDir())
	for i, one := range a.all() {
		// Whatever comes, comes one by one, with a crash after each.
		if err := b.take(one); err != nil {
			t.Fatal(err)
		}
		b = b.crashed()
		if len(b.table) != i+1 || !slices.Equal(b.Heads(), []cid.Cid{one.Cid}) {
			t.Fatalf("after %d blocks: %d states, heads %v", i+1, len(b.table), b.Heads())
		}
	}
	if !equalTables(a.table, b.table) || !slices.Equal(a.Heads(), b.Heads()) {
		t.Errorf("holds %v", b.table)
	}
}

// By itself: a block that cannot be fetched blocks all others for five minutes.
func TestTrapMissingBlockBlocksOthers(t *testing.T) {
	a, b, c := start(t, "m1", t.TempDir()), start(t, "m2", t.TempDir()), start(t, "m3", t.TempDir())
	a.write("n", seen(1))
	a.write("n", seen(2))
	c.write("o", seen(1))
	if err := b.take(a.sent[1]); !errors.Is(err, ErrMissing) {
		t.Error(err)
	}
	if err := b.take(c.sent...); err != nil || b.table["o"].LastSeen != 1 {
		t.Error("another master's block did not get through:", err)
	}
}

// By itself: Batch handles share one delta, and concurrent Puts fork the DAG.
func TestTrapConcurrentPutsForkHistory(t *testing.T) {
	m, other := start(t, "m1", t.TempDir()), start(t, "m2", t.TempDir())
	for i := range 20 {
		other.write("o", seen(int64(i+1)))
	}
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 10 {
				node := fmt.Sprintf("n%d-%d", g, i)
				if err := m.Put(t.Context(), []Write{{node, seen(int64(i + 1))}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for _, b := range other.sent {
			if err := m.Deliver(t.Context(), m.Number(), []dag.Block{b}); err != nil {
				t.Error(err)
			}
			m.Heads()
		}
	})
	all.Wait()
	m.write("last", seen(1))
	if len(m.Heads()) != 1 {
		t.Errorf("%d heads", len(m.Heads()))
	}
	// In a history that does not fork, the blocks of one author are a line.
	mine := map[uint64]int{}
	for _, b := range m.sent {
		mine[b.Height]++
		elements, err := b.Elements()
		if err != nil || len(elements) != 1 {
			t.Errorf("a block of %d writes, %v", len(elements), err)
		}
	}
	for h, n := range mine {
		if n > 1 {
			t.Errorf("%d own blocks at height %d", n, h)
		}
	}
	if again := m.crashed(); len(again.table) != 82 {
		t.Errorf("rebuilds to %d states, want 82", len(again.table))
	}
}

// By itself: every head of the first payload that an empty replica sees becomes
// a head of its own, those that others build on too.
func TestTrapFirstDeliveryMakesFalseHeads(t *testing.T) {
	a, b := start(t, "m1", t.TempDir()), start(t, "m2", t.TempDir())
	for i := range 5 {
		a.write("n", seen(int64(i+1)))
		b.write("o", seen(int64(i+1)))
	}
	blocks := append(a.all(), b.all()...)
	for name, list := range map[string][]dag.Block{
		"a line":     a.all(),
		"two lines":  blocks,
		"interwoven": slices.SortedFunc(slices.Values(blocks), func(x, y dag.Block) int { return int(x.Height) - int(y.Height) }),
	} {
		m := start(t, "m3", t.TempDir())
		if err := m.take(list...); err != nil {
			t.Fatal(err)
		}
		for _, m := range []*master{m, m.crashed()} {
			if got := sorted(m.Heads()); !slices.Equal(got, heads(list)) {
				t.Errorf("%s: heads %v, want %v", name, got, heads(list))
			}
		}
		m.write("p", seen(1))
		if len(m.Heads()) != 1 || len(m.sent[0].Links) != len(heads(list)) {
			t.Errorf("%s: the next block builds on %v", name, m.sent[0].Links)
		}
	}
}

// By itself: nothing. But a value that cannot be read has a place in the
// history, so its block is kept and passed on, and the rest of it is applied.
func TestUnreadableValuesAreKeptAndPassedOver(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	b := block(t, &pb.Delta{Priority: 1, Elements: []*pb.Element{
		{Key: "/nx/m9", Value: []byte("of a newer schema")},
		put("n", "m9", seen(1)),
	}})
	if err := m.take(b); err != nil || len(m.table) != 1 {
		t.Errorf("holds %v, %v", m.table, err)
	}
	if again := m.crashed(); len(again.table) != 1 || !slices.Equal(again.Heads(), m.Heads()) {
		t.Errorf("rebuilds to %v", again.table)
	}
}
