package replica

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dagsync"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Errors of a Replica.
var (
	// ErrClosed: the replica was closed.
	ErrClosed = errors.New("store is closed")
	// ErrUnavailable: nothing can be written now (disk full, failing).
	ErrUnavailable = errors.New("store cannot write")
	// ErrSlow: the disk has not taken a write for as long as a caller waits.
	ErrSlow = errors.New("the disk is slow")
)

// History is where a replica's records are kept and by which they travel; see
// [epoch.Log], which is one.
type History interface {
	Number() uint64
	Cutoff() int64
	stable
	PutSeen(ctx context.Context, buckets []epoch.Bucket) error
	Deliver(ctx context.Context, number uint64, blocks []dag.Block) error
	Has(ctx context.Context, c cid.Cid) (bool, error)
	Adopt(ctx context.Context, number uint64, cutoff int64) error
	Missing(ctx context.Context, states iter.Seq2[string, record.State]) ([]string, error)
	Retire(ctx context.Context) error
	Stats() epoch.Stats
	Health() error
	Reopened() uint64
}

// Grid is what is known beside the records, of masters and of nodes.
type Grid interface {
	// IDs returns the other masters that are known, whether they live or not.
	IDs() []string
	// Alive returns those of them that are heard, by the clock of Options.Now.
	Alive(now time.Time) []string
	// Direct reports whether streams to a master can be opened.
	Direct(master string) bool
	// Heard returns when a node last gave a sign of life to any master, in Unix
	// milliseconds; 0: not in this run.
	Heard(node string) int64
}

// Publisher is told what changes.
type Publisher interface {
	// StateJoined is called with every state that was joined into the table's entry for a
	// node, and with that entry as it was before, nil where there was none.
	StateJoined(node string, before *table.Entry, st record.State)
	// Changed is called after the table's entry for a node has changed.
	Changed(node string)
}

// Options configure a Replica.
type Options struct {
	Self      string // id of this master
	Table     *table.Table
	Grid      Grid
	Publisher Publisher // nil: nobody is told
	// Now is a monotonic clock; nil: time.Now. Wall is a wall clock, in Unix
	// milliseconds, and may be wrong and jump; nil: that of the system.
	Now  func() time.Time
	Wall func() int64

	// AssertDelay is how long the masters that are responsible for records have,
	// after a new epoch was adopted, before the others assert what is missing.
	AssertDelay time.Duration
	EpochBytes  int           // how much is written to an epoch at least before it is cut
	EpochAge    time.Duration // when it is cut although it holds less
	Retention   time.Duration // how long a node may be silent before it expires

	Logger *slog.Logger
}

// Replica is one master's part of the protocol. Its methods may be called
// concurrently.
type Replica struct {
	opts    Options
	table   *table.Table
	history History
	log     *slog.Logger
	began   time.Time

	*publisher
	peers   peers
	joining joining
	floor   atomic.Int64 // states of which nothing is newer are dropped; see expire.go

	adopting sync.Mutex // held while the history is turned over
	adopted  time.Time  // when this run last adopted an epoch
	expired  time.Time  // when it was last looked for what expires
	damaged  time.Time  // when damage last led to a new epoch
	// reopenedWhenComplete is how often the history had been opened again when it was
	// last seen to hold everything that the table holds.
	reopenedWhenComplete atomic.Uint64

	forgot atomic.Int64 // when it was last looked for what the cutoff drops, since began
}

// nobody is told nothing.
type nobody struct{}

func (nobody) StateJoined(string, *table.Entry, record.State) {}
func (nobody) Changed(string)                                 {}

// New returns a replica that has no history yet. Arrived may be called at once,
// for the history hands over what it finds on disk while it is opened; everything
// else only after Use.
func New(opts Options) *Replica {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Wall == nil {
		opts.Wall = func() int64 { return time.Now().UnixMilli() }
	}
	if opts.Publisher == nil {
		opts.Publisher = nobody{}
	}
	return &Replica{
		opts: opts, table: opts.Table, log: opts.Logger, began: opts.Now(),
		joining: joining{grid: opts.Grid},
	}
}

