package backup

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// A backup is a line that says what it is and its version; then for each node, by
// id, the length of an entry (varint) and the entry: the node id behind its length,
// and its encoded state; a length of zero; how many entries there were (8 bytes,
// big endian); and the SHA-256 of all that.
const (
	magic    = "hero_explorer backup "
	version  = "1\n"
	maxEntry = 16 << 20 // bytes
)

// ErrUnreadable: the file is not a whole backup, or one of a newer version.
var ErrUnreadable = errors.New("not a backup that can be read")

// Write writes the states of nodes, which come by id, and returns how many there were.
// Errors: those of w, and the context's.
func Write(ctx context.Context, w io.Writer, states iter.Seq2[string, record.State]) (nodes int, err error) {
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	// bufio keeps the first error until Flush.
	_, _ = out.WriteString(magic + version)
	var entry, head []byte
	for id, st := range states {
		if err := ctx.Err(); err != nil {
			return nodes, err
		}
		entry = st.Append(protowire.AppendString(entry[:0], id))
		head = protowire.AppendVarint(head[:0], uint64(len(entry)))
		_, _ = out.Write(head)
		_, _ = out.Write(entry)
		nodes++
	}
	_, _ = out.Write(binary.BigEndian.AppendUint64([]byte{0}, uint64(nodes)))
	if err := out.Flush(); err != nil {
		return nodes, err
	}
	_, err = w.Write(sum.Sum(nil))
	return nodes, err
}

// Read calls each for every record, checks the file as a whole, and returns how many
// records there were. What is wrong with a file shows at its end at the latest. Errors:
// ErrUnreadable, those of r and of each, the context's.
func Read(ctx context.Context, r io.Reader, each func(node string, s record.State) error) (nodes int, err error) {
	source := &errReader{r: r}
	in := &hashReader{r: bufio.NewReaderSize(source, 64<<10), sum: sha256.New()}
	bad := func(format string, args ...any) (int, error) {
		if source.err != nil { // not the file's fault
			return nodes, source.err
		}
		return nodes, fmt.Errorf("%w: %s", ErrUnreadable, fmt.Sprintf(format, args...))
	}
	head := make([]byte, len(magic)+len(version))
	if _, err := io.ReadFull(in, head); err != nil || string(head[:len(magic)]) != magic {
		return bad("it does not begin as one")
	}
	if v := string(head[len(magic):]); v != version {
		return bad("it is of version %q, this program reads %q; use a newer program", strings.TrimSpace(v), strings.TrimSpace(version))
	}
	last := ""
	for {
		if err := ctx.Err(); err != nil {
			return nodes, err
		}
		size, err := binary.ReadUvarint(in)
		if err != nil || size > maxEntry {
			return bad("it is cut off or damaged after %d nodes", nodes)
		}
		if size == 0 {
			break
		}
		entry := make([]byte, size)
		if _, err := io.ReadFull(in, entry); err != nil {
			return bad("it is cut off after %d nodes", nodes)
		}
		node, n := protowire.ConsumeString(entry)
		if n < 0 || record.ValidNodeID(node) != nil || node <= last {
			return bad("it is damaged after %d nodes", nodes)
		}
		st, err := record.Decode(string(entry[n:]))
		if err != nil {
			return bad("the record of %s: %v", node, err)
		}
		last = node
		nodes++
		if err := each(node, st); err != nil {
			return nodes, err
		}
	}
	var count [8]byte
	if _, err := io.ReadFull(in, count[:]); err != nil || binary.BigEndian.Uint64(count[:]) != uint64(nodes) {
		return bad("it is cut off after %d nodes", nodes)
	}
	want := in.sum.Sum(nil)
	have := make([]byte, len(want))
	if _, err := io.ReadFull(in, have); err != nil || string(have) != string(want) {
		return bad("its checksum does not fit")
	}
	if n, _ := in.r.Read(make([]byte, 1)); n > 0 {
		return bad("something follows after its end")
	}
	return nodes, nil
}

// errReader remembers why reading failed, unless the end was reached.
type errReader struct {
	r   io.Reader
	err error
}

func (e *errReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		e.err = err
	}
	return n, err
}

// hashReader sums up what is read through it.
type hashReader struct {
	r   *bufio.Reader
	sum hash.Hash
}

func (h *hashReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	_, _ = h.sum.Write(p[:n]) // a hash never fails
	return n, err
}

func (h *hashReader) ReadByte() (byte, error) {
	b, err := h.r.ReadByte()
	if err == nil {
		_, _ = h.sum.Write([]byte{b})
	}
	return b, err
}
