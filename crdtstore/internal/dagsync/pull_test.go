package dagsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	pb "github.com/ipfs/go-ds-crdt/pb"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-msgio"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
)

// replica is a History in memory that refuses a block whose past is missing.
type replica struct {
	number uint64
	blocks map[cid.Cid]dag.Block
	asked  int // how often Has was called
}

func newReplica(blocks ...dag.Block) *replica {
	r := &replica{number: 1, blocks: map[cid.Cid]dag.Block{}}
	for _, b := range blocks {
		r.blocks[b.Cid] = b
	}
	return r
}

func (r *replica) Number() uint64 { return r.number }

func (r *replica) Heads() []cid.Cid {
	out := maps.Clone(r.blocks)
	for _, b := range r.blocks {
		for _, l := range b.Links {
			delete(out, l)
		}
	}
	return slices.SortedFunc(maps.Keys(out), func(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
}

func (r *replica) Has(_ context.Context, c cid.Cid) (bool, error) {
	r.asked++
	_, ok := r.blocks[c]
	return ok, nil
}

func (r *replica) Block(_ context.Context, c cid.Cid) (dag.Block, error) {
	if b, ok := r.blocks[c]; ok {
		return b, nil
	}
	return dag.Block{}, ipld.ErrNotFound{Cid: c}
}

var errMissing = errors.New("the past of a block is missing")

func (r *replica) deliver(list []dag.Block) error {
	if len(list) == 0 || len(list) > batchBlocks {
		return fmt.Errorf("a batch of %d blocks", len(list))
	}
	for _, b := range list {
		for _, l := range b.Links {
			if _, ok := r.blocks[l]; !ok {
				return fmt.Errorf("%w: %s", errMissing, b.Cid)
			}
		}
		r.blocks[b.Cid] = b
	}
	return nil
}

func (r *replica) holds(other *replica) bool {
	for c := range other.blocks {
		if _, ok := r.blocks[c]; !ok {
			return false
		}
	}
	return true
}

// block makes a block one above those it builds on.
func block(t testing.TB, value string, past ...dag.Block) dag.Block {
	t.Helper()
	height := uint64(0)
	for _, p := range past {
		height = max(height, p.Height)
	}
	data, err := proto.Marshal(&pb.Delta{
		Priority: height + 1, Elements: []*pb.Element{{Key: "/nx/m", Value: []byte(value)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	n := merkledag.NodeWithData(data)
	for _, p := range past {
		if err := n.AddRawLink("", &ipld.Link{Cid: p.Cid}); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
		t.Fatal(err)
	}
	b, err := dag.Parse(n.RawData())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// line makes n blocks, each on the one before.
func line(t testing.TB, n int, name string, past ...dag.Block) []dag.Block {
	t.Helper()
	out := make([]dag.Block, 0, n)
	for i := range n {
		b := block(t, fmt.Sprint(name, i), past...)
		out, past = append(out, b), []dag.Block{b}
	}
	return out
}

// transfer is what went over the wire in one pull.
type transfer struct {
	pulled, served    int
	pullErr, serveErr error
	up, down          int // bytes from and to the puller
}

func pull(t testing.TB, to, from *replica) transfer {
	t.Helper()
	a, b := newPipe()
	var x transfer
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.served, x.serveErr = Serve(t.Context(), b, from)
	}()
	x.pulled, x.pullErr = Pull(t.Context(), a, to, to.deliver)
	<-done
	x.up, x.down = b.in.total, a.in.total
	return x
}

func TestPullBringsEverything(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		a, b := newReplica(), newReplica()
		// Both write on what they have, and now and then get a part of what the
		// other has.
		for i := range rnd.IntN(300) {
			r, other := a, b
			if rnd.IntN(2) == 0 {
				r, other = b, a
			}
			var past []dag.Block
			for _, h := range r.Heads() {
				past = append(past, r.blocks[h])
			}
			if rnd.IntN(8) == 0 && len(past) > 0 {
				past = past[:rnd.IntN(len(past))+1]
			}
			nb := block(t, fmt.Sprint(seed, i), past...)
			r.blocks[nb.Cid] = nb
			if rnd.IntN(20) == 0 {
				if x := pull(t, other, r); x.pullErr != nil || x.serveErr != nil {
					t.Fatalf("seed %d: %v, %v", seed, x.pullErr, x.serveErr)
				}
			}
		}
		want, before := len(b.blocks), len(a.blocks)
		missing := 0
		for c := range b.blocks {
			if _, ok := a.blocks[c]; !ok {
				missing++
			}
		}
		x := pull(t, a, b)
		if x.pullErr != nil || x.serveErr != nil || !a.holds(b) || len(b.blocks) != want {
			t.Fatalf("seed %d: %v, %v", seed, x.pullErr, x.serveErr)
		}
		if x.pulled != missing || x.served != missing || len(a.blocks) != before+missing {
			t.Errorf("seed %d: %d blocks came, %d were sent, %d were missing", seed, x.pulled, x.served, missing)
		}
		if x = pull(t, a, b); x.pulled != 0 || x.pullErr != nil {
			t.Errorf("seed %d: a second pull brings %d, %v", seed, x.pulled, x.pullErr)
		}
	}
}

// TestRoundTripsAreFew counts the offers: one a round trip.
func TestRoundTripsAreFew(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 17, 100, 1000, 5000, 20000} {
		common := line(t, 50, "common")
		blocks := append(slices.Clone(common), line(t, n, "new", common[49])...)
		puller := newReplica(common...)
		a, b := newPipe()
		done := make(chan error)
		go func() {
			_, err := Serve(t.Context(), b, newReplica(blocks...))
			done <- err
		}()
		reader := &offers{pipe: a}
		got, err := Pull(t.Context(), reader, puller, puller.deliver)
		if err := errors.Join(err, <-done); err != nil || got != n {
			t.Fatalf("%d blocks, want %d, %v", got, n, err)
		}
		// Each offer doubles, up to a most; the last one says that that was all.
		most := bits.Len(uint(n/firstOffer)) + n/maxOffer + 3
		if reader.writes-1 > most {
			t.Errorf("%d blocks took %d round trips, at most %d are right", n, reader.writes-1, most)
		}
		// The walk does not go far below what the puller has.
		if below := puller.asked - n; below > max(firstOffer, n+firstOffer) {
			t.Errorf("%d blocks: %d needless offers", n, below)
		}
	}
}

// offers counts the frames that the puller writes: one to start, and one answer
// to each offer.
type offers struct {
	*pipe
	writes int
}

func (o *offers) Write(b []byte) (int, error) {
	o.writes++
	return o.pipe.Write(b)
}

func TestPullFromAnotherEpoch(t *testing.T) {
	a, b := newReplica(), newReplica(line(t, 3, "x")...)
	b.number = 2
	x := pull(t, a, b)
	if !errors.Is(x.serveErr, ErrEpoch) || x.pullErr == nil || len(a.blocks) != 0 {
		t.Errorf("%v, %v", x.pullErr, x.serveErr)
	}
}

func TestPullIsContinued(t *testing.T) {
	all := line(t, 2000, "x")
	a, b := newReplica(), newReplica(all...)
	for tries := 0; !a.holds(b); tries++ {
		if tries > 20 {
			t.Fatal("makes no progress")
		}
		before := len(a.blocks)
		p, q := newPipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = Serve(t.Context(), q, b)
		}()
		left := 2
		n, err := Pull(t.Context(), p, a, func(list []dag.Block) error {
			if left--; left < 0 {
				return io.ErrShortBuffer
			}
			return a.deliver(list)
		})
		<-done
		if err != nil && !errors.Is(err, io.ErrShortBuffer) {
			t.Fatal(err)
		}
		if len(a.blocks) == before {
			t.Fatalf("a transfer that broke off after %d blocks brought nothing", n)
		}
	}
}

// TestConnectionBreaks resets the stream after any number of bytes: what came
// whole and in order is kept.
func TestConnectionBreaks(t *testing.T) {
	all := line(t, 40, "x")
	whole := pull(t, newReplica(), newReplica(all...))
	for at := 0; at < whole.down; at += 7 {
		a, b := newReplica(), newReplica(all...)
		p, q := newPipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = Serve(t.Context(), &breaking{pipe: q, left: at}, b)
		}()
		n, err := Pull(t.Context(), p, a, a.deliver)
		<-done
		if err == nil {
			t.Fatalf("broken off after %d bytes: %d blocks and no error", at, n)
		}
		if len(a.blocks) != n {
			t.Fatalf("broken off after %d bytes: %d blocks, says %d", at, len(a.blocks), n)
		}
		if x := pull(t, a, b); x.pullErr != nil || x.pulled != len(all)-n {
			t.Fatalf("continued: %d blocks, %v", x.pulled, x.pullErr)
		}
	}
}

// breaking resets itself after a number of bytes.
type breaking struct {
	*pipe
	left int
}

func (b *breaking) Write(p []byte) (int, error) {
	if len(p) > b.left {
		_, _ = b.pipe.Write(p[:b.left])
		for { // until the other side has read it
			b.out.mu.Lock()
			empty := len(b.out.buf) == 0 || b.out.broken != nil
			if !empty {
				b.out.moved.Wait()
			}
			b.out.mu.Unlock()
			if empty {
				break
			}
		}
		_ = b.Reset()
		return 0, errReset
	}
	b.left -= len(p)
	return b.pipe.Write(p)
}

// A server that has sent everything closes its end, which on some transports
// leaves nothing for the puller to close.
func TestServerCloses(t *testing.T) {
	a, b := newReplica(), newReplica(line(t, 40, "x")...)
	p, q := newPipe()
	served := make(chan error)
	go func() {
		_, err := Serve(t.Context(), q, b)
		served <- err
	}()
	n, err := Pull(t.Context(), closed{p}, a, a.deliver)
	if err != nil || n != 40 || !a.holds(b) {
		t.Errorf("%d blocks came, %v", n, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// closed is the puller's end when the server reads no more.
type closed struct{ *pipe }

func (closed) CloseWrite() error { return errors.New("the other side has stopped reading") }

// frame delimits a message.
func frame(msg []byte) []byte { return protowire.AppendBytes(nil, msg) }

func offer(blocks ...dag.Block) []byte {
	var b []byte
	for _, one := range blocks {
		b = protowire.AppendBytes(b, one.Cid.Bytes())
	}
	return frame(b)
}

// TestPullFromALiar answers a pull with what a server should not say.
func TestPullFromALiar(t *testing.T) {
	all := line(t, 3, "x")
	other := block(t, "never offered")
	tooMany := make([]byte, 0, 40*(maxOffer+1))
	for range maxOffer + 1 {
		tooMany = protowire.AppendBytes(tooMany, all[0].Cid.Bytes())
	}
	many := protowire.AppendBytes(nil, tooMany)
	for name, c := range map[string]struct {
		says [][]byte
		want error // nil: any
		keep int
	}{
		"nothing":              {nil, io.EOF, 0},
		"half an offer":        {[][]byte{offer(all...)[:20]}, io.ErrUnexpectedEOF, 0},
		"junk for an offer":    {[][]byte{frame([]byte("\x05junk"))}, ErrMessage, 0},
		"no CID":               {[][]byte{frame([]byte("\x04junk"))}, ErrMessage, 0},
		"an offer too long":    {[][]byte{many}, ErrMessage, 0},
		"a frame too long":     {[][]byte{protowire.AppendVarint(nil, maxFrame+1)}, msgio.ErrMsgTooLarge, 0},
		"a frame of 2^63":      {[][]byte{protowire.AppendVarint(nil, 1<<63)}, nil, 0},
		"no block":             {[][]byte{offer(all...), frame(nil), frame([]byte("junk"))}, dag.ErrBlock, 0},
		"a block not offered":  {[][]byte{offer(all...), frame(nil), frame(all[0].Raw), frame(other.Raw)}, ErrMessage, 1},
		"a block too large":    {[][]byte{offer(all...), frame(nil), frame(make([]byte, dag.MaxBlock+1))}, dag.ErrBlock, 0},
		"blocks out of order":  {[][]byte{offer(all...), frame(nil), frame(all[2].Raw), frame(all[0].Raw)}, errMissing, 0},
		"a block cut off":      {[][]byte{offer(all...), frame(nil), frame(all[0].Raw), frame(all[1].Raw)[:9]}, io.ErrUnexpectedEOF, 1},
		"a block changed":      {[][]byte{offer(all...), frame(nil), frame(all[0].Raw), frame(append([]byte{}, append(all[1].Raw[:len(all[1].Raw):len(all[1].Raw)], 0x12, 0)...))}, nil, 1},
		"a block twice":        {[][]byte{offer(all...), frame(nil), frame(all[0].Raw), frame(all[0].Raw)}, ErrMessage, 1},
		"less than offered":    {[][]byte{offer(all...), frame(nil), frame(all[0].Raw), frame(all[1].Raw)}, io.EOF, 2},
		"a length and no more": {[][]byte{offer(all...), frame(nil), {0x05}}, io.EOF, 0},
		"offers without end":   {endless(), ErrMessage, 0},
		"offers after the end": {[][]byte{offer(all...), frame(nil), offer(all...)}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newPipe()
			r := newReplica()
			go func() { // the other side listens to nothing
				_, _ = io.Copy(io.Discard, b)
			}()
			go func() {
				for _, msg := range c.says {
					_, _ = b.Write(msg)
				}
				_ = b.CloseWrite()
			}()
			n, err := Pull(t.Context(), a, r, r.deliver)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if len(r.blocks) != c.keep {
				t.Errorf("%d blocks were kept, want %d (%d said)", len(r.blocks), c.keep, n)
			}
			if _, err := b.Read(make([]byte, 1)); !errors.Is(err, errReset) {
				t.Error("the stream was not reset:", err)
			}
		})
	}
}

// endless offers the same blocks over and over.
func endless() [][]byte {
	var one []byte
	for i := range maxOffer {
		c, err := merkledag.V1CidPrefix().Sum(fmt.Append(nil, i))
		if err != nil {
			panic(err)
		}
		one = protowire.AppendBytes(one, c.Bytes())
	}
	return slices.Repeat([][]byte{frame(one)}, maxOffered/maxOffer+1)
}

// TestServeToALiar asks a server what a puller should not.
func TestServeToALiar(t *testing.T) {
	r := newReplica()
	for i := range 100 {
		b := block(t, fmt.Sprint("x", i))
		r.blocks[b.Cid] = b
	}
	epoch := frame(protowire.AppendVarint(nil, 1))
	for name, c := range map[string]struct {
		says [][]byte
		want error
	}{
		"nothing":          {nil, io.EOF},
		"an empty want":    {[][]byte{frame(nil)}, ErrMessage},
		"junk":             {[][]byte{frame([]byte{0xff, 0xff})}, ErrMessage},
		"too few answers":  {[][]byte{epoch, frame(make([]byte, firstOffer-1))}, ErrMessage},
		"too many answers": {[][]byte{epoch, frame(make([]byte, firstOffer+1))}, ErrMessage},
		"a frame too long": {[][]byte{epoch, protowire.AppendVarint(nil, maxOffer+17)}, msgio.ErrMsgTooLarge},
		"silence":          {[][]byte{epoch, frame(make([]byte, firstOffer))}, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newPipe()
			go func() { _, _ = io.Copy(io.Discard, a) }()
			for _, msg := range c.says {
				_, _ = a.Write(msg)
			}
			_ = a.CloseWrite()
			if n, err := Serve(t.Context(), b, r); !errors.Is(err, c.want) || n != 0 {
				t.Errorf("%d blocks, %v, want %v", n, err, c.want)
			}
		})
	}
}

// TestServeWithoutABlock is a server whose own history has a hole.
func TestServeWithoutABlock(t *testing.T) {
	all := line(t, 10, "x")
	r := newReplica(all...)
	delete(r.blocks, all[4].Cid)
	x := pull(t, newReplica(), r)
	if x.serveErr == nil || x.pullErr == nil || x.pulled != 0 {
		t.Errorf("%d blocks, %v, %v", x.pulled, x.pullErr, x.serveErr)
	}
}

func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplica(line(t, 3, "x")...)
		a, b := newPipe()
		began := time.Now()
		if _, err := Pull(t.Context(), a, r, r.deliver); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a silent server:", err)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("a silent server was waited for %s", took)
		}
		_ = b.Reset()
		a, b = newPipe()
		if _, err := Serve(t.Context(), b, r); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a silent puller:", err)
		}
		_ = a.Reset()
	})
}

