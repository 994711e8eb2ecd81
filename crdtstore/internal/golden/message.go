package golden

import (
	"fmt"
	"strconv"
	"testing"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field is one field of a protobuf message: its name, and its own fields where it
// is a message.
type Field struct {
	Name   string
	Fields Fields
}

// Fields are the fields of a protobuf message, by number.
type Fields map[protowire.Number]Field

// Message cuts a protobuf message into a line for each field.
func Message(t testing.TB, msg []byte, fields Fields) []Line {
	t.Helper()
	return cut(t, msg, fields, 0)
}

func cut(t testing.TB, msg []byte, fields Fields, depth int) (out []Line) {
	t.Helper()
	for len(msg) > 0 {
		num, typ, tag := protowire.ConsumeTag(msg)
		n := protowire.ConsumeFieldValue(num, typ, msg[max(tag, 0):])
		f, known := fields[num]
		if tag < 0 || n < 0 || !known {
			t.Fatalf("%x has no such field as %d", msg, num)
		}
		line, value := Line{Bytes: msg[:tag+n], Depth: depth}, msg[tag:tag+n]
		msg = msg[tag+n:]
		if f.Fields != nil {
			inner, _ := protowire.ConsumeBytes(value)
			line.Bytes, line.Note = line.Bytes[:tag+n-len(inner)], f.Name
			out = append(append(out, line), cut(t, inner, f.Fields, depth+1)...)
			continue
		}
		line.Note = f.Name + " " + show(typ, value)
		out = append(out, line)
	}
	return out
}

// show is a value for readers.
func show(typ protowire.Type, value []byte) string {
	switch typ {
	case protowire.VarintType:
		v, _ := protowire.ConsumeVarint(value)
		return strconv.FormatUint(v, 10)
	case protowire.BytesType:
		v, _ := protowire.ConsumeBytes(value)
		for _, r := range string(v) {
			if r == utf8.RuneError || !unicode.IsPrint(r) {
				return fmt.Sprintf("(%d bytes)", len(v))
			}
		}
		return strconv.Quote(string(v))
	}
	return ""
}
