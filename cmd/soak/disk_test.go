//go:build soak

package soak

import (
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// disk watches what a directory takes, in real time: files are written and
// deleted while simulated time stands still.
type disk struct {
	dir  string
	live atomic.Uint64 // what the records take, as last told

	mu    sync.Mutex
	worst sample // since take was called last
}

type sample struct{ disk, live uint64 }

func (s sample) ratio() float64 {
	if s.live == 0 {
		return 0
	}
	return float64(s.disk) / float64(s.live)
}

// watch looks every few milliseconds until done is closed.
func (d *disk) watch(done <-chan struct{}) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.look()
		case <-done:
			return
		}
	}
}

func (d *disk) look() sample {
	s := sample{used(d.dir), d.live.Load()}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.ratio() > d.worst.ratio() {
		d.worst = s
	}
	return s
}

// take returns the worst that was seen since the last take.
func (d *disk) take() sample {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.worst
	d.worst = sample{}
	return w
}

// used is what the files below a directory take on the disk: the blocks that are
// allocated, as du counts.
func used(dir string) (bytes uint64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // it was deleted just now
		}
		if info, err := e.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += uint64(stat.Blocks) * 512
			}
		}
		return nil
	})
	return bytes
}
