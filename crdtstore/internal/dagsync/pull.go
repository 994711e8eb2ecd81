package dagsync

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
)

// PullProtocol is the stream protocol that ships missing blocks. The side that
// opened the stream pulls; frames are varint-delimited:
//
//	puller  want   epoch
//	server  offer  CIDs, newest first        } repeated until the server
//	puller  known  one byte a CID: 1 = here  } knows all that is missing
//	server  offer  none
//	server  block  ...                       oldest first
//	        end of stream
//
// The server walks down from its heads in order of height; between offers it
// leaves out what is below blocks that the puller has. Offers double in size, so
// the two agree after a number of round trips that grows with the logarithm of
// what is missing. Blocks come
// oldest first, so that each can be applied when it arrives and a transfer that
// breaks off is continued where it stopped.
const PullProtocol protocol.ID = "/hero-explorer/pull/1"

const (
	firstOffer = 16
	maxOffer   = 8192
	maxFrame   = dag.MaxBlock + 64
	// maxOffered bounds how many blocks a puller lets itself be offered in one
	// transfer, and so what it remembers. No history has so many.
	maxOffered = 1 << 22
	// idleTimeout is how long one side waits for the other's next frame.
	idleTimeout = 20 * time.Second
	// A puller hands over what has come when this many blocks or bytes wait.
	batchBlocks = 256
	batchBytes  = 4 << 20
)

// History is what blocks are read from and delivered to.
type History interface {
	Number() uint64
	Heads() []cid.Cid
	Has(context.Context, cid.Cid) (bool, error)
	Block(context.Context, cid.Cid) (dag.Block, error)
}

// ErrEpoch: the other side is in another epoch.
var ErrEpoch = errors.New("dagsync: the other side is in another epoch")

