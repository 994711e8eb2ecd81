package liveness

import (
	"math"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/wire"
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
	b = wire.AppendUint(wire.AppendUint(b, 1, uint64(e.Wall)), 2, uint64(e.Logical))
	return wire.AppendUint(wire.AppendString(wire.AppendString(b, 3, e.Master), 4, e.By), 5, uint64(max(e.Age, 0)/time.Millisecond))
}

func (e *Ended) decode(b []byte) error {
	return eachField(b, func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			e.Wall = int64(f.Uint)
		case 2:
			e.Logical = uint32(min(f.Uint, math.MaxUint32))
		case 3:
			e.Master = string(f.Bytes)
		case 4:
			e.By = string(f.Bytes)
		case 5:
			e.Age = milliseconds(f.Uint)
		}
		return nil
	})
}
