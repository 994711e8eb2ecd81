package ops

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

var goldenMark = mark{1, 2, 3, 4, 5, 6, 7, 8}

// sample has a record of every kind.
func sample() []record {
	fingerprint := [32]byte{0xaa, 31: 0xbb}
	return []record{
		{kind: kindDamage, at: 0},
		{kind: kindBegun, at: time.Millisecond, id: "a", fingerprint: fingerprint},
		{kind: kindDone, at: 300 * time.Millisecond, id: "a", fingerprint: fingerprint, answer: []byte(`"result":{"sid":"vm-1"}`)},
		{kind: kindTooLarge, at: time.Hour, id: "b", fingerprint: fingerprint},
		{kind: kindUnknown, at: time.Hour, id: strings.Repeat("c", MaxID), fingerprint: fingerprint},
		{kind: kindForgotten, at: 24 * time.Hour, id: "d", fingerprint: fingerprint},
	}
}

// pieces returns a file cut where a reader would cut it: the header, and then
// frames with one record each and the mark at the end.
func pieces(records []record) (out [][]byte, notes []string) {
	head := appendHeader(nil, goldenMark)
	line := bytes.IndexByte(head, '\n') + 1
	out = append(out, head[:line], head[line:line+8], head[line+8:])
	notes = append(notes, "version", "mark", "sum")
	kinds := []string{kindBegun: "begun", kindDone: "done", kindTooLarge: "too large", kindUnknown: "unknown", kindForgotten: "forgotten", kindDamage: "damage"}
	for _, r := range records {
		f := appendFrame(nil, goldenMark, r.append(nil))
		out = append(out, f[:8], f[8:12], f[12:20], f[20:])
		notes = append(notes, "frame: mark", "length", "sum", fmt.Sprintf("%s %q at %v", kinds[r.kind], r.id, r.at))
	}
	out = append(out, appendFrame(nil, goldenMark, nil))
	return out, append(notes, "empty frame")
}

func TestGolden(t *testing.T) {
	var text strings.Builder
	text.WriteString("# The log of operations, version 1, in hex.\n")
	parts, notes := pieces(sample())
	for i, p := range parts {
		fmt.Fprintf(&text, "%x # %s\n", p, notes[i])
	}
	name := filepath.Join("testdata", "operations.golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(kept) != text.String() {
		t.Errorf("the format has changed; files of agents have this one:\n%s", kept)
	}
	var file []byte
	for line := range strings.Lines(string(kept)) {
		digits, _, _ := strings.Cut(line, "#")
		b, err := hex.DecodeString(strings.TrimSpace(digits))
		if err != nil {
			t.Fatal(err)
		}
		file = append(file, b...)
	}
	c, err := parse(file)
	if err != nil || c.damage != "" || !sameRecords(c.records, sample()) {
		t.Errorf("read %+v, error %v", c, err)
	}
}

func sameRecords(a, b []record) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := a[i], b[i]
		if !bytes.Equal(x.answer, y.answer) {
			return false
		}
		x.answer, y.answer = nil, nil
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}

// What looks like a frame inside of an answer is not one.
func TestAnswersHoldNoFrames(t *testing.T) {
	fake := appendFrame(nil, mark{}, record{kind: kindDone, id: "x", answer: []byte("forged")}.append(nil))
	m := newMark()
	file := appendFrame(appendHeader(nil, m), m, record{kind: kindDone, id: "a", answer: fake}.append(nil))
	c, err := parse(file[:len(file)-1])
	if err != nil || len(c.records) != 0 || c.damage != "" {
		t.Errorf("read %+v, error %v", c, err)
	}
}

// FuzzParse reads any file, and one of our own with anything behind it.
func FuzzParse(f *testing.F) {
	parts, _ := pieces(sample())
	file := bytes.Join(parts, nil)
	f.Add(file)
	f.Add(file[:len(file)-30])
	f.Add(append(bytes.Clone(file[:60]), file[61:]...))
	f.Add([]byte(title + "1\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		if c, err := parse(in); err == nil {
			for _, r := range c.records {
				again, rest, err := decodeRecord(r.append(nil))
				if err != nil || len(rest) > 0 || !sameRecords([]record{again}, []record{r}) {
					t.Errorf("%+v became %+v, error %v", r, again, err)
				}
			}
		}
		c, err := parse(append(bytes.Clone(file), in...))
		if err != nil || len(c.records) < len(sample()) || !sameRecords(c.records[:len(sample())], sample()) {
			t.Errorf("what stands behind the records has changed them: %+v, error %v", c, err)
		}
		for b := in; len(b) > 0; {
			r, rest, err := decodeRecord(b)
			if err != nil {
				break
			}
			if len(r.id) > MaxID || len(rest) >= len(b) {
				t.Fatalf("decoded %+v", r)
			}
			b = rest
		}
	})
}
