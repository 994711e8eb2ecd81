package liveness

import (
	"errors"
	"math"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/wire"
)

// maxChunk is how many bytes of node pulses go into one message.
const maxChunk = 256 << 10

// ErrMessage is wrapped by errors about messages that cannot be read.
var ErrMessage = errors.New("liveness: bad message")

// Message is what a master tells the others about once a second: itself, and the
// nodes that it has heard. A long list of nodes is cut into several messages.
type Message struct {
	Master *MasterInfo // nil in all but the first of several messages
	Pulses []Pulse
}

// MasterInfo is what a master says of itself.
type MasterInfo struct {
	Name         string
	Version      string
	RPCURLs      []string
	UIURLs       []string
	MeshAddrs    []string
	Wall         int64 // its wall clock, Unix milliseconds
	Nodes        int
	Digest       []byte
	Epoch        uint64
	Heads        [][]byte // CIDs
	Contacts     []Contact
	Cutoff       int64 // Unix milliseconds, see docs/design/history.md
	Joining      bool  // it does not have all records yet
	EdgeAddrs    []string
	Connectivity *Connectivity // nil: of an earlier version, which does not say
	Fetching     bool          // blocks of others are on their way to it

	// Run names the run of its program, and Seq numbers its pulses from 1 on; see package
	// runs. Announced is the number of its last announcement in that run.
	Run        string // empty: of an earlier version, which does not say
	Seq        uint64
	Announced  uint64
	Echoes     []Echo
	Collisions []Collision

	Settings *Settings // nil: of an earlier version, which does not say

	Ended *Ended // nil: no operator has ended preservation of late
}

// Echo is the last pulse that a master had of another one.
type Echo struct {
	Master string // id
	Run    string
	Seq    uint64
	Direct bool // pulses of that master arrive in one hop
}

// Collision is that a master sees two processes with one identity.
type Collision struct {
	Master  string // id
	Kept    string // the run that counts
	Refused string // the run that does not
}

// Connectivity is whom a master hears.
type Connectivity struct {
	Masters []string // ids of the other masters that it hears
	Nodes   int      // that it has itself heard within offline-after
	Holds   []string // ids of the masters whose records it has, while it is joining
}

// Contact is another master that the sender introduces.
type Contact struct {
	ID    string
	Addrs []string
}

// Message is written as protobuf wire format; docs/protocol.md has the schema.

// Encode returns the messages for a master and the pulses it has to tell.
func Encode(m *MasterInfo, pulses []Pulse) [][]byte {
	msg := wire.AppendMessage(nil, 1, m.append)
	var out [][]byte
	for _, p := range pulses {
		if len(msg) > maxChunk {
			out, msg = append(out, msg), nil
		}
		msg = wire.AppendMessage(msg, 2, p.append)
	}
	return append(out, msg)
}

func (m *MasterInfo) append(b []byte) []byte {
	b = wire.AppendString(b, 1, m.Name)
	b = wire.AppendString(b, 2, m.Version)
	b = wire.AppendStrings(b, 3, m.RPCURLs)
	b = wire.AppendStrings(b, 4, m.UIURLs)
	b = wire.AppendStrings(b, 5, m.MeshAddrs)
	b = wire.AppendUint(b, 6, uint64(m.Wall))
	b = wire.AppendUint(b, 7, uint64(m.Nodes))
	b = wire.AppendString(b, 8, m.Digest)
	b = wire.AppendUint(b, 9, m.Epoch)
	for _, h := range m.Heads {
		b = wire.AppendString(b, 10, h)
	}
	for _, c := range m.Contacts {
		b = wire.AppendMessage(b, 11, func(b []byte) []byte {
			return wire.AppendStrings(wire.AppendString(b, 1, c.ID), 2, c.Addrs)
		})
	}
	b = wire.AppendUint(b, 12, uint64(m.Cutoff))
	b = wire.AppendBool(b, 13, m.Joining)
	b = wire.AppendStrings(b, 14, m.EdgeAddrs)
	if h := m.Connectivity; h != nil {
		b = wire.AppendMessage(b, 15, func(b []byte) []byte {
			return wire.AppendStrings(wire.AppendUint(wire.AppendStrings(b, 1, h.Masters), 2, uint64(h.Nodes)), 3, h.Holds)
		})
	}
	b = wire.AppendBool(b, 16, m.Fetching)
	b = wire.AppendString(b, 17, m.Run)
	b = wire.AppendUint(b, 18, m.Seq)
	b = wire.AppendUint(b, 19, m.Announced)
	for _, e := range m.Echoes {
		b = wire.AppendMessage(b, 20, e.append)
	}
	for _, c := range m.Collisions {
		b = wire.AppendMessage(b, 21, func(b []byte) []byte {
			return wire.AppendString(wire.AppendString(wire.AppendString(b, 1, c.Master), 2, c.Kept), 3, c.Refused)
		})
	}
	if m.Settings != nil {
		b = wire.AppendMessage(b, 22, m.Settings.append)
	}
	if m.Ended != nil {
		b = wire.AppendMessage(b, 23, m.Ended.append)
	}
	return b
}

func (e Echo) append(b []byte) []byte {
	b = wire.AppendUint(wire.AppendString(wire.AppendString(b, 1, e.Master), 2, e.Run), 3, e.Seq)
	b = wire.AppendBool(b, 4, e.Direct)
	return b
}

