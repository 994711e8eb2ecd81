package epoch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ipfs/boxo/datastore/dshelp"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	crdt "github.com/ipfs/go-ds-crdt"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
)

// diskVersion is the version of what an epoch's directory holds.
const diskVersion = 1

// Where go-ds-crdt keeps what: everything below namespace; below processed a key
// for every block that was applied; below elements a key for every element that was ever written; below values the value that prevails of
// each key, at <key>/v.
var (
	namespace = ds.NewKey("/c")
	processed = "/c/b"
	elements  = "/c/s/s"
	values    = "/c/s/k"
)

// epoch is one crdt.Datastore in a directory of its own.
type epoch struct {
	number      uint64
	path        string
	fs          vfs.FS
	created     time.Time
	cutoff      atomic.Int64
	writer      string // see [Writer]
	readOnly    bool
	disk        *failStopFS
	base        disk
	staged      *staged
	blocks      blocks
	broadcaster *broadcaster
	crdt        *crdt.Datastore
	values      *indirect
	tally       tally

	fault atomic.Pointer[error] // see trouble
	large atomic.Bool           // see Stats.Large

	leaving bool           // nobody may begin to use it any more; under the log's mu
	users   sync.WaitGroup // who reads or writes it; grows only under the log's mu
	closing sync.Once
	ended   chan struct{} // closed when close has ended

	// Blocks of others, counted: whose states were handed on, that are in the file
	// system, and that are on stable storage.
	taken, written, synced atomic.Uint64
}

// release ends what Log.use or Log.hold began.
func (e *epoch) release() { e.users.Done() }

// trouble returns why the epoch cannot be written to, or nil. It does not pass; the
// epoch has to be opened again.
func (e *epoch) trouble() error {
	if err := e.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// poison gives the epoch up for a reason; the first one stays. It is opened again by recovery.
func (e *epoch) poison(err error) { e.fault.CompareAndSwap(nil, &err) }

// header is the file that says what a directory holds.
type header struct {
	Version int       `json:"version"`
	Number  uint64    `json:"number"`
	Created time.Time `json:"created"`
	// Cutoff is the moment before which nothing is remembered, in Unix
	// milliseconds.
	Cutoff int64 `json:"cutoff,omitempty"`
}

func epochPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%010d", number))
}

// retired is what the name of a directory ends in that is being deleted.
const retired = ".retired"

// remove deletes an epoch's directory. It is no epoch any more, for good, before the
// first file of it is gone: half a database cannot be opened.
func remove(in vfs.FS, path string) error {
	if err := in.Rename(path, path+retired); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := syncDir(in, in.PathDir(path)); err != nil {
		return err
	}
	return in.RemoveAll(path + retired)
}

// tidy deletes what is left of epochs whose making or deletion was interrupted.
func tidy(in vfs.FS, dir string) (err error) {
	for _, suffix := range []string{retired, unfinished} {
		left, listErr := ending(in, dir, suffix)
		err = errors.Join(err, listErr)
		for _, path := range left {
			err = errors.Join(err, in.RemoveAll(path))
		}
	}
	return err
}

// numbers returns the epochs that have a directory, ascending.
func numbers(in vfs.FS, dir string) ([]uint64, error) {
	names, err := list(in, dir) // by name, and the names have a fixed width
	if err != nil {
		return nil, fmt.Errorf("epoch directory: %w", err)
	}
	var out []uint64
	for _, name := range names {
		n, err := strconv.ParseUint(name, 10, 64)
		if err != nil || filepath.Join(dir, name) != epochPath(dir, n) {
			continue
		}
		if info, err := in.Stat(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("epoch directory: %w", err)
		} else if info.IsDir() {
			out = append(out, n)
		}
	}
	return out, nil
}

// opener says how an epoch is opened.
type opener struct {
	dir      string
	number   uint64
	master   string
	cutoff   int64 // of one that is created
	readOnly bool
	fs       vfs.FS
	log      *slog.Logger
	lenient  bool // read what can be read of a damaged one
}

// unfinished is what the name of a directory ends in in which an epoch is made.
const unfinished = ".unfinished"

