package crdtstore

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

const (
	// endingFile is where a master keeps the last ending, below the data directory.
	endingFile    = "preservation.json"
	endingVersion = 1
	maxEndedBy    = 256 // bytes of who ended it
)

// ending is that an operator has ended preservation: nodes that are silent since before it
// are dead, and their silence begins no other preservation. All masters take the
// last one, whether they preserve anything or not: from the operator, from each other's
// pulses, and from their disk after a start. It is a last-writer-wins register.
type ending struct {
	stamp  record.Stamp
	master string // that an operator has said it to
	by     string
	at     time.Time // when, by the monotonic clock
}

// prevails reports whether an ending takes the place of another.
func (e *ending) prevails(over *ending) bool {
	return over == nil || cmp.Or(e.stamp.Compare(over.stamp), cmp.Compare(e.master, over.master)) > 0
}

// endedFor is for how long it counts that preservation was ended. After that the records
// tell which nodes were dead before a start.
func (s *Store) endedFor() time.Duration {
	return 2*s.cfg.Checkpoint + preserveTimes*s.cfg.OfflineAfter
}

// dead is for how long a node must have been silent to be dead by an operator's ending;
// false: none counts. A node that was not heard in this run is dead by it, too.
func (s *Store) dead(now time.Time) (silence time.Duration, ok bool) {
	e := s.preserver.ended.Load()
	if e == nil || now.Sub(e.at) > s.endedFor() {
		return 0, false
	}
	return now.Sub(e.at), true
}

// endNow is an ending at this moment, which prevails over what is known.
func (s *Store) endNow(now time.Time, by string) *ending {
	var above record.Stamp
	if e := s.preserver.ended.Load(); e != nil {
		above = e.stamp
	}
	return &ending{record.Next(s.cfg.wall(), above), s.text, by[:min(len(by), maxEndedBy)], now}
}

// end takes an ending, and reports whether it prevails. by is who is said to have done it.
func (s *Store) end(now time.Time, e *ending, by string) bool {
	p := &s.preserver
	p.mu.Lock()
	defer p.mu.Unlock()
	if !e.prevails(p.ended.Load()) {
		return false
	}
	p.ended.Store(e)
	if was := p.state.Load(); was != nil && was.began.Before(e.at) && !now.Before(was.least) {
		s.endPreserving(now, was.Late, was.Of, "an operator says so", by)
	}
	return true
}

// endedElsewhere takes an ending that another master tells of in its pulses. What it
// returns, if anything, keeps it over a restart.
func (s *Store) endedElsewhere(now time.Time, from string, m *liveness.Ended) (save func()) {
	if m == nil || m.Age > s.endedFor() || len(m.Master) > maxEndedBy {
		return nil
	}
	e := &ending{record.Stamp{Wall: m.Wall, Logical: m.Logical}, m.Master, m.By[:min(len(m.By), maxEndedBy)], now.Add(-m.Age)}
	if !s.end(now, e, e.by+" through "+from) {
		return nil
	}
	return func() { s.saveEnding(e) }
}

// endingToPublish is what pulses tell of the ending that counts; nil: none does.
func (s *Store) endingToPublish(now time.Time) *liveness.Ended {
	if _, ok := s.dead(now); !ok {
		return nil
	}
	e := s.preserver.ended.Load()
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

// saveEnding writes an ending down, so that it outlives a restart. Where that cannot be,
// the other masters tell of it in time.
func (s *Store) saveEnding(e *ending) {
	b, err := json.Marshal(savedEnding{endingVersion, e.stamp.Wall, e.stamp.Logical, e.master, e.by, s.cfg.seams.Wall().Add(-time.Since(e.at)).UTC().Round(0)})
	if err == nil {
		err = atomicfile.Write(filepath.Join(s.cfg.Dir, endingFile), append(b, '\n'))
	}
	if err != nil {
		s.log.Warn("the end of preservation is not kept over a restart", "err", err)
	}
}

// loadEnding takes the ending of an earlier run. A clock that has gone back makes it
// younger than it is, never older.
func (s *Store) loadEnding() error {
	path := filepath.Join(s.cfg.Dir, endingFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = atomicfile.CheckVersion(b, endingVersion)
	}
	if errors.Is(err, atomicfile.ErrNewer) {
		return fmt.Errorf("end of preservation: %s: %w", path, err)
	}
	var saved savedEnding
	if err == nil {
		err = json.Unmarshal(b, &saved)
	}
	if err != nil {
		// At worst silent nodes are suspect for a while, as if nobody had said anything.
		s.log.Warn("cannot read who ended preservation", "file", path, "err", err)
		return nil
	}
	age := max(s.cfg.seams.Wall().Sub(saved.Ended), 0)
	s.preserver.ended.Store(&ending{record.Stamp{Wall: saved.Wall, Logical: saved.Logical}, saved.Master, saved.By, s.since.Add(-age)})
	return nil
}
