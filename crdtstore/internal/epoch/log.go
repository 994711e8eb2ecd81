package epoch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	crdt "github.com/ipfs/go-ds-crdt"
	pebbleds "github.com/ipfs/go-ds-pebble"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// maxDelta is how many bytes of states go into one block. Blocks travel inside
// pubsub messages, whose cap is four times as much.
const maxDelta = 256 << 10

// Errors of a Log.
var (
	ErrClosed = errors.New("epoch: closed")
	// ErrMissing: a block builds on one that is not here. Fetch its past first.
	ErrMissing = errors.New("epoch: the past of a block is missing")
)

// Options configure a Log.
type Options struct {
	Dir    string // created where it is missing
	Master string // id of this master: the owner of the keys that Put writes
	NoSync bool   // return from Put before the writes are on stable storage
	Logger *slog.Logger
	// Apply is called for every state that is on disk at Open, and later for
	// every state in a block from another master. It may be called while a turn
	// is under way, so it must not call the Log.
	Apply func(node string, s record.State)
	// Announce is called with the blocks that Put made, while they are being
	// brought to stable storage.
	Announce func(number uint64, blocks []dag.Block)
}

// Write is a state to be written for a node.
type Write struct {
	Node  string
	State record.State
}

// Log is the history of the record plane. Its methods may be called
// concurrently; Put and Deliver take turns.
type Log struct {
	opts   Options
	number uint64
	base   *pebbleds.Datastore
	staged *staged
	blocks blocks
	feed   *feed
	crdt   *crdt.Datastore
	stop   chan struct{}
	closed sync.Once

	turn     sync.Mutex
	prevails map[string]bool // keys whose value the running Put changed
	broken   error           // an error that only opening again can mend

	unwell atomic.Pointer[error] // why the last flush failed
}

// Open opens the newest epoch below the directory, or the first, and calls
// Apply for every state in it.
func Open(ctx context.Context, opts Options) (*Log, error) {
	number, err := newest(opts.Dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(opts.Dir, fmt.Sprintf("%010d", number))
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("epoch directory: %w", err)
	}
	base, err := pebbleds.NewDatastore(path, pebbleds.WithPebbleOpts(&pebble.Options{
		Logger:       pebbleLogger{opts.Logger},
		MemTableSize: 16 << 20,
	}))
	if err != nil {
		return nil, fmt.Errorf("open epoch %s: %w", path, err)
	}
	l := &Log{
		opts: opts, number: number, base: base, staged: newStaged(base), feed: newFeed(),
		stop: make(chan struct{}), prevails: map[string]bool{},
	}
	l.blocks = blocks{l.staged}
	o := crdt.DefaultOptions()
	o.Logger = crdtLogger{opts.Logger}
	o.PutHook = func(k ds.Key, _ []byte) { l.prevails[k.String()] = true }
	// Nothing is rebroadcast: masters compare heads when they meet and with
	// every pulse. Nothing needs repair: blocks are applied whole and in order.
	o.RebroadcastInterval = 365 * 24 * time.Hour
	o.RepairInterval = 0
	o.MaxBatchDeltaSize = dag.MaxBlock
	o.NumWorkers = 1
	l.crdt, err = crdt.New(l.staged, ds.NewKey("/c"), l.blocks, l.feed, o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open epoch %s: %w", path, err), base.Close())
	}
	if err := l.load(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("read epoch %s: %w", path, err), l.Close())
	}
	return l, nil
}

// newest returns the greatest epoch number on disk, 1 where there is none.
func newest(dir string) (uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("epoch directory: %w", err)
	}
	number := uint64(1)
	for _, e := range entries {
		var n uint64
		if _, err := fmt.Sscanf(e.Name(), "%010d", &n); err == nil && e.IsDir() {
			number = max(number, n)
		}
	}
	return number, nil
}

