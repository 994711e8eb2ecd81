package epoch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs/boxo/datastore/dshelp"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
)

// indirect is the datastore that go-ds-crdt keeps its set in. It keeps every value
// once: go-ds-crdt stores the value that prevails of a key beside the block that
// it came with, and here only the name of that block goes to disk. That halves
// what is written and what is kept.
//
// Beside that name it says whether the value was found good, so that nobody has to look
// at a signature again when the history is read: what is on this master's disk, under
// Pebble's sums, is what this master wrote.
type indirect struct {
	*staged
	blocks blocks
	// lenient: values that cannot be read do not keep each from the others.
	lenient bool

	mu       sync.Mutex // guards what follows
	key      string     // of the element that was written last
	from     string     // the block that it is of
	read     cid.Cid
	best     map[string][]byte // the values of the block that was read last
	verified map[string]bool   // by multihash; see markVerified
	own      bool              // see beginOwn
}

var _ ds.Batching = (*indirect)(nil)

func newIndirect(s *staged) *indirect {
	return &indirect{staged: s, blocks: blocks{s}, verified: map[string]bool{}}
}

// What a stored value begins with when it is not the value itself.
const (
	inBlock         = 0x00 // the multihash of a block follows; the value is that of the key in it
	inVerifiedBlock = 0xfe // the same, and the value was found good
	verbatim        = 0xff // a value follows that begins with one of these bytes, or is empty
)

// markVerified says that every signature in a block was found good, until endTxn.
func (o *indirect) markVerified(c cid.Cid) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.verified[string(c.Hash())] = true
}

// beginOwn says that what is written until endTxn is of this master's own making.
func (o *indirect) beginOwn() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.own = true
}

// endTxn ends what markVerified and beginOwn began.
func (o *indirect) endTxn() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.verified)
	o.own = false
}

// valueKey returns the key whose value is stored under a name.
func valueKey(name string) (key string, ok bool) {
	if key, ok = strings.CutPrefix(name, values); ok {
		return strings.CutSuffix(key, "/v")
	}
	return "", false
}

func (o *indirect) Put(ctx context.Context, k ds.Key, v []byte) error {
	name := k.String()
	if el, ok := strings.CutPrefix(name, elements); ok {
		// The block's name is the last part. Its value is next, if it prevails.
		at := strings.LastIndexByte(el, '/')
		o.mu.Lock()
		o.key, o.from = el[:at], el[at:]
		o.mu.Unlock()
	} else if key, ok := valueKey(name); ok {
		v = o.refer(ctx, key, v)
	}
	return o.staged.Put(ctx, k, v)
}

// refer returns the name of a block instead of a value, if that stands for it.
func (o *indirect) refer(ctx context.Context, key string, v []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if key == o.key {
		if mh, err := dshelp.DsKeyToMultihash(ds.RawKey(o.from)); err == nil {
			if found, err := o.inBlock(ctx, mh, key); err == nil && bytes.Equal(found, v) {
				kind := byte(inBlock)
				if o.own || o.verified[string(mh)] {
					kind = inVerifiedBlock
				}
				return append([]byte{kind}, mh...)
			}
		}
	}
	if len(v) == 0 || v[0] == inBlock || v[0] == inVerifiedBlock || v[0] == verbatim {
		return append([]byte{verbatim}, v...)
	}
	return v
}

// inBlock returns the value of a key in a block; of several the one that prevails
// by the rule of go-ds-crdt, the greatest. It is called with mu held.
func (o *indirect) inBlock(ctx context.Context, mh multihash.Multihash, key string) ([]byte, error) {
	c := cid.NewCidV1(cid.DagProtobuf, mh)
	if !c.Equals(o.read) {
		b, err := o.blocks.block(ctx, c)
		if ipld.IsNotFound(err) || errors.Is(err, dag.ErrBlock) {
			return nil, damaged("block "+c.String(), err)
		} else if err != nil {
			return nil, err
		}
		list, err := b.Elements()
		if err != nil {
			return nil, damaged("block "+c.String(), err)
		}
		best := make(map[string][]byte, len(list))
		for _, e := range list {
			if was, ok := best[e.Key]; !ok || bytes.Compare(was, e.Value) < 0 {
				best[e.Key] = e.Value
			}
		}
		o.read, o.best = c, best
	}
	v, ok := o.best[key]
	if !ok {
		return nil, damaged("block "+c.String(), fmt.Errorf("it has no value of the key %q, whose value should be there", key))
	}
	return v, nil
}

// resolve returns the value that is stored for a key.
func (o *indirect) resolve(ctx context.Context, key string, stored []byte) ([]byte, error) {
	switch {
	case len(stored) > 0 && (stored[0] == inBlock || stored[0] == inVerifiedBlock):
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.inBlock(ctx, stored[1:], key)
	case len(stored) > 0 && stored[0] == verbatim:
		return stored[1:], nil
	}
	return stored, nil
}

func (o *indirect) Get(ctx context.Context, k ds.Key) ([]byte, error) {
	v, err := o.staged.Get(ctx, k)
	if err != nil {
		return nil, err
	}
	if key, ok := valueKey(k.String()); ok {
		return o.resolve(ctx, key, v)
	}
	return v, nil
}

// Batch returns a batch that writes at once, as that of staged.
func (o *indirect) Batch(context.Context) (ds.Batch, error) { return indirectBatch{o}, nil }

type indirectBatch struct{ o *indirect }

func (b indirectBatch) Put(ctx context.Context, k ds.Key, v []byte) error { return b.o.Put(ctx, k, v) }
func (b indirectBatch) Delete(ctx context.Context, k ds.Key) error        { return b.o.Delete(ctx, k) }
func (b indirectBatch) Commit(context.Context) error                      { return nil }

// stored is a value as it is stored.
type stored struct {
	key   string
	value []byte
}

// each calls f for every value, those of one block together, and says whether it was
// found good when it was written.
func (o *indirect) each(ctx context.Context, list []stored, f func(key string, value []byte, good bool)) error {
	slices.SortFunc(list, func(a, b stored) int { return bytes.Compare(a.value, b.value) })
	var first error
	for _, s := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		v, err := o.resolve(ctx, s.key, s.value)
		switch {
		case err == nil:
			f(s.key, v, len(s.value) > 0 && s.value[0] == inVerifiedBlock)
		case !o.lenient:
			return err
		case first == nil:
			first = err
		}
	}
	return first
}
