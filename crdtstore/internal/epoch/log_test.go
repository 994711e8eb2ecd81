package epoch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	pb "github.com/ipfs/go-ds-crdt/pb"
	ipld "github.com/ipfs/go-ipld-format"
	"google.golang.org/protobuf/proto"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// master is a log with what a store keeps around it: the join of everything it
// was handed, and the blocks that it announced.
type master struct {
	*Log
	t      testing.TB
	id     string
	dir    string
	mu     sync.Mutex
	sent   []dag.Block
	number atomic.Uint64 // the epoch that blocks should be announced for
	// table is the join of all states that were applied or written.
	table map[string]record.State
}

func start(t testing.TB, id, dir string) *master {
	t.Helper()
	m, err := tryStart(t, Options{Dir: dir, Master: id, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tryStart(t testing.TB, o Options) (*master, error) {
	m := &master{t: t, id: o.Master, dir: o.Dir, table: map[string]record.State{}}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Apply = func(node string, s record.State) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.table[node] = record.Join(m.table[node], s)
	}
	o.Announce = func(number uint64, blocks []dag.Block) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if number != m.number.Load() {
			t.Errorf("announced for epoch %d, want %d", number, m.number.Load())
		}
		m.sent = append(m.sent, blocks...)
	}
	var err error
	if m.Log, err = Open(t.Context(), o); err != nil {
		return nil, err
	}
	m.number.Store(m.Number())
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return m, nil
}

// reopen opens the same directory again, after a close in good order.
func (m *master) reopen() *master {
	m.t.Helper()
	if err := m.Close(); err != nil {
		m.t.Fatal(err)
	}
	again, err := tryStart(m.t, Options{Dir: m.dir, Master: m.id, NoSync: m.opts.NoSync, Elsewhere: m.opts.Elsewhere})
	if err != nil {
		m.t.Fatal(err)
	}
	return again
}

// crashed opens what a master would find on disk whose power fails now, after
// the last flush has reached stable storage.
func (m *master) crashed() *master {
	m.t.Helper()
	return start(m.t, m.id, m.image())
}

// image copies the directory as it is.
func (m *master) image() string {
	m.t.Helper()
	dir := m.t.TempDir()
	for _, n := range m.old { // closed, so nobody writes there
		if err := os.CopyFS(epochPath(dir, n), os.DirFS(epochPath(m.dir, n))); err != nil {
			m.t.Fatal(err)
		}
	}
	// Pebble works on its files in the background, so it has to make the copy.
	to := epochPath(dir, m.cur.number)
	if err := m.cur.base.DB.Checkpoint(to, pebble.WithFlushedWAL()); err != nil {
		m.t.Fatal(err)
	}
	header, err := os.ReadFile(filepath.Join(m.cur.path, "epoch.json"))
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "epoch.json"), header, 0o600)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return dir
}

// write joins a state into a node and puts the result, as a store does.
func (m *master) write(node string, news record.State) {
	m.t.Helper()
	m.mu.Lock()
	s := record.Join(m.table[node], news)
	m.table[node] = s
	m.mu.Unlock()
	if err := m.Put(m.t.Context(), []Write{{node, s}}); err != nil {
		m.t.Fatalf("put %s: %v", node, err)
	}
}

func (m *master) take(blocks ...dag.Block) error {
	return m.Deliver(m.t.Context(), m.Number(), blocks)
}

// all returns every block that is here, each behind those it builds on.
func (m *master) all() []dag.Block {
	m.t.Helper()
	seen := map[cid.Cid]dag.Block{}
	for queue := m.Heads(); len(queue) > 0; queue = queue[1:] {
		if _, ok := seen[queue[0]]; ok {
			continue
		}
		b, err := m.Block(m.t.Context(), queue[0])
		if err != nil {
			m.t.Fatal(err)
		}
		seen[b.Cid] = b
		queue = append(queue, b.Links...)
	}
	return slices.SortedFunc(maps.Values(seen), func(a, b dag.Block) int {
		return cmp.Or(cmp.Compare(a.Height, b.Height), bytes.Compare(a.Cid.Bytes(), b.Cid.Bytes()))
	})
}

