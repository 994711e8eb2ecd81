package epoch

import (
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// hooked is a file system that calls a function before everything that changes the
// disk, with the name of the operation and the path.
type hooked struct {
	vfs.FS
	before func(op, path string)
}

type hookedFile struct {
	vfs.File
	before func(op, path string)
	path   string
}

func (h hooked) file(op, path string, do func() (vfs.File, error)) (vfs.File, error) {
	h.before(op, path)
	f, err := do()
	if err != nil {
		return nil, err
	}
	return hookedFile{f, h.before, path}, nil
}

func (h hooked) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return h.file("create", name, func() (vfs.File, error) { return h.FS.Create(name, c) })
}

func (h hooked) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return h.file("create", name, func() (vfs.File, error) { return h.FS.ReuseForWrite(old, name, c) })
}

func (h hooked) OpenDir(name string) (vfs.File, error) {
	f, err := h.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return hookedFile{f, h.before, name}, nil
}

func (h hooked) Link(old, name string) error {
	h.before("link", name)
	return h.FS.Link(old, name)
}

func (h hooked) Rename(old, name string) error {
	h.before("rename", old)
	return h.FS.Rename(old, name)
}

func (h hooked) Remove(name string) error {
	h.before("remove", name)
	return h.FS.Remove(name)
}

func (h hooked) RemoveAll(name string) error {
	h.before("removeall", name)
	return h.FS.RemoveAll(name)
}

func (f hookedFile) Write(p []byte) (int, error) {
	f.before("write", f.path)
	return f.File.Write(p)
}

func (f hookedFile) Sync() error {
	f.before("sync", f.path)
	return f.File.Sync()
}

func (f hookedFile) SyncData() error {
	f.before("sync", f.path)
	return f.File.SyncData()
}

func (f hookedFile) SyncTo(n int64) (bool, error) {
	f.before("sync", f.path)
	return f.File.SyncTo(n)
}

// stuckDisk hangs in every operation on a path of which the end, or what follows a
// slash, is a given one, for as long as it is told to.
type stuckDisk struct {
	mu       sync.Mutex
	op, path string
	freed    chan struct{} // nil: none hangs
	hit      chan struct{} // closed when one does
}

func (d *stuckDisk) before(op, path string) {
	d.mu.Lock()
	wait := d.freed
	if d.op != op || !strings.HasSuffix(path, d.path) && (!strings.HasSuffix(d.path, "/") || !strings.Contains(path, d.path)) {
		wait = nil
	}
	if wait != nil && d.hit != nil {
		close(d.hit)
		d.hit = nil
	}
	d.mu.Unlock()
	if wait != nil {
		<-wait
	}
}

// hangs begins to hang, and returns a channel that is closed when somebody waits.
func (d *stuckDisk) hangs(op, path string) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.op, d.path, d.freed, d.hit = op, path, make(chan struct{}), make(chan struct{})
	return d.hit
}

// frees lets everything go on.
func (d *stuckDisk) frees() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.freed != nil {
		close(d.freed)
		d.freed = nil
	}
}