// What has come is handed over before it takes much memory.
func TestBatchesAreBounded(t *testing.T) {
	for name, size := range map[string]int{"small blocks": 10, "large blocks": 900 << 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				blocks := 12
				if size < 1000 {
					blocks = 600
				}
				a, b := newReplica(), newReplica()
				var last []dag.Block
				for i := range blocks {
					nb := block(t, fmt.Sprint(i, strings.Repeat("x", size)), last...)
					b.blocks[nb.Cid], last = nb, []dag.Block{nb}
				}
				p, q := newPipe()
				done := make(chan error)
				go func() {
					_, err := Serve(t.Context(), q, b)
					done <- err
				}()
				lists := 0
				_, err := Pull(t.Context(), p, a, func(list []dag.Block) error {
					lists++
					bytes := 0
					for _, b := range list {
						bytes += len(b.Raw)
					}
					if len(list) > 256 || bytes >= 4<<20+dag.MaxBlock {
						t.Errorf("%d blocks of %d bytes are handed over at once", len(list), bytes)
					}
					return a.deliver(list)
				})
				if err := errors.Join(err, <-done); err != nil || !a.holds(b) || lists < 3 {
					t.Errorf("in %d lists: %v", lists, err)
				}
			})
		})
	}
}

// TestSlowTransfer is one that takes far longer than the patience, but in which
// something always moves.
func TestSlowTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newReplica(), newReplica(line(t, 1500, "x")...)
		p, q := newPipe()
		done := make(chan error)
		go func() {
			_, err := Serve(t.Context(), q, b)
			done <- err
		}()
		began := time.Now()
		_, err := Pull(t.Context(), p, a, func(list []dag.Block) error {
			time.Sleep(idleTimeout - time.Second)
			return a.deliver(list)
		})
		if err := errors.Join(err, <-done); err != nil || !a.holds(b) {
			t.Error(err)
		}
		if took := time.Since(began); took < 2*idleTimeout {
			t.Errorf("took only %s", took)
		}
	})
}

func TestPullEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := newReplica()
		a, b := newPipe()
		done := make(chan error)
		go func() {
			_, err := Pull(ctx, a, r, r.deliver)
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, errReset) {
			t.Error(err)
		}
		_ = b.Reset()
	})
}

func TestAnnouncementsCarryAllBlocksInOrder(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var blocks []dag.Block
		for i := range rnd.IntN(60) {
			blocks = append(blocks, block(t, fmt.Sprint(i)+string(make([]byte, rnd.IntN(900)))))
		}
		limit := 1 + rnd.IntN(4000)
		msgs := Announcements(seed, blocks, limit)
		var got []dag.Block
		for i, msg := range msgs {
			a, err := ParseAnnouncement(msg)
			if err != nil || a.Epoch != seed || len(a.Blocks) == 0 {
				t.Fatalf("seed %d: message %d is %+v, %v", seed, i, a, err)
			}
			if len(msg) > limit && len(a.Blocks) > 1 {
				t.Errorf("seed %d: a message of %d bytes, the limit is %d", seed, len(msg), limit)
			}
			for _, raw := range a.Blocks {
				b, err := dag.Parse(raw)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, b)
			}
		}
		if !slices.EqualFunc(got, blocks, func(a, b dag.Block) bool { return a.Cid.Equals(b.Cid) }) {
			t.Errorf("seed %d: %d blocks came out, %d went in", seed, len(got), len(blocks))
		}
	}
}

