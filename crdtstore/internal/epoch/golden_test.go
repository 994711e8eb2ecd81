package epoch

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/golden"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

func TestGoldenHeader(t *testing.T) {
	e := &epoch{fs: vfs.Default, number: 7, path: t.TempDir(), created: time.Date(2025, 10, 9, 8, 53, 20, 0, time.UTC)}
	e.cutoff.Store(1_740_000_000_000)
	if err := e.writeHeader(); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(filepath.Join(e.path, headerFile))
	if err != nil {
		t.Fatal(err)
	}
	kept := golden.Text(t, headerFile, string(written))
	if err := os.WriteFile(filepath.Join(e.path, headerFile), []byte(kept), 0o600); err != nil {
		t.Fatal(err)
	}
	again := &epoch{fs: vfs.Default, number: 7, path: e.path}
	if err := again.readHeader(); err != nil || !again.created.Equal(e.created) || again.cutoff.Load() != e.cutoff.Load() {
		t.Errorf("the kept file reads as %v, %d, %v", again.created, again.cutoff.Load(), err)
	}
}

// Under which keys a node's states are kept.
func TestGoldenKeys(t *testing.T) {
	var text strings.Builder
	nodes := []string{"node-1", "..", "a:b_c.D", someMaster}
	for i, node := range nodes {
		text.WriteString(StateKey(node, Writer(someMaster, uint32(i)<<28|0x2a)) + "\n")
	}
	for i, key := range strings.Fields(golden.Text(t, "keys", text.String())) {
		if node, writer, ok := SplitKey(key); !ok || node != nodes[i] || writer != Writer(someMaster, uint32(i)<<28|0x2a) {
			t.Errorf("%s is split into %q and %q", key, node, writer)
		}
	}
}

func TestGoldenSums(t *testing.T) {
	var lines []golden.Line
	for _, sum := range []struct {
		start, end int64
		crc        uint32
		note       string
	}{{0, 32768, 0xe3069283, "the first sync"}, {32768, 1 << 33, 0x8a9136aa, "the next"}} {
		lines = append(lines, golden.Line{Bytes: encodeSum(sum.start, sum.end, sum.crc), Note: sum.note})
	}
	kept := golden.Check(t, "sums", "What is noted of a file that was synced twice.", lines)
	start, end, crc, ok := decodeSum(kept[1].Bytes)
	if !ok || start != 32768 || end != 1<<33 || crc != 0x8a9136aa {
		t.Errorf("the kept sum reads as %d, %d, %x, %v", start, end, crc, ok)
	}
}

// tree returns the files below a directory, with their content.
func tree(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		list = append(list, path+"\n"+string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The directory of an epoch of a newer version is left alone, whatever else its header
// says. It is no damage, which would have it set aside.
func TestEpochOfANewerVersion(t *testing.T) {
	for _, later := range []string{
		`{"version":2,"number":1,"created":"2025-10-09T08:53:20Z"}`, `{"version":2,"number":"one"}`, `{"version":2}`,
	} {
		dir := t.TempDir()
		m := start(t, "m1", dir)
		m.write("n", seen(1))
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(epochPath(dir, 1), headerFile), []byte(later), 0o600); err != nil {
			t.Fatal(err)
		}
		before := tree(t, dir)
		for _, elsewhere := range []bool{false, true} {
			_, err := tryStart(t, Options{Dir: dir, Master: "m1", Elsewhere: elsewhere})
			if !errors.Is(err, atomicfile.ErrNewer) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), headerFile) {
				t.Errorf("%s: opening fails with %v", later, err)
			}
		}
		if !slices.Equal(tree(t, dir), before) {
			t.Errorf("%s: files were changed", later)
		}
	}
}

// later is a value as a newer program might write it, a state or a list.
var later = append([]byte{max(record.SchemaVersion, seenVersion) + 1}, "of a later version"...)

// newerKeys are the keys of the values that have versions, of a master's writing.
func newerKeys(writer string) []string {
	return []string{StateKey("later", Writer(writer, 1)), SeenKey(7, Writer(writer, 1))}
}

