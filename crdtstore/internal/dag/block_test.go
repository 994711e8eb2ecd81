package dag_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	crdt "github.com/ipfs/go-ds-crdt"
	pb "github.com/ipfs/go-ds-crdt/pb"
	ipld "github.com/ipfs/go-ipld-format"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
)

// memory is an ipld.DAGService that keeps the blocks it is given, in order.
type memory struct {
	nodes map[cid.Cid]ipld.Node
	order []ipld.Node
}

func (m *memory) Add(_ context.Context, n ipld.Node) error {
	m.nodes[n.Cid()] = n
	m.order = append(m.order, n)
	return nil
}

func (m *memory) AddMany(ctx context.Context, nodes []ipld.Node) error {
	for _, n := range nodes {
		_ = m.Add(ctx, n)
	}
	return nil
}

func (m *memory) Get(_ context.Context, c cid.Cid) (ipld.Node, error) {
	if n := m.nodes[c]; n != nil {
		return n, nil
	}
	return nil, ipld.ErrNotFound{Cid: c}
}

func (m *memory) GetMany(ctx context.Context, cids []cid.Cid) <-chan *ipld.NodeOption {
	out := make(chan *ipld.NodeOption, len(cids))
	defer close(out)
	for _, c := range cids {
		n, err := m.Get(ctx, c)
		out <- &ipld.NodeOption{Node: n, Err: err}
	}
	return out
}

func (m *memory) Remove(context.Context, cid.Cid) error       { return nil }
func (m *memory) RemoveMany(context.Context, []cid.Cid) error { return nil }

// base opens a go-ds-crdt of its own, in memory, that talks to nobody.
func base(t testing.TB) (*crdt.Datastore, *memory) {
	t.Helper()
	blocks := &memory{nodes: map[cid.Cid]ipld.Node{}}
	o := crdt.DefaultOptions()
	o.RebroadcastInterval, o.RepairInterval = 24*time.Hour, 0
	d, err := crdt.New(dssync.MutexWrap(ds.NewMapDatastore()), ds.NewKey("/c"), blocks, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d, blocks
}

func TestParseReadsWhatTheBaseWrites(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		store, blocks := base(t)
		ctx := t.Context()
		deltas := rapid.SliceOfN(rapid.MapOfN(
			rapid.StringMatching(`/n[a-z]{1,8}/m[0-9]`), rapid.SliceOf(rapid.Byte()), 1, 5,
		), 1, 12).Draw(r, "deltas")
		for i, delta := range deltas {
			b, err := store.Batch(ctx)
			if err != nil {
				r.Fatal(err)
			}
			for k, v := range delta {
				if err := b.Put(ctx, ds.RawKey(k), v); err != nil {
					r.Fatal(err)
				}
			}
			if err := b.Commit(ctx); err != nil {
				r.Fatal(err)
			}
			node := blocks.order[len(blocks.order)-1]
			got, err := dag.Parse(node.RawData())
			if err != nil {
				r.Fatalf("block %d: %v", i, err)
			}
			known, err := dag.ParseKnown(node.Cid(), node.RawData())
			if err != nil || !known.Cid.Equals(got.Cid) || known.Height != got.Height {
				r.Fatalf("block %d: ParseKnown gives %v at %d, %v", i, known.Cid, known.Height, err)
			}
			if !got.Cid.Equals(node.Cid()) || got.Height != uint64(i+1) || string(got.Raw) != string(node.RawData()) {
				r.Fatalf("block %d is %s at height %d, want %s", i, got.Cid, got.Height, node.Cid())
			}
			var want []cid.Cid
			if i > 0 {
				want = []cid.Cid{blocks.order[i-1].Cid()}
			}
			if !slices.Equal(got.Links, want) {
				r.Fatalf("block %d links to %v, want %v", i, got.Links, want)
			}
			elements, err := got.Elements()
			if err != nil || len(elements) != len(delta) {
				r.Fatalf("block %d: %d elements, %v, want %d", i, len(elements), err, len(delta))
			}
			for _, e := range elements {
				if v, ok := delta[e.Key]; !ok || string(v) != string(e.Value) {
					r.Fatalf("block %d: element %q is %x, want %x", i, e.Key, e.Value, v)
				}
			}
			again, err := dag.Node(got.Cid, got.Raw)
			if err != nil || !again.Cid().Equals(node.Cid()) {
				r.Fatalf("block %d: Node gives %v, %v", i, again, err)
			}
		}
	})
}