// heads are the blocks that no other of the given ones links to.
func heads(blocks []dag.Block) []cid.Cid {
	built := map[cid.Cid]bool{}
	for _, b := range blocks {
		for _, l := range b.Links {
			built[l] = true
		}
	}
	var out []cid.Cid
	for _, b := range blocks {
		if !built[b.Cid] {
			out = append(out, b.Cid)
		}
	}
	return sorted(out)
}

func sorted(cids []cid.Cid) []cid.Cid {
	slices.SortFunc(cids, func(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
	return cids
}

func equalTables(a, b map[string]record.State) bool { return maps.EqualFunc(a, b, record.State.Equal) }

func seen(at int64) record.State { return record.State{LastSeen: at} }

// account is what a node says of itself at a version; who tells accounts apart.
func account(boot, seq uint64, who string) record.State {
	r := record.Report{NodeID: "n", Boot: boot, Seq: seq}
	r.Hostname = who
	s, err := record.Accept(record.State{}, r, record.Acceptance{Now: 1000})
	if err != nil {
		panic(err)
	}
	return s
}

func TestPutAndReopen(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	if heads := m.Heads(); len(heads) != 0 || m.Number() != 1 {
		t.Fatalf("a new log is at epoch %d with heads %v", m.Number(), heads)
	}
	for i := range 20 {
		m.write(fmt.Sprintf("n%d", i%7), seen(int64(i+1)))
	}
	m.write("..", seen(99))
	want, blocks := m.table, m.all()
	if len(m.sent) != 21 || len(blocks) != 21 {
		t.Errorf("%d blocks announced, %d here, want 21", len(m.sent), len(blocks))
	}
	crashed := m.crashed()
	for name, again := range map[string]*master{"crashed": crashed, "reopened": m.reopen()} {
		if !equalTables(again.table, want) {
			t.Errorf("%s: holds %v, want %v", name, again.table, want)
		}
		if got := sorted(again.Heads()); !slices.Equal(got, heads(blocks)) {
			t.Errorf("%s: heads %v, want %v", name, got, heads(blocks))
		}
		again.write("n0", seen(1000)) // and it goes on
		if b := again.sent[0]; b.Height != 22 {
			t.Errorf("%s: the next block is at height %d, want 22", name, b.Height)
		}
	}
}

func TestPutCutsManyWritesIntoBlocks(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	var writes []Write
	for i := range 40 {
		r := record.Report{NodeID: "n", Boot: 1, Seq: 1}
		for j := range 150 {
			r.VMs = append(r.VMs, record.VM{SID: fmt.Sprintf("%0200d", j)})
		}
		s, err := record.Accept(record.State{}, r, record.Acceptance{Now: 1})
		if err != nil {
			t.Fatal(err)
		}
		writes = append(writes, Write{fmt.Sprintf("n%02d", i), s})
	}
	if err := m.Put(t.Context(), writes); err != nil {
		t.Fatal(err)
	}
	if len(m.sent) < 4 {
		t.Errorf("1.2 MB went into %d blocks", len(m.sent))
	}
	other := start(t, "m2", t.TempDir())
	if err := other.take(m.sent...); err != nil || len(other.table) != 40 {
		t.Errorf("the other has %d nodes, %v", len(other.table), err)
	}
	for _, b := range m.sent {
		if len(b.Raw) > dag.MaxBlock {
			t.Errorf("a block has %d bytes", len(b.Raw))
		}
	}
}

func TestPutNothing(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	if err := m.Put(t.Context(), nil); err != nil || len(m.Heads()) != 0 {
		t.Error(err, m.Heads())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Put(ctx, []Write{{"a", seen(1)}}); !errors.Is(err, context.Canceled) || len(m.Heads()) != 0 {
		t.Error("a put whose caller has gone:", err, m.Heads())
	}
}

func TestDeliverTwiceChangesNothing(t *testing.T) {
	a, b := start(t, "m1", t.TempDir()), start(t, "m2", t.TempDir())
	for i := range 10 {
		a.write("n", seen(int64(i+1)))
	}
	for range 2 {
		if err := b.take(a.sent...); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(b.Heads(), a.Heads()) || !equalTables(a.table, b.table) {
			t.Errorf("heads %v and %v", a.Heads(), b.Heads())
		}
	}
	calls := len(b.all())
	if err := b.take(a.sent[5], a.sent[5], a.sent[0]); err != nil || len(b.all()) != calls {
		t.Error(err)
	}
	if err := b.take(); err != nil {
		t.Error(err)
	}
}

func TestDeliverOutOfOrderAppliesOnlyWhatHasItsPast(t *testing.T) {
	a, b := start(t, "m1", t.TempDir()), start(t, "m2", t.TempDir())
	for i := range 6 {
		a.write(fmt.Sprintf("n%d", i), seen(int64(i+1)))
	}
	s := a.sent
	for _, list := range [][]dag.Block{{s[1]}, {s[5]}, {s[3], s[2], s[1], s[0]}} {
		if err := b.take(list...); !errors.Is(err, ErrMissing) || len(b.table) != 0 || len(b.Heads()) != 0 {
			t.Fatalf("%v, %d states, heads %v", err, len(b.table), b.Heads())
		}
	}
	// Those before the gap are applied, and none behind it, whole as they are.
	if err := b.take(s[0], s[1], s[3], s[2]); !errors.Is(err, ErrMissing) {
		t.Fatal(err)
	}
	if len(b.table) != 2 || !slices.Equal(b.Heads(), []cid.Cid{s[1].Cid}) {
		t.Errorf("%d states, heads %v", len(b.table), b.Heads())
	}
	if has, err := b.Has(t.Context(), s[3].Cid); err != nil || has {
		t.Error("a block without its past is here:", has, err)
	}
	if err := b.take(s[2:]...); err != nil || !equalTables(a.table, b.table) || !slices.Equal(a.Heads(), b.Heads()) {
		t.Error("not caught up:", err)
	}
	if again := b.crashed(); !equalTables(again.table, a.table) {
		t.Errorf("after a crash: %v", again.table)
	}
}

// TestHistoriesConverge has masters write and exchange blocks in random order,
// with every kind of list that a network makes of them, with crashes between.
func TestHistoriesConverge(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			masters := make([]*master, 3)
			for i := range masters {
				masters[i] = start(t, fmt.Sprintf("m%d", i), t.TempDir())
			}
			for range 60 {
				m := masters[rnd.IntN(len(masters))]
				from := masters[rnd.IntN(len(masters))]
				node := fmt.Sprintf("n%d", rnd.IntN(5))
				switch rnd.IntN(10) {
				case 0, 1, 2, 3:
					m.write(node, seen(rnd.Int64N(1000)))
				case 4:
					m.write(node, m.table[node].Set(rnd.Int64N(100), m.id, "", record.FieldDrain, fmt.Sprint(rnd.IntN(3))))
				case 5, 6: // a transfer that breaks off
					list := from.all()
					if err := m.take(list[:rnd.IntN(len(list)+1)]...); err != nil {
						t.Fatal(err)
					}
				case 7: // announcements out of order, twice, or with gaps
					list := from.all()
					rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
					if err := m.take(list...); err != nil && !errors.Is(err, ErrMissing) {
						t.Fatal(err)
					}
				case 8:
					if err := m.take(from.all()...); err != nil {
						t.Fatal(err)
					}
				case 9:
					i := slices.Index(masters, m)
					before := m.table
					masters[i] = m.reopen()
					if !equalTables(before, masters[i].table) {
						t.Fatalf("%s held %v, after reopening %v", m.id, before, masters[i].table)
					}
				}
			}
			for range 2 {
				for _, m := range masters {
					for _, from := range masters {
						if err := m.take(from.all()...); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			first := masters[0]
			for _, m := range masters {
				blocks := m.all()
				if got := sorted(m.Heads()); !slices.Equal(got, heads(blocks)) {
					t.Errorf("%s has the heads %v, want %v", m.id, got, heads(blocks))
				}
				if !slices.Equal(sorted(m.Heads()), sorted(first.Heads())) || !equalTables(m.table, first.table) {
					t.Errorf("%s holds %v, %s holds %v", m.id, m.table, first.id, first.table)
				}
				if again := m.crashed(); !equalTables(again.table, first.table) {
					t.Errorf("%s rebuilds to %v, want %v", m.id, again.table, first.table)
				}
			}
		})
	}
}

// TestLostTail is INV-5: a master that lost what it had written last, and that
// others have, writes at lower heights than its own older blocks, or at greater ones
// and knows less. What it wrote before and since must stand all the same, on every
// disk.
func TestLostTail(t *testing.T) {
	dir := t.TempDir()
	a, b := start(t, "m1", dir), start(t, "m2", t.TempDir())
	for i := range 3 {
		a.write("n", account(1, uint64(i+1), "early"))
	}
	a = a.reopen()
	backup := a.image()
	for i := range 10 { // many, so that the lost blocks stand high
		a.write("n", account(1, uint64(i+4), "lost"))
		a.write("other", seen(int64(i+1)))
	}
	if err := b.take(a.all()...); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	a = start(t, "m1", backup)
	a.write("n", account(2, 1, "newest"))
	for range 30 { // until it stands higher than what it has lost
		a.write("other", record.State{})
	}
	if err := b.take(a.all()...); err != nil {
		t.Fatal(err)
	}
	if again := b.crashed(); !equalTables(again.table, b.table) || again.table["other"].LastSeen != 10 {
		t.Errorf("b holds %v, and rebuilds to %v", b.table, again.table)
	}
	if err := a.take(b.all()...); err != nil {
		t.Fatal(err)
	}
	if err := b.take(a.all()...); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*master{a, b, a.crashed(), b.crashed()} {
		if owner, _ := m.table["n"].Owner(); owner.Latest() != (record.Version{Boot: 2, Seq: 1}) {
			t.Errorf("%s: n stands at %v", m.id, owner.Latest())
		}
		if m.table["other"].LastSeen != 10 {
			t.Errorf("%s: other is %v, the lost tail did not come back", m.id, m.table["other"])
		}
		if !equalTables(m.table, a.table) || !slices.Equal(m.Heads(), a.Heads()) {
			t.Errorf("%s differs: %v", m.id, m.table)
		}
	}
}

// TestCrashBeforeFlush drops what was staged and not yet written down.
func TestCrashBeforeFlush(t *testing.T) {
	a, b := start(t, "m1", t.TempDir()), start(t, "m2", t.TempDir())
	a.write("n", seen(1))
	if err := b.take(a.all()...); err != nil {
		t.Fatal(err)
	}
	disk := &flaky{Batching: b.cur.staged.base, fail: atCommit}
	b.cur.staged.base = disk
	if err := b.Put(t.Context(), []Write{{"mine", seen(5)}}); !errors.Is(err, errDisk) {
		t.Fatal("put:", err)
	}
	a.write("n", seen(2))
	if err := b.Deliver(t.Context(), b.Number(), a.all()); !errors.Is(err, errDisk) {
		t.Fatal("deliver:", err)
	}
	if b.Health() == nil {
		t.Error("a log that cannot write says that it is well")
	}
	if len(b.sent) != 0 {
		t.Error("a block was announced that is not on disk")
	}
	crashed := b.crashed()
	disk.fail = fine // for the close of the one that lives on
	if want := map[string]record.State{"n": seen(1)}; !equalTables(crashed.table, want) {
		t.Errorf("after the crash: %v, want %v", crashed.table, want)
	}
	if got := sorted(crashed.Heads()); !slices.Equal(got, heads(crashed.all())) || len(crashed.all()) != 1 {
		t.Errorf("after the crash: heads %v of %d blocks", got, len(crashed.all()))
	}
	if err := crashed.take(a.all()...); err != nil || crashed.table["n"].LastSeen != 2 {
		t.Errorf("the crashed master does not catch up: %v, %v", crashed.table, err)
	}
	crashed.write("mine", seen(6))
	if again := crashed.crashed(); again.table["mine"].LastSeen != 6 || again.table["n"].LastSeen != 2 {
		t.Errorf("after all: %v", again.table)
	}
}

// TestDiskComesBack is the other way out: nothing that was put is lost, and the
// next put that succeeds announces it.
func TestDiskComesBack(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	m.write("n", seen(1))
	disk := &flaky{Batching: m.cur.staged.base, fail: atCommit}
	m.cur.staged.base = disk
	if err := m.Put(t.Context(), []Write{{"n", seen(2)}, {"o", seen(3)}}); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	disk.fail = fine
	m.write("p", seen(4))
	if err := m.Health(); err != nil {
		t.Error("still failing:", err)
	}
	want := map[string]record.State{"n": seen(2), "o": seen(3), "p": seen(4)}
	if again := m.crashed(); !equalTables(again.table, want) {
		t.Errorf("on disk is %v, want %v", again.table, want)
	}
	other := start(t, "m2", t.TempDir())
	if err := other.take(m.sent...); err != nil || !equalTables(other.table, want) {
		t.Errorf("what was announced gives %v, %v", other.table, err)
	}
}

func TestCloseIsTheEnd(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	m.write("n", seen(1))
	blocks := m.all()
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := m.Put(t.Context(), []Write{{"n", seen(2)}}); !errors.Is(err, ErrClosed) {
		t.Error("put:", err)
	}
	if err := m.Deliver(t.Context(), m.Number(), blocks); !errors.Is(err, ErrClosed) {
		t.Error("deliver:", err)
	}
}

func TestOpenRefusesWhatItCannotUse(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: file, Master: "m", Logger: slog.New(slog.DiscardHandler), Apply: func(string, record.State) {}}
	if _, err := Open(t.Context(), o); err == nil {
		t.Error("a file was opened as a directory")
	}
	m := start(t, "m1", t.TempDir())
	o.Dir = m.dir
	if l, err := Open(t.Context(), o); err == nil {
		t.Error("a directory that is in use was opened twice", l.Close())
	}
}

func TestOpenTakesTheNewestEpoch(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []uint64{2, 7} {
		if err := (opener{dir: dir, number: n, fs: vfs.Default, log: slog.New(slog.DiscardHandler)}).create(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "not-an-epoch"), 0o700); err != nil {
		t.Fatal(err)
	}
	if n, err := numbers(vfs.Default, dir); err != nil || !slices.Equal(n, []uint64{2, 7}) {
		t.Errorf("the epochs are %v, %v", n, err)
	}
	if n, err := numbers(vfs.Default, filepath.Join(dir, "missing")); err != nil || len(n) != 0 {
		t.Errorf("where there is none: %v, %v", n, err)
	}
	if l := start(t, "m1", dir); l.Number() != 7 || l.Stats().Old != 1 {
		t.Errorf("opened %+v", l.Stats())
	}
}

// block makes a block that this package would not make.
func block(t testing.TB, d *pb.Delta, links ...cid.Cid) dag.Block {
	t.Helper()
	b, err := parse(t, d, links...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, d *pb.Delta, links ...cid.Cid) (dag.Block, error) {
	t.Helper()
	data, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	n := merkledag.NodeWithData(data)
	for _, l := range links {
		if err := n.AddRawLink("", &ipld.Link{Cid: l}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
		t.Fatal(err)
	}
	return dag.Parse(n.RawData())
}

// broadcast is what go-ds-crdt says of its heads.
func broadcast(t testing.TB, heads ...cid.Cid) []byte {
	t.Helper()
	var msg pb.CRDTBroadcast
	for _, c := range heads {
		msg.Heads = append(msg.Heads, &pb.Head{Cid: c.Bytes()})
	}
	b, err := proto.Marshal(&msg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func put(node, master string, s record.State) *pb.Element {
	return &pb.Element{Key: stateKey(node, master).String(), Value: s.Encode()}
}
