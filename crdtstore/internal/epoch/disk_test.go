package epoch

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func TestMain(m *testing.M) {
	recoverEvery = 5 * time.Millisecond
	os.Exit(m.Run())
}

// badDisk is a file system that fails when it is told to. What was written to a
// file and not synced is gone after a sync that failed, as it is on a kernel that
// forgets the pages it could not write.
type badDisk struct {
	vfs.FS
	mu    sync.Mutex
	after int   // writes that still succeed before err
	err   error // nil: all is well
	free  uint64
	// keepsSums: of what is not synced, sums happen to survive.
	keepsSums bool
	open      map[*badFile]bool
}

func newBadDisk() *badDisk {
	return &badDisk{FS: vfs.Default, free: 1 << 40, open: map[*badFile]bool{}}
}

// breaks has every write fail from the one after the next n.
func (d *badDisk) breaks(n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.after, d.err = n, err
}

// powerOff loses what is not synced, and ends all writing.
func (d *badDisk) powerOff() {
	d.breaks(0, syscall.EIO)
	d.mu.Lock()
	defer d.mu.Unlock()
	for f := range d.open {
		f.forget()
	}
}

func (d *badDisk) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		return nil
	}
	if d.after--; d.after >= 0 {
		return nil
	}
	return d.err
}

func (d *badDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return vfs.DiskUsage{AvailBytes: d.free, TotalBytes: 1 << 41}, nil
}

func (d *badDisk) make(name string, do func() (vfs.File, error)) (vfs.File, error) {
	if err := d.failure(); err != nil {
		return nil, &os.PathError{Op: "create", Path: name, Err: err}
	}
	f, err := do()
	if err != nil {
		return nil, err
	}
	b := &badFile{File: f, d: d, name: name}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[b] = true
	return b, nil
}

func (d *badDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.make(name, func() (vfs.File, error) { return d.FS.Create(name, c) })
}

func (d *badDisk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.make(name, func() (vfs.File, error) { return d.FS.ReuseForWrite(old, name, c) })
}

func (d *badDisk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	return &badFile{File: f, d: d}, err
}

func (d *badDisk) Rename(old, name string) error {
	if err := d.failure(); err != nil {
		return err
	}
	return d.FS.Rename(old, name)
}

func (d *badDisk) Remove(name string) error {
	if err := d.failure(); err != nil {
		return err
	}
	return d.FS.Remove(name)
}

// Lock takes none: the disk is opened once, and a lock would be a write too.
func (d *badDisk) Lock(name string) (io.Closer, error) {
	if err := d.failure(); err != nil {
		return nil, err
	}
	return d.FS.Lock(name)
}

type badFile struct {
	vfs.File
	d             *badDisk
	name          string // empty: a directory
	size, durable int64
}

