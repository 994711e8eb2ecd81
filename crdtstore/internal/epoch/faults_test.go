package epoch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	pb "github.com/ipfs/go-ds-crdt/pb"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// whole checks that every block on a log is applied, and that it can go on.
func whole(t *testing.T, m *master) {
	t.Helper()
	blocks := m.all()
	if got := sorted(m.Heads()); !slices.Equal(got, heads(blocks)) {
		t.Errorf("heads %v, want %v", got, heads(blocks))
	}
	for _, b := range blocks {
		elements, err := b.Elements()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range elements {
			node, _, _ := SplitKey(e.Key)
			s, err := record.Decode(string(e.Value))
			if err != nil || !m.table[node].Dominates(s) {
				t.Errorf("a block is here whose state is not: %s, %v", e.Key, err)
			}
		}
	}
	m.write("after", seen(1))
}

func TestOpenWithAnEndedContext(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	for i := range 10 {
		m.write(fmt.Sprint(i), seen(1))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // what a select chooses is random
		l, err := Open(ctx, Options{
			Dir: m.image(), Master: "m", Logger: slog.New(slog.DiscardHandler), Apply: func(string, record.State) {},
		})
		if !errors.Is(err, context.Canceled) {
			t.Fatal("opened with a part of what is there:", err, l.Close())
		}
	}
}

func TestLeftoversAreNoEpochs(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"0000000002", "0000000009.tmp", "10", "+000000011"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := numbers(vfs.Default, dir); err != nil || !slices.Equal(all, []uint64{2}) {
		t.Errorf("the epochs are %d, %v", all, err)
	}
}

// TestCloseWhileBusy closes a log that others write to. What is on disk then is
// whole.
func TestCloseWhileBusy(t *testing.T) {
	from := start(t, "m2", t.TempDir())
	for i := range 100 {
		from.write(fmt.Sprintf("n%d", i), seen(1))
	}
	for range 5 {
		m := start(t, "m1", t.TempDir())
		var all sync.WaitGroup
		begun := make(chan struct{}, 200)
		for _, b := range from.sent {
			all.Go(func() {
				begun <- struct{}{}
				if err := m.Deliver(t.Context(), 1, []dag.Block{b}); err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrMissing) {
					t.Error(err)
				}
			})
		}
		for i := range 20 {
			all.Go(func() {
				begun <- struct{}{}
				if err := m.Put(t.Context(), []Write{{fmt.Sprint(i), seen(1)}}); err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			})
		}
		for range 60 {
			<-begun
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
		whole(t, start(t, "m1", m.dir))
	}
}

