package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

var errBad = errors.New("bad")

// describe writes down what a reader is given.
func describe(t *testing.T, msg []byte) string {
	t.Helper()
	var out []string
	if err := EachExact(msg, errBad, func(num Number, f Field) error {
		out = append(out, fmt.Sprintf("%d:%d:%d:%q", num, f.Type, f.Uint, f.View()))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

func TestWhatIsAppendedIsRead(t *testing.T) {
	var b []byte
	b = AppendUint(b, 1, 1<<63)
	b = AppendString(b, 2, "text")
	b = AppendString(b, 3, []byte("bytes"))
	b = AppendStrings(b, 4, []string{"a", "", "b"})
	b = AppendFloat(b, 5, -0.5)
	b = AppendBool(b, 6, true)
	b = AppendMessage(b, 7, func(b []byte) []byte { return AppendUint(b, 1, 2) })
	b = AppendMessage(b, 8, func(b []byte) []byte { return b })
	want := `1:0:9223372036854775808:"" 2:2:0:"text" 3:2:0:"bytes" 4:2:0:"a" 4:2:0:"b" 5:1:` +
		fmt.Sprint(math.Float64bits(-0.5)) + `:"" 6:0:1:"" 7:2:0:"\b\x02" 8:2:0:""`
	if got := describe(t, b); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestZeroIsLeftOut(t *testing.T) {
	var b []byte
	b = AppendBool(AppendFloat(AppendString(AppendUint(b, 1, 0), 2, ""), 3, 0), 4, false)
	if b = AppendStrings(b, 5, []string{""}); len(b) != 0 {
		t.Errorf("%x", b)
	}
	if b = AppendFloat(b, 1, math.Copysign(0, -1)); len(b) == 0 {
		t.Error("-0 is another value than 0")
	}
}

// The length of a message takes one byte, or more, which moves what was written.
func TestNestedMessagesOfAllLengths(t *testing.T) {
	for _, n := range []int{0, 1, 126, 127, 128, 129, 16383, 16384, 1 << 21} {
		body := bytes.Repeat([]byte{7}, n)
		got := AppendMessage([]byte("before"), 3, func(b []byte) []byte { return append(b, body...) })
		want := protowire.AppendBytes(protowire.AppendTag([]byte("before"), 3, protowire.BytesType), body)
		if !bytes.Equal(got, want) {
			t.Errorf("a message of %d bytes: %x", n, got[:min(len(got), 20)])
		}
	}
}

// Messages of a newer version may have fields of other types, records may not.
func TestUnknownTypes(t *testing.T) {
	msg := protowire.AppendFixed32(protowire.AppendTag(nil, 9, protowire.Fixed32Type), 1)
	msg = AppendUint(msg, 1, 5)
	var got []Field
	if err := Each(msg, errBad, func(_ Number, f Field) error { got = append(got, f); return nil }); err != nil || len(got) != 2 || got[1].Uint != 5 {
		t.Errorf("%v, %v", got, err)
	}
	if err := EachExact(msg, errBad, func(Number, Field) error { return nil }); !errors.Is(err, errBad) {
		t.Error(err)
	}
	mine := errors.New("mine")
	if err := Each(msg, errBad, func(Number, Field) error { return mine }); !errors.Is(err, mine) || errors.Is(err, errBad) {
		t.Error(err)
	}
}

func FuzzEach(f *testing.F) {
	f.Add([]byte{})
	f.Add(AppendString(AppendUint(nil, 1, 300), 2, "text"))
	f.Add([]byte{0x0a, 0x05, 'a'})
	f.Fuzz(func(t *testing.T, msg []byte) {
		fields, size := 0, 0
		err := Each(msg, errBad, func(_ Number, f Field) error {
			fields, size = fields+1, size+len(f.Bytes)
			return nil
		})
		if err != nil && !errors.Is(err, errBad) || size > len(msg) || 2*fields > len(msg)+1 {
			t.Errorf("%x: %d fields, %d bytes, %v", msg, fields, size, err)
		}
		if exact := EachExact(msg, errBad, func(Number, Field) error { return nil }); exact == nil && err != nil {
			t.Errorf("%x: only the lenient reader refuses it: %v", msg, err)
		}
	})
}