// block makes a block of its own around a delta.
func block(t testing.TB, d *pb.Delta, links ...cid.Cid) []byte {
	t.Helper()
	data, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	n := merkledag.NodeWithData(data)
	for _, l := range links {
		if err := n.AddRawLink("", &ipld.Link{Cid: l}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
		t.Fatal(err)
	}
	return n.RawData()
}

func element(key, value string) *pb.Element { return &pb.Element{Key: key, Value: []byte(value)} }

func TestElementsRefusesTombstones(t *testing.T) {
	b, err := dag.Parse(block(t, &pb.Delta{
		Priority: 1, Elements: []*pb.Element{element("/na/m", "v")},
		Tombstones: []*pb.Element{{Key: "/nb/m", Id: "x"}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.Elements(); !errors.Is(err, dag.ErrBlock) || got != nil {
		t.Errorf("Elements = %v, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := block(t, &pb.Delta{Priority: 1, Elements: []*pb.Element{element("/na/m", "v")}})
	first, err := dag.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	broken := merkledag.NodeWithData([]byte{0x18})                                       // a varint field without a value
	raw, err := cid.Parse("bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e") // a link to bytes that are no block
	if err != nil {
		t.Fatal(err)
	}
	big := block(t, &pb.Delta{Priority: 1, Elements: []*pb.Element{element("/na/m", string(make([]byte, dag.MaxBlock)))}})
	for name, raw := range map[string][]byte{
		"one byte":       {0xff},
		"text":           []byte("not a block of anything"),
		"cut off":        good[:len(good)-1],
		"something more": append(slices.Clone(good), 0x7f),
		"broken delta":   broken.RawData(),
		"too large":      big,
		"no height":      block(t, &pb.Delta{}),
		"a high root":    block(t, &pb.Delta{Priority: 2}),
		"a low branch":   block(t, &pb.Delta{}, first.Cid),
		"a raw link":     block(t, &pb.Delta{Priority: 2}, raw),
	} {
		if b, err := dag.Parse(raw); !errors.Is(err, dag.ErrBlock) {
			t.Errorf("%s: %v, %v", name, b.Cid, err)
		}
	}
}

// Keys are clean paths below the root: go-ds-crdt joins them to others.
func TestElementsRefusesOddKeys(t *testing.T) {
	for key, ok := range map[string]bool{
		"/na/m": true, "/na": true, "/": false, "": false, "na/m": false, "/na/": false, "//na": false, "/na/../nb": false, "/na/./m": false, "/..": false,
	} {
		b, err := dag.Parse(block(t, &pb.Delta{Priority: 1, Elements: []*pb.Element{element("/good", "v"), element(key, "v")}}))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.Elements(); (err == nil) != ok || !ok && (got != nil || !errors.Is(err, dag.ErrBlock)) {
			t.Errorf("key %q: %v, %v", key, got, err)
		}
	}
}

func TestParseTakesTheLargestBlock(t *testing.T) {
	// Around the value are a few bytes of envelope.
	size := dag.MaxBlock - 64
	raw := block(t, &pb.Delta{Priority: 1, Elements: []*pb.Element{element("/na/m", string(make([]byte, size)))}})
	if len(raw) > dag.MaxBlock {
		t.Fatalf("the test's block has %d bytes", len(raw))
	}
	if _, err := dag.Parse(raw); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	first := block(f, &pb.Delta{Priority: 1, Elements: []*pb.Element{element("/na/m", "v")}})
	b, err := dag.Parse(first)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(first)
	f.Add(block(f, &pb.Delta{Priority: 2, Elements: []*pb.Element{element("/na/m", "w")}}, b.Cid))
	f.Add(block(f, &pb.Delta{Priority: 1<<64 - 1, Tombstones: []*pb.Element{{Key: "k", Id: "i"}}}, b.Cid, b.Cid))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := dag.Parse(raw)
		if err != nil {
			if !errors.Is(err, dag.ErrBlock) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		want, err := merkledag.V1CidPrefix().Sum(raw)
		if err != nil || !b.Cid.Equals(want) || string(b.Raw) != string(raw) {
			t.Fatalf("%x has the CID %s, want %s", raw, b.Cid, want)
		}
		known, err := dag.ParseKnown(b.Cid, raw)
		if err != nil || known.Height != b.Height || !slices.Equal(known.Links, b.Links) {
			t.Fatalf("ParseKnown gives %+v, %v", known, err)
		}
		node, err := dag.Node(b.Cid, raw)
		if err != nil || !node.Cid().Equals(b.Cid) {
			t.Fatalf("Node gives %v, %v", node, err)
		}
		elements, err := b.Elements()
		if err != nil {
			return
		}
		// What go-ds-crdt reads out of the block is what we read.
		var d pb.Delta
		if err := proto.Unmarshal(node.Data(), &d); err != nil {
			t.Fatalf("Elements took what the base refuses: %v", err)
		}
		if d.GetPriority() != b.Height || fmt.Sprint(len(d.GetElements())) != fmt.Sprint(len(elements)) {
			t.Fatalf("height %d and %d elements, the base reads %d and %d",
				b.Height, len(elements), d.GetPriority(), len(d.GetElements()))
		}
	})
}
