package liveness

import (
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/wire"
)

// Settings are those of a master that should be the same on all.
type Settings struct {
	OfflineAfter time.Duration // by which it judges the silence of nodes; 0: not said
	Retention    time.Duration // 0: not said
	Others       []Setting
}

// Setting is a setting that only has to be compared.
type Setting struct{ Name, Value string }

func (s *Settings) append(b []byte) []byte {
	b = wire.AppendUint(b, 1, uint64(s.OfflineAfter/time.Millisecond))
	b = wire.AppendUint(b, 2, uint64(s.Retention/time.Millisecond))
	for _, o := range s.Others {
		b = wire.AppendMessage(b, 3, func(b []byte) []byte { return wire.AppendString(wire.AppendString(b, 1, o.Name), 2, o.Value) })
	}
	return b
}

func (s *Settings) decode(b []byte) error {
	return eachField(b, func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			s.OfflineAfter = milliseconds(f.Uint)
		case 2:
			s.Retention = milliseconds(f.Uint)
		case 3:
			var o Setting
			err := eachField(f.Bytes, func(num wire.Number, f wire.Field) error {
				switch num {
				case 1:
					o.Name = string(f.Bytes)
				case 2:
					o.Value = string(f.Bytes)
				}
				return nil
			})
			s.Others = append(s.Others, o)
			return err
		}
		return nil
	})
}

// milliseconds is a duration that fits into one, and into sums of a few.
func milliseconds(n uint64) time.Duration {
	return time.Duration(min(n, 20*366*24*3600*1000)) * time.Millisecond
}
