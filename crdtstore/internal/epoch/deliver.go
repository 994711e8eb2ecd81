package epoch

import (
	"context"
	"fmt"

	"github.com/ipfs/go-cid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
)

// Deliver applies blocks of other masters; each must build only on blocks that
// are here or come before it in the list, else ErrMissing is returned, with
// those before it applied. They are in the file system when it returns, and on
// stable storage after the next Put or Sync. Blocks of another epoch are refused with
// ErrEpoch.
func (l *Log) Deliver(ctx context.Context, number uint64, list []dag.Block) error {
	if err := l.txn.take(ctx); err != nil {
		return err
	}
	defer l.txn.release()
	e, err := l.ready(ctx)
	if err != nil {
		return err
	}
	defer e.release()
	if number != e.number {
		return fmt.Errorf("%w: %d, this master is in %d", ErrEpoch, number, e.number)
	}
	ctx = context.WithoutCancel(ctx)
	for len(list) > 0 && err == nil {
		n, size := 0, 0
		for n < len(list) && (n == 0 || size+len(list[n].Raw) <= maxTxnBytes) {
			size += len(list[n].Raw)
			n++
		}
		err, list = l.deliver(ctx, e, list[:n]), list[n:]
	}
	return err
}

// deliver stores, applies and writes down so many blocks as go well at once.
func (l *Log) deliver(ctx context.Context, e *epoch, list []dag.Block) (err error) {
	defer e.values.endTxn()
	var heads []cid.Cid
	heights := make(map[cid.Cid]uint64, len(list))
	for _, b := range list {
		isNew, storeErr := l.store(ctx, e, b, heights)
		if storeErr != nil {
			err = storeErr
			break
		}
		if isNew {
			heads = append(heads, b.Cid)
		}
	}
	if len(heads) == 0 {
		return err
	}
	// The first block into an empty history goes alone: go-ds-crdt makes every
	// head of the first payload that it sees a head of its own.
	first := 0
	if len(e.crdt.InternalStats(ctx).Heads) == 0 {
		first = 1
	}
	for _, part := range [][]cid.Cid{heads[:first], heads[first:]} {
		if len(part) == 0 {
			continue
		}
		if err := e.apply(ctx, part); err != nil {
			return l.breaks(e, err)
		}
	}
	e.tally.save(e.staged)
	if flushErr := l.flush(ctx, e); flushErr != nil {
		return flushErr
	}
	return err
}

// store stages a block and hands on its states, unless the block is here. heights
// remembers those of the blocks that were stored in this transaction.
func (l *Log) store(ctx context.Context, e *epoch, b dag.Block, heights map[cid.Cid]uint64) (isNew bool, err error) {
	if has, err := e.blocks.has(ctx, b.Cid); err != nil || has {
		return false, err
	}
	below := uint64(0)
	for _, c := range b.Links {
		if has, err := e.blocks.has(ctx, c); err != nil {
			return false, err
		} else if !has {
			return false, fmt.Errorf("%w: %s", ErrMissing, b.Cid)
		}
		h, ok := heights[c]
		if !ok {
			past, err := e.blocks.block(ctx, c)
			if err != nil {
				return false, err
			}
			h = past.Height
		}
		below = max(below, h)
	}
	// Everything here relies on a block standing one above its past: the order in
	// which blocks are sent, and that what is written next stands above all.
	if b.Height != below+1 {
		return false, fmt.Errorf("%w: %s says height %d, and stands on %d", dag.ErrBlock, b.Cid, b.Height, below)
	}
	elements, err := b.Elements()
	if err != nil {
		return false, err
	}
	if err := e.blocks.put(ctx, b.Cid, b.Raw); err != nil {
		return false, err
	}
	heights[b.Cid] = b.Height
	e.taken.Add(1)
	list := make([]value, len(elements))
	for i, el := range elements {
		e.tally.add(el.Value)
		list[i] = value{key: el.Key, bytes: el.Value}
	}
	if l.applyAll(list) {
		e.values.markVerified(b.Cid)
	}
	return true, nil
}
