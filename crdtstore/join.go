package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

// joiningFile says that a master which began with nothing, beside others that may have
// something, is not whole yet. So it goes on where it was after a restart.
type joiningFile struct {
	path  string
	exist bool // when the store was opened
}

// beginJoining is to be called before the history is opened. A master without peers has
// nobody to look for.
func beginJoining(dir string, alone bool) (joiningFile, error) {
	f := joiningFile{path: filepath.Join(dir, "joining")}
	_, err := os.Stat(filepath.Join(dir, "epochs"))
	if isNew := errors.Is(err, fs.ErrNotExist); isNew && !alone {
		if err := atomicfile.Write(f.path, []byte("The records of the other masters are not all here yet.\n")); err != nil {
			return f, fmt.Errorf("data directory: %w", err)
		}
	}
	_, err = os.Stat(f.path)
	f.exist = err == nil
	return f, nil
}

// joining returns how far this master is with fetching what the others have, and
// whether it is still at it.
func (s *Store) joining() (stats.Joining, bool) {
	j, active := s.replica.Joining()
	_, nodes := s.table.Digest()
	return stats.Joining{Nodes: nodes, Of: max(j.Of, nodes), Missing: nonNil(j.Missing)}, active
}

// whyJoining is what Health says of a master that is not whole.
func (s *Store) whyJoining() error {
	j, active := s.joining()
	if !active {
		return nil
	}
	text := fmt.Sprintf("%d of %d nodes", j.Nodes, j.Of)
	if len(j.Missing) > 0 {
		names := make([]string, len(j.Missing))
		for i, id := range j.Missing {
			names[i] = s.nameOf(id)
		}
		text += ", not all of those of " + strings.Join(names, ", ")
	}
	if s.cluster != nil {
		if why := s.cluster.Mesh().Replaced(); why != "" {
			text += "; refused by " + why
		}
	}
	if aside := s.history.SetAside(); len(aside) > 0 {
		text += "; the history was damaged and is set aside as " + strings.Join(aside, " and ")
	}
	return fmt.Errorf("%w: %s", ErrJoining, text)
}

// endJoining ends the joining if this master is whole.
func (s *Store) endJoining() {
	peers := replica.SomeMissing
	if s.cluster != nil {
		peers = s.cluster.Sought()
	}
	ended, reached := s.replica.EndJoining(peers)
	switch {
	case !ended:
	case reached:
		s.noteWhole("the records of the other masters are here")
	default:
		s.noteWhole("no other master can be reached, serving without what they may have")
	}
}

// noteWhole notes down that the joining has ended, for the reason that is given.
func (s *Store) noteWhole(why string) {
	// When the file stays, the next start joins once more.
	err := s.history.Completed()
	if e := os.Remove(s.joiningFile.path); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	if err != nil {
		s.log.Warn("cannot note down that the records of the others are here", "err", err)
	}
	s.events.Live(s.table.All())
	_, nodes := s.table.Digest()
	s.log.Info(why, "nodes", nodes, "took", time.Since(s.since).Round(time.Millisecond))
}

// watchJoining ends the joining where nothing that is heard does, and logs how far it is.
func (s *Store) watchJoining(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := -1
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.endJoining()
		switch p, active := s.joining(); {
		case !active:
			return
		case p.Of > 0 && p.Nodes != last:
			last = p.Nodes
			s.log.Info("fetching the records of the other masters", "nodes", p.Nodes, "of", p.Of)
		}
	}
}
