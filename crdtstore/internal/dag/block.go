package dag

import (
	"errors"
	"fmt"

	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"
	pb "github.com/ipfs/go-ds-crdt/pb"
	ipld "github.com/ipfs/go-ipld-format"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/wire"
)

// MaxBlock bounds the size of one block, in bytes. A block must fit into one
// pubsub message with room around it.
const MaxBlock = 1 << 20

// ErrBlock is wrapped by the errors of Parse.
var ErrBlock = errors.New("dag: not a block of a history")

var errDelta = fmt.Errorf("%w: its delta", ErrBlock)

// ErrLarge is wrapped beside ErrBlock where a block is larger than MaxBlock. Programs
// before the bounds of a state wrote such blocks.
var ErrLarge = errors.New("too large")

// Block is a parsed block. It is immutable.
type Block struct {
	Cid    cid.Cid
	Raw    []byte
	Links  []cid.Cid
	Height uint64 // 1 for a block that links to nothing
	data   []byte
}

// Parse reads a block, and computes its CID, so that a block can only be what
// its CID says.
func Parse(raw []byte) (Block, error) {
	if len(raw) > MaxBlock {
		return Block{}, fmt.Errorf("%w: %w: %d bytes, at most %d are allowed", ErrBlock, ErrLarge, len(raw), MaxBlock)
	}
	c, err := merkledag.V1CidPrefix().Sum(raw)
	if err != nil {
		return Block{}, fmt.Errorf("%w: %w", ErrBlock, err)
	}
	return parse(c, raw)
}

// parse reads a block whose CID is known to fit.
func parse(c cid.Cid, raw []byte) (Block, error) {
	node, err := decode(c, raw)
	if err != nil {
		return Block{}, err
	}
	b := Block{Cid: c, Raw: raw, data: node.Data()}
	for _, l := range node.Links() {
		// Blocks are stored by their hash alone. A link that means the same bytes
		// by another name would be found, and then not be read.
		if l.Cid.Prefix() != c.Prefix() {
			return Block{}, fmt.Errorf("%w: it links to %s, which names no block", ErrBlock, l.Cid)
		}
		b.Links = append(b.Links, l.Cid)
	}
	if b.Height, err = height(b.data); err != nil {
		return Block{}, err
	}
	if b.Height == 0 || len(b.Links) == 0 && b.Height != 1 {
		return Block{}, fmt.Errorf("%w: it stands at height %d", ErrBlock, b.Height)
	}
	return b, nil
}

// ParseKnown reads a block out of our own storage, without hashing it again.
func ParseKnown(c cid.Cid, raw []byte) (Block, error) { return parse(c, raw) }

// Node returns the block as an IPLD node.
func Node(c cid.Cid, raw []byte) (*merkledag.ProtoNode, error) { return decode(c, raw) }

func decode(c cid.Cid, raw []byte) (*merkledag.ProtoNode, error) {
	b, err := blocks.NewBlockWithCid(raw, c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBlock, err)
	}
	node, err := merkledag.DecodeProtobufBlock(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBlock, err)
	}
	pn, ok := node.(*merkledag.ProtoNode)
	if !ok {
		return nil, fmt.Errorf("%w: unexpected codec", ErrBlock)
	}
	return pn, nil
}

// Element is one key and value of a delta.
type Element struct {
	Key   string
	Value []byte
}

// New makes a block as go-ds-crdt does: one that writes the elements and builds on
// the links. The height must stand one above the highest of these.
func New(elements []Element, height uint64, links []cid.Cid) (Block, error) {
	d := pb.Delta{Priority: height}
	for _, e := range elements {
		d.Elements = append(d.Elements, &pb.Element{Key: e.Key, Value: e.Value})
	}
	data, err := proto.Marshal(&d)
	if err != nil {
		return Block{}, err
	}
	n := merkledag.NodeWithData(data)
	for _, l := range links {
		if err := n.AddRawLink("", &ipld.Link{Cid: l}); err != nil {
			return Block{}, err
		}
	}
	if err := n.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
		return Block{}, err
	}
	return Parse(n.RawData())
}

// Elements returns what the block writes. A block with tombstones is refused:
// nothing here writes any, for deleting in go-ds-crdt costs quadratic time and
// can diverge when it races a write. So is one with a key that is not clean, such
// as /a/../../b: go-ds-crdt joins keys as paths, and it would write outside of
// its namespace.
func (b Block) Elements() ([]Element, error) {
	var d pb.Delta
	if err := proto.Unmarshal(b.data, &d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBlock, err)
	}
	if len(d.GetTombstones()) > 0 {
		return nil, fmt.Errorf("%w: it has tombstones", ErrBlock)
	}
	out := make([]Element, len(d.GetElements()))
	for i, e := range d.GetElements() {
		if k := e.GetKey(); ds.NewKey(k).String() != k || k == "/" {
			return nil, fmt.Errorf("%w: it writes the key %q", ErrBlock, k)
		}
		out[i] = Element{e.GetKey(), e.GetValue()}
	}
	return out, nil
}

// height finds the delta's priority without decoding its elements.
func height(data []byte) (h uint64, err error) {
	err = wire.Each(data, errDelta, func(num wire.Number, f wire.Field) error {
		if num == 3 && f.Type == protowire.VarintType {
			h = f.Uint
		}
		return nil
	})
	return h, err
}
