package epoch

import (
	"context"
	"maps"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// staged is a datastore whose writes stay in memory until flush writes them
// down as one atomic batch. Reads see what was staged. When flush fails the
// writes stay staged and the next flush tries them again, so nothing that was
// applied is lost to a full disk.
type staged struct {
	base ds.Batching

	// mu is not held while the base is written to, which may take long.
	mu       sync.RWMutex      // guards what follows
	dirty    map[ds.Key][]byte // nil: deleted
	flushing map[ds.Key][]byte // what a flush writes down now; it does not change
}

var _ ds.Batching = (*staged)(nil)

func newStaged(base ds.Batching) *staged {
	return &staged{base: base, dirty: map[ds.Key][]byte{}}
}

// flush hands what is staged to the base as one batch; it does not wait for stable
// storage. There is one at a time.
func (s *staged) flush(ctx context.Context) error {
	s.mu.Lock()
	s.flushing, s.dirty = s.dirty, map[ds.Key][]byte{}
	s.mu.Unlock()
	err := s.write(ctx, s.flushing)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		maps.Copy(s.flushing, s.dirty) // what was staged since is newer
		s.dirty = s.flushing
	}
	s.flushing = nil
	return err
}

func (s *staged) write(ctx context.Context, all map[ds.Key][]byte) error {
	if len(all) == 0 {
		return nil
	}
	b, err := s.base.Batch(ctx)
	if err != nil {
		return err
	}
	for k, v := range all {
		if v == nil {
			err = b.Delete(ctx, k)
		} else {
			err = b.Put(ctx, k, v)
		}
		if err != nil {
			return err
		}
	}
	return b.Commit(ctx)
}

// drop forgets what is staged.
func (s *staged) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.dirty)
}

func (s *staged) lookup(k ds.Key) (value []byte, staged bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if value, staged = s.dirty[k]; !staged {
		value, staged = s.flushing[k]
	}
	return value, staged
}

func (s *staged) stage(k ds.Key, v []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty[k] = v
}

func (s *staged) Get(ctx context.Context, k ds.Key) ([]byte, error) {
	if v, ok := s.lookup(k); ok {
		if v == nil {
			return nil, ds.ErrNotFound
		}
		return v, nil
	}
	return s.base.Get(ctx, k)
}

func (s *staged) Has(ctx context.Context, k ds.Key) (bool, error) {
	if v, ok := s.lookup(k); ok {
		return v != nil, nil
	}
	return s.base.Has(ctx, k)
}

func (s *staged) GetSize(ctx context.Context, k ds.Key) (int, error) {
	if v, ok := s.lookup(k); ok {
		if v == nil {
			return -1, ds.ErrNotFound
		}
		return len(v), nil
	}
	return s.base.GetSize(ctx, k)
}

// Query is used when the history is opened, before anything is staged; later
// queries write down what is staged first.
func (s *staged) Query(ctx context.Context, q query.Query) (query.Results, error) {
	if err := s.flush(ctx); err != nil {
		return nil, err
	}
	return s.base.Query(ctx, q)
}

func (s *staged) Put(_ context.Context, k ds.Key, v []byte) error {
	if v == nil {
		v = []byte{}
	}
	s.stage(k, v)
	return nil
}

func (s *staged) Delete(_ context.Context, k ds.Key) error {
	s.stage(k, nil)
	return nil
}

// Sync does nothing: flush decides when things reach the disk.
func (s *staged) Sync(context.Context, ds.Key) error { return nil }

func (s *staged) Close() error { return nil }

// Batch returns a batch that stages at once. It is atomic all the same, since
// only flush makes anything durable.
func (s *staged) Batch(context.Context) (ds.Batch, error) { return stagedBatch{s}, nil }

type stagedBatch struct{ s *staged }

func (b stagedBatch) Put(ctx context.Context, k ds.Key, v []byte) error { return b.s.Put(ctx, k, v) }
func (b stagedBatch) Delete(ctx context.Context, k ds.Key) error        { return b.s.Delete(ctx, k) }
func (b stagedBatch) Commit(context.Context) error                      { return nil }
