package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/atomicfile"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
)

// joinPatience is how long a new master looks for the others before it serves what
// it has, which is nothing: they may all be new, or gone.
const joinPatience = 5 * time.Second

// Joining is how far a new master is with fetching what the others have.
type Joining struct {
	Nodes int `json:"nodes"` // that are here
	Of    int `json:"of"`    // that another master has
}

// join is the state of a master that began with nothing beside others that may have
// something. Until it has held the same as one of them it can be asked and written
// to, but Health says that others are to be preferred. That it is not done yet is
// written in a file, so that it goes on where it was after a restart.
type join struct {
	path string

	mu     sync.Mutex
	active bool
	damage string           // what was damaged and is set aside; empty: the master is new
	met    bool             // another master was heard
	of     int              // nodes, the most that a master has told of
	whole  map[peer.ID]bool // masters that are not joining themselves
}

// beginJoin is to be called before the history is opened.
func beginJoin(dir string, alone bool) (*join, error) {
	j := &join{path: filepath.Join(dir, "joining"), whole: map[peer.ID]bool{}}
	_, err := os.Stat(filepath.Join(dir, "epochs"))
	if isNew := errors.Is(err, fs.ErrNotExist); isNew && !alone {
		if err := atomicfile.Write(j.path, []byte("The records of the other masters are not all here yet.\n")); err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
	}
	_, err = os.Stat(j.path)
	j.active = err == nil
	return j, nil
}

// again is to be called with the epochs that were set aside because they were
// damaged: what is left has to be completed by others like that of a new master,
// however long it takes to reach one.
func (j *join) again(aside []string) {
	if len(aside) > 0 {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.active, j.damage = true, strings.Join(aside, " and ")
	}
}

// why adds to what Health says.
func (j *join) why() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.damage == "" {
		return ""
	}
	return fmt.Sprintf("; the history was damaged and is set aside as %s", j.damage)
}

// heard notes what a master says of itself. It reports whether records are to be
// compared with it, without waiting whether the history does it.
func (j *join) heard(from peer.ID, m *liveness.MasterInfo, inSync bool) (compare, done bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.active {
		return false, false
	}
	j.met, j.of, j.whole[from] = true, max(j.of, m.Nodes), !m.Joining
	// Masters that are all new have nothing to fetch.
	if inSync && (!m.Joining || m.Nodes == 0) {
		return false, true
	}
	return !m.Joining, false
}

// has reports whether another master has all records.
func (j *join) has(id peer.ID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.whole[id]
}

func (j *join) progress() (of int, active bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.of, j.active
}

// Joining returns how far this master is with fetching what the others have, and
// whether it is still at it.
func (s *Store) Joining() (Joining, bool) {
	of, active := s.join.progress()
	_, nodes := s.table.Digest()
	return Joining{Nodes: nodes, Of: of}, active
}

// joined ends the joining, for the reason that is given.
func (s *Store) joined(why string, args ...any) {
	s.join.mu.Lock()
	defer s.join.mu.Unlock()
	if !s.join.active {
		return
	}
	// When the file stays, the next start waits once more for nothing.
	err := s.history.Completed()
	if e := os.Remove(s.join.path); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	if err != nil {
		s.log.Warn("cannot note down that the records of the others are here", "err", err)
	}
	s.join.active = false
	s.remember()
	_, nodes := s.table.Digest()
	s.log.Info(why, append(args, "nodes", nodes, "took", time.Since(s.since).Round(time.Millisecond))...)
}

// watchJoin tells how far the joining is, and gives up when there is nobody.
func (s *Store) watchJoin(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := -1
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.join.mu.Lock()
		met, damaged := s.join.met, s.join.damage != ""
		s.join.mu.Unlock()
		p, active := s.Joining()
		switch {
		case !active:
			return
		case !met && !damaged && time.Since(s.since) > joinPatience:
			s.joined("no other master can be reached, serving without what they may have")
		case met && p.Nodes != last:
			last = p.Nodes
			s.log.Info("fetching the records of the other masters", "nodes", p.Nodes, "of", p.Of)
		}
	}
}