// TestBlocksThatLie hands a log what an admitted master could, but should not.
func TestBlocksThatLie(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	m.write("n", seen(1))
	past := m.all()[0]
	v0 := cid.NewCidV0(past.Cid.Hash())
	raw := cid.NewCidV1(cid.Raw, past.Cid.Hash())
	elements := func(keys ...string) []*pb.Element {
		var out []*pb.Element
		for _, k := range keys {
			out = append(out, &pb.Element{Key: k, Value: seen(9).Encode()})
		}
		return out
	}
	good := elements(stateKey("n", "m2").String())
	for name, c := range map[string]struct {
		delta *pb.Delta
		links []cid.Cid
	}{
		"height 0":               {&pb.Delta{Elements: good}, nil},
		"a root at height 2":     {&pb.Delta{Priority: 2, Elements: good}, nil},
		"the height of its past": {&pb.Delta{Priority: 1, Elements: good}, []cid.Cid{past.Cid}},
		"a height too many":      {&pb.Delta{Priority: 3, Elements: good}, []cid.Cid{past.Cid}},
		"the greatest height":    {&pb.Delta{Priority: math.MaxUint64, Elements: good}, []cid.Cid{past.Cid}},
		"a link by CID v0":       {&pb.Delta{Priority: 2, Elements: good}, []cid.Cid{v0}},
		"a link to raw bytes":    {&pb.Delta{Priority: 2, Elements: good}, []cid.Cid{raw}},
		"a key beside the keys":  {&pb.Delta{Priority: 1, Elements: elements("/../../h")}, nil},
		"a key beside the epoch": {&pb.Delta{Priority: 1, Elements: elements("/../../../../b/x")}, nil},
		"a key with a dot":       {&pb.Delta{Priority: 1, Elements: elements("/nn/.")}, nil},
		"a key that goes up":     {&pb.Delta{Priority: 1, Elements: elements("/nn/..")}, nil},
		"a key with two slashes": {&pb.Delta{Priority: 1, Elements: elements("/nn//m2")}, nil},
		"an empty key":           {&pb.Delta{Priority: 1, Elements: elements("")}, nil},
		"a good and a bad key":   {&pb.Delta{Priority: 1, Elements: elements("/nn/m2", "/../../h")}, nil},
	} {
		b, err := parse(t, c.delta, c.links...)
		if err == nil {
			err = m.Deliver(t.Context(), 1, []dag.Block{b})
		}
		if !errors.Is(err, dag.ErrBlock) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(m.table) != 1 || len(m.all()) != 1 {
		t.Errorf("holds %v in %d blocks", m.table, len(m.all()))
	}
	whole(t, m.crashed())
}

// TestBlockThatCannotBeApplied has the disk fail to read while go-ds-crdt applies
// a block, which it only logs.
func TestBlockThatCannotBeApplied(t *testing.T) {
	a, b := start(t, "m1", t.TempDir()), start(t, "m2", t.TempDir())
	a.write("n", seen(1))
	if err := b.take(a.all()...); err != nil {
		t.Fatal(err)
	}
	a.write("n", seen(2))
	a.write("n", seen(3))
	b.cur.staged.base = &flaky{Batching: b.cur.staged.base, unreadable: func(k ds.Key) bool { return strings.HasPrefix(k.String(), "/c/s/k") }}
	if err := b.take(a.all()...); !errors.Is(b.Health(), err) || err == nil {
		t.Errorf("%v, health %v", err, b.Health())
	}
	if err := b.Put(t.Context(), []Write{{"o", seen(1)}}); err == nil {
		t.Error("a broken log takes writes")
	}
	b = b.reopen()
	if len(b.all()) != 1 {
		t.Errorf("%d blocks are here, of which one is applied", len(b.all()))
	}
	if err := b.take(a.all()...); err != nil || b.table["n"].LastSeen != 3 {
		t.Errorf("does not catch up: %v, %v", b.table, err)
	}
	whole(t, b.crashed())
}

func TestPutThatFailsHalfway(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	m.write("b", seen(1))
	m.cur.staged.base = &flaky{Batching: m.cur.staged.base, unreadable: func(k ds.Key) bool { return strings.HasPrefix(k.String(), "/c/s/k/nb") }}
	if err := m.Put(t.Context(), []Write{{"a", seen(2)}, {"b", seen(2)}, {"c", seen(2)}}); err == nil {
		t.Fatal("no error")
	}
	if m.Health() == nil {
		t.Error("a broken log says that it is well")
	}
	again := m.reopen()
	if want := map[string]record.State{"b": seen(1)}; !equalTables(again.table, want) || len(again.all()) != 1 {
		t.Errorf("holds %v, want %v", again.table, want)
	}
	whole(t, again)
}

// TestNothingPilesUp delivers to a log that cannot write.
func TestNothingPilesUp(t *testing.T) {
	a, b := start(t, "m1", t.TempDir()), start(t, "m2", t.TempDir())
	for i := range 20 {
		a.write("n", seen(int64(i+1)))
	}
	disk := &flaky{Batching: b.cur.staged.base, fail: atCommit}
	b.cur.staged.base = disk
	most := 0
	for _, block := range a.sent {
		if err := b.Deliver(t.Context(), 1, []dag.Block{block}); !errors.Is(err, errDisk) {
			t.Fatal(err)
		}
		most = max(most, len(b.cur.staged.dirty))
	}
	if most != len(b.cur.staged.dirty) || most > 12 {
		t.Errorf("%d entries wait in memory", most)
	}
	disk.fail = fine
	if err := b.take(a.all()...); err != nil {
		t.Error(err)
	}
	whole(t, b.crashed())
}

// TestLongKeysCountToo writes many small states of long node ids.
func TestLongKeysCountToo(t *testing.T) {
	m := start(t, strings.Repeat("m", 52), t.TempDir())
	var writes []Write
	for i := range 12_000 {
		writes = append(writes, Write{fmt.Sprintf("%0128d", i), seen(1)})
	}
	if err := m.Put(t.Context(), writes); err != nil {
		t.Fatal(err)
	}
	for _, b := range m.sent {
		if len(b.Raw) > dag.MaxBlock/2 {
			t.Errorf("a block of %d bytes", len(b.Raw))
		}
	}
}

func TestRebroadcastsAreNotAnnounced(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	m.write("n", seen(1))
	head, err := m.Block(t.Context(), m.Heads()[0])
	if err != nil {
		t.Fatal(err)
	}
	payload := broadcast(t, head.Cid)
	if err := m.cur.broadcaster.Broadcast(t.Context(), payload); err != nil {
		t.Fatal(err)
	}
	m.write("n", seen(2))
	if len(m.sent) != 2 {
		t.Errorf("%d blocks announced, want 2", len(m.sent))
	}
}

// TestRetirementIsInterrupted finds an old epoch of which half is deleted.
func TestRetirementIsInterrupted(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	m.write("n", seen(1))
	old := m.cur.path
	if err := m.Adopt(t.Context(), 2, 0); err != nil {
		t.Fatal(err)
	}
	m.number.Store(2)
	m.write("n", seen(2))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	// As remove does, and then the machine stops.
	if err := os.Rename(old, old+retired); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(old+retired, "MANIFEST*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	again := start(t, "m1", m.dir)
	if again.table["n"].LastSeen != 2 || again.Number() != 2 {
		t.Errorf("holds %v in epoch %d", again.table, again.Number())
	}
	left, err := os.ReadDir(m.dir)
	if err != nil || len(left) != 1 {
		t.Errorf("on disk are %v, %v", left, err)
	}
	if err := again.Retire(t.Context()); err != nil {
		t.Error(err)
	}
}