// Use hands over the opened history.
func (r *Replica) Use(h History) {
	r.history = h
	r.publisher = newPublisher(h, r.State)
	r.publisher.putSeen, r.publisher.lost = r.publishSeen, r.lost
	r.publisher.health = h.Health
}

// State returns what is known of a node.
func (r *Replica) State(node string) record.State {
	if e := r.table.Get(node); e != nil {
		return e.State
	}
	return record.State{}
}

// join joins a state into the table and reports whether it was news.
func (r *Replica) join(node string, st record.State) bool {
	news, _ := r.decide(node, func(record.State) (record.State, error) { return st, nil })
	return news
}

// decide joins into the table what decide makes of what is known of a node, in one step,
// and reports whether it was news.
func (r *Replica) decide(node string, decide Decide) (news bool, err error) {
	var st record.State
	before, after, err := r.table.Change(node, func(known *table.Entry) (_ record.State, err error) {
		st = record.State{}
		if known != nil {
			st = known.State
		}
		st, err = decide(st)
		return st, err
	})
	if err != nil {
		return false, err
	}
	r.opts.Publisher.StateJoined(node, before, st)
	if before == after {
		return false, nil
	}
	r.opts.Publisher.Changed(node)
	return true, nil
}

// Arrived takes over a state that the history holds: from disk, or in a block of
// another master. The state must be a verified one.
func (r *Replica) Arrived(node string, st record.State) {
	if !r.forgotten(node, st) {
		r.join(node, st)
	}
}

// Learned takes over a state that came by another way than the history. What was
// news is written under this master's own key, so that it is on disk here and
// reaches the others too. It returns whether anything was news, and the flush that
// brings the state to disk, nil where it is there already. The state must be a
// verified one.
func (r *Replica) Learned(node string, st record.State) (f *Flush, news bool) {
	switch {
	case r.forgotten(node, st):
		return nil, false
	case r.join(node, st):
		return r.Mark(node), true
	}
	return r.underway(node), false
}

// Decide says what is to be joined into what is known of a node; the zero State:
// nothing. It may be called several times, and the last call counts.
type Decide func(known record.State) (record.State, error)

// Assert joins into what is known of a node what decide makes of it, and returns when it
// is on disk. Deciding and joining are one step, so of two callers that exclude each
// other one sees what the other did. Errors are those of decide, and ErrUnavailable when
// the history refuses writes; then nothing has changed.
func (r *Replica) Assert(ctx context.Context, node string, decide Decide) (err error) {
	e := r.change(ctx, node, func() (news bool) {
		news, err = r.decide(node, r.writable(decide))
		return news
	})
	if err != nil {
		return err
	}
	return e
}

// Begin is Assert for callers that do not wait: it returns the flush that brings
// the state to disk, nil where it is there already.
func (r *Replica) Begin(node string, decide Decide) (*Flush, error) {
	switch news, err := r.decide(node, r.writable(decide)); {
	case err != nil:
		return nil, err
	case news:
		return r.Mark(node), nil
	}
	return r.underway(node), nil
}

// writable lets nothing be decided that cannot be written. What is known already is taken
// even while the disk is full.
func (r *Replica) writable(decide Decide) Decide {
	return func(known record.State) (record.State, error) {
		news, err := decide(known)
		if err == nil && !news.IsZero() {
			err = r.Health()
		}
		return news, err
	}
}

// Health returns why nothing can be written, or nil.
func (r *Replica) Health() error {
	if err := r.history.Health(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// Announced takes a message in which another master announces new blocks. The step
// is what to do about it; errors are of the message or of our own disk.
func (r *Replica) Announced(ctx context.Context, from string, msg []byte) (Step, error) {
	a, err := dagsync.ParseAnnouncement(msg)
	if err != nil {
		return Rest, err
	}
	blocks := make([]dag.Block, len(a.Blocks))
	for i, raw := range a.Blocks {
		if blocks[i], err = dag.Parse(raw); err != nil {
			return Rest, err
		}
	}
	if same, err := r.Follow(ctx, from, a.Epoch, 0); !same {
		return Rest, err
	}
	err = r.history.Deliver(ctx, a.Epoch, blocks)
	if errors.Is(err, epoch.ErrMissing) {
		return Pull, nil
	}
	return Rest, err
}
