package epoch

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"

	ds "github.com/ipfs/go-datastore"
)

// tallyKey is where an epoch's tally is kept.
var tallyKey = ds.NewKey("/tally")

// tally is what was ever written in an epoch, by all masters: elements, and the
// bytes of their values. It is kept on disk with every transaction, so that it needs not
// be counted when the epoch is opened.
type tally struct{ entries, bytes atomic.Int64 }

// add counts an element.
func (t *tally) add(value []byte) {
	t.entries.Add(1)
	t.bytes.Add(int64(len(value)))
}

func (t *tally) save(s *staged) {
	b := binary.AppendUvarint(nil, uint64(t.entries.Load()))
	s.stage(tallyKey, binary.AppendUvarint(b, uint64(t.bytes.Load())))
}

func (t *tally) load(ctx context.Context, s *staged) error {
	b, err := s.Get(ctx, tallyKey)
	if errors.Is(err, ds.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, n := binary.Uvarint(b)
	bytes, m := binary.Uvarint(b[max(n, 0):])
	if n <= 0 || m <= 0 {
		return errors.New("its tally cannot be read")
	}
	t.entries.Store(int64(entries))
	t.bytes.Store(int64(bytes))
	return nil
}
