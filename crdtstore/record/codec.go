package record

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/wire"
)

// SchemaVersion is the greatest first byte of an encoded State. A state that says
// nothing that version 1 could not say is written as version 1, so that older programs
// read it.
const SchemaVersion = 2

// version returns the schema version that a state is written in.
func (s State) version() byte {
	if s.Generation > 0 || slices.ContainsFunc(s.Claims, func(c Claim) bool { return c.RemovedBelow > 0 }) {
		return 2
	}
	return 1
}

// Digest identifies a set of states: the exclusive or of the digests of its
// members, so that it can be kept up to date one member at a time.
type Digest [16]byte

// Xor adds a member's digest, or takes it away again.
func (d Digest) Xor(e Digest) Digest {
	for i := range d {
		d[i] ^= e[i]
	}
	return d
}

// Digest returns the digest of one node's state. The zero State has the zero
// Digest, as if the node were not in the set.
func (s State) Digest(nodeID string) Digest {
	d, _ := s.Measure(nodeID)
	return d
}

// Measure returns the digest of one node's state, and how many bytes the
// encoding takes. Both are zero for the zero State.
func (s State) Measure(nodeID string) (Digest, int) {
	if s.IsZero() {
		return Digest{}, 0
	}
	b := make([]byte, 0, 1024)
	b = protowire.AppendString(b, nodeID)
	id := len(b)
	b = s.Append(b)
	sum := sha256.Sum256(b)
	return Digest(sum[:16]), len(b) - id
}

// Encode returns the canonical encoding.
func (s State) Encode() []byte { return s.Append(nil) }

// Append appends the canonical encoding to b.
func (s State) Append(b []byte) []byte {
	b = append(b, s.version())
	for _, c := range s.Claims {
		b = wire.AppendMessage(b, 1, c.append)
	}
	for _, w := range s.Overrides {
		b = wire.AppendMessage(b, 2, w.append)
	}
	if !s.Removal.IsZero() {
		b = wire.AppendMessage(b, 3, s.Removal.append)
	}
	b = wire.AppendUint(b, 4, uint64(s.LastSeen))
	return wire.AppendUint(b, 5, s.Generation)
}

// Decode parses an encoded State. It refuses whatever Encode would not have
// written for some state; of one that is beyond the bounds it returns what these
// leave, see [State.Bounded]. The strings of the result share memory with in.
func Decode(in string) (State, error) {
	var s State
	if in == "" {
		return s, encodingError("empty state")
	}
	if in[0] > SchemaVersion {
		return s, fmt.Errorf("%w: %w: state of schema version %d, this one reads %d; use the program that wrote it, or a newer one",
			ErrEncoding, ErrNewer, in[0], SchemaVersion)
	}
	if in[0] == 0 {
		return s, encodingError("state of schema version %d, which there never was", in[0])
	}
	err := eachField(in[1:], func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			c, err := decodeClaim(f.View())
			if n := len(s.Claims); err == nil && n > 0 && s.Claims[n-1].Key >= c.Key {
				return encodingError("claims out of order")
			}
			s.Claims = append(s.Claims, c)
			return err
		case 2:
			w, err := decodeOverride(f.View())
			if n := len(s.Overrides); err == nil && n > 0 && s.Overrides[n-1].Field >= w.Field {
				return encodingError("overrides out of order")
			}
			s.Overrides = append(s.Overrides, w)
			return err
		case 3:
			r, err := decodeRemoval(f.View())
			s.Removal = r
			return err
		case 4:
			return millis(f, &s.LastSeen)
		case 5:
			s.Generation = f.Uint
		default:
			return unknownField(num)
		}
		return nil
	})
	if err == nil && s.Generation > 0 && len(s.Claims) == 0 {
		err = encodingError("generation %d of no claims", s.Generation)
	}
	if err != nil {
		return State{}, err
	}
	if string(s.Append(make([]byte, 0, len(in)))) != in {
		return State{}, encodingError("state is not in canonical form")
	}
	return s.Bounded(), nil
}

