package wire

import (
	"fmt"
	"math"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// Number is the number of a field in its message.
type Number = protowire.Number

// Field is one field of a message.
type Field struct {
	Type  protowire.Type
	Uint  uint64 // a varint, or the bits of a fixed64
	Bytes []byte // text, bytes or a nested message; shares memory with the input
}

// View returns Bytes as a string without a copy. The input must not change from then on,
// and is kept alive by it.
func (f Field) View() string { return unsafe.String(unsafe.SliceData(f.Bytes), len(f.Bytes)) }

// View returns a string as bytes without a copy, which must only be read.
func View(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// Each calls f for every field of a message. A field of a type that no message has yet
// comes without a value, for a newer version may have sent it. The error is that of f, or
// wraps bad where the message is broken.
func Each(in []byte, bad error, f func(Number, Field) error) error { return each(in, bad, false, f) }

// EachExact is [Each] for messages of which every byte counts: a field of a type that no
// message has is an error.
func EachExact(in []byte, bad error, f func(Number, Field) error) error {
	return each(in, bad, true, f)
}

func each(in []byte, bad error, exact bool, f func(Number, Field) error) error {
	for len(in) > 0 {
		num, typ, n := protowire.ConsumeTag(in)
		if n < 0 {
			return fmt.Errorf("%w: broken tag", bad)
		}
		in = in[n:]
		v := Field{Type: typ}
		switch typ {
		case protowire.VarintType:
			v.Uint, n = protowire.ConsumeVarint(in)
		case protowire.Fixed64Type:
			v.Uint, n = protowire.ConsumeFixed64(in)
		case protowire.BytesType:
			v.Bytes, n = protowire.ConsumeBytes(in)
		default:
			if exact {
				return fmt.Errorf("%w: field %d has an unknown type", bad, num)
			}
			n = protowire.ConsumeFieldValue(num, typ, in)
		}
		if n < 0 {
			return fmt.Errorf("%w: field %d is broken or cut off", bad, num)
		}
		in = in[n:]
		if err := f(num, v); err != nil {
			return err
		}
	}
	return nil
}

// AppendUint appends a number, unless it is 0.
func AppendUint(b []byte, num Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// AppendBool appends a truth value, unless it is false.
func AppendBool(b []byte, num Number, v bool) []byte {
	if !v {
		return b
	}
	return AppendUint(b, num, 1)
}

// AppendString appends a text, unless it is empty.
func AppendString[T ~string | ~[]byte](b []byte, num Number, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return append(protowire.AppendVarint(b, uint64(len(v))), v...)
}

// AppendStrings appends texts, without those that are empty.
func AppendStrings(b []byte, num Number, list []string) []byte {
	for _, v := range list {
		b = AppendString(b, num, v)
	}
	return b
}

// AppendFloat appends a number of 64 bits, unless it is +0.
func AppendFloat(b []byte, num Number, v float64) []byte {
	bits := math.Float64bits(v)
	if bits == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), bits)
}

// AppendMessage appends a nested message, even an empty one; callers leave out what is
// zero. The length is written last, in place, to spare an allocation.
func AppendMessage(b []byte, num Number, write func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
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