func TestParseAnnouncementOfANewerVersion(t *testing.T) {
	msg := Announcements(7, []dag.Block{block(t, "x")}, 1<<20)[0]
	msg = protowire.AppendString(protowire.AppendTag(msg, 99, protowire.BytesType), "what is this")
	if a, err := ParseAnnouncement(msg); err != nil || a.Epoch != 7 || len(a.Blocks) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
}

func FuzzParseAnnouncement(f *testing.F) {
	f.Add(Announcements(7, []dag.Block{block(f, "x"), block(f, "y")}, 1<<20)[0])
	f.Add([]byte{})
	f.Add([]byte{0x12, 0xff})
	f.Fuzz(func(t *testing.T, msg []byte) {
		a, err := ParseAnnouncement(msg)
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Fatal(err)
			}
			return
		}
		size := 0
		for _, b := range a.Blocks {
			size += len(b)
		}
		if size > len(msg) {
			t.Errorf("%d bytes of blocks out of %d", size, len(msg))
		}
	})
}

func FuzzReadOffer(f *testing.F) {
	b := block(f, "x")
	f.Add(offer(b, b))
	f.Add(frame(nil))
	f.Add([]byte{0x05, 0x04, 'j', 'u', 'n', 'k'})
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := readOffer(msgio.NewVarintReaderSize(bytes.NewReader(in), maxFrame))
		if err != nil {
			return
		}
		if len(got) > maxOffer {
			t.Fatalf("an offer of %d", len(got))
		}
		var again []byte
		for _, c := range got {
			if !c.Defined() {
				t.Fatal("an undefined CID")
			}
			again = protowire.AppendBytes(again, c.Bytes())
		}
		if back, err := readOffer(msgio.NewVarintReaderSize(bytes.NewReader(frame(again)), maxFrame)); err != nil || !slices.Equal(back, got) {
			t.Errorf("%v comes back as %v, %v", got, back, err)
		}
	})
}
