package epoch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	"pgregory.net/rapid"
)

// flaky is a datastore whose batches, while it is broken, fail at a chosen
// step, having written nothing.
type flaky struct {
	ds.Batching
	fail step
	// unreadable chooses keys that cannot be read.
	unreadable func(ds.Key) bool
}

func (f *flaky) Get(ctx context.Context, k ds.Key) ([]byte, error) {
	if f.unreadable != nil && f.unreadable(k) {
		return nil, errDisk
	}
	return f.Batching.Get(ctx, k)
}

type step int

const (
	fine step = iota
	atBatch
	atPut
	atCommit
)

var errDisk = errors.New("no space left on device")

func (f *flaky) Batch(ctx context.Context) (ds.Batch, error) {
	if f.fail == atBatch {
		return nil, errDisk
	}
	b, err := f.Batching.Batch(ctx)
	return flakyBatch{b, f}, err
}

type flakyBatch struct {
	ds.Batch
	f *flaky
}

func (b flakyBatch) Put(ctx context.Context, k ds.Key, v []byte) error {
	if b.f.fail == atPut {
		return errDisk
	}
	return b.Batch.Put(ctx, k, v)
}

func (b flakyBatch) Delete(ctx context.Context, k ds.Key) error {
	if b.f.fail == atPut {
		return errDisk
	}
	return b.Batch.Delete(ctx, k)
}

func (b flakyBatch) Commit(ctx context.Context) error {
	if b.f.fail == atCommit {
		return errDisk
	}
	return b.Batch.Commit(ctx)
}

func memory() ds.Batching { return dssync.MutexWrap(ds.NewMapDatastore()) }

// contents reads a datastore whole.
func contents(ctx context.Context, d ds.Datastore) (map[string]string, error) {
	results, err := d.Query(ctx, query.Query{})
	if err != nil {
		return nil, err
	}
	defer results.Close()
	out := map[string]string{}
	for r := range results.Next() {
		if r.Error != nil {
			return nil, r.Error
		}
		out[r.Key] = string(r.Value)
	}
	return out, nil
}

