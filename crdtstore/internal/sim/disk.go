package sim

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

var (
	errDiskFull = errors.New("no space left on device")
	errCrashed  = errors.New("the process has died")
)

// disk is a model of a master's history and of the disk below it. It keeps each
// epoch as a list of turns, of which a crash takes an end that was not synced. Like
// go-ds-crdt it lets the value of the greatest height prevail inside a key, then
// the greater bytes.
type disk struct {
	self    string
	writer  string // see [epoch.Writer]
	rnd     *rand.Rand
	now     func() time.Time
	epochs  []*section // ascending by number
	failure error

	full    bool // nothing more can be written
	joining bool // nobody has found that it holds what the others hold
	// dieIn counts down with every Put, Adopt and Retire; at 0 the process dies in it, at a
	// random point.
	dieIn int
	dead  bool

	apply    func(node string, s record.State)
	announce func(number uint64, blocks []dag.Block)
}

// section is one epoch.
type section struct {
	number  uint64
	created time.Time
	cutoff  int64
	txns    [][]dag.Block
	synced  int // turns that are on stable storage

	// What follows is made of the turns.
	blocks  map[cid.Cid]dag.Block
	values  map[string]value
	heads   []cid.Cid
	written uint64
}

type value struct {
	height uint64
	bytes  []byte
}

func newDisk(self string, rnd *rand.Rand, now func() time.Time) *disk {
	d := &disk{self: self, rnd: rnd, now: now}
	d.wipe()
	return d
}

// wipe makes it an empty disk.
func (d *disk) wipe() {
	d.joining = true
	d.epochs = []*section{{number: 1, created: d.now()}}
	d.epochs[0].rebuild()
}

func (d *disk) cur() *section { return d.epochs[len(d.epochs)-1] }

// crash forgets what was not synced, or a part of it: the end is lost.
func (d *disk) crash() {
	for _, s := range d.epochs {
		s.txns = s.txns[:s.synced+d.rnd.IntN(len(s.txns)-s.synced+1)]
		s.rebuild()
	}
	d.failure, d.dieIn, d.dead = nil, 0, false
}

// recover lets the disk take writes again. A history sees that by itself.
func (d *disk) recover() { d.full, d.failure = false, nil }

// open hands over what the disk holds, as a process does that starts.
func (d *disk) open() {
	d.failure, d.dead = nil, false
	d.writer = epoch.Writer(d.self, d.rnd.Uint32())
	cutoff := int64(0)
	for _, s := range d.epochs {
		cutoff = max(cutoff, s.cutoff)
		for key, v := range s.sorted() {
			d.hand(key, v.bytes)
		}
	}
	d.cur().cutoff = cutoff
}

func (d *disk) hand(key string, b []byte) {
	if err := epoch.Decode(key, b, func(node string, s record.State) { d.apply(node, s.Verified(node)) }); err != nil {
		panic(err)
	}
}

func (s *section) rebuild() {
	s.blocks, s.values, s.heads, s.written = map[cid.Cid]dag.Block{}, map[string]value{}, nil, 0
	for _, t := range s.txns {
		for _, b := range t {
			s.take(b)
		}
	}
	s.synced = len(s.txns)
}

// take applies a block and returns its elements.
func (s *section) take(b dag.Block) []dag.Element {
	elements, err := b.Elements()
	if err != nil {
		panic(err)
	}
	s.blocks[b.Cid] = b
	s.heads = slices.DeleteFunc(s.heads, func(h cid.Cid) bool { return slices.Contains(b.Links, h) })
	s.heads = append(s.heads, b.Cid)
	for _, e := range elements {
		s.written += uint64(len(e.Value))
		was, ok := s.values[e.Key]
		if !ok || cmp.Or(cmp.Compare(was.height, b.Height), bytes.Compare(was.bytes, e.Value)) < 0 {
			s.values[e.Key] = value{b.Height, e.Value}
		}
	}
	return elements
}

func (s *section) sorted() iter.Seq2[string, value] {
	return func(yield func(string, value) bool) {
		keys := make([]string, 0, len(s.values))
		for k := range s.values {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			if !yield(k, s.values[k]) {
				return
			}
		}
	}
}

// held is what the section holds of every node.
func (s *section) held() map[string]record.State {
	out := map[string]record.State{}
	for k, v := range s.values {
		if err := epoch.Decode(k, v.bytes, func(node string, s record.State) {
			out[node] = record.Join(out[node], s.Verified(node))
		}); err != nil {
			panic(err)
		}
	}
	return out
}

// held is what all epochs hold.
func (d *disk) held() map[string]record.State {
	out := map[string]record.State{}
	for _, s := range d.epochs {
		for node, st := range s.held() {
			out[node] = record.Join(out[node], st)
		}
	}
	return out
}

func (d *disk) Number() uint64 { return d.cur().number }
func (d *disk) Cutoff() int64  { return d.cur().cutoff }
func (d *disk) Health() error  { return d.failure }

func (d *disk) Put(_ context.Context, writes []epoch.Write) error {
	var elements []dag.Element
	for _, w := range writes {
		elements = append(elements, dag.Element{Key: epoch.StateKey(w.Node, d.writer), Value: w.State.Encode()})
	}
	return d.put(elements)
}

func (d *disk) PutSeen(_ context.Context, buckets []epoch.Bucket) error {
	var elements []dag.Element
	for _, b := range buckets {
		elements = append(elements, dag.Element{Key: epoch.SeenKey(b.Number, d.writer), Value: epoch.EncodeSeen(b.Seen)})
	}
	return d.put(elements)
}

