package record

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// The codecs in this package write protobuf wire format (record.proto shows the
// schema) in one canonical way: fields ascending, zero values left out, lists
// sorted, shortest varints. A decoder parses leniently and then encodes what it
// understood; bytes that do not come out the same are refused. So the rule
// "equal values, equal bytes" needs no second implementation to enforce it, and
// fields of a newer schema are refused rather than dropped.

// Errors of the decoders in this package.
var (
	// ErrEncoding is wrapped by every one of them.
	ErrEncoding = errors.New("record: bad encoding")
	// ErrNewer: the state is of a schema version that this program does not know. A
	// newer program reads it, so it must not be thrown away.
	ErrNewer = errors.New("written by a newer program")
)

func encodingError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrEncoding, fmt.Sprintf(format, args...))
}

func putUint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func putString(b []byte, field protowire.Number, v string) []byte {
	if v == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func putFloat(b []byte, field protowire.Number, v float64) []byte {
	bits := math.Float64bits(v)
	if bits == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), bits)
}

// putMessage appends a nested message, even an empty one; callers leave out
// what is zero. The length is written last, in place, to spare an allocation.
func putMessage(b []byte, field protowire.Number, write func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	at := len(b)
	b = write(append(b, 0))
	n := len(b) - at - 1
	if extra := protowire.SizeVarint(uint64(n)) - 1; extra > 0 {
		b = append(b, make([]byte, extra)...)
		copy(b[at+1+extra:], b[at+1:at+1+n])
	}
	protowire.AppendVarint(b[:at], uint64(n))
	return b
}

// field is one decoded field. Num holds varints and fixed64 bits, Str the rest;
// Str shares memory with the input.
type field struct {
	Num  uint64
	Str  string
	Type protowire.Type
}

// eachField calls f for every field of a message. in is kept alive by the
// strings handed out.
func eachField(in string, f func(protowire.Number, field) error) error {
	b := unsafeBytes(in)
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return encodingError("broken tag")
		}
		b, in = b[n:], in[n:]
		v := field{Type: typ}
		switch typ {
		case protowire.VarintType:
			v.Num, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			v.Num, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			var size uint64
			size, n = protowire.ConsumeVarint(b)
			if n >= 0 {
				if size > uint64(len(b)-n) {
					return encodingError("field %d is cut off", num)
				}
				v.Str = in[n : n+int(size)]
				n += int(size)
			}
		default:
			return encodingError("field %d has an unknown type", num)
		}
		if n < 0 {
			return encodingError("field %d is broken", num)
		}
		b, in = b[n:], in[n:]
		if err := f(num, v); err != nil {
			return err
		}
	}
	return nil
}

func unknownField(num protowire.Number) error { return encodingError("unknown field %d", num) }

// float takes finite numbers only: there is no way to say another in JSON.
func (f field) float(into *float64) error {
	v := math.Float64frombits(f.Num)
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return encodingError("number is not finite")
	}
	*into = v
	return nil
}

// millis refuses times before 1970, which would stand below the zero values
// that mean "never" and so break the identity of Join.
func (f field) millis(into *int64) error {
	if f.Num > math.MaxInt64 {
		return encodingError("time out of range")
	}
	*into = int64(f.Num)
	return nil
}
