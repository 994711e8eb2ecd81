package ops

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"sync"
)

var (
	errDead = errors.New("the process is dead")
	errDisk = errors.New("input/output error")
)

// memDisk is a disk that fails on demand, and that knows what of it outlives a
// power cut.
type memDisk struct {
	mu     sync.Mutex
	names  map[string]*inode   // as processes see them
	stable map[string]*inode   // as they are after a power cut
	since  []map[string]*inode // what names were since, one a change

	steps    int  // writes, syncs and the like so far
	dieAt    int  // at this step the process dies in the middle of it; 0: never
	dead     bool // all it does is in vain
	failing  int  // how many further steps fail
	failures int  // how many did
}

type inode struct {
	data   []byte
	synced int  // bytes that a power cut leaves alone
	spoilt bool // a sync failed: the next ones lie
}

func newMemDisk() *memDisk {
	return &memDisk{names: map[string]*inode{}, stable: map[string]*inode{}}
}

// step is called at every step, with d.mu held. part: the process dies in the
// middle of this one.
func (d *memDisk) step() (part bool, err error) {
	if d.dead {
		return false, errDead
	}
	if d.steps++; d.steps == d.dieAt {
		d.dead = true
		return true, errDead
	}
	if d.failing > 0 {
		d.failing--
		d.failures++
		return true, errDisk
	}
	return false, nil
}

// restart is a new process after the old one was killed.
func (d *memDisk) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead, d.dieAt, d.failing = false, 0, 0
}

// powerCut loses what was not on stable storage, wholly or in parts.
func (d *memDisk) powerCut(r *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead, d.dieAt, d.failing = false, 0, 0
	if n := r.IntN(len(d.since) + 1); n > 0 {
		d.stable = d.since[n-1]
	}
	d.names, d.since = maps.Clone(d.stable), nil
	for _, i := range d.names {
		i.data = i.data[:i.synced+r.IntN(len(i.data)-i.synced+1)]
		const page = 16
		for p := i.synced; p < len(i.data); p += page { // written out of order
			if r.IntN(3) == 0 {
				clear(i.data[p:min(p+page, len(i.data))])
			}
		}
		i.synced, i.spoilt = len(i.data), false
	}
}

// renamed notes that names have changed.
func (d *memDisk) renamed() { d.since = append(d.since, maps.Clone(d.names)) }

func (d *memDisk) read(path string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.names[path]
	if i == nil {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(i.data), nil
}

func (d *memDisk) create(path string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.step(); err != nil {
		return nil, err
	}
	i := new(inode)
	d.names[path] = i
	d.renamed()
	return &memFile{d, i}, nil
}

func (d *memDisk) link(old, new string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.step(); err != nil {
		return err
	}
	if d.names[new] != nil {
		return fs.ErrExist
	}
	d.names[new] = d.names[old]
	d.renamed()
	return nil
}

func (d *memDisk) rename(old, new string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.step(); err != nil {
		return err
	}
	d.names[new] = d.names[old]
	delete(d.names, old)
	d.renamed()
	return nil
}

func (d *memDisk) remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.step(); err != nil {
		return err
	}
	delete(d.names, path)
	d.renamed()
	return nil
}

func (d *memDisk) syncDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.step(); err != nil {
		return err
	}
	d.stable, d.since = maps.Clone(d.names), nil
	return nil
}

type memFile struct {
	d *memDisk
	i *inode
}

func (f *memFile) Write(b []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	part, err := f.d.step()
	if err != nil && !part {
		return 0, err
	}
	if part {
		b = b[:len(b)/2]
	}
	f.i.data = append(f.i.data, b...)
	return len(b), err
}

func (f *memFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if part, err := f.d.step(); err != nil {
		if part && err == errDisk { //nolint:errorlint // it is that very one
			f.i.spoilt = true
		}
		return err
	}
	if !f.i.spoilt {
		f.i.synced = len(f.i.data)
	}
	return nil
}

func (f *memFile) Close() error { return nil }
