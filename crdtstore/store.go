package crdtstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Store is one master's replica of the node records. All methods may be called
// concurrently. Values that a Store returns are shared: do not modify the maps
// and slices in them.
type Store struct {
	cfg   Config
	log   *slog.Logger
	id    *identity.Identity
	text  string    // id, as text
	since time.Time // when this run began to listen

	table     *table.Table
	board     *liveness.Board
	hub       *hub
	told      told
	history   *epoch.Log
	publisher *publisher
	cluster   *cluster // nil: a single master

	adopting sync.Mutex // held while the history is turned over
	adopted  time.Time  // when this run last adopted an epoch

	cancel context.CancelFunc
	loops  sync.WaitGroup
	close  sync.Once
	closed chan struct{}
}

// Open opens the store, creating it where there is none, and starts
// replicating. It returns when the records on disk are loaded; peers are met in
// the background. ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	id, err := identity.Load(filepath.Join(cfg.Dir, "identity.key"))
	if err != nil {
		return nil, err
	}
	if cfg.Name == "" {
		cfg.Name = shortName(id.ID())
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, id: id, text: id.ID(), since: time.Now(),
		table: table.New(), board: liveness.New(id.ID()), hub: newHub(runID()),
		closed: make(chan struct{}),
	}
	var background context.Context
	background, s.cancel = context.WithCancel(context.Background())
	opened := false
	defer func() {
		if !opened {
			err = errors.Join(err, s.Close())
		}
	}()
	s.history, err = epoch.Open(ctx, epoch.Options{
		Dir: filepath.Join(cfg.Dir, "epochs"), Master: id.ID(), NoSync: cfg.NoSync, Logger: s.log,
		Apply: s.arrived, Announce: s.announce,
	})
	if err != nil {
		return nil, err
	}
	s.publisher = newPublisher(s.history.Put, s.state)
	if cfg.replicated() {
		if s.cluster, err = joinCluster(background, s); err != nil {
			return nil, err
		}
		s.cluster.start(background)
	}
	was := map[string]Status{}
	s.statuses(was) // as they are at the start, which is no news
	s.loop(background, func(ctx context.Context) { s.watchLiveness(ctx, was) })
	s.loop(background, s.checkpoint)
	s.loop(background, s.turnover)
	opened = true
	return s, nil
}

// shortName is what a master is called that was given no name.
func shortName(id string) string {
	const prefix = "12D3KooW" // common to all ed25519 peer ids
	return id[len(prefix) : len(prefix)+8]
}

func runID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

func (s *Store) loop(ctx context.Context, f func(context.Context)) {
	s.loops.Add(1)
	go func() {
		defer s.loops.Done()
		f(ctx)
	}()
}

// Close leaves the cluster, saying so to the other masters, and closes the
// files. It is idempotent and takes at most a few seconds.
func (s *Store) Close() (err error) {
	s.close.Do(func() {
		close(s.closed)
		s.hub.close()
		if s.cluster != nil {
			s.cluster.leave()
		}
		if s.publisher != nil {
			s.publisher.close()
		}
		s.cancel()
		s.loops.Wait()
		if s.cluster != nil {
			err = errors.Join(err, s.cluster.close())
		}
		if s.history != nil {
			err = errors.Join(err, s.history.Close())
		}
	})
	return err
}

// ID is this master's libp2p peer id. It is kept in Dir and never changes.
func (s *Store) ID() string { return s.text }

// Name is what people call this master.
func (s *Store) Name() string { return s.cfg.Name }

// OfflineAfter is Config.OfflineAfter as it is in force.
func (s *Store) OfflineAfter() time.Duration { return s.cfg.OfflineAfter }

// Health returns nil when the store can serve and write, else why not.
func (s *Store) Health() error {
	select {
	case <-s.closed:
		return ErrClosed
	default:
	}
	if err := s.history.Health(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

func (s *Store) state(node string) record.State {
	if e := s.table.Get(node); e != nil {
		return e.State
	}
	return record.State{}
}

// arrived takes over a state that came from disk or from another master.
func (s *Store) arrived(node string, st record.State) {
	before, after := s.table.Join(node, st.Verified(node))
	if before != after {
		s.changed(node)
	}
}

// assert joins a state of our own into the table and returns when it is on disk.
func (s *Store) assert(ctx context.Context, node string, st record.State) error {
	if err := s.Health(); err != nil {
		return err
	}
	if st.IsZero() {
		return s.publisher.settle(ctx, node)
	}
	return s.publisher.change(ctx, node, func() bool {
		before, after := s.table.Join(node, st)
		if before == after {
			return false
		}
		s.changed(node)
		return true
	})
}

func viewOf(e *table.Entry) record.Node {
	if e == nil {
		return record.Node{}
	}
	return e.Node
}

// announce sends blocks that this master has made to the others.
func (s *Store) announce(number uint64, blocks []dag.Block) {
	if s.cluster != nil {
		s.cluster.announce(number, blocks)
	}
}
