package crdtstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/closing"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/cluster"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/conflicts"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/events"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/preservation"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/query"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/runs"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/watch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/dirlock"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/statelog"
)

// Store is one master's replica of the node records. All methods may be called
// concurrently. Maps, slices and what pointers point to in that which a Store returns are
// shared with it and with other callers, and never change: keep them as long as you
// like, and do not modify them. What is passed to a method may be modified once the call
// is back.
type Store struct {
	cfg    Config
	log    *slog.Logger
	states *statelog.Log // for what may happen again and again, by master
	id     *identity.Identity
	text   string    // id, as text
	run    string    // names this run, see p2p.Config
	since  time.Time // when this run began to listen
	// settings are what this master tells the others of its own.
	settings *liveness.Settings

	table        *table.Table
	board        *liveness.Board
	changes      *watch.Buffer[change]
	conflicts    conflicts.Senders
	preserver    *preservation.Preserver
	events       *events.Log
	splits       *events.Splits
	acknowledged query.Acknowledged
	publishing   sync.Mutex    // held from reading a node's entry until its change is published
	loading      bool          // what is on disk; under publishing
	lock         *dirlock.Lock // of cfg.Dir
	history      *epoch.Log
	replica      *replica.Replica
	members      *membership.Table // empty: a single master
	cluster      *cluster.Cluster  // nil: a single master
	collisions   *runs.Collisions
	joiningFile  joiningFile

	cancel context.CancelFunc
	loops  sync.WaitGroup
	close  sync.Once
	closed chan struct{}
}

