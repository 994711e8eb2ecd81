package faultdisk

import (
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Hooked is a file system that calls a function before everything that changes the
// disk: with "create", "link", "rename", "remove", "removeall", "write" or "sync", and the
// path, which is the old one of a rename.
type Hooked struct {
	vfs.FS
	Before func(op, path string)
}

type hookedFile struct {
	vfs.File
	before func(op, path string)
	path   string
}

func (h Hooked) file(op, path string, do func() (vfs.File, error)) (vfs.File, error) {
	h.Before(op, path)
	f, err := do()
	if err != nil {
		return nil, err
	}
	return hookedFile{f, h.Before, path}, nil
}

func (h Hooked) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return h.file("create", name, func() (vfs.File, error) { return h.FS.Create(name, c) })
}

func (h Hooked) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return h.file("create", name, func() (vfs.File, error) { return h.FS.ReuseForWrite(old, name, c) })
}

func (h Hooked) OpenDir(name string) (vfs.File, error) {
	f, err := h.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return hookedFile{f, h.Before, name}, nil
}

func (h Hooked) Link(old, name string) error {
	h.Before("link", name)
	return h.FS.Link(old, name)
}

func (h Hooked) Rename(old, name string) error {
	h.Before("rename", old)
	return h.FS.Rename(old, name)
}

func (h Hooked) Remove(name string) error {
	h.Before("remove", name)
	return h.FS.Remove(name)
}

func (h Hooked) RemoveAll(name string) error {
	h.Before("removeall", name)
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
