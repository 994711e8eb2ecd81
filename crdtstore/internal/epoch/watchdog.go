package epoch

import (
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// hangAfter is how long a call to the file system may take until the disk is said to
// hang. A disk that is merely slow, with seconds for each fsync and several that wait
// for each other, stays below it.
const hangAfter = 8 * time.Second

// watchdog is a file system that knows which of its calls have not returned. A call to
// a disk that hangs can be neither interrupted nor given up, so nobody may wait for
// one to learn that it hangs: oldest only looks. Calls that may take long on a healthy
// disk, because they do many things, are not counted.
type watchdog struct {
	vfs.FS
	after time.Duration

	mu      sync.Mutex // guards what follows, and the calls in it
	running map[*diskCall]struct{}
}

// diskCall is a call to the file system that has not returned.
type diskCall struct {
	op, name string
	since    time.Time
}

func newWatchdog(under vfs.FS, after time.Duration) *watchdog {
	return &watchdog{FS: under, after: after, running: map[*diskCall]struct{}{}}
}

// begin counts a call until the function that it returns is called.
func (w *watchdog) begin(op, name string) (end func()) {
	c := &diskCall{op, name, time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running[c] = struct{}{}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.running, c)
	}
}

// oldest returns the call that has taken longest; false: none is running.
func (w *watchdog) oldest() (oldest diskCall, running bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.running {
		if !running || c.since.Before(oldest.since) {
			oldest, running = *c, true
		}
	}
	return oldest, running
}

// hangs returns why the disk counts as hanging, or nil. The text is the same for as
// long as it hangs.
func (w *watchdog) hangs(dir string) error {
	c, running := w.oldest()
	if !running || time.Since(c.since) < w.after {
		return nil
	}
	return fmt.Errorf("the disk of %s %w: a %s of %s has not returned since %s",
		dir, ErrHangs, c.op, w.PathBase(c.name), c.since.UTC().Format(time.RFC3339))
}

func (w *watchdog) file(op, name string, do func() (vfs.File, error)) (vfs.File, error) {
	defer w.begin(op, name)()
	f, err := do()
	if err != nil {
		return nil, err
	}
	return watchedFile{f, w, name}, nil
}

func (w *watchdog) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return w.file("create", name, func() (vfs.File, error) { return w.FS.Create(name, c) })
}

func (w *watchdog) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return w.file("rename", newname, func() (vfs.File, error) { return w.FS.ReuseForWrite(oldname, newname, c) })
}

func (w *watchdog) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return w.file("open", name, func() (vfs.File, error) { return w.FS.OpenReadWrite(name, c, opts...) })
}

func (w *watchdog) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return w.file("open", name, func() (vfs.File, error) { return w.FS.Open(name, opts...) })
}

func (w *watchdog) OpenDir(name string) (vfs.File, error) {
	return w.file("open", name, func() (vfs.File, error) { return w.FS.OpenDir(name) })
}

func (w *watchdog) Link(oldname, newname string) error {
	defer w.begin("link", newname)()
	return w.FS.Link(oldname, newname)
}

func (w *watchdog) Rename(oldname, newname string) error {
	defer w.begin("rename", oldname)()
	return w.FS.Rename(oldname, newname)
}

func (w *watchdog) Remove(name string) error {
	defer w.begin("removal", name)()
	return w.FS.Remove(name)
}

func (w *watchdog) Unwrap() vfs.FS { return w.FS }

// watchedFile is a file or a directory whose calls are counted.
type watchedFile struct {
	vfs.File
	w    *watchdog
	name string
}

func (f watchedFile) Write(p []byte) (int, error) {
	defer f.w.begin("write", f.name)()
	return f.File.Write(p)
}

func (f watchedFile) WriteAt(p []byte, at int64) (int, error) {
	defer f.w.begin("write", f.name)()
	return f.File.WriteAt(p, at)
}

func (f watchedFile) ReadAt(p []byte, at int64) (int, error) {
	defer f.w.begin("read", f.name)()
	return f.File.ReadAt(p, at)
}

func (f watchedFile) Preallocate(offset, length int64) error {
	defer f.w.begin("preallocation", f.name)()
	return f.File.Preallocate(offset, length)
}

func (f watchedFile) Sync() error {
	defer f.w.begin("sync", f.name)()
	return f.File.Sync()
}

func (f watchedFile) SyncData() error {
	defer f.w.begin("sync", f.name)()
	return f.File.SyncData()
}

func (f watchedFile) SyncTo(length int64) (bool, error) {
	defer f.w.begin("sync", f.name)()
	return f.File.SyncTo(length)
}

func (f watchedFile) Close() error {
	defer f.w.begin("close", f.name)()
	return f.File.Close()
}