// Open opens the store, creating it where there is none, and starts replicating. It
// returns when the records on disk are loaded; peers are met in the background. ctx
// bounds the opening only; nil: nothing does. The store must be closed.
//
// On a disk that takes no writes it opens all the same, and Health says why. Errors:
// [FieldError] for what is wrong in cfg; ErrDamaged for damaged records, unless this
// master has met others, for then it sets them aside and gets the records from these;
// those of the file system, of a directory that another process uses, and of files that
// a newer version has written.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	ctx = orBackground(ctx)
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	// Before anything in the directory is looked at: all that follows takes what it finds
	// there for its own.
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s, err := newStore(cfg)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.lock = lock
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// lockDir makes the data directory that of this store.
func lockDir(dir string) (*dirlock.Lock, error) {
	if err := atomicfile.MkdirAll(dir, 0o700); err != nil {
		return nil, &FieldError{Field: "Dir", Problem: fmt.Sprintf("%s cannot be used: %v", dir, err)}
	}
	lock, err := dirlock.Take(dir)
	if errors.Is(err, dirlock.ErrInUse) {
		return nil, fmt.Errorf("data directory %s: %w by another store, in this process or in another one; close that, or name another directory", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return lock, nil
}

// newStore makes a store that does nothing yet. It holds no resources.
func newStore(cfg Config) (*Store, error) {
	id, err := identity.Load(filepath.Join(cfg.Dir, "identity.key"))
	if err != nil {
		return nil, err
	}
	if cfg.Name == "" {
		cfg.Name = shortName(id.ID())
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, states: statelog.New(cfg.Logger), id: id, text: id.ID(), since: time.Now(),
		table: table.New(), board: liveness.New(id.ID()), changes: watch.New[change](runID()),
		cancel: func() {}, closed: make(chan struct{}), settings: cfg.ownSettings(),
	}
	s.members = s.newMembers()
	s.preserver = s.newPreserver()
	s.run = fmt.Sprintf("%016x%s", s.cfg.wall(), runID())
	s.collisions = runs.NewCollisions(s.text, s.run)
	s.makeEvents()
	s.replica = replica.New(replica.Options{
		Self: id.ID(), Table: s.table, Grid: replicaGrid{s.members, s}, Publisher: replicaPublisher{s}, Wall: cfg.wall,
		AssertDelay: assertDelay, EpochBytes: cfg.EpochBytes, EpochAge: cfg.EpochAge, Retention: cfg.Retention, Logger: s.log,
	})
	return s, nil
}

// start loads what is on disk and begins to replicate. ctx bounds the loading.
func (s *Store) start(ctx context.Context) (err error) {
	cfg := &s.cfg
	if s.joiningFile, err = beginJoining(cfg.Dir, len(cfg.Peers) == 0); err != nil {
		return err
	}
	if cfg.replicated() {
		if err := s.members.Load(); err != nil {
			return err
		}
	}
	var background context.Context
	background, s.cancel = context.WithCancel(context.Background())
	s.setLoading(true)
	s.history, err = epoch.Open(ctx, epoch.Options{
		Dir: filepath.Join(cfg.Dir, "epochs"), Master: s.text, NoSync: cfg.NoSync, Logger: s.log,
		Apply: s.arrived, Announce: s.announce, FS: cfg.seams.Disk,
		Elsewhere: len(s.members.IDs()) > 0, // masters that were met have this one's records
	})
	if err != nil {
		return err
	}
	s.setLoading(false)
	if err := s.preserver.Load(); err != nil {
		return err
	}
	s.replica.Use(s.history)
	// What is left of a damaged history has to be completed by others like that of a
	// new master, however long it takes to reach one.
	damaged := len(s.history.SetAside()) > 0
	if s.joiningFile.exist || damaged {
		s.replica.BeginJoining(damaged)
	}
	go s.replica.Run()
	if cfg.replicated() {
		if err := s.joinCluster(background); err != nil {
			return err
		}
		s.Streams().Serve(endPreservation, s.preservationEnded)
	}
	if _, joining := s.joining(); joining {
		s.events.Joining()
	} else {
		s.events.Live(s.table.All())
	}
	if s.cluster != nil {
		s.cluster.Start(background)
	}
	s.loop(background, newStatuses(s).run)
	s.loop(background, s.checkpoint)
	s.loop(background, s.events.Run)
	s.loop(background, s.turnover)
	s.loop(background, s.watchJoining)
	return nil
}

func (s *Store) setLoading(is bool) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	s.loading = is
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

// closeWithin is how long closing waits for a disk that is slow or hangs. What was
// acknowledged is on it; the rest is as after a crash. A variable, so that tests need not
// wait as long.
var closeWithin = 2500 * time.Millisecond

// Close writes down what is under way, leaves the cluster, saying so to the other
// masters, and closes the files. It takes at most a few seconds: where the disk hangs or
// is too slow it returns ErrUnavailable, and what still waits for the disk, with the lock
// of Dir, goes on until it answers. Nothing acknowledged is lost by that. Watchers, and
// writes after it, get ErrClosed. Further calls of Close do nothing.
func (s *Store) Close() (err error) {
	s.close.Do(func() {
		steps := closing.Steps{Began: time.Now(), Within: closeWithin, Busy: s.diskBusy}
		close(s.closed)
		s.changes.Close(ErrClosed)
		if s.cluster != nil {
			s.cluster.Leave()
		}
		if s.history != nil {
			err = steps.Do("write what is under way", func() error { s.replica.Close(); return nil })
		}
		s.cancel()
		err = errors.Join(err, steps.Do("end what is under way", func() error { s.loops.Wait(); return nil }))
		if s.cluster != nil {
			err = errors.Join(err, s.cluster.Close(steps.Do))
		}
		if s.history != nil {
			err = errors.Join(err, steps.Do("close the history", s.history.Close))
		}
		err = errors.Join(err, s.lock.Close()) // the last of all
	})
	return err
}

// diskBusy is for how long the disk has not answered to the call that takes longest.
func (s *Store) diskBusy() (most time.Duration) {
	if s.history != nil {
		most = s.history.Waiting()
	}
	return max(most, s.members.Waiting())
}

// SetSecret changes Config.Secret for masters that are met from now on; those that were
// met before stay. Whether there is a secret at all cannot change.
func (s *Store) SetSecret(secret string) error {
	if s.cluster == nil {
		if secret == "" {
			return nil
		}
		return errors.New("this store is a single master; a cluster secret takes a restart")
	}
	return s.cluster.Mesh().SetSecret(secret)
}

// ID is this master's libp2p peer id. It is kept in Dir and never changes.
func (s *Store) ID() string { return s.text }

// Name is what people call this master: Config.Name, or what it stands for.
func (s *Store) Name() string { return s.cfg.Name }

// OfflineAfter is Config.OfflineAfter as it is in force.
func (s *Store) OfflineAfter() time.Duration { return s.cfg.OfflineAfter }

// Health returns nil when the store should be asked, else why others are to be
// preferred: ErrClosed; ErrCollision; ErrUnavailable, when it cannot write; ErrJoining, when it is
// new and can do everything, but does not have all records yet.
func (s *Store) Health() error {
	select {
	case <-s.closed:
		return ErrClosed
	default:
	}
	if err := s.collisions.Yielded(); err != nil {
		return err
	}
	if err := s.replica.Health(); err != nil {
		return err
	}
	return s.whyJoining()
}

// pruneEvery is how often nodes are forgotten that are only known from pulses.
const pruneEvery = time.Hour

// Variables, so that tests need not wait as long.
var (
	// turnoverTick is how often a master looks whether the history has to be cut, or
	// what is left to do after it was.
	turnoverTick = 2 * time.Second
	// assertDelay is how long the masters that are responsible for records have,
	// after a new epoch was adopted, before the others assert what is missing.
	assertDelay = 10 * time.Second
)

// turnover keeps the history in proportion to the records.
func (s *Store) turnover(ctx context.Context) {
	tick, prune := time.NewTicker(turnoverTick), time.NewTicker(pruneEvery)
	defer tick.Stop()
	defer prune.Stop()
	said := "" // not to be said again every few seconds
	for {
		select {
		case <-tick.C:
		case now := <-prune.C:
			s.board.Prune(now, pruneEvery, func(id string) bool { return s.table.Get(id) != nil })
		case <-ctx.Done():
			return
		}
		err := s.replica.Tick(ctx)
		text := ""
		if err != nil && ctx.Err() == nil {
			text = err.Error()
		}
		if text != "" && text != said {
			s.log.Error("cannot turn the history over, trying again", "err", err)
		}
		said = text
	}
}

// checkpoint now and then has it written down when nodes were last seen.
func (s *Store) checkpoint(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Checkpoint)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.replica.Checkpoint()
		case <-ctx.Done():
			return
		}
	}
}

