package preservation

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

const (
	endingVersion = 1   // of the file
	maxBy         = 256 // bytes of who ended it
)

// ending is that an operator has ended preservation: nodes that are silent since before it
// are dead, and their silence begins no other preservation. All masters take the
// last one, whether they preserve anything or not: from the operator, from each other's
// pulses, and from their disk after a start. It is a last-writer-wins register.
type ending struct {
	stamp  record.Stamp
	master string // that the operator has asked
	by     string
	at     time.Time // when, by the monotonic clock
}

// prevails reports whether an ending takes the place of another.
func (e *ending) prevails(over *ending) bool {
	return over == nil || cmp.Or(e.stamp.Compare(over.stamp), cmp.Compare(e.master, over.master)) > 0
}

// counts is for how long an ending counts. After that the records tell which nodes were
// dead before a start.
func (p *Preserver) counts() time.Duration {
	return 2*p.cfg.Checkpoint + most*p.cfg.OfflineAfter
}

// dead is for how long a node must have been silent to be dead by an operator's ending;
// false: none counts. A node that was not heard in this run is dead by it, too.
func (p *Preserver) dead(now time.Time) (silence time.Duration, ok bool) {
	e := p.ended.Load()
	if e == nil || now.Sub(e.at) > p.counts() {
		return 0, false
	}
	return now.Sub(e.at), true
}

// End is what an operator asks this master for: the silent nodes are dead. by says who asks,
// through by which other master, if any, as text to append.
func (p *Preserver) End(by, through string) {
	now := time.Now()
	p.mu.Lock()
	var above record.Stamp
	if e := p.ended.Load(); e != nil {
		above = e.stamp
	}
	e := &ending{record.Next(p.cfg.Wall().UnixMilli(), above), p.cfg.Self, by[:min(len(by), maxBy)], now}
	p.take(now, e, by+through)
	p.mu.Unlock()
	p.save(e)
}

// take has an ending prevail. by is who is shown to have done it. The caller holds mu.
func (p *Preserver) take(now time.Time, e *ending, by string) {
	p.ended.Store(e)
	if was := p.state.Load(); was != nil && was.began.Before(e.at) && !now.Before(was.least) {
		p.end(now, was.Late, was.Of, "an operator says so", by)
	}
}

// Learn takes the ending that another master publishes in its pulses; nil: it publishes
// none. What it returns, if anything, keeps it over a restart.
func (p *Preserver) Learn(now time.Time, from string, published *liveness.Ended) (save func()) {
	if published == nil || published.Age > p.counts() || len(published.Master) > maxBy {
		return nil
	}
	e := &ending{
		record.Stamp{Wall: published.Wall, Logical: published.Logical}, published.Master,
		published.By[:min(len(published.By), maxBy)], now.Add(-published.Age),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !e.prevails(p.ended.Load()) {
		return nil
	}
	p.take(now, e, e.by+" through "+from)
	return func() { p.save(e) }
}

// Ending is what pulses publish of the ending that counts; nil: none does.
func (p *Preserver) Ending(now time.Time) *liveness.Ended {
	if _, ok := p.dead(now); !ok {
		return nil
	}
	e := p.ended.Load()
	return &liveness.Ended{Wall: e.stamp.Wall, Logical: e.stamp.Logical, Master: e.master, By: e.by, Age: now.Sub(e.at)}
}

// savedEnding is what the file holds.
type savedEnding struct {
	Version int       `json:"version"`
	Wall    int64     `json:"wall"`
	Logical uint32    `json:"logical"`
	Master  string    `json:"master"`
	By      string    `json:"by"`
	Ended   time.Time `json:"ended"` // by this master's clock
}

// save writes an ending to the file, so that it outlives a restart. Where that cannot be,
// the other masters publish it in time.
func (p *Preserver) save(e *ending) {
	b, err := json.Marshal(savedEnding{endingVersion, e.stamp.Wall, e.stamp.Logical, e.master, e.by, p.cfg.Wall().Add(-time.Since(e.at)).UTC().Round(0)})
	if err == nil {
		err = atomicfile.Write(p.cfg.Path, append(b, '\n'))
	}
	if err != nil {
		p.cfg.Logger.Warn("the end of preservation is not kept over a restart", "err", err)
	}
}

// loadEnding takes the ending of an earlier run. A clock that has gone back makes it
// younger than it is, never older.
func (p *Preserver) loadEnding() error {
	var saved savedEnding
	switch _, err := atomicfile.ReadJSON(p.cfg.Path, endingVersion, &saved); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, atomicfile.ErrNewer):
		return fmt.Errorf("end of preservation: %s: %w", p.cfg.Path, err)
	case err != nil:
		// At worst silent nodes are suspect for a while, as if nobody had ended it.
		p.cfg.Logger.Warn("cannot read who ended preservation", "file", p.cfg.Path, "err", err)
		return nil
	}
	age := max(p.cfg.Wall().Sub(saved.Ended), 0)
	p.ended.Store(&ending{record.Stamp{Wall: saved.Wall, Logical: saved.Logical}, saved.Master, saved.By, p.cfg.Began.Add(-age)})
	return nil
}