// TestStagedActsLikeADatastore compares staged with a plain map, through every
// operation, with flushes that succeed and fail at random.
func TestStagedActsLikeADatastore(t *testing.T) {
	ctx := t.Context()
	rapid.Check(t, func(r *rapid.T) {
		base := &flaky{Batching: memory()}
		s := newStaged(base)
		model, onDisk := map[string]string{}, map[string]string{}
		keys := rapid.SampledFrom([]ds.Key{ds.RawKey("/a"), ds.RawKey("/b"), ds.RawKey("/a/b"), ds.RawKey("/c/d/e")})
		values := rapid.OneOf(rapid.Just([]byte(nil)), rapid.Just([]byte{}), rapid.SliceOfN(rapid.Byte(), 1, 4))
		var batch ds.Batch
		r.Repeat(map[string]func(*rapid.T){
			"put": func(r *rapid.T) {
				k, v := keys.Draw(r, "key"), values.Draw(r, "value")
				if err := s.Put(ctx, k, v); err != nil {
					r.Fatal(err)
				}
				model[k.String()] = string(v)
			},
			"delete": func(r *rapid.T) {
				k := keys.Draw(r, "key")
				if err := s.Delete(ctx, k); err != nil {
					r.Fatal(err)
				}
				delete(model, k.String())
			},
			"put in a batch": func(r *rapid.T) {
				if batch == nil {
					batch, _ = s.Batch(ctx)
				}
				k, v := keys.Draw(r, "key"), values.Draw(r, "value")
				if err := errors.Join(batch.Put(ctx, k, v), batch.Commit(ctx)); err != nil {
					r.Fatal(err)
				}
				model[k.String()] = string(v)
			},
			"delete in a batch": func(r *rapid.T) {
				b, err := s.Batch(ctx)
				k := keys.Draw(r, "key")
				if err := errors.Join(err, b.Delete(ctx, k), b.Commit(ctx)); err != nil {
					r.Fatal(err)
				}
				delete(model, k.String())
			},
			"sync is not flush": func(r *rapid.T) {
				if err := s.Sync(ctx, ds.NewKey("/")); err != nil {
					r.Fatal(err)
				}
			},
			"flush": func(r *rapid.T) {
				if err := s.flush(ctx); err != nil {
					r.Fatal(err)
				}
				onDisk = maps.Clone(model)
			},
			"flush fails": func(r *rapid.T) {
				base.fail = rapid.SampledFrom([]step{atBatch, atPut, atCommit}).Draw(r, "where")
				defer func() { base.fail = fine }()
				if len(s.dirty) > 0 && s.flush(ctx) == nil {
					r.Fatal("flush did not tell that it failed")
				}
			},
			"query": func(r *rapid.T) {
				got, err := contents(ctx, s)
				if err != nil || !maps.Equal(got, model) {
					r.Fatalf("query gives %v, %v, want %v", got, err, model)
				}
				onDisk = maps.Clone(model)
			},
			"": func(r *rapid.T) {
				for _, k := range []ds.Key{ds.RawKey("/a"), ds.RawKey("/b"), ds.RawKey("/a/b"), ds.RawKey("/c/d/e")} {
					want, there := model[k.String()]
					v, err := s.Get(ctx, k)
					if there && (err != nil || !bytes.Equal(v, []byte(want))) || !there && !errors.Is(err, ds.ErrNotFound) {
						r.Fatalf("Get(%s) = %q, %v, want %q, there: %v", k, v, err, want, there)
					}
					if has, err := s.Has(ctx, k); err != nil || has != there {
						r.Fatalf("Has(%s) = %v, %v, want %v", k, has, err, there)
					}
					n, err := s.GetSize(ctx, k)
					if there && (err != nil || n != len(want)) || !there && !errors.Is(err, ds.ErrNotFound) {
						r.Fatalf("GetSize(%s) = %d, %v, want %d, there: %v", k, n, err, len(want), there)
					}
				}
				// Nothing but a whole flush reaches the disk.
				if got, err := contents(ctx, base.Batching); err != nil || !maps.Equal(got, onDisk) {
					r.Fatalf("on disk is %v, %v, want %v", got, err, onDisk)
				}
			},
		})
	})
}

func TestStagedKeepsEverythingWhenTheDiskFails(t *testing.T) {
	for _, where := range []step{atBatch, atPut, atCommit} {
		t.Run(fmt.Sprint(where), func(t *testing.T) {
			ctx := t.Context()
			base := &flaky{Batching: memory()}
			if err := base.Put(ctx, ds.RawKey("/old"), []byte("1")); err != nil {
				t.Fatal(err)
			}
			s := newStaged(base)
			if err := errors.Join(s.Put(ctx, ds.RawKey("/new"), []byte("2")), s.Delete(ctx, ds.RawKey("/old"))); err != nil {
				t.Fatal(err)
			}
			base.fail = where
			if err := s.flush(ctx); !errors.Is(err, errDisk) {
				t.Fatalf("flush gives %v", err)
			}
			if v, err := s.Get(ctx, ds.RawKey("/new")); err != nil || string(v) != "2" {
				t.Errorf("after a failed flush /new is %q, %v", v, err)
			}
			if has, err := s.Has(ctx, ds.RawKey("/old")); err != nil || has {
				t.Errorf("after a failed flush /old is back: %v, %v", has, err)
			}
			base.fail = fine
			if err := s.flush(ctx); err != nil {
				t.Fatal(err)
			}
			got, err := contents(ctx, base.Batching)
			if want := map[string]string{"/new": "2"}; err != nil || !maps.Equal(got, want) {
				t.Errorf("on disk is %v, %v, want %v", got, err, want)
			}
		})
	}
}
