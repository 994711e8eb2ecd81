package epoch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble takes the first record of a write-ahead log or manifest that it cannot read
// for the end that a power failure has left, and drops what follows: a bit that
// flips there, or a log that is missing, would take acknowledged writes away without
// a word. So failStopFS notes down beside each of these files what of it was synced,
// in a file of the same name below sumsDir: a sum for each sync, and one is written
// only after the sync. What is noted must be there; a sum that is torn or lost
// itself says nothing and does no harm. Sums are not synced, as nothing hangs
// on the last ones after a power failure but finding damage that happened with it.
const (
	sumsDir = "sums"
	sumSize = 24
)

// summed reports whether sums are kept of a file: of those that are only appended to.
func summed(name string) bool {
	return strings.HasSuffix(name, ".log") || strings.HasPrefix(name, "MANIFEST-")
}

func sumPath(fs vfs.FS, name string) string {
	return fs.PathJoin(fs.PathDir(name), sumsDir, fs.PathBase(name))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sums notes down what of a file was synced.
type sums struct {
	to         vfs.File
	start, end int64 // what was written since the last sync
	crc        uint32
}

// newSums begins to note down what is synced of a file that was just made. A sum
// must not outlive its file in a power failure, so the file's name comes first.
func newSums(fs vfs.FS, name string) (*sums, error) {
	path := sumPath(fs, name)
	if err := errors.Join(syncDir(fs, fs.PathDir(name)), fs.MkdirAll(fs.PathDir(path), 0o700)); err != nil {
		return nil, err
	}
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &sums{to: f}, nil
}

// forgetSums deletes the sums of a file that is about to be deleted.
func forgetSums(fs vfs.FS, name string) error {
	path := sumPath(fs, name)
	if err := fs.Remove(path); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return syncDir(fs, fs.PathDir(path))
}

func (s *sums) wrote(p []byte) {
	s.crc = crc32.Update(s.crc, castagnoli, p)
	s.end += int64(len(p))
}

func (s *sums) synced() error {
	if s.start == s.end {
		return nil
	}
	_, err := s.to.Write(encodeSum(s.start, s.end, s.crc))
	s.start, s.crc = s.end, 0
	return err
}

// A sum is where the bytes begin and end, their CRC-32C, and that of the sum.
func encodeSum(start, end int64, crc uint32) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, sumSize), uint64(start))
	b = binary.BigEndian.AppendUint64(b, uint64(end))
	b = binary.BigEndian.AppendUint32(b, crc)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeSum reports whether it is a whole one.
func decodeSum(b []byte) (start, end int64, crc uint32, ok bool) {
	start, end = int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))
	ok = binary.BigEndian.Uint32(b[20:]) == crc32.Checksum(b[:20], castagnoli)
	return start, end, binary.BigEndian.Uint32(b[16:]), ok && 0 <= start && start < end
}

// verify compares the files of an epoch with what is noted of them.
func verify(in vfs.FS, path string) error {
	names, err := list(in, filepath.Join(path, sumsDir))
	for _, name := range names {
		err = errors.Join(err, verifyFile(in, filepath.Join(path, name), filepath.Join(path, sumsDir, name)))
	}
	return err
}

func verifyFile(in vfs.FS, path, noted string) error {
	list, err := readFile(in, noted)
	if err != nil {
		return err
	}
	var f vfs.File
	for ; len(list) >= sumSize; list = list[sumSize:] {
		start, end, want, ok := decodeSum(list)
		if !ok {
			continue
		}
		if f == nil {
			if f, err = in.Open(path); err != nil {
				return damage(path, err)
			}
			defer f.Close()
		}
		h := crc32.New(castagnoli)
		n, err := io.Copy(h, io.NewSectionReader(f, start, end-start))
		switch {
		case err != nil:
			return err
		case n < end-start:
			return damaged(path, fmt.Errorf("it ends before byte %d", end))
		case h.Sum32() != want:
			return damaged(path, fmt.Errorf("bytes %d to %d are not what was written", start, end))
		}
	}
	return nil
}
