package ops

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// kind is what is known of an operation.
type kind byte

const (
	kindBegun     kind = iota + 1 // it may be running
	kindDone                      // it ran, with this answer
	kindTooLarge                  // it ran, and its answer was not kept
	kindUnknown                   // it began, and nobody will learn how it ended
	kindForgotten                 // it did not run after all
	kindDamage                    // of no operation: records were lost at this time
	kindFresh                     // of no operation: the journal began at this time
)

// record says all that is known of an operation. A later one of the same id takes
// its place.
type record struct {
	kind        kind
	at          time.Duration // by the clock of the Journal, in whole milliseconds
	id          string
	fingerprint [32]byte
	answer      []byte // kindDone only
}

func (r record) append(dst []byte) []byte {
	dst = append(dst, byte(r.kind))
	dst = binary.AppendUvarint(dst, uint64(r.at.Milliseconds()))
	dst = append(dst, byte(len(r.id)))
	dst = append(dst, r.id...)
	dst = append(dst, r.fingerprint[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(r.answer)))
	return append(dst, r.answer...)
}

var errRecord = errors.New("no record")

// decodeRecord reads the record at the beginning of b, and returns what follows.
// The answer points into b.
func decodeRecord(b []byte) (r record, rest []byte, err error) {
	if len(b) == 0 || b[0] < byte(kindBegun) || b[0] > byte(kindFresh) {
		return r, nil, errRecord
	}
	r.kind, b = kind(b[0]), b[1:]
	at, n := binary.Uvarint(b)
	if n <= 0 || at > uint64(math.MaxInt64/time.Millisecond) {
		return r, nil, errRecord
	}
	r.at, b = time.Duration(at)*time.Millisecond, b[n:]
	if len(b) == 0 || len(b)-1 < int(b[0])+len(r.fingerprint) || b[0] > MaxID || (b[0] == 0) != (r.kind >= kindDamage) {
		return r, nil, errRecord
	}
	r.id, b = string(b[1:1+b[0]]), b[1+b[0]:]
	b = b[copy(r.fingerprint[:], b):]
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) || size > 0 && r.kind != kindDone {
		return r, nil, errRecord
	}
	if b = b[n:]; r.kind == kindDone {
		r.answer = b[:size:size]
	}
	return r, b[size:], nil
}

// mark is a random number that begins every frame of a file. Nobody outside knows
// it, so no answer can hold what looks like a frame.
type mark [8]byte

func newMark() (m mark) {
	_, _ = rand.Read(m[:]) // it never fails
	return m
}

const (
	title      = "hero_explorer operations "
	version    = 1
	sumSize    = 8
	frameExtra = len(mark{}) + 4 + sumSize // bytes of a frame besides its content
)

// sum is the checksum of what stands before it in the header or in a frame,
// followed by what stands behind it.
func sum(before, after []byte) []byte {
	h := sha256.New()
	_, _ = h.Write(before) // a hash takes everything
	_, _ = h.Write(after)
	return h.Sum(nil)[:sumSize]
}

func appendHeader(dst []byte, m mark) []byte {
	begin := len(dst)
	dst = fmt.Appendf(dst, "%s%d\n", title, version)
	dst = append(dst, m[:]...)
	return append(dst, sum(dst[begin:], nil)...)
}

// appendFrame appends a frame with content, which may be empty.
func appendFrame(dst []byte, m mark, content []byte) []byte {
	begin := len(dst)
	dst = append(dst, m[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(content)))
	dst = append(dst, sum(dst[begin:], content)...)
	return append(dst, content...)
}

// frame returns the content of the frame at the beginning of b, and its size.
func frame(b []byte, m mark) (content []byte, size int, ok bool) {
	if len(b) < frameExtra || !bytes.HasPrefix(b, m[:]) {
		return nil, 0, false
	}
	head, rest := b[:len(m)+4], b[frameExtra:]
	n := binary.BigEndian.Uint32(head[len(m):])
	if uint64(n) > uint64(len(rest)) {
		return nil, 0, false
	}
	content = rest[:n:n]
	return content, frameExtra + int(n), bytes.Equal(sum(head, content), b[len(head):frameExtra])
}

// content is what a file holds.
type content struct {
	records []record
	// damage says what could not be read although it had been on stable storage;
	// empty: nothing. What was cut off at the end is no damage.
	damage string
}

// parse reads a file. The only error is ErrNewer. Answers point into b.
func parse(b []byte) (c content, err error) {
	m, at, ok := header(b)
	if !ok {
		return content{damage: "the beginning of the file cannot be read, and with it all that follows"}, nil
	}
	if v, err := strconv.Atoi(string(b[len(title) : at-sumSize-len(m)-1])); err != nil || v != version {
		return content{}, fmt.Errorf("%w: version %s, this one reads %d; use the program that wrote it, or a newer one",
			ErrNewer, b[len(title):at-sumSize-len(m)-1], version)
	}
	lost := func(from, to int) {
		if c.damage == "" {
			c.damage = fmt.Sprintf("bytes %d to %d cannot be read", from, to)
		}
	}
	for at < len(b) {
		in, size, ok := frame(b[at:], m)
		if !ok {
			// A frame of records is written when those before it are on stable
			// storage, but the mark between the two may reach it after both. So a
			// power cut tears the last frame of records, the mark before it, or both.
			// Where the last frame is whole, what was torn is as long as a mark, and
			// shorter than any frame of records: no record is lost, whatever tore it.
			next := nextFrame(b, at+1, m)
			if next < 0 {
				return c, nil
			}
			if next-at != frameExtra {
				lost(at, next)
			}
			at = next
			continue
		}
		for len(in) > 0 {
			var r record
			if r, in, err = decodeRecord(in); err != nil {
				lost(at, at+size)
				break
			}
			c.records = append(c.records, r)
		}
		at += size
	}
	return c, nil
}

// header returns the mark of a file and where its frames begin. Other versions
// have the same header.
func header(b []byte) (m mark, end int, ok bool) {
	line := bytes.IndexByte(b, '\n')
	if end = line + 1 + len(m) + sumSize; line < 0 || len(b) < end || !bytes.HasPrefix(b[:line], []byte(title)) {
		return m, 0, false
	}
	copy(m[:], b[line+1:])
	return m, end, bytes.Equal(sum(b[:end-sumSize], nil), b[end-sumSize:end])
}

// nextFrame returns where the first whole frame at or behind from begins, or -1.
func nextFrame(b []byte, from int, m mark) int {
	for from < len(b) {
		i := bytes.Index(b[from:], m[:])
		if i < 0 {
			break
		}
		if _, _, ok := frame(b[from+i:], m); ok {
			return from + i
		}
		from += i + 1
	}
	return -1
}
