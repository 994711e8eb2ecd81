package faultdisk

import (
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Hook returns a file system that calls a function before everything that changes the
// disk: with "create", "link", "rename", "remove", "removeall", "write" or "sync", and the
// path, which is the old one of a rename.
func Hook(disk vfs.FS, before func(op, path string)) vfs.FS { return hooked{disk, before} }

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
