package crdtstore

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// A backup is a line that says what it is and its version; then for each node, by
// id, the length of an entry (varint) and the entry: the node id behind its length,
// and its encoded state; a length of zero; how many entries there were (8 bytes,
// big endian); and the SHA-256 of all that.
const (
	backupHead     = "hero_explorer backup "
	backupVersion  = "1\n"
	maxBackupEntry = 16 << 20 // bytes
	restoreBatch   = 1000     // nodes written before the next are read
)

// BackupInfo sums up a backup or a restore.
type BackupInfo struct {
	Nodes   int `json:"nodes"`   // in the file, removed ones included
	Changed int `json:"changed"` // nodes of which Restore learned something
}

// Backup writes the records as they are, those of removed nodes included. Records
// that change while it runs are written as they were or as they are; each is whole.
// It blocks nobody. Errors: those of w, and the context's.
func (s *Store) Backup(ctx context.Context, w io.Writer) (BackupInfo, error) {
	ctx = orBackground(ctx)
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	var info BackupInfo
	// bufio keeps the first error until Flush.
	_, _ = out.WriteString(backupHead + backupVersion)
	var entry, head []byte
	for e := range s.table.All() {
		if err := ctx.Err(); err != nil {
			return info, err
		}
		entry = e.State.Append(protowire.AppendString(entry[:0], e.ID))
		head = protowire.AppendVarint(head[:0], uint64(len(entry)))
		_, _ = out.Write(head)
		_, _ = out.Write(entry)
		info.Nodes++
	}
	_, _ = out.Write(binary.BigEndian.AppendUint64([]byte{0}, uint64(info.Nodes)))
	if err := out.Flush(); err != nil {
		return info, err
	}
	_, err := w.Write(sum.Sum(nil))
	return info, err
}

// Restore joins the records of a backup into the store and returns when they are
// on disk. It merges: a record that is newer here stays, and a node that was
// removed here stays removed. Restoring one file on several masters, or twice,
// gives equal records. The file is read to its end and checked before anything
// changes; for that it is kept in a temporary file in Dir. Errors: ErrBackup,
// ErrUnavailable, ErrClosed, the context's, those of r.
func (s *Store) Restore(ctx context.Context, r io.Reader) (BackupInfo, error) {
	ctx = orBackground(ctx)
	spool, err := os.CreateTemp(s.cfg.Dir, ".restore-*")
	if err != nil {
		return BackupInfo{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer func() { _, _ = spool.Close(), os.Remove(spool.Name()) }()
	nothing := func(string, record.State) error { return nil }
	if _, err := readBackup(ctx, io.TeeReader(r, spooler{spool}), nothing); err != nil {
		return BackupInfo{}, err
	}
	if err := errors.Join(s.replica.Health(), s.collisions.Yielded()); err != nil {
		return BackupInfo{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return BackupInfo{}, err
	}
	var changed int
	var waiting []*replica.Flush
	waitWritten := func() error {
		var errs []error
		for _, f := range slices.Compact(waiting) {
			errs = append(errs, s.replica.Wait(ctx, f))
		}
		waiting = waiting[:0]
		return errors.Join(errs...)
	}
	info, err := readBackup(ctx, spool, func(node string, st record.State) error {
		f, news := s.replica.Learned(node, st.Verified(node))
		if news {
			changed++
		}
		if f == nil {
			return nil
		}
		if waiting = append(waiting, f); len(waiting) < restoreBatch {
			return nil
		}
		return waitWritten()
	})
	info.Changed = changed
	return info, errors.Join(err, waitWritten())
}

// readBackup calls each for every record and checks the file as a whole. What is
// wrong with it shows at its end at the latest.
func readBackup(ctx context.Context, r io.Reader, each func(node string, s record.State) error) (BackupInfo, error) {
	var info BackupInfo
	source := &errReader{r: r}
	in := &hashReader{r: bufio.NewReaderSize(source, 64<<10), sum: sha256.New()}
	bad := func(format string, args ...any) (BackupInfo, error) {
		if source.err != nil { // not the file's fault
			return info, source.err
		}
		return info, fmt.Errorf("%w: %s", ErrBackup, fmt.Sprintf(format, args...))
	}
	head := make([]byte, len(backupHead)+len(backupVersion))
	if _, err := io.ReadFull(in, head); err != nil || string(head[:len(backupHead)]) != backupHead {
		return bad("it does not begin as one")
	}
	if v := string(head[len(backupHead):]); v != backupVersion {
		return bad("it is of version %q, this program reads %q; use a newer program", strings.TrimSpace(v), strings.TrimSpace(backupVersion))
	}
	last := ""
	for {
		if err := ctx.Err(); err != nil {
			return info, err
		}
		size, err := binary.ReadUvarint(in)
		if err != nil || size > maxBackupEntry {
			return bad("it is cut off or damaged after %d nodes", info.Nodes)
		}
		if size == 0 {
			break
		}
		entry := make([]byte, size)
		if _, err := io.ReadFull(in, entry); err != nil {
			return bad("it is cut off after %d nodes", info.Nodes)
		}
		node, n := protowire.ConsumeString(entry)
		if n < 0 || record.ValidNodeID(node) != nil || node <= last {
			return bad("it is damaged after %d nodes", info.Nodes)
		}
		st, err := record.Decode(string(entry[n:]))
		if err != nil {
			return bad("the record of %s: %v", node, err)
		}
		last = node
		info.Nodes++
		if err := each(node, st); err != nil {
			return info, err
		}
	}
	var count [8]byte
	if _, err := io.ReadFull(in, count[:]); err != nil || binary.BigEndian.Uint64(count[:]) != uint64(info.Nodes) {
		return bad("it is cut off after %d nodes", info.Nodes)
	}
	want := in.sum.Sum(nil)
	have := make([]byte, len(want))
	if _, err := io.ReadFull(in, have); err != nil || string(have) != string(want) {
		return bad("its checksum does not fit")
	}
	if n, _ := in.r.Read(make([]byte, 1)); n > 0 {
		return bad("something follows after its end")
	}
	return info, nil
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

// spooler is a file on this master's disk.
type spooler struct{ w io.Writer }

func (s spooler) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
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
