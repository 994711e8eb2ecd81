package liveness

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
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
	Cutoff       int64 // Unix milliseconds, see docs/architecture.md
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
	msg := putMessage(nil, 1, m.append)
	var out [][]byte
	for _, p := range pulses {
		if len(msg) > maxChunk {
			out, msg = append(out, msg), nil
		}
		msg = putMessage(msg, 2, p.append)
	}
	return append(out, msg)
}

func (m *MasterInfo) append(b []byte) []byte {
	b = putString(b, 1, m.Name)
	b = putString(b, 2, m.Version)
	b = putStrings(b, 3, m.RPCURLs)
	b = putStrings(b, 4, m.UIURLs)
	b = putStrings(b, 5, m.MeshAddrs)
	b = putUint(b, 6, uint64(m.Wall))
	b = putUint(b, 7, uint64(m.Nodes))
	b = putString(b, 8, string(m.Digest))
	b = putUint(b, 9, m.Epoch)
	for _, h := range m.Heads {
		b = putString(b, 10, string(h))
	}
	for _, c := range m.Contacts {
		b = putMessage(b, 11, func(b []byte) []byte {
			return putStrings(putString(b, 1, c.ID), 2, c.Addrs)
		})
	}
	b = putUint(b, 12, uint64(m.Cutoff))
	if m.Joining {
		b = putUint(b, 13, 1)
	}
	b = putStrings(b, 14, m.EdgeAddrs)
	if h := m.Connectivity; h != nil {
		b = putMessage(b, 15, func(b []byte) []byte {
			return putStrings(putUint(putStrings(b, 1, h.Masters), 2, uint64(h.Nodes)), 3, h.Holds)
		})
	}
	if m.Fetching {
		b = putUint(b, 16, 1)
	}
	b = putString(b, 17, m.Run)
	b = putUint(b, 18, m.Seq)
	b = putUint(b, 19, m.Announced)
	for _, e := range m.Echoes {
		b = putMessage(b, 20, e.append)
	}
	for _, c := range m.Collisions {
		b = putMessage(b, 21, func(b []byte) []byte {
			return putString(putString(putString(b, 1, c.Master), 2, c.Kept), 3, c.Refused)
		})
	}
	if m.Settings != nil {
		b = putMessage(b, 22, m.Settings.append)
	}
	if m.Ended != nil {
		b = putMessage(b, 23, m.Ended.append)
	}
	return b
}

func (e Echo) append(b []byte) []byte {
	b = putUint(putString(putString(b, 1, e.Master), 2, e.Run), 3, e.Seq)
	if e.Direct {
		b = putUint(b, 4, 1)
	}
	return b
}

func (p Pulse) append(b []byte) []byte {
	b = putString(b, 1, p.NodeID)
	b = putUint(b, 2, p.Version.Boot)
	b = putUint(b, 3, p.Version.Seq)
	b = putUint(b, 4, uint64(max(p.Age, 0)/time.Millisecond))
	b = putUint(b, 5, math.Float64bits(p.Usage.CRU))
	b = putUint(b, 6, p.Usage.MRU)
	b = putUint(b, 7, p.Usage.SRU)
	b = putUint(b, 8, p.Usage.HRU)
	b = putUint(b, 9, p.Usage.Slices)
	b = putUint(b, 10, p.UptimeS)
	if p.Tunnel {
		b = putUint(b, 11, 1)
	}
	return b
}

// Decode reads a message. Fields of a newer version are passed over.
func Decode(b []byte) (Message, error) {
	var m Message
	err := eachField(b, func(num protowire.Number, n uint64, v []byte) error {
		switch num {
		case 1:
			m.Master = &MasterInfo{}
			return m.Master.decode(v)
		case 2:
			p, err := decodePulse(v)
			m.Pulses = append(m.Pulses, p)
			return err
		}
		return nil
	})
	return m, err
}