func (l *Log) load(ctx context.Context) error {
	results, err := l.crdt.Query(ctx, query.Query{Prefix: "/"})
	if err != nil {
		return err
	}
	defer results.Close()
	for r := range results.Next() {
		if r.Error != nil {
			return r.Error
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		l.apply(r.Key, r.Value)
	}
	return nil
}

// apply hands one value on, unless it is not one of ours. It cannot be refused:
// the block around it has a place in the history.
func (l *Log) apply(key string, value []byte) (node string, ok bool) {
	node, _, ok = splitKey(key)
	if !ok || record.ValidNodeID(node) != nil {
		l.opts.Logger.Warn("unknown key in the history", "key", key)
		return "", false
	}
	s, err := record.Decode(string(value))
	if err != nil {
		l.opts.Logger.Warn("unreadable state in the history", "key", key, "err", err)
		return "", false
	}
	l.opts.Apply(node, s)
	return node, true
}

// Number is the number of the epoch that is written to.
func (l *Log) Number() uint64 { return l.number }

// Put writes states and returns when they are on disk (see Options.NoSync). No
// node may occur twice. It returns the nodes whose write did not prevail inside
// its key, because an older block of this master stands higher in the history:
// they have to be put again. After an error the states may or may not be found
// on disk and on other masters later.
func (l *Log) Put(ctx context.Context, writes []Write) (again []string, err error) {
	made, again, err := l.put(ctx, writes)
	if err != nil {
		return again, err
	}
	// The blocks are in the file system, where a crash of this process does not
	// reach them. They are announced while the disk is still at work, for it
	// takes longer than the network. Should the power fail in between, the
	// others bring this master's own blocks back to it; see Deliver.
	if l.opts.Announce != nil {
		l.opts.Announce(l.number, made)
	}
	if l.opts.NoSync {
		return again, nil
	}
	return again, l.sync(ctx)
}

func (l *Log) put(ctx context.Context, writes []Write) (made []dag.Block, again []string, err error) {
	l.turn.Lock()
	defer l.turn.Unlock()
	if l.broken != nil {
		return nil, nil, l.broken
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	// From here on the turn is finished whatever the caller's context says.
	ctx = context.WithoutCancel(ctx)
	clear(l.prevails)
	for len(writes) > 0 {
		n, err := l.commit(ctx, writes)
		if err != nil {
			// go-ds-crdt may hold on to the failed delta and add it to the next.
			l.broken = fmt.Errorf("history: %w", err)
			return nil, nil, l.broken
		}
		for _, w := range writes[:n] {
			if !l.prevails[stateKey(w.Node, l.opts.Master).String()] {
				again = append(again, w.Node)
			}
		}
		writes = writes[n:]
	}
	if err := l.flush(ctx); err != nil {
		return nil, nil, err
	}
	for _, c := range l.feed.take() {
		b, err := l.Block(ctx, c)
		if err != nil {
			return made, again, err
		}
		made = append(made, b)
	}
	return made, again, nil
}

// commit puts as many writes as fit into one block, and returns how many.
func (l *Log) commit(ctx context.Context, writes []Write) (int, error) {
	b, err := l.crdt.Batch(ctx)
	if err != nil {
		return 0, err
	}
	n, size := 0, 0
	for _, w := range writes {
		value := w.State.Encode()
		if size += len(value); n > 0 && size > maxDelta {
			break
		}
		if err := b.Put(ctx, stateKey(w.Node, l.opts.Master), value); err != nil {
			return 0, err
		}
		n++
	}
	return n, b.Commit(ctx)
}

// Deliver applies blocks of other masters; each must build only on blocks that
// are here or come before it in the list, else ErrMissing is returned, with
// those before it applied. It returns the nodes whose keys of this master the
// blocks write. Such blocks are of a past that this master has lost in a crash,
// and they may stand higher in the history than what it has put since: the
// caller has to see whether [Log.Own] still holds what it should, and put it
// again where it does not.
func (l *Log) Deliver(ctx context.Context, list []dag.Block) (own []string, err error) {
	l.turn.Lock()
	defer l.turn.Unlock()
	if l.broken != nil {
		return nil, l.broken
	}
	ctx = context.WithoutCancel(ctx)
	var heads []cid.Cid
	for _, b := range list {
		nodes, isNew, e := l.store(ctx, b)
		if e != nil {
			err = e
			break
		}
		if isNew {
			heads, own = append(heads, b.Cid), append(own, nodes...)
		}
	}
	if len(heads) == 0 {
		return nil, err
	}
	// The first block into an empty history goes alone: go-ds-crdt makes every
	// head of the first payload that it sees a head of its own.
	if len(l.Heads()) == 0 {
		if e := l.feed.apply(l.stop, heads[:1]); e != nil {
			return nil, e
		}
		heads = heads[1:]
	}
	if len(heads) > 0 {
		if e := l.feed.apply(l.stop, heads); e != nil {
			return nil, e
		}
	}
	if e := l.flush(ctx); e != nil {
		return nil, e
	}
	slices.Sort(own)
	return slices.Compact(own), err
}

// store stages a block and hands on its states. It returns the nodes whose key
// of this master the block writes.
func (l *Log) store(ctx context.Context, b dag.Block) (own []string, isNew bool, err error) {
	if has, err := l.blocks.has(ctx, b.Cid); err != nil || has {
		return nil, false, err
	}
	for _, c := range b.Links {
		if has, err := l.blocks.has(ctx, c); err != nil {
			return nil, false, err
		} else if !has {
			return nil, false, fmt.Errorf("%w: %s", ErrMissing, b.Cid)
		}
	}
	elements, err := b.Elements()
	if err != nil {
		return nil, false, err
	}
	if err := l.blocks.put(ctx, b.Cid, b.Raw); err != nil {
		return nil, false, err
	}
	for _, e := range elements {
		node, ok := l.apply(e.Key, e.Value)
		if ok && strings.HasSuffix(e.Key, "/"+l.opts.Master) {
			own = append(own, node)
		}
	}
	return own, true, nil
}

func (l *Log) flush(ctx context.Context) error { return l.noted(l.staged.flush(ctx)) }

func (l *Log) sync(ctx context.Context) error {
	return l.noted(l.base.Sync(context.WithoutCancel(ctx), ds.NewKey("/")))
}

// noted remembers whether the disk takes what it is given.
func (l *Log) noted(err error) error {
	if err != nil {
		err = fmt.Errorf("write to disk: %w", err)
		l.unwell.Store(&err)
		return err
	}
	l.unwell.Store(nil)
	return nil
}

// Health returns why the log cannot be written to, or nil.
func (l *Log) Health() error {
	if err := l.unwell.Load(); err != nil {
		return *err
	}
	return nil
}

// Own returns the state that this master's key for a node holds on disk; the
// zero State where it holds none.
func (l *Log) Own(ctx context.Context, node string) (record.State, error) {
	v, err := l.crdt.Get(ctx, stateKey(node, l.opts.Master))
	if errors.Is(err, ds.ErrNotFound) {
		return record.State{}, nil
	} else if err != nil {
		return record.State{}, err
	}
	return record.Decode(string(v))
}

// Heads returns the blocks that no other block builds on.
func (l *Log) Heads() []cid.Cid { return l.crdt.InternalStats(context.Background()).Heads }

// Has reports whether a block, and so all its past, is here.
func (l *Log) Has(ctx context.Context, c cid.Cid) (bool, error) { return l.blocks.has(ctx, c) }

// Block returns a block that is here.
func (l *Log) Block(ctx context.Context, c cid.Cid) (dag.Block, error) {
	raw, err := l.blocks.raw(ctx, c)
	if err != nil {
		return dag.Block{}, err
	}
	return dag.ParseKnown(c, raw)
}

// DiskUsage is how many bytes the history takes on disk.
func (l *Log) DiskUsage() uint64 { return l.base.DB.Metrics().DiskSpaceUsage() }

// Close writes down what is staged and closes the files. It is idempotent.
func (l *Log) Close() (err error) {
	l.closed.Do(func() {
		close(l.stop)
		l.turn.Lock()
		defer l.turn.Unlock()
		l.broken = ErrClosed
		err = errors.Join(l.crdt.Close(), l.staged.flush(context.Background()), l.base.Sync(context.Background(), ds.NewKey("/")), l.base.Close())
	})
	return err
}
