package epoch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// disk is a Pebble database as a datastore. Other than go-ds-pebble's it tells when
// a query ended because a file could not be read: a table that is damaged in the
// middle would pass for a shorter one else. Writes are in the file system when they
// return, and on stable storage after Sync.
type disk struct{ DB *pebble.DB }

var _ ds.Batching = disk{}

func (d disk) Get(_ context.Context, k ds.Key) ([]byte, error) {
	v, done, err := d.DB.Get(k.Bytes())
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ds.ErrNotFound
	} else if err != nil {
		return nil, fmt.Errorf("read from disk: %w", err)
	}
	v = append([]byte{}, v...)
	return v, done.Close()
}

func (d disk) Has(ctx context.Context, k ds.Key) (bool, error) {
	_, err := d.GetSize(ctx, k)
	if errors.Is(err, ds.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func (d disk) GetSize(_ context.Context, k ds.Key) (int, error) {
	v, done, err := d.DB.Get(k.Bytes())
	if errors.Is(err, pebble.ErrNotFound) {
		return -1, ds.ErrNotFound
	} else if err != nil {
		return -1, fmt.Errorf("read from disk: %w", err)
	}
	return len(v), done.Close()
}

func (d disk) Put(_ context.Context, k ds.Key, v []byte) error {
	return d.DB.Set(k.Bytes(), v, pebble.NoSync)
}

func (d disk) Delete(_ context.Context, k ds.Key) error { return d.DB.Delete(k.Bytes(), pebble.NoSync) }

// Sync waits until all that was written before is on stable storage. There is only
// one log for all keys.
func (d disk) Sync(context.Context, ds.Key) error { return d.DB.LogData(nil, pebble.Sync) }

func (d disk) Close() error { return d.DB.Close() }

// Batch returns an atomic batch.
func (d disk) Batch(context.Context) (ds.Batch, error) { return diskBatch{d.DB.NewBatch()}, nil }

type diskBatch struct{ b *pebble.Batch }

func (b diskBatch) Put(_ context.Context, k ds.Key, v []byte) error {
	return b.b.Set(k.Bytes(), v, nil)
}
func (b diskBatch) Delete(_ context.Context, k ds.Key) error { return b.b.Delete(k.Bytes(), nil) }
func (b diskBatch) Commit(context.Context) error {
	if err := b.b.Commit(pebble.NoSync); err != nil {
		return err
	}
	return b.b.Close()
}

// Query reads from a snapshot, in order of keys. The results must be closed before
// the datastore is.
func (d disk) Query(_ context.Context, q query.Query) (query.Results, error) {
	low := append(ds.NewKey(q.Prefix).Bytes(), '/')
	if q.Prefix == "" || q.Prefix == "/" {
		low = []byte("/")
	}
	high := bytes.Clone(low)
	high[len(high)-1]++
	it, err := d.DB.NewIter(&pebble.IterOptions{LowerBound: low, UpperBound: high})
	if err != nil {
		return nil, err
	}
	move, ended := it.First, false
	stop := sync.OnceValue(it.Close)
	next := func() (query.Result, bool) {
		if ended {
			return query.Result{}, false
		}
		valid := move()
		move = it.Next
		if !valid {
			ended = true
			err := it.Error()
			return query.Result{Error: err}, err != nil
		}
		e := query.Entry{Key: string(it.Key())}
		if !q.KeysOnly || q.ReturnsSizes {
			v, err := it.ValueAndErr()
			if err != nil {
				ended = true
				return query.Result{Error: err}, true
			}
			if e.Size = len(v); !q.KeysOnly {
				e.Value = bytes.Clone(v)
			}
		}
		return query.Result{Entry: e}, true
	}
	results := query.ResultsFromIterator(q, query.Iterator{Next: next, Close: func() error {
		ended = true
		return stop()
	}})
	rest := q
	rest.Prefix = ""
	return query.NaiveQueryApply(rest, results), nil
}