func (f *badFile) Write(p []byte) (int, error) {
	if err := f.d.failure(); err != nil {
		return 0, &os.PathError{Op: "write", Path: f.name, Err: err}
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	n, err := f.File.Write(p)
	f.size += int64(n)
	return n, err
}

func (f *badFile) Sync() error {
	err := f.d.failure()
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err != nil {
		f.forget()
		return &os.PathError{Op: "sync", Path: f.name, Err: err}
	}
	f.durable = f.size
	return nil
}

// forget loses what was not synced. The caller holds the lock of the disk.
func (f *badFile) forget() {
	if f.name != "" && (!f.d.keepsSums || filepath.Base(filepath.Dir(f.name)) != sumsDir) {
		_ = os.Truncate(f.name, f.durable) // or it is deleted already
	}
}

func (f *badFile) SyncData() error                      { return f.Sync() }
func (f *badFile) SyncTo(int64) (bool, error)           { return true, f.Sync() }
func (f *badFile) Preallocate(offset, size int64) error { return nil }
func (f *badFile) Close() error {
	f.d.mu.Lock()
	delete(f.d.open, f)
	f.d.mu.Unlock()
	return f.File.Close()
}

// onDisk starts a master whose writes are on stable storage when Put returns.
func onDisk(t testing.TB, dir string, d *badDisk) *master {
	t.Helper()
	m, err := tryStart(t, Options{Dir: dir, Master: "m1", FS: d})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// eventually waits for a condition that others bring about.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for range 2000 {
		if cond() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("waited in vain until", what)
}

// recover waits until the disk is written to again, and puts what it lacks, as a
// store does.
func (m *master) recover() {
	m.t.Helper()
	eventually(m.t, "the log is well", func() bool { return m.Health() == nil })
	for _, node := range m.missing() {
		m.write(node, record.State{})
	}
}

// TestNothingAcknowledgedIsLost breaks the disk at every kind of moment.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	seeds := uint64(12)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 7))
			disk, other := newBadDisk(), start(t, "m2", t.TempDir())
			disk.keepsSums = seed%2 == 0
			m := onDisk(t, t.TempDir(), disk)
			acked := map[string]record.State{}
			faults, refused := 0, 0
			put := func() {
				node := fmt.Sprintf("n%d", rnd.IntN(6))
				news := record.Join(m.table[node], seen(rnd.Int64N(1e6)))
				news.Overrides = record.Join(news, m.table[node].Set(rnd.Int64N(100), m.id, "", record.FieldDrain, fmt.Sprint(rnd.IntN(9)))).Overrides
				m.table[node] = news // as a store does, whatever the disk says
				if err := m.Put(t.Context(), []Write{{node, news}}); err != nil {
					refused++
				} else {
					acked[node] = news
				}
			}
			holds := func(when string) {
				for node, s := range acked {
					if !m.table[node].Dominates(s) {
						t.Fatalf("%s: %s was acknowledged as %+v and is %+v", when, node, s, m.table[node])
					}
				}
			}
			for range 60 {
				switch rnd.IntN(8) {
				case 0:
					disk.breaks(rnd.IntN(12), []error{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT}[rnd.IntN(4)])
					faults++
				case 1:
					other.write(fmt.Sprintf("n%d", rnd.IntN(6)), seen(rnd.Int64N(1e6)))
					_ = m.Deliver(t.Context(), 1, other.all()) // while the disk takes it
				case 2: // the disk is well again
					disk.breaks(0, nil)
					m.recover()
				case 3: // the power fails
					disk.powerOff()
					_ = m.Close() // of what is only in memory
					disk.breaks(0, nil)
					dir := m.dir
					disk = newBadDisk()
					disk.keepsSums = seed%2 == 0
					m = onDisk(t, dir, disk)
					holds("after a power failure")
				default:
					put()
				}
			}
			disk.breaks(0, nil)
			m.recover()
			put()
			want := maps.Clone(m.table)
			disk.powerOff()
			_ = m.Close()
			m = onDisk(t, m.dir, newBadDisk())
			holds("at the end")
			for node, s := range want {
				if !m.table[node].Dominates(s) {
					t.Errorf("%s was put again as %+v and is %+v", node, s, m.table[node])
				}
			}
			whole(t, m)
			t.Logf("%d faults, %d writes refused, %d nodes acknowledged", faults, refused, len(acked))
		})
	}
}

// TestDiskFails goes through one failure of each kind: refusals in bounded time,
// reads that go on, and recovery without being asked.
func TestDiskFails(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EIO} {
		t.Run(cause.Error(), func(t *testing.T) {
			disk := newBadDisk()
			m := onDisk(t, t.TempDir(), disk)
			m.write("n", seen(1))
			blocks := m.all()
			disk.breaks(0, cause)
			for range 3 {
				if err := m.Put(t.Context(), []Write{{"n", seen(2)}}); !errors.Is(err, cause) {
					t.Fatal("put:", err)
				}
			}
			if err := m.Health(); !errors.Is(err, cause) {
				t.Error("health:", err)
			}
			eventually(t, "the epoch is read only", func() bool { return m.newest().readOnly })
			if b, err := m.Block(t.Context(), blocks[0].Cid); err != nil || b.Cid != blocks[0].Cid {
				t.Error("a block cannot be read:", err)
			}
			if len(m.Heads()) != 1 {
				t.Errorf("heads %v", m.Heads())
			}
			if err := m.Deliver(t.Context(), 1, nil); !errors.Is(err, cause) {
				t.Error("deliver:", err)
			}
			if err := m.Adopt(t.Context(), 2, 0); err == nil {
				t.Error("a new epoch on a disk that takes none")
			}
			if _, err := m.Missing(t.Context(), maps.All(m.table)); err == nil {
				t.Error("what a failing disk holds was counted on")
			}
			disk.breaks(0, nil)
			eventually(t, "the log is well", func() bool { return m.Health() == nil })
			if m.Reopened() == 0 {
				t.Error("nobody is told that something may be missing")
			}
			m.write("n", seen(3))
			whole(t, m)
		})
	}
}

