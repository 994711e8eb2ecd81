package epoch

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
)

// Heads returns the blocks that no other block builds on. It returns none while the
// history cannot be read.
func (l *Log) Heads() []cid.Cid {
	e, err := l.use()
	if err != nil {
		return nil
	}
	defer e.release()
	return e.crdt.InternalStats(context.Background()).Heads
}

// Has reports whether a block, and so all its past, is here.
func (l *Log) Has(ctx context.Context, c cid.Cid) (bool, error) {
	e, err := l.use()
	if err != nil {
		return false, err
	}
	defer e.release()
	return e.blocks.has(ctx, c)
}

// Block returns a block that is here. It is what its CID says: what the disk has
// made of it otherwise is an error.
func (l *Log) Block(ctx context.Context, c cid.Cid) (dag.Block, error) {
	e, err := l.use()
	if err != nil {
		return dag.Block{}, err
	}
	defer e.release()
	raw, err := e.blocks.raw(ctx, c)
	if err != nil {
		return dag.Block{}, err
	}
	b, err := dag.Parse(raw)
	if errors.Is(err, dag.ErrLarge) {
		e.large.Store(true)
		return dag.Block{}, fmt.Errorf("block %s: %w", c, err)
	}
	if err == nil && b.Cid != c {
		err = fmt.Errorf("it reads as %s", b.Cid)
	}
	if err != nil {
		err = damaged(e.path, fmt.Errorf("block %s: %w", c, err))
		e.poison(err)
		return dag.Block{}, err
	}
	return b, nil
}