// Pull fetches all that the other side has and this one has not, and calls
// deliver with it, in batches, in order. It returns how many blocks came. The
// stream is closed by Pull.
func Pull(ctx context.Context, s network.Stream, h History, deliver func([]dag.Block) error) (n int, err error) {
	defer func() {
		if err != nil {
			_ = s.Reset()
		} else {
			_ = s.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	w, r := msgio.NewVarintWriter(s), msgio.NewVarintReaderSize(s, maxFrame)
	wait := func() { _ = s.SetDeadline(time.Now().Add(idleTimeout)) }

	wait()
	if err := w.WriteMsg(protowire.AppendVarint(nil, h.Number())); err != nil {
		return 0, err
	}
	missing, offered := map[cid.Cid]bool{}, 0
	for {
		wait()
		offer, err := readOffer(r)
		if err != nil {
			return 0, err
		}
		if len(offer) == 0 {
			break
		}
		answer := make([]byte, len(offer))
		if offered += len(offer); offered > maxOffered {
			return 0, fmt.Errorf("%w: more than %d blocks are offered", ErrMessage, maxOffered)
		}
		for i, c := range offer {
			has, err := h.Has(ctx, c)
			if err != nil {
				return 0, err
			}
			if has {
				answer[i] = 1
			} else {
				missing[c] = true
			}
		}
		if err := w.WriteMsg(answer); err != nil {
			return 0, err
		}
	}
	// A server that has sent all may be gone already, and some transports make
	// that an error. The blocks are still to be read.
	_ = s.CloseWrite()
	var batch []dag.Block
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := deliver(batch)
		n += len(batch)
		batch, size = nil, 0
		return err
	}
	for {
		wait()
		raw, err := r.ReadMsg()
		if errors.Is(err, io.EOF) && len(missing) == 0 {
			return n, flush()
		}
		if err != nil {
			return n, errors.Join(err, flush())
		}
		b, err := dag.Parse(raw)
		if err != nil {
			return n, errors.Join(err, flush())
		}
		if !missing[b.Cid] {
			return n, errors.Join(fmt.Errorf("%w: a block that was not offered", ErrMessage), flush())
		}
		delete(missing, b.Cid)
		batch, size = append(batch, b), size+len(raw)
		if len(batch) >= batchBlocks || size >= batchBytes {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
}

// Serve answers one Pull. The stream is closed by Serve.
func Serve(ctx context.Context, s network.Stream, h History) (n int, err error) {
	defer func() {
		if err != nil {
			_ = s.Reset()
		} else {
			_ = s.Close()
		}
	}()
	w, r := msgio.NewVarintWriter(s), msgio.NewVarintReaderSize(s, maxOffer+16)
	wait := func() { _ = s.SetDeadline(time.Now().Add(idleTimeout)) }
	wait()
	want, err := r.ReadMsg()
	if err != nil {
		return 0, err
	}
	if epoch, k := protowire.ConsumeVarint(want); k < 0 {
		return 0, fmt.Errorf("%w: want", ErrMessage)
	} else if epoch != h.Number() {
		return 0, fmt.Errorf("%w: %d, this one is in %d", ErrEpoch, epoch, h.Number())
	}
	walk := walk{ctx: ctx, history: h, seen: map[cid.Cid]bool{}}
	heads := h.Heads()
	if err := walk.push(heads); err != nil {
		return 0, err
	}
	// wanted are the blocks that the puller may miss: the heads, and what a block
	// that it misses builds on.
	wanted := make(map[cid.Cid]bool, len(heads))
	for _, c := range heads {
		wanted[c] = true
	}
	var missing []item
	for size := firstOffer; walk.Len() > 0; size = min(2*size, maxOffer) {
		var offered []item
		for walk.Len() > 0 && len(offered) < size {
			it := heap.Pop(&walk).(item)
			offered = append(offered, it)
			// The walk goes on below a block before it is known whether the
			// puller has it: a long line would take a round trip a block else.
			if err := walk.push(it.links); err != nil {
				return 0, err
			}
		}
		wait()
		if err := writeOffer(w, offered); err != nil {
			return 0, err
		}
		known, err := r.ReadMsg()
		if err != nil {
			return 0, err
		}
		if len(known) != len(offered) {
			return 0, fmt.Errorf("%w: %d answers to %d offers", ErrMessage, len(known), len(offered))
		}
		for i, o := range offered {
			if known[i] != 0 {
				continue
			}
			missing = append(missing, o)
			for _, c := range o.links {
				wanted[c] = true
			}
		}
		walk.keep(wanted)
		r.ReleaseMsg(known)
	}
	if err := writeOffer(w, nil); err != nil {
		return 0, err
	}
	// A block is always higher than what it builds on.
	slices.SortFunc(missing, func(a, b item) int { return cmp.Compare(a.height, b.height) })
	for _, m := range missing {
		b, err := h.Block(ctx, m.cid)
		if err != nil {
			return n, err
		}
		wait()
		if err := w.WriteMsg(b.Raw); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// item is a block on a server's walk: its name and place, not its bytes, so
// that a long history can be walked in little memory.
type item struct {
	cid    cid.Cid
	height uint64
	links  []cid.Cid
}

// walk is a heap of blocks with the highest on top.
type walk struct {
	ctx     context.Context
	history History
	items   []item
	seen    map[cid.Cid]bool
}

func (w *walk) push(cids []cid.Cid) error {
	for _, c := range cids {
		if w.seen[c] {
			continue
		}
		w.seen[c] = true
		b, err := w.history.Block(w.ctx, c)
		if err != nil {
			return fmt.Errorf("walk down to %s: %w", c, err)
		}
		heap.Push(w, item{b.Cid, b.Height, b.Links})
	}
	return nil
}

// keep drops what is below blocks that the puller has, and only below those.
func (w *walk) keep(wanted map[cid.Cid]bool) {
	w.items = slices.DeleteFunc(w.items, func(it item) bool { return !wanted[it.cid] })
	heap.Init(w)
}

func (w *walk) Len() int           { return len(w.items) }
func (w *walk) Less(i, j int) bool { return w.items[i].height > w.items[j].height }
func (w *walk) Swap(i, j int)      { w.items[i], w.items[j] = w.items[j], w.items[i] }
func (w *walk) Push(x any)         { w.items = append(w.items, x.(item)) }
func (w *walk) Pop() any {
	last := w.items[len(w.items)-1]
	w.items = w.items[:len(w.items)-1]
	return last
}

func writeOffer(w msgio.Writer, items []item) error {
	var b []byte
	for _, it := range items {
		b = protowire.AppendBytes(b, it.cid.Bytes())
	}
	return w.WriteMsg(b)
}

func readOffer(r msgio.Reader) ([]cid.Cid, error) {
	b, err := r.ReadMsg()
	if err != nil {
		return nil, err
	}
	defer r.ReleaseMsg(b)
	var out []cid.Cid
	for rest := b; len(rest) > 0; {
		raw, n := protowire.ConsumeBytes(rest)
		if n < 0 || len(out) == maxOffer {
			return nil, fmt.Errorf("%w: offer", ErrMessage)
		}
		c, err := cid.Cast(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: offer: %w", ErrMessage, err)
		}
		out, rest = append(out, c), rest[n:]
	}
	return out, nil
}