// create makes an empty epoch. Its directory gets its name when all files are
// there, so that a file that is missing later is known to be lost.
func (h opener) create() (err error) {
	path := epochPath(h.dir, h.number)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("create epoch %s: %w", path, err), h.fs.RemoveAll(path+unfinished))
		}
	}()
	if err := h.fs.MkdirAll(path+unfinished, 0o700); err != nil {
		return err
	}
	e := &epoch{number: h.number, path: path + unfinished, created: time.Now().UTC(), fs: h.fs}
	e.cutoff.Store(h.cutoff)
	if err := e.openDisk(h, false); err != nil {
		return err
	}
	if err := errors.Join(e.base.Close(), e.disk.err()); err != nil {
		return err
	}
	if err := e.writeHeader(); err != nil {
		return err
	}
	if err := h.fs.Rename(e.path, path); err != nil {
		return err
	}
	return syncDir(h.fs, h.dir)
}

// open opens an epoch that is there.
func (h opener) open(ctx context.Context) (_ *epoch, err error) {
	e := &epoch{
		number: h.number, path: epochPath(h.dir, h.number), fs: h.fs, readOnly: h.readOnly, broadcaster: newBroadcaster(), ended: make(chan struct{}),
		writer: Writer(h.master, rand.Uint32()),
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open epoch %s: %w", e.path, err)
		}
	}()
	if err := e.readHeader(); err != nil {
		return nil, err
	}
	if err := e.openDisk(h, true); err != nil {
		return nil, err
	}
	e.staged = newStaged(e.base)
	e.blocks = blocks{e.staged}
	e.values = newIndirect(e.staged)
	o := crdt.DefaultOptions()
	o.Logger = crdtLogger{h.log, func() bool { return e.disk.err() != nil }}
	// Rebroadcasts are not sent: masters compare heads when they meet and with
	// every pulse. They are made all the same, for only then does go-ds-crdt
	// forget the heads that it has seen. Nothing needs repair: blocks are applied
	// whole and in order.
	o.RebroadcastInterval = 10 * time.Minute
	o.RepairInterval = 0
	o.MaxBatchDeltaSize = dag.MaxBlock
	o.NumWorkers = 1
	if e.crdt, err = crdt.New(e.values, namespace, e.blocks, e.broadcaster, o); err != nil {
		return nil, errors.Join(damage(e.path, err), e.base.Close())
	}
	if err := errors.Join(e.tally.load(ctx, e.staged), e.disk.err()); err != nil {
		return nil, errors.Join(damage(e.path, err), e.close())
	}
	return e, nil
}

// openDisk opens the database, which has to be there or must not be.
func (e *epoch) openDisk(h opener, exists bool) (err error) {
	e.disk = &failStopFS{FS: h.fs, readOnly: h.readOnly, onFail: func(err error) { e.poison(fmt.Errorf("write to disk: %w", err)) }}
	lock, err := pebble.LockDirectory(e.path, e.disk)
	if errors.Is(err, syscall.EAGAIN) {
		return fmt.Errorf("another process uses it: %w", err)
	} else if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }() // the database holds on to it
	if exists && !h.lenient {
		if err := verify(h.fs, e.path); err != nil {
			return err
		}
	}
	defer func() {
		// Pebble takes what it reads for its own work, and panics where it is not.
		if r := recover(); r != nil {
			err = damaged(e.path, fmt.Errorf("%v", r))
		}
	}()
	o := pebbleOptions()
	o.FS, o.Lock, o.ReadOnly, o.ErrorIfExists, o.ErrorIfNotExists = e.disk, lock, h.readOnly, !exists, exists
	o.Logger = pebbleLogger{h.log}
	o.EventListener = &pebble.EventListener{
		BackgroundError: func(err error) {
			h.log.Warn("work on the files of the history failed", "epoch", e.path, "err", err)
		},
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			if e.disk.err() == nil { // else it never got there
				e.poison(damaged(info.Path, info.Details))
			}
		},
	}
	e.base.DB, err = pebble.Open(e.path, o)
	if failure := e.disk.err(); failure != nil { // whatever Pebble makes of it
		if err == nil {
			err = e.base.Close()
		}
		return errors.Join(failure, err)
	}
	return openDamage(e.path, err)
}

