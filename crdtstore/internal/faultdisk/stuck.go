package faultdisk

import (
	"strings"
	"sync"
)

// Stuck hangs in operations on some paths, for as long as it is told to. Its Before is for
// a [Hook].
type Stuck struct {
	mu       sync.Mutex // guards what follows
	op, path string
	freed    chan struct{} // nil: none hangs
	hit      chan struct{} // closed when one does
}

// Before waits if the operation hangs.
func (d *Stuck) Before(op, path string) {
	d.mu.Lock()
	wait := d.freed
	if d.op != "" && d.op != op || !strings.HasSuffix(path, d.path) && (!strings.HasSuffix(d.path, "/") || !strings.Contains(path, d.path)) {
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

// Hangs begins to hang in an operation, "" for all, on paths that end as given, or that
// contain it where it ends in a slash. It returns a channel that is closed when somebody
// waits.
func (d *Stuck) Hangs(op, path string) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.op, d.path, d.freed, d.hit = op, path, make(chan struct{}), make(chan struct{})
	return d.hit
}

// Frees lets everything go on.
func (d *Stuck) Frees() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.freed != nil {
		close(d.freed)
		d.freed = nil
	}
}
