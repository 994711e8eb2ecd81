package antientropy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Protocol is the stream protocol. The side that opened the stream compares;
// frames are delimited by varints, and an empty frame ends a list:
//
//	comparer  mode (1 byte), then the digest of every bucket
//	server    node digests of the buckets that differ, frames of entries
//	comparer  mode merge: frames of states that the server lacks or holds otherwise
//	comparer  frames of ids of nodes whose state it wants
//	server    frames of those states
const Protocol protocol.ID = "/hero-explorer/states/1"

// What the comparer is after.
const (
	modeMerge byte = 1 // make both equal
	modeLook  byte = 2 // only see how the other differs
)

const (
	digestSize  = len(record.Digest{})
	maxFrame    = 2 << 20
	maxSkipped  = 64 << 20  // a frame that older programs may send, and that is passed over
	fullFrame   = 256 << 10 // a frame is sent when it holds this much
	idleTimeout = 20 * time.Second
)

// ErrMessage is wrapped by errors about messages that cannot be read.
var ErrMessage = errors.New("antientropy: bad message")

// Take is called with a state of another master, and joins it.
type Take func(node string, s record.State)

// Merge makes this table and the other side's equal, as they were when they were
// compared. take is called for every state that comes in. It returns how many
// nodes differed. The stream is closed.
func Merge(ctx context.Context, s network.Stream, t *table.Table, take Take) (differ int, err error) {
	c := newConn(ctx, s)
	defer c.end(&err)
	differing, err := c.compare(t, modeMerge)
	if err != nil {
		return 0, err
	}
	for _, node := range slices.Sorted(maps.Keys(differing)) {
		if e := t.Get(node); e != nil {
			c.putState(node, e.State)
		}
	}
	if err := c.flush(true); err != nil {
		return 0, err
	}
	if err := c.want(differing); err != nil {
		return 0, err
	}
	return len(differing), c.states(take)
}

// Look returns the nodes that this table and the other side's hold differently,
// at most limit, and how many there are. The stream is closed.
func Look(ctx context.Context, s network.Stream, t *table.Table, limit int) (list []Difference, differ int, err error) {
	c := newConn(ctx, s)
	defer c.end(&err)
	differing, err := c.compare(t, modeLook)
	if err != nil {
		return nil, 0, err
	}
	differ = len(differing)
	wanted := map[string]bool{}
	for _, node := range slices.Sorted(maps.Keys(differing)) {
		if len(list) == limit {
			break
		}
		d := Difference{Node: node}
		if e := t.Get(node); e != nil {
			d.Self = e.State
		}
		list = append(list, d)
		wanted[node] = differing[node]
	}
	if err := c.want(wanted); err != nil {
		return nil, 0, err
	}
	others := map[string]record.State{}
	if err := c.states(func(node string, s record.State) { others[node] = s }); err != nil {
		return nil, 0, err
	}
	for i := range list {
		list[i].Other = others[list[i].Node]
	}
	return list, differ, nil
}

// Serve answers one Merge or Look. The stream is closed.
func Serve(ctx context.Context, s network.Stream, t *table.Table, take Take) (err error) {
	c := newConn(ctx, s)
	defer c.end(&err)
	ask, err := c.read()
	if err != nil {
		return err
	}
	if len(ask) != 1+table.Buckets*digestSize || ask[0] != modeMerge && ask[0] != modeLook {
		return fmt.Errorf("%w: %d bytes of bucket digests", ErrMessage, len(ask))
	}
	mode, theirs := ask[0], ask[1:]
	differ := map[int]bool{}
	for i, d := range t.BucketDigests() {
		if string(d[:]) != string(theirs[i*digestSize:(i+1)*digestSize]) {
			differ[i] = true
		}
	}
	buckets := make([]byte, table.Buckets)
	for i := range differ {
		buckets[i] = 1
	}
	if err := c.send(buckets); err != nil {
		return err
	}
	for e := range t.All() {
		if differ[table.Bucket(e.ID)] {
			d := e.Digest()
			c.put(protowire.AppendBytes(protowire.AppendString(c.room(), e.ID), d[:]))
		}
	}
	if err := c.flush(true); err != nil {
		return err
	}
	if mode == modeMerge {
		if err := c.states(take); err != nil {
			return err
		}
	}
	// All wishes are read before the first is met: the comparer does not read
	// while it writes, so an answer in between could block both.
	wanted := map[string]*table.Entry{}
	err = c.list(func(in []byte) (int, error) {
		node, n := protowire.ConsumeString(in)
		if n < 0 {
			return 0, fmt.Errorf("%w: wanted node", ErrMessage)
		}
		if e := t.Get(node); e != nil {
			wanted[node] = e
		}
		return n, nil
	})
	if err != nil {
		return err
	}
	for _, node := range slices.Sorted(maps.Keys(wanted)) {
		c.putState(node, wanted[node].State)
	}
	return c.flush(true)
}

