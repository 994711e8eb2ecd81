package epoch

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// worn makes a directory as a master leaves it that was killed: with tables, and with
// a write-ahead log that holds what is not in them. It returns what was acknowledged.
func worn(t *testing.T, dir string) map[string]record.State {
	t.Helper()
	disk := newBadDisk()
	m := onDisk(t, dir, disk)
	for i := range 40 {
		m.write(fmt.Sprintf("n%02d", i), account(1, uint64(i+1), "in a table"))
		if i%10 == 9 && i < 30 {
			if err := m.cur.base.DB.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.write("n00", account(1, 99, "in the log"))
	want := maps.Clone(m.table)
	disk.breaks(0, syscall.EIO) // as kill -9 does: nothing that was written is lost
	_ = m.Close()
	return want
}

// files are those of the only epoch below a directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := fs.WalkDir(os.DirFS(epochPath(dir, 1)), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// stem is what an error has to say of a file's name: Pebble knows its tables by
// number, and of a marker that is missing only the kind is known.
func stem(name string) string {
	if marker, ok := strings.CutPrefix(name, "marker."); ok {
		return "marker." + strings.SplitN(marker, ".", 2)[0]
	}
	return strings.TrimSuffix(filepath.Base(name), ".sst")
}

// TestDamageIsFound damages every file of an epoch in turn, and then reads it: either
// all is there, or Open says what is damaged.
func TestDamageIsFound(t *testing.T) {
	dir := t.TempDir()
	want := worn(t, dir)
	damages := map[string]func(b []byte) []byte{
		"missing":   nil,
		"empty":     func([]byte) []byte { return nil },
		"cut short": func(b []byte) []byte { return b[:len(b)*2/3] },
		"zeroed":    func(b []byte) []byte { clear(b[len(b)/3 : len(b)/2]); return b },
	}
	steps := 8
	if testing.Short() {
		steps = 3
	}
	for i := range steps {
		damages[fmt.Sprintf("flipped at %d/%d", i, steps)] = func(b []byte) []byte {
			if len(b) > 0 {
				b[i*len(b)/steps] ^= 0x10
			}
			return b
		}
	}
	found, healed := 0, 0
	for _, name := range files(t, dir) {
		for what, change := range damages {
			to := t.TempDir()
			if err := os.CopyFS(epochPath(to, 1), os.DirFS(epochPath(dir, 1))); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(epochPath(to, 1), name)
			b, err := os.ReadFile(path)
			if err == nil && change == nil {
				err = os.Remove(path)
			} else if err == nil {
				err = os.WriteFile(path, change(slices.Clone(b)), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			m, err := tryStart(t, Options{Dir: to, Master: "m1"})
			switch {
			case errors.Is(err, ErrDamaged):
				found++
				if !strings.Contains(err.Error(), epochPath(to, 1)) || !strings.Contains(err.Error(), "docs/operating.md") {
					t.Errorf("%s %s: %v", name, what, err)
				}
				if !strings.Contains(err.Error(), stem(name)) {
					t.Errorf("%s %s is not named: %v", name, what, err)
				}
			case err != nil:
				t.Errorf("%s %s: not said to be damaged: %v", name, what, err)
			default:
				if !equalTables(m.table, want) {
					t.Errorf("%s %s: opened with %d nodes of %d, n00 %d", name, what, len(m.table), len(want), len(m.table["n00"].Claims))
				}
				healed++
				if err := m.Close(); err != nil {
					t.Logf("%s %s: closing: %v", name, what, err)
				}
			}
		}
	}
	t.Logf("%d damages, %d found, %d did no harm", found+healed, found, healed)
}

// TestDamageIsSetAside: where other masters have the records, what can be read of a
// damaged epoch is taken, and the rest comes from them.
func TestDamageIsSetAside(t *testing.T) {
	dir := t.TempDir()
	want := worn(t, dir)
	other := start(t, "m2", t.TempDir())
	before := onDisk(t, clone(t, dir), newBadDisk())
	if err := other.take(before.all()...); err != nil {
		t.Fatal(err)
	}
	for round := range 2 { // the second finds the directory of the first
		for _, name := range files(t, dir) {
			if filepath.Ext(name) == ".log" && filepath.Dir(name) != sumsDir {
				damageFile(t, filepath.Join(epochPath(dir, 1), name))
			}
		}
		m, err := tryStart(t, Options{Dir: dir, Master: "m1", Elsewhere: true})
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 && len(m.table) < 20 {
			t.Errorf("only %d nodes were read, of 30 in tables", len(m.table))
		}
		if got := m.SetAside(); len(got) != 1 || m.Reopened() != 1 || m.Number() != 1 {
			t.Fatalf("set aside %q, reopened %d, epoch %d", got, m.Reopened(), m.Number())
		} else if kept, err := os.ReadDir(got[0]); err != nil || len(kept) < 5 {
			t.Errorf("kept are %v, %v", kept, err)
		}
		m = m.reopen() // before anything was put right: it is read again
		if round == 0 && (len(m.table) < 20 || len(m.SetAside()) != 1) {
			t.Errorf("reopened: %d nodes, set aside %q", len(m.table), m.SetAside())
		}
		if err := m.take(other.all()...); err != nil {
			t.Fatal(err)
		}
		m.recover()
		if err := m.Completed(); err != nil {
			t.Fatal(err)
		}
		for node, s := range want {
			if !m.table[node].Equal(s) {
				t.Errorf("round %d: %s is %+v", round, node, m.table[node])
			}
		}
		whole(t, m)
		if m = m.reopen(); len(m.SetAside()) != 0 || m.Reopened() != 0 {
			t.Errorf("complete, and still waiting for %q", m.SetAside())
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(epochPath(dir, 1), "000004.log"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(sumPath(vfs.Default, filepath.Join(epochPath(dir, 1), "000004.log")), encodeSum(0, 1, 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSalvage reads what is left of an epoch whose table is damaged in one place.
func TestSalvage(t *testing.T) {
	m := onDisk(t, t.TempDir(), newBadDisk())
	var writes []Write
	for i := range 2000 {
		node := fmt.Sprintf("n%04d", i)
		m.table[node] = account(1, uint64(i+1), "x")
		writes = append(writes, Write{node, m.table[node]})
	}
	if err := m.Put(t.Context(), writes); err != nil {
		t.Fatal(err)
	}
	want := m.table
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range files(t, m.dir) {
		if path := filepath.Join(epochPath(m.dir, 1), name); filepath.Ext(name) == ".sst" {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)*13/20] ^= 1 // among the values
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	m, err := tryStart(t, Options{Dir: m.dir, Master: "m1", Elsewhere: true})
	if err != nil {
		t.Fatal(err)
	}
	for node, s := range m.table {
		if !want[node].Equal(s) {
			t.Errorf("%s is %+v, which nobody has written", node, s)
		}
	}
	if n := len(m.table); n == 0 || n == len(want) || len(m.SetAside()) != 1 {
		t.Errorf("%d of %d nodes, set aside %q", n, len(want), m.SetAside())
	}
}

// TestDamageWhileRunning damages a table under a running log. It is not shipped, and
// a new epoch takes all that is known.
func TestDamageWhileRunning(t *testing.T) {
	m := onDisk(t, t.TempDir(), newBadDisk())
	for i := range 50 {
		m.write(fmt.Sprintf("n%02d", i), account(1, uint64(i+1), "x"))
	}
	blocks := m.all()
	if err := m.cur.base.DB.Flush(); err != nil { // into a table that nobody has read
		t.Fatal(err)
	}
	for _, name := range files(t, m.dir) {
		if filepath.Ext(name) == ".sst" {
			damageFile(t, filepath.Join(epochPath(m.dir, 1), name))
		}
	}
	bad := 0
	for _, b := range blocks {
		got, err := m.Block(t.Context(), b.Cid)
		if err != nil {
			bad++
		} else if !slices.Equal(got.Raw, b.Raw) {
			t.Errorf("%s reads as something else", b.Cid)
		}
	}
	if err := m.Health(); bad == 0 || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), ".sst") {
		t.Fatalf("%d blocks are damaged, health %v", bad, err)
	}
	if err := m.Put(t.Context(), []Write{{"n00", seen(1)}}); !errors.Is(err, ErrDamaged) {
		t.Error("put:", err)
	}
	if _, err := m.Missing(t.Context(), maps.All(m.table)); err == nil {
		t.Error("a damaged epoch is counted on")
	}
	m.adopt(2)
	m.recover()
	if err := m.Retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := maps.Clone(m.table)
	if again := m.reopen(); !equalTables(again.table, want) || len(want) != 50 {
		t.Errorf("holds %d nodes of %d", len(again.table), len(want))
	}
}

// TestWrongBlock: what passes Pebble's checks and is not what its name says stays
// here.
func TestWrongBlock(t *testing.T) {
	m := start(t, "m1", t.TempDir())
	m.write("n", seen(1))
	m.write("n", seen(2))
	blocks := m.all()
	if err := m.cur.base.Put(t.Context(), blockKey(blocks[0].Cid), blocks[1].Raw); err != nil {
		t.Fatal(err)
	}
	if b, err := m.Block(t.Context(), blocks[0].Cid); !errors.Is(err, ErrDamaged) {
		t.Errorf("%s is %s, %v", blocks[0].Cid, b.Cid, err)
	}
	if !errors.Is(m.Health(), ErrDamaged) {
		t.Error("health:", m.Health())
	}
}

// clone copies a directory in which nobody writes.
func clone(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// damageFile flips a bit in every 512 bytes of a file, where it is.
func damageFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < info.Size(); at += 512 {
		b := make([]byte, 1)
		if _, err = f.ReadAt(b, at); err == nil {
			b[0] ^= 0x40
			_, err = f.WriteAt(b, at)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestSumsVouchForWhatWasSynced: a sum that is torn, or whose file was never begun,
// is no damage.
func TestSumsVouchForWhatWasSynced(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, sumsDir), 0o700); err != nil {
		t.Fatal(err)
	}
	good := encodeSum(0, 5, crc32.Checksum([]byte("hello"), castagnoli))
	for _, c := range []struct {
		name, file string // "-": none
		sums       []byte
		damaged    bool
	}{
		{"as written", "hello", good, false},
		{"more was written", "hello, world", good, false},
		{"nothing was synced", "hello", nil, false},
		{"torn", "help", good[:20], false},
		{"zeroed", "help", make([]byte, sumSize), false},
		{"no file, and nothing of it was synced", "-", nil, false},
		{"no file", "-", good, true},
		{"cut short", "hell", good, true},
		{"another byte", "hallo", good, true},
		{"damaged behind a torn sum", "hallo", append(make([]byte, sumSize), good...), true},
		{"recycled", "hello and what a log before it has left", good, false},
	} {
		path := filepath.Join(dir, "000004.log")
		_ = os.Remove(path)
		err := os.WriteFile(sumPath(vfs.Default, path), c.sums, 0o600)
		if err == nil && c.file != "-" {
			err = os.WriteFile(path, []byte(c.file), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(vfs.Default, dir); errors.Is(err, ErrDamaged) != c.damaged || err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestSumsFollowTheLogs: logs are made, used again and deleted, and sums with them.
func TestSumsFollowTheLogs(t *testing.T) {
	for seed := range uint64(4) {
		rnd, dir := rand.New(rand.NewPCG(seed, 3)), t.TempDir()
		for range 5 {
			bad := newBadDisk()
			bad.keepsSums = rnd.IntN(2) == 0
			g := &failStopFS{FS: bad}
			db, err := pebble.Open(dir, &pebble.Options{FS: g, MemTableSize: 32 << 10, Logger: pebbleLogger{slog.New(slog.DiscardHandler)}})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 200 + rnd.IntN(400) {
				if err := db.Set(fmt.Append(nil, i), make([]byte, rnd.IntN(2000)), &pebble.WriteOptions{Sync: i%3 == 0}); err != nil {
					t.Fatal(err)
				}
			}
			if rnd.IntN(3) > 0 {
				bad.powerOff()
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if err := verify(vfs.Default, dir); err != nil {
				t.Fatal(err)
			}
			sums, err := os.ReadDir(filepath.Join(dir, sumsDir))
			if err != nil || len(sums) < 2 || len(sums) > 12 {
				t.Errorf("%d files of sums, %v", len(sums), err)
			}
		}
	}
}
