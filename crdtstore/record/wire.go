package record

import (
	"errors"
	"fmt"
	"math"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/wire"
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

// eachField calls f for every field of a message. in is kept alive by the
// strings handed out.
func eachField(in string, f func(wire.Number, wire.Field) error) error {
	return wire.EachExact(wire.View(in), ErrEncoding, f)
}

func unknownField(num wire.Number) error { return encodingError("unknown field %d", num) }

// float takes finite numbers only: there is no way to say another in JSON.
func float(f wire.Field, into *float64) error {
	v := math.Float64frombits(f.Uint)
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return encodingError("number is not finite")
	}
	*into = v
	return nil
}

// millis refuses times before 1970, which would stand below the zero values
// that mean "never" and so break the identity of Join.
func millis(f wire.Field, into *int64) error {
	if f.Uint > math.MaxInt64 {
		return encodingError("time out of range")
	}
	*into = int64(f.Uint)
	return nil
}