// compare returns the nodes that differ; true for those that the other side
// knows.
func (c *conn) compare(t *table.Table, mode byte) (map[string]bool, error) {
	ask := []byte{mode}
	for _, d := range t.BucketDigests() {
		ask = append(ask, d[:]...)
	}
	if err := c.send(ask); err != nil {
		return nil, err
	}
	buckets, err := c.read()
	if err != nil {
		return nil, err
	}
	if len(buckets) != table.Buckets {
		return nil, fmt.Errorf("%w: %d buckets", ErrMessage, len(buckets))
	}
	// What is only here differs too; what both have alike is taken out again.
	differing := map[string]bool{}
	for e := range t.All() {
		if buckets[table.Bucket(e.ID)] != 0 {
			differing[e.ID] = false
		}
	}
	err = c.list(func(in []byte) (int, error) {
		node, n := protowire.ConsumeString(in)
		if n < 0 {
			return 0, fmt.Errorf("%w: node digest", ErrMessage)
		}
		digest, k := protowire.ConsumeBytes(in[n:])
		if k < 0 || len(digest) != digestSize || record.ValidNodeID(node) != nil {
			return 0, fmt.Errorf("%w: node digest", ErrMessage)
		}
		if e := t.Get(node); e != nil && e.Digest() == record.Digest(digest) {
			delete(differing, node)
		} else {
			differing[node] = true
		}
		return n + k, nil
	})
	return differing, err
}

// want asks for the states of those nodes that the other side knows.
func (c *conn) want(nodes map[string]bool) error {
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		if nodes[node] {
			c.put(protowire.AppendString(c.room(), node))
		}
	}
	return c.flush(true)
}

func (c *conn) putState(node string, s record.State) {
	c.put(protowire.AppendBytes(protowire.AppendString(c.room(), node), s.Encode()))
}

// states reads states until the list ends. One that only a newer program can read is
// passed over, so that the others heal all the same; the error tells of it when all
// is said.
func (c *conn) states(take Take) error {
	return c.list(func(in []byte) (int, error) {
		node, n := protowire.ConsumeString(in)
		if n < 0 || record.ValidNodeID(node) != nil {
			return 0, fmt.Errorf("%w: state", ErrMessage)
		}
		raw, k := protowire.ConsumeBytes(in[n:])
		if k < 0 {
			return 0, fmt.Errorf("%w: state", ErrMessage)
		}
		s, err := record.Decode(string(raw))
		if errors.Is(err, record.ErrNewer) {
			c.newer = fmt.Errorf("node %s: %w", node, err)
			return n + k, nil
		}
		if err != nil {
			return 0, err
		}
		take(node, s.Verified(node))
		return n + k, nil
	})
}

// conn is a stream with frames of entries. Errors of put stick until flush.
type conn struct {
	s     network.Stream
	r     msgio.ReadCloser
	w     msgio.WriteCloser
	buf   []byte
	err   error
	newer error // a state that came is of a newer version, or too large
	stop  func() bool
}

func newConn(ctx context.Context, s network.Stream) *conn {
	return &conn{
		s: s, r: msgio.NewVarintReaderSize(s, maxFrame), w: msgio.NewVarintWriter(s),
		stop: context.AfterFunc(ctx, func() { _ = s.Reset() }),
	}
}

// end closes the stream, and adds to the error what was passed over.
func (c *conn) end(err *error) {
	c.stop()
	if *err != nil && !errors.Is(*err, io.EOF) {
		_ = c.s.Reset()
	} else {
		_ = c.s.Close()
	}
	*err = errors.Join(*err, c.newer)
}

func (c *conn) send(b []byte) error {
	_ = c.s.SetDeadline(time.Now().Add(idleTimeout))
	return c.w.WriteMsg(b)
}

func (c *conn) read() ([]byte, error) {
	_ = c.s.SetDeadline(time.Now().Add(idleTimeout))
	return c.r.ReadMsg()
}

// room is where the next entry is to be appended; put takes it.
func (c *conn) room() []byte { return c.buf }

func (c *conn) put(b []byte) {
	c.buf = b
	if len(c.buf) >= fullFrame {
		c.err = errors.Join(c.err, c.flush(false))
	}
}

// flush sends what is buffered, and with end the empty frame that ends a list.
func (c *conn) flush(end bool) error {
	if c.err != nil {
		return c.err
	}
	if len(c.buf) > 0 {
		if err := c.send(c.buf); err != nil {
			return err
		}
		c.buf = c.buf[:0]
	}
	if end {
		return c.send(nil)
	}
	return nil
}

// list reads frames of entries until the empty one. entry returns how many bytes
// it has used.
func (c *conn) list(entry func([]byte) (int, error)) error {
	for {
		if err := c.skip(); err != nil {
			return err
		}
		b, err := c.read()
		if err != nil {
			return err
		}
		if len(b) == 0 {
			return nil
		}
		for rest := b; len(rest) > 0; {
			n, err := entry(rest)
			if err != nil {
				return err
			}
			rest = rest[n:]
		}
		c.r.ReleaseMsg(b)
	}
}

// skip passes over frames that are too large, as programs sent them before states were
// bounded, so that what stands in the other frames heals all the same.
func (c *conn) skip() error {
	for {
		_ = c.s.SetDeadline(time.Now().Add(idleTimeout))
		n, err := c.r.NextMsgLen()
		if err != nil || n <= maxFrame || n > maxSkipped {
			return err
		}
		c.newer = fmt.Errorf("%w: a state in %d bytes, at most %d are read", ErrMessage, n, maxFrame)
		if _, err := io.CopyN(io.Discard, c.s, int64(n)); err != nil {
			return err
		}
		c.r = msgio.NewVarintReaderSize(c.s, maxFrame)
	}
}
