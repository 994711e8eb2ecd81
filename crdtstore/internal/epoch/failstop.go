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

// failStopFS is the file system of one open epoch. Pebble cannot live with an error when
// it writes: it panics or calls for the end of the process, in goroutines of its
// own, with locks held. So it is shown none. At the first write, sync or rename
// that fails, the file system stops: nothing reaches the disk any more, what is written
// from then on goes to memory, and every write succeeds. The database can then be
// closed in good order, and the directory be opened again.
//
// Nothing is lost by that as long as nobody believes a database whose file system has stopped:
// whoever writes asks err after the sync, and only then takes it for done. It
// stops before the failed call returns, so a sync that covers a failed write, or
// comes behind one, is never taken for good. And as a sync that failed is not tried
// again, it does not matter that the kernel forgets the pages that it could not
// write: what the file really holds shows when it is opened again.
type failStopFS struct {
	vfs.FS
	readOnly bool
	onFail   func(error) // called once, from Pebble's goroutines: it must not block

	failure atomic.Pointer[error]
	once    sync.Once
	shadow  *vfs.MemFS // what is written after the failure
}

// err returns the failure that stopped the file system; nil: none.
func (d *failStopFS) err() error {
	if err := d.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (d *failStopFS) fail(err error) {
	if d.failure.CompareAndSwap(nil, &err) && d.onFail != nil {
		d.onFail(err)
	}
}

// shadowFS is where files are made after the failure.
func (d *failStopFS) shadowFS(name string) vfs.FS {
	d.once.Do(func() { d.shadow = vfs.NewMem() })
	_ = d.shadow.MkdirAll(d.PathDir(name), 0o700) // in memory, so it cannot fail
	return d.shadow
}

// shadowOf returns the file system in memory when a failure has put a file there, else nil.
func (d *failStopFS) shadowOf(name string) vfs.FS {
	if d.err() != nil {
		if m := d.shadowFS(name); has(m, name) {
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
func (d *failStopFS) create(name string, category vfs.DiskWriteCategory, make func() (vfs.File, error)) (vfs.File, error) {
	if d.err() == nil {
		f, err := make()
		if err == nil {
			var noted *sums
			if summed(d.PathBase(name)) {
				noted, err = newSums(d.FS, name)
			}
			if err == nil {
				return failStopFile{f, d, noted}, nil
			}
			_ = f.Close()
		}
		d.fail(err)
	}
	return d.shadowFS(name).Create(name, category)
}

// change does what changes the directory; after the failure nothing is done.
func (d *failStopFS) change(do func() error) error {
	if d.err() == nil {
		if err := do(); err != nil {
			d.fail(err)
		}
	}
	return nil
}

func (d *failStopFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.create(name, category, func() (vfs.File, error) { return d.FS.Create(name, category) })
}

func (d *failStopFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.create(newname, category, func() (vfs.File, error) {
		if err := forgetSums(d.FS, oldname); err != nil {
			return nil, err
		}
		return d.FS.ReuseForWrite(oldname, newname, category)
	})
}

func (d *failStopFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return d.create(name, category, func() (vfs.File, error) { return d.FS.OpenReadWrite(name, category, opts...) })
}

func (d *failStopFS) Link(oldname, newname string) error {
	return d.change(func() error { return d.FS.Link(oldname, newname) })
}

func (d *failStopFS) Rename(oldname, newname string) error {
	if m := d.shadowOf(oldname); m != nil {
		return m.Rename(oldname, newname)
	}
	return d.change(func() error { return d.FS.Rename(oldname, newname) })
}

// Remove may fail: Pebble only wants to save space by it.
func (d *failStopFS) Remove(name string) error {
	if d.err() != nil {
		return nil
	}
	if summed(d.PathBase(name)) {
		if err := forgetSums(d.FS, name); err != nil {
			return err
		}
	}
	return d.FS.Remove(name)
}

func (d *failStopFS) RemoveAll(name string) error {
	if d.err() != nil {
		return nil
	}
	return d.FS.RemoveAll(name)
}

func (d *failStopFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if m := d.shadowOf(name); m != nil {
		return m.Open(name, opts...)
	}
	if strings.HasPrefix(d.PathBase(name), "OPTIONS-") {
		// The options of the run before only tell Pebble whether it can read the
		// files, which this program always wrote with the same ones.
		return vfs.NewMemFile(nil), nil
	}
	return d.FS.Open(name, opts...)
}

func (d *failStopFS) OpenDir(name string) (vfs.File, error) {
	dir, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return failStopFile{dir, d, nil}, nil
}

func (d *failStopFS) Stat(name string) (vfs.FileInfo, error) {
	if m := d.shadowOf(name); m != nil {
		return m.Stat(name)
	}
	return d.FS.Stat(name)
}

func (d *failStopFS) List(dir string) ([]string, error) {
	names, err := d.FS.List(dir)
	if d.err() != nil {
		more, _ := d.shadowFS(d.PathJoin(dir, "x")).List(dir)
		names = append(names, more...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	return names, err
}

// Lock keeps other processes away. A database that is only read needs none, and a
// disk that cannot be written to does not give one.
func (d *failStopFS) Lock(name string) (io.Closer, error) {
	if d.readOnly {
		return io.NopCloser(nil), nil
	}
	return d.FS.Lock(name)
}

func (d *failStopFS) Unwrap() vfs.FS { return d.FS }

// failStopFile is a file or a directory that is written to.
type failStopFile struct {
	vfs.File
	fs    *failStopFS
	noted *sums // nil: none are kept
}

// write does what writes; it succeeds.
func (f failStopFile) write(do func() error) error { return f.fs.change(do) }

func (f failStopFile) Write(p []byte) (int, error) {
	return len(p), f.write(func() error {
		if f.noted != nil {
			f.noted.wrote(p) // before Write, which may change p
		}
		_, err := f.File.Write(p)
		return err
	})
}

func (f failStopFile) WriteAt(p []byte, at int64) (int, error) {
	return len(p), f.write(func() error {
		_, err := f.File.WriteAt(p, at)
		return err
	})
}

func (f failStopFile) Sync() error     { return f.sync(f.File.Sync) }
func (f failStopFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f failStopFile) sync(do func() error) error {
	return f.write(func() error {
		err := do()
		if err == nil && f.noted != nil {
			err = f.noted.synced()
		}
		return err
	})
}

func (f failStopFile) SyncTo(length int64) (full bool, err error) {
	err = f.write(func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

// Close always closes; a file system may tell only then that a write has failed.
func (f failStopFile) Close() error {
	err := f.File.Close()
	if f.noted != nil {
		err = errors.Join(err, f.noted.to.Close())
	}
	if err != nil {
		f.fs.fail(err)
	}
	return nil
}
