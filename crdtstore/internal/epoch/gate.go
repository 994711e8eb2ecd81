package epoch

import (
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gate is the file system of one open epoch. Pebble cannot live with an error when
// it writes: it panics or calls for the end of the process, in goroutines of its
// own, with locks held. So it is shown none. At the first write, sync or rename
// that fails, the gate shuts: nothing reaches the disk any more, what is written
// from then on goes to memory, and every write succeeds. The database can then be
// closed in good order, and the directory be opened again.
//
// Nothing is lost by that as long as nobody believes a database whose gate is shut:
// whoever writes asks err after the sync, and only then takes it for done. The gate
// shuts before the failed call returns, so a sync that covers a failed write, or
// comes behind one, is never taken for good. And as a sync that failed is not tried
// again, it does not matter that the kernel forgets the pages that it could not
// write: what the file really holds shows when it is opened again.
type gate struct {
	vfs.FS
	readOnly bool
	shut     func(error) // called once, from Pebble's goroutines: it must not block

	failure atomic.Pointer[error]
	once    sync.Once
	memory  *vfs.MemFS // what is written behind the shut gate
}

// err returns why the gate is shut, or nil.
func (g *gate) err() error {
	if err := g.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (g *gate) fail(err error) {
	if g.failure.CompareAndSwap(nil, &err) && g.shut != nil {
		g.shut(err)
	}
}

// aside is where files are made behind the shut gate.
func (g *gate) aside(name string) vfs.FS {
	g.once.Do(func() { g.memory = vfs.NewMem() })
	_ = g.memory.MkdirAll(g.PathDir(name), 0o700) // in memory, so it cannot fail
	return g.memory
}

// beside returns the memory when the gate is shut and a file is there, else nil.
func (g *gate) beside(name string) vfs.FS {
	if g.err() != nil {
		if m := g.aside(name); has(m, name) {
			return m
		}
	}
	return nil
}

func has(in vfs.FS, name string) bool {
	_, err := in.Stat(name)
	return err == nil
}

// create makes a file by make, or in memory.
func (g *gate) create(name string, category vfs.DiskWriteCategory, make func() (vfs.File, error)) (vfs.File, error) {
	if g.err() == nil {
		f, err := make()
		if err == nil {
			var noted *sums
			if summed(g.PathBase(name)) {
				noted, err = newSums(g.FS, name)
			}
			if err == nil {
				return gateFile{f, g, noted}, nil
			}
			_ = f.Close()
		}
		g.fail(err)
	}
	return g.aside(name).Create(name, category)
}

// change does what changes the directory; behind the shut gate nothing is done.
func (g *gate) change(do func() error) error {
	if g.err() == nil {
		if err := do(); err != nil {
			g.fail(err)
		}
	}
	return nil
}

func (g *gate) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.create(name, category, func() (vfs.File, error) { return g.FS.Create(name, category) })
}

func (g *gate) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return g.create(newname, category, func() (vfs.File, error) {
		if err := forgetSums(g.FS, oldname); err != nil {
			return nil, err
		}
		return g.FS.ReuseForWrite(oldname, newname, category)
	})
}

func (g *gate) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return g.create(name, category, func() (vfs.File, error) { return g.FS.OpenReadWrite(name, category, opts...) })
}

func (g *gate) Link(oldname, newname string) error {
	return g.change(func() error { return g.FS.Link(oldname, newname) })
}

func (g *gate) Rename(oldname, newname string) error {
	if m := g.beside(oldname); m != nil {
		return m.Rename(oldname, newname)
	}
	return g.change(func() error { return g.FS.Rename(oldname, newname) })
}

// Remove may fail: Pebble only wants to save space by it.
func (g *gate) Remove(name string) error {
	if g.err() != nil {
		return nil
	}
	if summed(g.PathBase(name)) {
		if err := forgetSums(g.FS, name); err != nil {
			return err
		}
	}
	return g.FS.Remove(name)
}

func (g *gate) RemoveAll(name string) error {
	if g.err() != nil {
		return nil
	}
	return g.FS.RemoveAll(name)
}

func (g *gate) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if m := g.beside(name); m != nil {
		return m.Open(name, opts...)
	}
	if strings.HasPrefix(g.PathBase(name), "OPTIONS-") {
		// The options of the run before only tell Pebble whether it can read the
		// files, which this program always wrote with the same ones.
		return vfs.NewMemFile(nil), nil
	}
	return g.FS.Open(name, opts...)
}

func (g *gate) OpenDir(name string) (vfs.File, error) {
	d, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return gateFile{d, g, nil}, nil
}

func (g *gate) Stat(name string) (vfs.FileInfo, error) {
	if m := g.beside(name); m != nil {
		return m.Stat(name)
	}
	return g.FS.Stat(name)
}

func (g *gate) List(dir string) ([]string, error) {
	names, err := g.FS.List(dir)
	if g.err() != nil {
		more, _ := g.aside(g.PathJoin(dir, "x")).List(dir)
		names = append(names, more...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	return names, err
}

// Lock keeps other processes away. A database that is only read needs none, and a
// disk that cannot be written to does not give one.
func (g *gate) Lock(name string) (io.Closer, error) {
	if g.readOnly {
		return io.NopCloser(nil), nil
	}
	return g.FS.Lock(name)
}

func (g *gate) Unwrap() vfs.FS { return g.FS }

// gateFile is a file or a directory that is written to.
type gateFile struct {
	vfs.File
	g     *gate
	noted *sums // nil: none are kept
}

// write does what writes; it succeeds.
func (f gateFile) write(do func() error) error { return f.g.change(do) }

func (f gateFile) Write(p []byte) (int, error) {
	return len(p), f.write(func() error {
		if f.noted != nil {
			f.noted.wrote(p) // before Write, which may change p
		}
		_, err := f.File.Write(p)
		return err
	})
}

func (f gateFile) WriteAt(p []byte, at int64) (int, error) {
	return len(p), f.write(func() error {
		_, err := f.File.WriteAt(p, at)
		return err
	})
}

func (f gateFile) Sync() error     { return f.sync(f.File.Sync) }
func (f gateFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f gateFile) sync(do func() error) error {
	return f.write(func() error {
		err := do()
		if err == nil && f.noted != nil {
			err = f.noted.synced()
		}
		return err
	})
}

func (f gateFile) SyncTo(length int64) (full bool, err error) {
	err = f.write(func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

// Close always closes; a file system may tell only then that a write has failed.
func (f gateFile) Close() error {
	err := f.File.Close()
	if f.noted != nil {
		err = errors.Join(err, f.noted.to.Close())
	}
	if err != nil {
		f.g.fail(err)
	}
	return nil
}