func (m *MasterInfo) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, n uint64, v []byte) error {
		switch num {
		case 1:
			m.Name = string(v)
		case 2:
			m.Version = string(v)
		case 3:
			m.RPCURLs = append(m.RPCURLs, string(v))
		case 4:
			m.UIURLs = append(m.UIURLs, string(v))
		case 5:
			m.MeshAddrs = append(m.MeshAddrs, string(v))
		case 6:
			m.Wall = int64(n)
		case 7:
			m.Nodes = int(min(n, math.MaxInt32))
		case 8:
			m.Digest = v
		case 9:
			m.Epoch = n
		case 10:
			m.Heads = append(m.Heads, v)
		case 11:
			var c Contact
			err := eachField(v, func(num protowire.Number, _ uint64, v []byte) error {
				switch num {
				case 1:
					c.ID = string(v)
				case 2:
					c.Addrs = append(c.Addrs, string(v))
				}
				return nil
			})
			m.Contacts = append(m.Contacts, c)
			return err
		case 12:
			m.Cutoff = int64(n)
		case 13:
			m.Joining = n != 0
		case 14:
			if len(v) > 0 {
				m.EdgeAddrs = append(m.EdgeAddrs, string(v))
			}
		case 15:
			m.Connectivity = &Connectivity{}
			return m.Connectivity.decode(v)
		case 16:
			m.Fetching = n != 0
		case 17:
			m.Run = string(v)
		case 18:
			m.Seq = n
		case 19:
			m.Announced = n
		case 20:
			e, err := decodeEcho(v)
			m.Echoes = append(m.Echoes, e)
			return err
		case 21:
			c, err := decodeCollision(v)
			m.Collisions = append(m.Collisions, c)
			return err
		case 22:
			m.Settings = &Settings{}
			return m.Settings.decode(v)
		case 23:
			m.Ended = &Ended{}
			return m.Ended.decode(v)
		}
		return nil
	})
}

func (h *Connectivity) decode(b []byte) error {
	return eachField(b, func(num protowire.Number, n uint64, v []byte) error {
		switch num {
		case 1:
			if len(v) > 0 {
				h.Masters = append(h.Masters, string(v))
			}
		case 2:
			h.Nodes = int(min(n, math.MaxInt32))
		case 3:
			if len(v) > 0 {
				h.Holds = append(h.Holds, string(v))
			}
		}
		return nil
	})
}

func decodeEcho(b []byte) (e Echo, err error) {
	err = eachField(b, func(num protowire.Number, n uint64, v []byte) error {
		switch num {
		case 1:
			e.Master = string(v)
		case 2:
			e.Run = string(v)
		case 3:
			e.Seq = n
		case 4:
			e.Direct = n != 0
		}
		return nil
	})
	return e, err
}

func decodeCollision(b []byte) (c Collision, err error) {
	err = eachField(b, func(num protowire.Number, _ uint64, v []byte) error {
		switch num {
		case 1:
			c.Master = string(v)
		case 2:
			c.Kept = string(v)
		case 3:
			c.Refused = string(v)
		}
		return nil
	})
	return c, err
}

func decodePulse(b []byte) (p Pulse, err error) {
	err = eachField(b, func(num protowire.Number, n uint64, v []byte) error {
		switch num {
		case 1:
			p.NodeID = string(v)
		case 2:
			p.Version.Boot = n
		case 3:
			p.Version.Seq = n
		case 4:
			// A year is as good as never, and keeps the sum from overflowing.
			p.Age = time.Duration(min(n, 366*24*3600*1000)) * time.Millisecond
		case 5:
			if f := math.Float64frombits(n); f >= 0 && f <= math.MaxFloat32 {
				p.Usage.CRU = f
			}
		case 6:
			p.Usage.MRU = n
		case 7:
			p.Usage.SRU = n
		case 8:
			p.Usage.HRU = n
		case 9:
			p.Usage.Slices = n
		case 10:
			p.UptimeS = n
		case 11:
			p.Tunnel = n != 0
		}
		return nil
	})
	return p, err
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

func putStrings(b []byte, field protowire.Number, list []string) []byte {
	for _, v := range list {
		b = putString(b, field, v)
	}
	return b
}

func putMessage(b []byte, field protowire.Number, write func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, write(nil))
}

// eachField calls f for every varint and bytes field.
func eachField(b []byte, f func(num protowire.Number, n uint64, v []byte) error) error {
	for len(b) > 0 {
		num, typ, k := protowire.ConsumeTag(b)
		if k < 0 {
			return fmt.Errorf("%w: %w", ErrMessage, protowire.ParseError(k))
		}
		b = b[k:]
		var n uint64
		var v []byte
		switch typ {
		case protowire.VarintType:
			n, k = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			v, k = protowire.ConsumeBytes(b)
		default:
			k = protowire.ConsumeFieldValue(num, typ, b)
		}
		if k < 0 {
			return fmt.Errorf("%w: %w", ErrMessage, protowire.ParseError(k))
		}
		b = b[k:]
		if err := f(num, n, v); err != nil {
			return err
		}
	}
	return nil
}