// dies reports whether the process dies in what begins now.
func (d *disk) dies() bool {
	if d.dieIn > 0 {
		d.dieIn--
		d.dead = d.dead || d.dieIn == 0
	}
	return d.dead
}

func (d *disk) put(elements []dag.Element) error {
	if d.dead {
		return errCrashed
	}
	d.dies()
	// A full disk may show before anything is written, or when it is synced.
	late := d.full && d.rnd.IntN(2) == 0
	if d.full && !late {
		d.failure = errDiskFull
		return d.failure
	}
	if d.dead && d.rnd.IntN(3) == 0 {
		return errCrashed // before anything is written
	}
	s := d.cur()
	var blocks []dag.Block
	for len(elements) > 0 {
		n := fitting(elements)
		b := s.build(elements[:n])
		elements = elements[n:]
		s.txns = append(s.txns, []dag.Block{b})
		s.take(b)
		blocks = append(blocks, b)
	}
	d.announce(s.number, blocks)
	if d.dead {
		return errCrashed // others have it, this disk may not
	}
	if late {
		d.failure = errDiskFull
		return d.failure
	}
	s.synced, d.failure = len(s.txns), nil
	return nil
}

// maxDelta is how many bytes of elements go into one block, as in the real history.
const maxDelta = 256 << 10

// fitting is how many of the elements go into one block; one does, however large it is.
func fitting(elements []dag.Element) int {
	size := 0
	for i, e := range elements {
		if size += len(e.Key) + len(e.Value) + 16; i > 0 && size > maxDelta {
			return i
		}
	}
	return len(elements)
}

// build makes a block on top of all that is here. That it would be too large to be read is
// a fault of those who wrote so much of one node.
func (s *section) build(elements []dag.Element) dag.Block {
	height := uint64(0)
	for _, h := range s.heads {
		height = max(height, s.blocks[h].Height)
	}
	b, err := dag.New(elements, height+1, s.heads)
	if err != nil {
		panic(err)
	}
	return b
}

// Reopened is for disks that fail while the process runs; here the process dies.
func (d *disk) Reopened() uint64 { return 0 }

func (d *disk) Unsynced() bool { return d.cur().synced < len(d.cur().txns) }

func (d *disk) Sync(context.Context) error {
	switch {
	case d.dead:
		return errCrashed
	case d.full:
		d.failure = errDiskFull
		return d.failure
	}
	d.cur().synced, d.failure = len(d.cur().txns), nil
	return nil
}

func (d *disk) Deliver(_ context.Context, number uint64, blocks []dag.Block) (err error) {
	s := d.cur()
	switch {
	case d.dead:
		return errCrashed
	case d.full:
		d.failure = errDiskFull
		return d.failure
	case number != s.number:
		return fmt.Errorf("%w: %d, this master is in %d", epoch.ErrEpoch, number, s.number)
	}
	var txn []dag.Block
	for _, b := range blocks {
		if _, ok := s.blocks[b.Cid]; ok {
			continue
		}
		if slices.ContainsFunc(b.Links, func(c cid.Cid) bool { _, ok := s.blocks[c]; return !ok }) {
			err = fmt.Errorf("%w: %s", epoch.ErrMissing, b.Cid)
			break
		}
		txn = append(txn, b)
		for _, e := range s.take(b) {
			d.hand(e.Key, e.Value)
		}
	}
	if len(txn) > 0 {
		s.txns = append(s.txns, txn)
	}
	return err
}

func (d *disk) Has(_ context.Context, c cid.Cid) (bool, error) {
	_, ok := d.cur().blocks[c]
	return ok, nil
}

func (d *disk) Block(_ context.Context, c cid.Cid) (dag.Block, error) {
	if b, ok := d.cur().blocks[c]; ok {
		return b, nil
	}
	return dag.Block{}, fmt.Errorf("no block %s", c)
}

func (d *disk) Heads() []cid.Cid { return slices.Clone(d.cur().heads) }

func (d *disk) Adopt(_ context.Context, number uint64, cutoff int64) error {
	was := d.cur()
	switch {
	case d.dead:
		return errCrashed
	case number < was.number || number == was.number && cutoff <= was.cutoff:
		return nil
	case d.full:
		return errDiskFull
	case number == was.number:
		was.cutoff = cutoff
		return nil
	}
	if d.dies() && d.rnd.IntN(3) == 0 {
		return errCrashed // before it is made
	}
	next := &section{number: number, created: d.now(), cutoff: max(cutoff, was.cutoff)}
	next.rebuild()
	d.epochs = append(d.epochs, next)
	if d.dead {
		return errCrashed // before what the one before holds is synced
	}
	was.synced = len(was.txns)
	return nil
}

func (d *disk) Missing(_ context.Context, states iter.Seq2[string, record.State]) ([]string, error) {
	held := d.cur().held()
	var out []string
	for node, s := range states {
		if !held[node].Dominates(s) {
			out = append(out, node)
		}
	}
	return out, nil
}

func (d *disk) Retire(context.Context) error {
	if d.dead {
		return errCrashed
	}
	if d.full {
		return errDiskFull // it cannot be synced
	}
	d.cur().synced = len(d.cur().txns)
	last := len(d.epochs) - 1
	if d.dies() { // when some of them are gone
		d.epochs = d.epochs[d.rnd.IntN(last+1):]
		return errCrashed
	}
	d.epochs = d.epochs[last:]
	return nil
}

func (d *disk) Stats() epoch.Stats {
	s := d.cur()
	return epoch.Stats{Number: s.number, Created: s.created, Written: s.written, Old: len(d.epochs) - 1}
}