// withNewer is a log that holds a newer value.
func withNewer(t *testing.T, dir, key string) *master {
	t.Helper()
	m := start(t, "m1", dir)
	m.write("known", seen(1))
	b, err := dag.New([]dag.Element{{Key: key, Value: later}, {Key: StateKey("also", Writer("m2", 1)), Value: seen(2).Encode()}}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.take(b); err != nil {
		t.Fatal(err)
	}
	if has, err := m.Has(t.Context(), b.Cid); err != nil || !has || !m.table["also"].Equal(seen(2)) {
		t.Errorf("the block, or what can be read of it, was not taken: %v", err)
	}
	return m
}

// checkKept looks that a newer value is on disk.
func checkKept(t *testing.T, dir, key string) {
	t.Helper()
	e, err := (opener{dir: dir, number: 1, master: "m1", readOnly: true, fs: vfs.Default, log: slog.New(slog.DiscardHandler)}).open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	results, err := e.look(t.Context())
	kept := map[string]string{}
	if err == nil {
		err = e.each(t.Context(), results, func(key string, value []byte, _ bool) { kept[key] = string(value) })
	}
	if err != nil || kept[key] != string(later) {
		t.Errorf("on disk are %q, %v", kept, err)
	}
}

// A newer value that another master sends is kept until a program comes that can read
// it, whatever becomes of the epochs meanwhile.
func TestValuesOfANewerMasterAreKept(t *testing.T) {
	for _, key := range newerKeys("m2") {
		dir := t.TempDir()
		m := withNewer(t, dir, key)
		m.number.Store(2)
		if err := m.Adopt(t.Context(), 2, 0); err != nil {
			t.Fatal(err)
		}
		for node, s := range m.table {
			m.write(node, s)
		}
		for _, when := range []string{"at once", "after a restart"} {
			if missing := m.missing(); len(missing) > 0 {
				t.Fatalf("missing %q", missing)
			}
			if err := m.Retire(t.Context()); !errors.Is(err, record.ErrNewer) || m.Stats().Old != 1 {
				t.Errorf("%s: retiring the old epoch: %v, %+v", when, err, m.Stats())
			}
			m = m.reopen()
		}
		if !m.table["known"].Equal(seen(1)) {
			t.Errorf("after a restart it holds %v", m.table)
		}
		checkKept(t, dir, key)
	}
}

// What a master has written itself it must be able to read.
func TestOpenRefusesOwnValuesOfANewerVersion(t *testing.T) {
	for _, key := range newerKeys("m1") {
		dir := t.TempDir()
		m := withNewer(t, dir, key)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		for _, elsewhere := range []bool{false, true} {
			_, err := tryStart(t, Options{Dir: dir, Master: "m1", Elsewhere: elsewhere})
			if !errors.Is(err, record.ErrNewer) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), key) {
				t.Errorf("opening fails with %v", err)
			}
		}
		checkKept(t, dir, key)
	}
}

// All that is in the database of a small epoch: what go-ds-crdt keeps there, and what
// is kept beside it.
func TestGoldenDatabase(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	m.cur.writer = Writer("m1", 1)
	m.write("node-1", seen(1))
	m.write("node-2", account(1, 1, "alpha"))
	m.write("node-1", seen(2))
	if err := m.PutSeen(t.Context(), []Bucket{{Number: 7, Seen: []Seen{{"node-2", 3}}}}); err != nil {
		t.Fatal(err)
	}
	results, err := m.cur.base.Query(t.Context(), query.Query{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := results.Rest()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, e := range all {
		fmt.Fprintf(&text, "%s = %x\n", e.Key, e.Value)
	}
	want, head := m.table, m.Heads()
	want["node-2"] = record.Join(want["node-2"], seen(3))

	// What was written then is read as it was meant, and goes on from there.
	dir := t.TempDir()
	h := opener{dir: dir, number: 1, master: "m1", fs: vfs.Default, log: slog.New(slog.DiscardHandler)}
	if err := h.create(); err != nil {
		t.Fatal(err)
	}
	e := &epoch{fs: vfs.Default, number: 1, path: epochPath(dir, 1)}
	if err := e.openDisk(h, true); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(golden.Text(t, "database", text.String())) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " =")
		b, err := hex.DecodeString(strings.TrimSpace(value))
		if err = errors.Join(err, e.base.Put(t.Context(), ds.RawKey(key), b)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(e.base.Sync(t.Context(), ds.NewKey("/")), e.base.Close()); err != nil {
		t.Fatal(err)
	}
	again := start(t, "m1", dir)
	if !equalTables(again.table, want) || !slices.Equal(again.Heads(), head) || again.Stats().Entries != 4 {
		t.Errorf("the kept database reads as %v, with the heads %v and %+v", again.table, again.Heads(), again.Stats())
	}
	again.write("node-3", seen(4))
	if b := again.sent[0]; b.Height != 5 || !slices.Equal(b.Links, head) {
		t.Errorf("the next block is at height %d on %v", b.Height, b.Links)
	}
}