func (c Claim) append(b []byte) []byte {
	b = wire.AppendString(b, 1, c.Key)
	b = putStamp(b, 2, c.First)
	if !c.Profile.IsZero() {
		b = wire.AppendMessage(b, 3, c.Profile.append)
	}
	if !c.VMs.IsZero() {
		b = wire.AppendMessage(b, 4, c.VMs.append)
	}
	return wire.AppendUint(b, 5, c.RemovedBelow)
}

func decodeClaim(in string) (c Claim, err error) {
	err = eachField(in, func(num wire.Number, f wire.Field) (err error) {
		switch num {
		case 1:
			c.Key = f.View()
		case 2:
			c.First, err = decodeStamp(f.View())
		case 3:
			c.Profile, err = decodeAccount(f.View())
		case 4:
			c.VMs, err = decodeAccount(f.View())
		case 5:
			c.RemovedBelow = f.Uint
		default:
			return unknownField(num)
		}
		return err
	})
	return c, err
}

func (a Account) append(b []byte) []byte {
	b = wire.AppendUint(b, 1, a.Version.Boot)
	b = wire.AppendUint(b, 2, a.Version.Seq)
	b = wire.AppendString(b, 3, a.Body)
	b = wire.AppendString(b, 4, a.Seal)
	return wire.AppendUint(b, 5, uint64(a.At))
}

func decodeAccount(in string) (a Account, err error) {
	err = eachField(in, func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			a.Version.Boot = f.Uint
		case 2:
			a.Version.Seq = f.Uint
		case 3:
			a.Body = f.View()
		case 4:
			a.Seal = f.View()
		case 5:
			return millis(f, &a.At)
		default:
			return unknownField(num)
		}
		return nil
	})
	return a, err
}

func (w Override) append(b []byte) []byte {
	b = wire.AppendString(b, 1, w.Field)
	b = putStamp(b, 2, w.Stamp)
	b = wire.AppendString(b, 3, w.Master)
	b = wire.AppendString(b, 4, w.Value)
	return wire.AppendString(b, 5, w.By)
}

func decodeOverride(in string) (w Override, err error) {
	err = eachField(in, func(num wire.Number, f wire.Field) (err error) {
		switch num {
		case 1:
			w.Field = f.View()
		case 2:
			w.Stamp, err = decodeStamp(f.View())
		case 3:
			w.Master = f.View()
		case 4:
			w.Value = f.View()
		case 5:
			w.By = f.View()
		default:
			return unknownField(num)
		}
		return err
	})
	return w, err
}

func (r Removal) append(b []byte) []byte {
	b = wire.AppendUint(b, 1, r.Boot)
	b = putStamp(b, 2, r.Stamp)
	b = wire.AppendString(b, 3, r.Master)
	b = wire.AppendString(b, 4, r.Reason)
	return wire.AppendString(b, 5, r.By)
}

func decodeRemoval(in string) (r Removal, err error) {
	err = eachField(in, func(num wire.Number, f wire.Field) (err error) {
		switch num {
		case 1:
			r.Boot = f.Uint
		case 2:
			r.Stamp, err = decodeStamp(f.View())
		case 3:
			r.Master = f.View()
		case 4:
			r.Reason = f.View()
		case 5:
			r.By = f.View()
		default:
			return unknownField(num)
		}
		return err
	})
	return r, err
}

func putStamp(b []byte, field wire.Number, s Stamp) []byte {
	if s == (Stamp{}) {
		return b
	}
	return wire.AppendMessage(b, field, func(b []byte) []byte {
		b = wire.AppendUint(b, 1, uint64(s.Wall))
		return wire.AppendUint(b, 2, uint64(s.Logical))
	})
}

func decodeStamp(in string) (s Stamp, err error) {
	err = eachField(in, func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			return millis(f, &s.Wall)
		case 2:
			if f.Uint > 1<<32-1 {
				return encodingError("logical clock out of range")
			}
			s.Logical = uint32(f.Uint)
		default:
			return unknownField(num)
		}
		return nil
	})
	return s, err
}