// replicaGrid is what a replica asks of its store.
type replicaGrid struct {
	*membership.Table
	s *Store
}

func (g replicaGrid) Heard(node string) int64 {
	at := g.s.board.LastHeard(node)
	if at.IsZero() {
		return 0
	}
	return g.s.cfg.wall() - time.Since(at).Milliseconds()
}

func (g replicaGrid) Direct(id string) bool { return g.s.cluster != nil && g.s.cluster.Direct(id) }

// replicaPublisher has watchers and the event log know what a replica changes.
type replicaPublisher struct{ s *Store }

func (p replicaPublisher) StateJoined(node string, before *table.Entry, st record.State) {
	p.s.events.StateJoined(node, before, st)
}

func (p replicaPublisher) Changed(node string) { p.s.changed(node) }

// assert joins into what is known of a node what decide makes of it, in one step, and
// returns when it is on disk.
func (s *Store) assert(ctx context.Context, node string, decide replica.Decide) error {
	select {
	case <-s.closed:
		return ErrClosed
	default:
	}
	return s.replica.Assert(ctx, node, func(known record.State) (record.State, error) {
		news, err := decide(known)
		if err == nil {
			err = s.yielded(news)
		}
		return news, err
	})
}

// arrived takes over a state that the history holds.
func (s *Store) arrived(node string, st record.State) {
	s.splits.Arrives(time.Now(), node, st)
	s.replica.Arrived(node, st)
}

// announce sends blocks that this master has made to the others.
func (s *Store) announce(number uint64, blocks []dag.Block) {
	if s.cluster != nil {
		s.cluster.Announce(number, blocks)
	}
}