func (p Pulse) append(b []byte) []byte {
	b = wire.AppendString(b, 1, p.NodeID)
	b = wire.AppendUint(b, 2, p.Version.Boot)
	b = wire.AppendUint(b, 3, p.Version.Seq)
	b = wire.AppendUint(b, 4, uint64(max(p.Age, 0)/time.Millisecond))
	b = wire.AppendUint(b, 5, math.Float64bits(p.Usage.CRU))
	b = wire.AppendUint(b, 6, p.Usage.MRU)
	b = wire.AppendUint(b, 7, p.Usage.SRU)
	b = wire.AppendUint(b, 8, p.Usage.HRU)
	b = wire.AppendUint(b, 9, p.Usage.Slices)
	b = wire.AppendUint(b, 10, p.UptimeS)
	b = wire.AppendBool(b, 11, p.Tunnel)
	return b
}

// Decode reads a message. Fields of a newer version are passed over.
func Decode(b []byte) (Message, error) {
	var m Message
	err := eachField(b, func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			m.Master = &MasterInfo{}
			return m.Master.decode(f.Bytes)
		case 2:
			p, err := decodePulse(f.Bytes)
			m.Pulses = append(m.Pulses, p)
			return err
		}
		return nil
	})
	return m, err
}

func (m *MasterInfo) decode(b []byte) error {
	return eachField(b, func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			m.Name = string(f.Bytes)
		case 2:
			m.Version = string(f.Bytes)
		case 3:
			m.RPCURLs = append(m.RPCURLs, string(f.Bytes))
		case 4:
			m.UIURLs = append(m.UIURLs, string(f.Bytes))
		case 5:
			m.MeshAddrs = append(m.MeshAddrs, string(f.Bytes))
		case 6:
			m.Wall = int64(f.Uint)
		case 7:
			m.Nodes = int(min(f.Uint, math.MaxInt32))
		case 8:
			m.Digest = f.Bytes
		case 9:
			m.Epoch = f.Uint
		case 10:
			m.Heads = append(m.Heads, f.Bytes)
		case 11:
			var c Contact
			err := eachField(f.Bytes, func(num wire.Number, f wire.Field) error {
				switch num {
				case 1:
					c.ID = string(f.Bytes)
				case 2:
					c.Addrs = append(c.Addrs, string(f.Bytes))
				}
				return nil
			})
			m.Contacts = append(m.Contacts, c)
			return err
		case 12:
			m.Cutoff = int64(f.Uint)
		case 13:
			m.Joining = f.Uint != 0
		case 14:
			if len(f.Bytes) > 0 {
				m.EdgeAddrs = append(m.EdgeAddrs, string(f.Bytes))
			}
		case 15:
			m.Connectivity = &Connectivity{}
			return m.Connectivity.decode(f.Bytes)
		case 16:
			m.Fetching = f.Uint != 0
		case 17:
			m.Run = string(f.Bytes)
		case 18:
			m.Seq = f.Uint
		case 19:
			m.Announced = f.Uint
		case 20:
			e, err := decodeEcho(f.Bytes)
			m.Echoes = append(m.Echoes, e)
			return err
		case 21:
			c, err := decodeCollision(f.Bytes)
			m.Collisions = append(m.Collisions, c)
			return err
		case 22:
			m.Settings = &Settings{}
			return m.Settings.decode(f.Bytes)
		case 23:
			m.Ended = &Ended{}
			return m.Ended.decode(f.Bytes)
		}
		return nil
	})
}

func (h *Connectivity) decode(b []byte) error {
	return eachField(b, func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			if len(f.Bytes) > 0 {
				h.Masters = append(h.Masters, string(f.Bytes))
			}
		case 2:
			h.Nodes = int(min(f.Uint, math.MaxInt32))
		case 3:
			if len(f.Bytes) > 0 {
				h.Holds = append(h.Holds, string(f.Bytes))
			}
		}
		return nil
	})
}

func decodeEcho(b []byte) (e Echo, err error) {
	err = eachField(b, func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			e.Master = string(f.Bytes)
		case 2:
			e.Run = string(f.Bytes)
		case 3:
			e.Seq = f.Uint
		case 4:
			e.Direct = f.Uint != 0
		}
		return nil
	})
	return e, err
}

func decodeCollision(b []byte) (c Collision, err error) {
	err = eachField(b, func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			c.Master = string(f.Bytes)
		case 2:
			c.Kept = string(f.Bytes)
		case 3:
			c.Refused = string(f.Bytes)
		}
		return nil
	})
	return c, err
}

func decodePulse(b []byte) (p Pulse, err error) {
	err = eachField(b, func(num wire.Number, f wire.Field) error {
		switch num {
		case 1:
			p.NodeID = string(f.Bytes)
		case 2:
			p.Version.Boot = f.Uint
		case 3:
			p.Version.Seq = f.Uint
		case 4:
			// A year is as good as never, and keeps the sum from overflowing.
			p.Age = time.Duration(min(f.Uint, 366*24*3600*1000)) * time.Millisecond
		case 5:
			if cru := math.Float64frombits(f.Uint); cru >= 0 && cru <= math.MaxFloat32 {
				p.Usage.CRU = cru
			}
		case 6:
			p.Usage.MRU = f.Uint
		case 7:
			p.Usage.SRU = f.Uint
		case 8:
			p.Usage.HRU = f.Uint
		case 9:
			p.Usage.Slices = f.Uint
		case 10:
			p.UptimeS = f.Uint
		case 11:
			p.Tunnel = f.Uint != 0
		}
		return nil
	})
	return p, err
}

// eachField calls f for every field of a message, those of newer versions too.
func eachField(b []byte, f func(wire.Number, wire.Field) error) error {
	return wire.Each(b, ErrMessage, f)
}
