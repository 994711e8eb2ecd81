package epoch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// When nodes were last seen is written for a bucket of nodes at a time, under a key
// of the master's own: /s<bucket>/<writer>. The value lists all nodes of the
// bucket of which this master knows when they were seen, so that its later values
// dominate its earlier ones, as they do for records: who reads what prevails of
// each key, and joins, has everything.

// Seen is when a node was last seen, in Unix milliseconds.
type Seen struct {
	Node string
	At   int64
}

// Bucket is when the nodes of a bucket were last seen: all of them of which that
// is known.
type Bucket struct {
	Number byte
	Seen   []Seen
}

// BucketName is what a bucket is called where nodes have ids. No node has such an id.
func BucketName(number byte) string { return fmt.Sprintf("/%02x", number) }

// BucketNumber is the inverse of BucketName; false for the id of a node.
func BucketNumber(name string) (byte, bool) {
	hex, ok := strings.CutPrefix(name, "/")
	n, err := strconv.ParseUint(hex, 16, 8)
	return byte(n), ok && err == nil
}

// PutSeen is Put for buckets.
func (l *Log) PutSeen(ctx context.Context, buckets []Bucket) error {
	var list []keyed
	for _, b := range buckets {
		list = append(list, seenValues(b)...)
	}
	return l.write(ctx, list)
}

// maxSeen is how many nodes one value lists, so that a block holds it whatever their ids.
// Anybody can choose ids that fall into one bucket.
const maxSeen = 4096

// seenValues are the values of a bucket: most often one, else each under a writer of its
// own. The nodes behind come first: when the bucket grows, some move on to the next value,
// and that has them before the one that they leave is written.
func seenValues(b Bucket) (list []keyed) {
	seen := slices.SortedFunc(slices.Values(b.Seen), func(a, b Seen) int { return strings.Compare(a.Node, b.Node) })
	part := 0
	for some := range slices.Chunk(seen, maxSeen) {
		suffix := ""
		if part > 0 {
			suffix = fmt.Sprint("-", part)
		}
		part++
		list = append(list, keyed{
			func(writer string) string { return SeenKey(b.Number, writer+suffix) },
			func() []byte { return EncodeSeen(some) },
		})
	}
	slices.Reverse(list)
	return list
}

// SeenKey is the key of a bucket: /s<bucket>/<writer>, the bucket as two hex digits.
func SeenKey(bucket byte, writer string) string { return "/s" + BucketName(bucket)[1:] + "/" + writer }

// splitSeen is the inverse of SeenKey.
func splitSeen(key string) (bucket byte, writer string, ok bool) {
	rest, ok := strings.CutPrefix(key, "/s")
	hex, writer, cut := strings.Cut(rest, "/")
	bucket, isHex := BucketNumber("/" + hex)
	return bucket, writer, ok && cut && isHex && BucketName(bucket)[1:] == hex && writer != "" && !strings.Contains(writer, "/")
}

// Decode calls f with what the value of a key says of nodes; it is not verified.
func Decode(key string, value []byte, f func(node string, s record.State)) error {
	if _, _, ok := splitSeen(key); ok {
		return decodeSeen(value, func(node string, at int64) { f(node, record.State{LastSeen: at}) })
	}
	node, _, ok := SplitKey(key)
	if !ok || record.ValidNodeID(node) != nil {
		return errKey
	}
	s, err := record.Decode(string(value))
	if err == nil {
		f(node, s)
	}
	return err
}

// seenVersion is the first byte of an encoded list.
const seenVersion = 1

// EncodeSeen writes a list: the greatest of the times, then the nodes ascending,
// each as how much of the id before it begins alike, the rest of its id, and how
// long before the greatest time it was seen.
func EncodeSeen(list []Seen) []byte {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Seen) int { return strings.Compare(a.Node, b.Node) })
	latest := int64(0)
	for _, s := range list {
		latest = max(latest, s.At)
	}
	b := protowire.AppendVarint([]byte{seenVersion}, uint64(latest))
	last := ""
	for _, s := range list {
		n := alike(last, s.Node)
		b = protowire.AppendVarint(b, uint64(n))
		b = protowire.AppendString(b, s.Node[n:])
		b = protowire.AppendVarint(b, uint64(latest-s.At))
		last = s.Node
	}
	return b
}

// alike is how many bytes two ids begin with in common.
func alike(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

var (
	errKey  = errors.New("no key that this program knows")
	errSeen = errors.New("no list of nodes and when they were seen")
)

// decodeSeen calls f for each node of a list. It refuses whatever EncodeSeen would
// not have written.
func decodeSeen(in []byte, f func(node string, at int64)) error {
	b := in
	if len(b) > 0 && b[0] > seenVersion {
		return fmt.Errorf("%w: %w", record.ErrNewer, errSeen)
	}
	if len(b) == 0 || b[0] != seenVersion {
		return errSeen
	}
	latest, n := protowire.ConsumeVarint(b[1:])
	if n < 0 || latest > math.MaxInt64 {
		return errSeen
	}
	var list []Seen
	last := ""
	for b = b[1+n:]; len(b) > 0; {
		same, n := protowire.ConsumeVarint(b)
		if n < 0 || same > uint64(len(last)) {
			return errSeen
		}
		b = b[n:]
		rest, n := protowire.ConsumeString(b)
		if n < 0 {
			return errSeen
		}
		b = b[n:]
		before, n := protowire.ConsumeVarint(b)
		if n < 0 || before >= latest {
			return errSeen
		}
		b = b[n:]
		node := last[:same] + rest
		if record.ValidNodeID(node) != nil || node <= last {
			return errSeen
		}
		list, last = append(list, Seen{node, int64(latest - before)}), node
	}
	if !bytes.Equal(EncodeSeen(list), in) {
		return errSeen
	}
	for _, s := range list {
		f(s.Node, s.At)
	}
	return nil
}
