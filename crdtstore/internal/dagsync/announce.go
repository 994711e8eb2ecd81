package dagsync

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/wire"
)

// ErrMessage is wrapped by errors about messages that cannot be read.
var ErrMessage = errors.New("dagsync: bad message")

var errAnnouncement = fmt.Errorf("%w: announcement", ErrMessage)

// Announcement says that its sender has made new blocks, and carries them.
type Announcement struct {
	Epoch  uint64
	Blocks [][]byte // each builds only on earlier ones or on older history
	Run    string   // of the sender; empty: an earlier version, which does not say
	Seq    uint64   // number of the announcement in that run, from 1 on
}

// An announcement is protobuf wire format: 1 epoch (varint), 2 block (bytes, repeated),
// 3 run (string), 4 seq (varint). See docs/protocol.md.
const (
	fieldEpoch wire.Number = 1
	fieldBlock wire.Number = 2
	fieldRun   wire.Number = 3
	fieldSeq   wire.Number = 4
)

// Sequenced adds to a message which run of its sender made it, and its number in that run.
func Sequenced(msg []byte, run string, seq uint64) []byte {
	msg = protowire.AppendString(protowire.AppendTag(msg, fieldRun, protowire.BytesType), run)
	return protowire.AppendVarint(protowire.AppendTag(msg, fieldSeq, protowire.VarintType), seq)
}

// Sequence returns the run and the number of a message; nothing where it does not say, or
// cannot be read.
func Sequence(msg []byte) (run string, seq uint64) {
	a, err := ParseAnnouncement(msg)
	if err != nil {
		return "", 0
	}
	return a.Run, a.Seq
}

// Announcements packs blocks into as few messages as the limit, in bytes,
// allows.
func Announcements(epoch uint64, blocks []dag.Block, limit int) [][]byte {
	var out [][]byte
	var msg []byte
	head := protowire.AppendVarint(protowire.AppendTag(nil, fieldEpoch, protowire.VarintType), epoch)
	for _, b := range blocks {
		size := protowire.SizeTag(fieldBlock) + protowire.SizeBytes(len(b.Raw))
		if len(msg) > 0 && len(msg)+size > limit {
			out, msg = append(out, msg), nil
		}
		if msg == nil {
			msg = append(make([]byte, 0, len(head)+size), head...)
		}
		msg = protowire.AppendBytes(protowire.AppendTag(msg, fieldBlock, protowire.BytesType), b.Raw)
	}
	if len(msg) > 0 {
		out = append(out, msg)
	}
	return out
}

// ParseAnnouncement reads a message. The blocks share memory with it. Fields of a newer
// version are passed over.
func ParseAnnouncement(msg []byte) (Announcement, error) {
	var a Announcement
	err := wire.Each(msg, errAnnouncement, func(num wire.Number, f wire.Field) error {
		switch {
		case num == fieldEpoch && f.Type == protowire.VarintType:
			a.Epoch = f.Uint
		case num == fieldBlock && f.Type == protowire.BytesType:
			a.Blocks = append(a.Blocks, f.Bytes)
		case num == fieldRun && f.Type == protowire.BytesType:
			a.Run = string(f.Bytes)
		case num == fieldSeq && f.Type == protowire.VarintType:
			a.Seq = f.Uint
		}
		return nil
	})
	return a, err
}
