package epoch

import (
	"context"
	"errors"

	"github.com/ipfs/boxo/datastore/dshelp"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	ipld "github.com/ipfs/go-ipld-format"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
)

// blocks is the ipld.DAGService that go-ds-crdt reads and writes its history
// through. It never asks the network: a head is handed to go-ds-crdt only when
// its blocks are here.
type blocks struct{ ds ds.Datastore }

var _ ipld.DAGService = blocks{}

func blockKey(c cid.Cid) ds.Key {
	return ds.RawKey("/b" + dshelp.MultihashToDsKey(c.Hash()).String())
}

func (b blocks) has(ctx context.Context, c cid.Cid) (bool, error) { return b.ds.Has(ctx, blockKey(c)) }

func (b blocks) raw(ctx context.Context, c cid.Cid) ([]byte, error) {
	raw, err := b.ds.Get(ctx, blockKey(c))
	if errors.Is(err, ds.ErrNotFound) {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	return raw, err
}

func (b blocks) block(ctx context.Context, c cid.Cid) (dag.Block, error) {
	raw, err := b.raw(ctx, c)
	if err != nil {
		return dag.Block{}, err
	}
	return dag.ParseKnown(c, raw)
}

func (b blocks) put(ctx context.Context, c cid.Cid, raw []byte) error {
	return b.ds.Put(ctx, blockKey(c), raw)
}

func (b blocks) Add(ctx context.Context, n ipld.Node) error { return b.put(ctx, n.Cid(), n.RawData()) }

func (b blocks) AddMany(ctx context.Context, nodes []ipld.Node) error {
	for _, n := range nodes {
		if err := b.Add(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (b blocks) Get(ctx context.Context, c cid.Cid) (ipld.Node, error) {
	raw, err := b.raw(ctx, c)
	if err != nil {
		return nil, err
	}
	return dag.Node(c, raw)
}

func (b blocks) GetMany(ctx context.Context, cids []cid.Cid) <-chan *ipld.NodeOption {
	out := make(chan *ipld.NodeOption, len(cids))
	defer close(out)
	for _, c := range cids {
		n, err := b.Get(ctx, c)
		out <- &ipld.NodeOption{Node: n, Err: err}
	}
	return out
}

func (b blocks) Remove(ctx context.Context, c cid.Cid) error { return b.ds.Delete(ctx, blockKey(c)) }

func (b blocks) RemoveMany(ctx context.Context, cids []cid.Cid) error {
	for _, c := range cids {
		if err := b.Remove(ctx, c); err != nil {
			return err
		}
	}
	return nil
}
