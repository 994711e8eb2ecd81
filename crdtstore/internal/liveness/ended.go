package liveness

import (
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Ended is that an operator has ended preservation.
type Ended struct {
	Wall    int64 // the stamp, Unix milliseconds; the greatest prevails
	Logical uint32
	Master  string // id of the master that was asked first
	By      string // who ended it
	Age     time.Duration
}

func (e *Ended) append(b []byte) []byte {
	b = putUint(putUint(b, 1, uint64(e.Wall)), 2, uint64(e.Logical))
	return putUint(putString(putString(b, 3, e.Master), 4, e.By), 5, uint64(max(e.Age, 0)/time.Millisecond))
}

func (e *Ended) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, n uint64, v []byte) error {
		switch num {
		case 1:
			e.Wall = int64(n)
		case 2:
			e.Logical = uint32(min(n, math.MaxUint32))
		case 3:
			e.Master = string(v)
		case 4:
			e.By = string(v)
		case 5:
			e.Age = milliseconds(n)
		}
		return nil
	})
}
