package dagsync

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
)

// ErrMessage is wrapped by errors about messages that cannot be read.
var ErrMessage = errors.New("dagsync: bad message")

// Announcement says that its sender has made new blocks, and carries them.
type Announcement struct {
	Epoch  uint64
	Blocks [][]byte // each builds only on earlier ones or on older history
}

// An announcement is protobuf wire format: 1 epoch (varint), 2 block (bytes,
// repeated). See docs/protocol.md.
const (
	fieldEpoch protowire.Number = 1
	fieldBlock protowire.Number = 2
)

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

// ParseAnnouncement reads a message. The blocks share memory with it.
func ParseAnnouncement(msg []byte) (Announcement, error) {
	var a Announcement
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return a, fmt.Errorf("%w: announcement: %w", ErrMessage, protowire.ParseError(n))
		}
		msg = msg[n:]
		switch {
		case num == fieldEpoch && typ == protowire.VarintType:
			a.Epoch, n = protowire.ConsumeVarint(msg)
		case num == fieldBlock && typ == protowire.BytesType:
			var b []byte
			b, n = protowire.ConsumeBytes(msg)
			a.Blocks = append(a.Blocks, b)
		default: // of a newer version
			n = protowire.ConsumeFieldValue(num, typ, msg)
		}
		if n < 0 {
			return a, fmt.Errorf("%w: announcement: %w", ErrMessage, protowire.ParseError(n))
		}
		msg = msg[n:]
	}
	return a, nil
}