// TestStartOnADiskThatTakesNothing serves what is there, and goes on by itself.
func TestStartOnADiskThatTakesNothing(t *testing.T) {
	dir := t.TempDir()
	m := onDisk(t, dir, newBadDisk())
	m.write("n", seen(1))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	disk := newBadDisk()
	disk.breaks(0, syscall.EROFS)
	m = onDisk(t, dir, disk)
	if m.table["n"].LastSeen != 1 || !errors.Is(m.Health(), syscall.EROFS) {
		t.Errorf("holds %v, health %v", m.table, m.Health())
	}
	if err := m.Put(t.Context(), []Write{{"n", seen(2)}}); !errors.Is(err, syscall.EROFS) {
		t.Error("put:", err)
	}
	disk.breaks(0, nil)
	eventually(t, "the log is well", func() bool { return m.Health() == nil })
	m.write("n", seen(2))
	whole(t, m)

	disk.breaks(0, syscall.ENOSPC)
	if _, err := tryStart(t, Options{Dir: t.TempDir(), Master: "m1", FS: disk}); !errors.Is(err, syscall.ENOSPC) {
		t.Error("a first start on a full disk:", err)
	}
	disk.breaks(0, nil)
}

// TestReserve refuses writes before Pebble meets a full disk.
func TestReserve(t *testing.T) {
	disk := newBadDisk()
	m := onDisk(t, t.TempDir(), disk)
	m.write("n", seen(1))
	set := func(free uint64) {
		disk.mu.Lock()
		defer disk.mu.Unlock()
		disk.free = free
	}
	set(maxReserve - 1)
	if err := m.Put(t.Context(), []Write{{"n", seen(2)}}); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), m.dir) {
		t.Error("put:", err)
	}
	if err := m.Health(); !errors.Is(err, syscall.ENOSPC) {
		t.Error("health:", err)
	}
	if err := m.Adopt(t.Context(), 2, 0); !errors.Is(err, syscall.ENOSPC) || m.Number() != 1 {
		t.Error("adopt:", err)
	}
	set(maxReserve + 1) // not enough to be well again
	time.Sleep(2 * recoverEvery)
	if m.Health() == nil {
		t.Error("well again by a byte")
	}
	set(2 * maxReserve)
	eventually(t, "the log is well", func() bool { return m.Health() == nil })
	if m.Reopened() != 0 {
		t.Error("the epoch was opened again for want of space alone")
	}
	m.write("n", seen(3))
}

// TestFullBeforeItWasNoticed has Pebble meet a full disk first. What is told is how
// full the disk is all the same, and not the name of a file of Pebble's.
func TestFullBeforeItWasNoticed(t *testing.T) {
	disk := newBadDisk()
	m := onDisk(t, t.TempDir(), disk)
	m.write("n", seen(1))
	disk.mu.Lock()
	disk.free, disk.err = 0, syscall.ENOSPC
	disk.mu.Unlock()
	m.newest().disk.fail(syscall.ENOSPC) // a table that did not find room
	eventually(t, "it is told how full the disk is", func() bool {
		err := m.Health()
		return errors.Is(err, syscall.ENOSPC) && strings.Contains(err.Error(), "kept in reserve")
	})
	eventually(t, "the epoch is read only", func() bool { return m.newest().readOnly })
	if err := m.Health(); !strings.Contains(err.Error(), "kept in reserve") {
		t.Error("health:", err)
	}
	disk.mu.Lock()
	disk.free, disk.err = 1<<40, nil
	disk.mu.Unlock()
	eventually(t, "the log is well", func() bool { return m.Health() == nil })
	m.write("n", seen(2))
	whole(t, m)
}

// TestAnnouncedAndLost: a block is announced while the sync that fails is under way.
// It comes back from the others, and what was written since stands all the same.
func TestAnnouncedAndLost(t *testing.T) {
	disk := newBadDisk()
	m, other := onDisk(t, t.TempDir(), disk), start(t, "m2", t.TempDir())
	m.write("n", seen(1))
	announced := make(chan []dag.Block, 1)
	m.opts.Announce = func(_ uint64, blocks []dag.Block) {
		disk.breaks(0, syscall.EIO)
		announced <- blocks
	}
	m.table["n"] = seen(2)
	if err := m.Put(t.Context(), []Write{{"n", seen(2)}}); err == nil {
		t.Skip("the write was on disk before it was announced")
	}
	lost := <-announced
	m.opts.Announce = nil
	disk.breaks(0, nil)
	m.recover()
	if err := other.take(append(m.all(), lost...)...); err != nil && !errors.Is(err, ErrMissing) {
		t.Fatal(err)
	}
	if err := m.take(lost...); err != nil {
		t.Fatal(err)
	}
	m.write("n", seen(3))
	if err := other.take(m.all()...); err != nil || other.table["n"].LastSeen != 3 {
		t.Errorf("the other holds %v, %v", other.table, err)
	}
	whole(t, m)
}