const headerFile = "epoch.json"

func (e *epoch) readHeader() error {
	path := filepath.Join(e.path, headerFile)
	b, err := readFile(e.fs, path)
	if err != nil {
		return damage(path, err)
	}
	// The version first: a newer program may mean something else by the rest.
	if err := atomicfile.CheckVersion(b, diskVersion); errors.Is(err, atomicfile.ErrNewer) {
		return fmt.Errorf("%s: %w", path, err)
	} else if err != nil {
		return damaged(path, err)
	}
	var h header
	if err := json.Unmarshal(b, &h); err != nil {
		return damaged(path, err)
	}
	if h.Number != e.number || h.Created.IsZero() {
		return damaged(path, fmt.Errorf("it describes epoch %d, made at %v", h.Number, h.Created))
	}
	e.created = h.Created
	e.cutoff.Store(h.Cutoff)
	return nil
}

func (e *epoch) writeHeader() error {
	b, err := json.Marshal(header{Version: diskVersion, Number: e.number, Created: e.created, Cutoff: e.cutoff.Load()})
	if err != nil {
		return err
	}
	return writeFile(e.fs, filepath.Join(e.path, headerFile), append(b, '\n'))
}

// raise sets the cutoff, unless it is greater already.
func (e *epoch) raise(cutoff int64) error {
	was := e.cutoff.Load()
	if cutoff <= was {
		return nil
	}
	e.cutoff.Store(cutoff)
	if err := e.writeHeader(); err != nil {
		e.cutoff.Store(was)
		return err
	}
	return nil
}

// look returns the values that prevail at this moment, between two transactions. The
// epoch must not be closed until each has read them.
func (e *epoch) look(ctx context.Context) (query.Results, error) {
	return e.base.Query(ctx, query.Query{Prefix: values})
}

// each calls f with what look returned. After an error it has been called with a
// part.
func (e *epoch) each(ctx context.Context, results query.Results, f func(key string, value []byte, good bool)) (err error) {
	defer results.Close()
	defer func() {
		if errors.Is(err, ErrDamaged) {
			e.poison(err)
		}
	}()
	var list []stored
	for r, ok := results.NextSync(); ok; r, ok = results.NextSync() {
		if r.Error != nil {
			return errors.Join(r.Error, e.values.each(ctx, list, f))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if key, ok := valueKey(r.Key); ok {
			list = append(list, stored{key, r.Value})
		}
	}
	return e.values.each(ctx, list, f)
}

// apply has go-ds-crdt apply blocks that are stored, and makes sure that it has:
// it logs its errors and returns none.
func (e *epoch) apply(ctx context.Context, heads []cid.Cid) error {
	if err := e.broadcaster.apply(heads); err != nil {
		return err
	}
	for _, c := range heads {
		done, err := e.staged.Has(ctx, ds.RawKey(processed+dshelp.MultihashToDsKey(c.Hash()).String()))
		if err != nil {
			return err
		}
		if !done {
			return fmt.Errorf("block %s could not be applied", c)
		}
	}
	return nil
}

// close writes down what is staged, waits for stable storage and closes the
// files. Where the disk does not take it, what is staged is given up, and who asks
// for trouble hears of it. Nobody may use the epoch any more.
func (e *epoch) close() (err error) {
	e.closing.Do(func() {
		defer close(e.ended)
		ctx := context.Background()
		err = e.crdt.Close()
		if e.trouble() == nil && !e.readOnly {
			// Into tables, so that the next start need not go through the log.
			err = errors.Join(err, e.staged.flush(ctx), e.base.Sync(ctx, ds.NewKey("/")), e.base.DB.Flush())
		}
		err = errors.Join(err, e.base.Close(), e.disk.err())
		if err != nil {
			e.poison(fmt.Errorf("write to disk: %w", err))
		}
	})
	return err
}
