package epoch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/boxo/datastore/dshelp"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	crdt "github.com/ipfs/go-ds-crdt"
	pebbleds "github.com/ipfs/go-ds-pebble"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/atomicfile"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
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
	number  uint64
	path    string
	created time.Time
	cutoff  atomic.Int64
	base    *pebbleds.Datastore
	staged  *staged
	blocks  blocks
	feed    *feed
	crdt    *crdt.Datastore
	entries atomic.Int64 // elements ever written

	prevails map[string]bool // keys whose value the running commit changed
}

// headerName is the file in an epoch's directory that holds the header.
const headerName = "epoch.json"

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

// remove deletes an epoch's directory. It is no epoch any more before the first
// file of it is gone: half a database cannot be opened.
func remove(path string) error {
	if err := os.Rename(path, path+retired); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(path + retired)
}

// tidy deletes what is left of epochs whose deletion was interrupted.
func tidy(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "*"+retired))
	for _, path := range left {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// numbers returns the epochs that have a directory, ascending.
func numbers(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir) // sorted by name, and the names have a fixed width
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("epoch directory: %w", err)
	}
	var out []uint64
	for _, e := range entries {
		n, err := strconv.ParseUint(e.Name(), 10, 64)
		if err == nil && e.IsDir() && filepath.Join(dir, e.Name()) == epochPath(dir, n) {
			out = append(out, n)
		}
	}
	return out, nil
}

// open opens an epoch, making it where there is none.
func open(ctx context.Context, dir string, number uint64, log *slog.Logger) (_ *epoch, err error) {
	e := &epoch{
		number: number, path: epochPath(dir, number), feed: newFeed(),
		prevails: map[string]bool{},
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open epoch %s: %w", e.path, err)
		}
	}()
	if err := os.MkdirAll(e.path, 0o700); err != nil {
		return nil, err
	}
	if err := e.readHeader(); err != nil {
		return nil, err
	}
	e.base, err = pebbleds.NewDatastore(e.path, pebbleds.WithPebbleOpts(&pebble.Options{
		Logger:       pebbleLogger{log},
		MemTableSize: 16 << 20,
	}))
	if errors.Is(err, syscall.EAGAIN) {
		return nil, fmt.Errorf("another process uses it: %w", err)
	}
	if err != nil {
		return nil, err
	}
	e.staged = newStaged(e.base)
	e.blocks = blocks{e.staged}
	o := crdt.DefaultOptions()
	o.Logger = crdtLogger{log}
	o.PutHook = func(k ds.Key, _ []byte) { e.prevails[k.String()] = true }
	// Rebroadcasts are not sent: masters compare heads when they meet and with
	// every pulse. They are made all the same, for only then does go-ds-crdt
	// forget the heads that it has seen. Nothing needs repair: blocks are applied
	// whole and in order.
	o.RebroadcastInterval = 10 * time.Minute
	o.RepairInterval = 0
	o.MaxBatchDeltaSize = dag.MaxBlock
	o.NumWorkers = 1
	if e.crdt, err = crdt.New(e.staged, namespace, e.blocks, e.feed, o); err != nil {
		return nil, errors.Join(err, e.base.Close())
	}
	if err := e.count(ctx); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *epoch) readHeader() error {
	path := filepath.Join(e.path, headerName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		e.created = time.Now().UTC()
		return e.writeHeader()
	}
	if err != nil {
		return err
	}
	var h header
	if err := json.Unmarshal(b, &h); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if h.Version != diskVersion {
		return fmt.Errorf("%s: version %d, this program reads %d; use the program that wrote it, or a newer one", path, h.Version, diskVersion)
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
	return atomicfile.Write(filepath.Join(e.path, headerName), append(b, '\n'))
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

func (e *epoch) count(ctx context.Context) error {
	results, err := e.base.Query(ctx, query.Query{Prefix: elements, KeysOnly: true})
	if err != nil {
		return err
	}
	defer results.Close()
	for r := range results.Next() {
		if r.Error != nil {
			return r.Error
		}
		e.entries.Add(1)
	}
	return nil
}

// look returns the values that prevail at this moment, between two turns. The
// epoch must not be closed until they are read by each.
func (e *epoch) look(ctx context.Context) (query.Results, error) {
	return e.base.Query(ctx, query.Query{Prefix: values})
}

func each(ctx context.Context, results query.Results, f func(key string, value []byte)) error {
	defer results.Close()
	for r := range results.Next() {
		if r.Error != nil {
			return r.Error
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if key, ok := strings.CutSuffix(strings.TrimPrefix(r.Key, values), "/v"); ok {
			f(key, r.Value)
		}
	}
	// A query whose context has ended ends without an error.
	return ctx.Err()
}

// apply has go-ds-crdt apply blocks that are stored, and makes sure that it has:
// it logs its errors and returns none.
func (e *epoch) apply(ctx context.Context, heads []cid.Cid) error {
	if err := e.feed.apply(heads); err != nil {
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
// files.
func (e *epoch) close() error {
	ctx := context.Background()
	return errors.Join(e.crdt.Close(), e.staged.flush(ctx), e.base.Sync(ctx, ds.NewKey("/")), e.base.Close())
}
