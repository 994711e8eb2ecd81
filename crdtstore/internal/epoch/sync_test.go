package epoch

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	ds "github.com/ipfs/go-datastore"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// during does something before a batch reaches the disk.
type during struct {
	ds.Batching
	do func()
}

type duringBatch struct {
	ds.Batch
	do func()
}

func (d during) Batch(ctx context.Context) (ds.Batch, error) {
	b, err := d.Batching.Batch(ctx)
	return duringBatch{b, d.do}, err
}

func (b duringBatch) Commit(ctx context.Context) error {
	b.do()
	return b.Batch.Commit(ctx)
}

// What came from others is not taken for synced from when it is handed on until it
// is, whatever else is synced meanwhile.
func TestUnsyncedFromTheFirstMoment(t *testing.T) {
	from := start(t, "m2", t.TempDir())
	from.write("n", seen(1))
	from.write("o", seen(1))
	var l *Log
	var handed atomic.Int64
	l, err := Open(t.Context(), Options{
		Dir: t.TempDir(), Master: "m1", Logger: slog.New(slog.DiscardHandler),
		Apply: func(string, record.State) {
			if handed.Add(1); !l.Unsynced() {
				t.Error("a state that is handed on counts as synced")
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Unsynced() {
		t.Error("an empty log has something to sync")
	}
	base := l.cur.staged.base
	l.cur.staged.base = during{base, func() {
		// As when a write of this master's own, of before, is being synced.
		if err := l.sync(t.Context(), l.cur); err != nil {
			t.Error(err)
		}
	}}
	if err := l.Deliver(t.Context(), 1, from.all()); err != nil || handed.Load() != 2 {
		t.Fatal(handed.Load(), err)
	}
	if !l.Unsynced() {
		t.Error("what was written behind a sync counts as synced")
	}
	if err := l.Sync(t.Context()); err != nil || l.Unsynced() {
		t.Error("after a sync:", err)
	}
	if err := l.Deliver(t.Context(), 1, from.all()); err != nil || l.Unsynced() {
		t.Error("blocks that were here have to be synced:", err)
	}
}
