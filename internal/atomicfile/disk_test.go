package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// errDead is what the process sees of a disk whose power is cut.
var errDead = errors.New("the power is cut")

// memDisk is a disk in memory whose power can be cut at every step. It keeps what a file
// system promises, and no more: the bytes of a file up to its last sync, and the names in
// a directory as they were at its last sync.
type memDisk struct {
	root    *inode
	steps   int // changes and syncs so far
	cutAt   int // the step that does not happen any more; 0: never
	created int
}

type inode struct {
	dir    bool
	data   []byte
	synced int               // bytes of data
	names  map[string]*inode // as processes see them
	stable map[string]*inode // as they were at the last sync
}

func newDir() *inode {
	return &inode{dir: true, names: map[string]*inode{}, stable: map[string]*inode{}}
}

func newMemDisk() *memDisk { return &memDisk{root: newDir()} }

func (d *memDisk) step() error {
	if d.steps++; d.cutAt > 0 && d.steps >= d.cutAt {
		return errDead
	}
	return nil
}

// find returns the inode of a path, nil where there is none.
func (d *memDisk) find(name string) *inode {
	at := d.root
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if part != "" && at != nil {
			at = at.names[part]
		}
	}
	return at
}

// change calls f with the names of the directory of a path.
func (d *memDisk) change(name string, f func(names map[string]*inode, base string) error) error {
	if err := d.step(); err != nil {
		return err
	}
	dir := d.find(path.Dir(name))
	if dir == nil {
		return fs.ErrNotExist
	}
	return f(dir.names, path.Base(name))
}

// dirs returns all directories that are there, in a fixed order.
func (d *memDisk) dirs() (all []*inode) {
	var walk func(*inode)
	walk = func(n *inode) {
		all = append(all, n)
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			if below := n.names[name]; below.dir {
				walk(below)
			}
		}
	}
	walk(d.root)
	return all
}

// cut loses what was not synced. Of the directories whose bit is set in kept the disk has
// written the names down by itself.
func (d *memDisk) cut(kept int) {
	for i, dir := range d.dirs() {
		if kept>>i&1 == 1 {
			dir.stable = maps.Clone(dir.names)
		}
	}
	var lose func(*inode)
	lose = func(n *inode) {
		n.data = n.data[:n.synced]
		n.names = maps.Clone(n.stable)
		for _, below := range n.names {
			lose(below)
		}
	}
	lose(d.root)
	d.cutAt = 0
}

func (d *memDisk) createTemp(dir, pattern string) (file, error) {
	d.created++
	name := path.Join(dir, strings.Replace(pattern, "*", fmt.Sprint(d.created), 1))
	n := new(inode)
	err := d.change(name, func(names map[string]*inode, base string) error { names[base] = n; return nil })
	return &memFile{d, n, name}, err
}

func (d *memDisk) link(from, to string) error {
	return d.change(to, func(names map[string]*inode, base string) error {
		if names[base] != nil {
			return fs.ErrExist
		}
		names[base] = d.find(from)
		return nil
	})
}

// rename is atomic within one directory, as journals make it.
func (d *memDisk) rename(from, to string) error {
	if path.Dir(from) != path.Dir(to) {
		return errors.New("not needed")
	}
	return d.change(to, func(names map[string]*inode, base string) error {
		if names[path.Base(from)] == nil {
			return fs.ErrNotExist
		}
		names[base] = names[path.Base(from)]
		delete(names, path.Base(from))
		return nil
	})
}

func (d *memDisk) remove(name string) error {
	return d.change(name, func(names map[string]*inode, base string) error { delete(names, base); return nil })
}

func (d *memDisk) mkdir(name string, _ fs.FileMode) error {
	return d.change(name, func(names map[string]*inode, base string) error {
		if names[base] != nil {
			return fs.ErrExist
		}
		names[base] = newDir()
		return nil
	})
}

func (d *memDisk) isDir(name string) (bool, error) {
	n := d.find(name)
	if n == nil {
		return false, fs.ErrNotExist
	}
	return n.dir, nil
}

func (d *memDisk) syncDir(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	n := d.find(name)
	if n == nil {
		return fs.ErrNotExist
	}
	n.stable = maps.Clone(n.names)
	return nil
}

type memFile struct {
	d    *memDisk
	n    *inode
	name string
}

func (f *memFile) Name() string { return f.name }
func (f *memFile) Close() error { return nil }

func (f *memFile) Write(b []byte) (int, error) {
	if err := f.d.step(); err != nil {
		return 0, err
	}
	f.n.data = append(f.n.data, b...)
	return len(b), nil
}

func (f *memFile) Sync() error {
	if err := f.d.step(); err != nil {
		return err
	}
	f.n.synced = len(f.n.data)
	return nil
}
