package golden

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Update is set where the files are to be written rather than compared.
var Update = flag.Bool("update", false, "write testdata/*.golden anew")

// maxWidth is where notes stand at most; behind longer bytes they stand further on.
const maxWidth = 64

// Line is a piece of what is held against a file.
type Line struct {
	From  string // who says it, where several talk
	Bytes []byte
	Note  string // what it is; for readers only, it is not compared
	Depth int    // by which the line is indented
}

// Check compares lines with testdata/name.golden and returns what the file holds.
// about says what it is; it stands at the top of the file.
func Check(t testing.TB, name, about string, lines []Line) []Line {
	t.Helper()
	var text strings.Builder
	for about := range strings.Lines(about) {
		text.WriteString("# " + strings.TrimSpace(about) + "\n")
	}
	left, width := make([]string, len(lines)), 0
	for i, l := range lines {
		left[i] = strings.Repeat("  ", l.Depth)
		if l.From != "" {
			left[i] += l.From + " "
		}
		left[i] += hex.EncodeToString(l.Bytes)
		width = max(width, min(len(left[i]), maxWidth))
	}
	for i, l := range lines {
		if l.Note != "" {
			left[i] = fmt.Sprintf("%-*s  # %s", width, left[i], l.Note)
		}
		text.WriteString(left[i] + "\n")
	}
	kept := read(t, name, []byte(text.String()))
	want := parse(t, string(kept))
	if !same(want, lines) {
		t.Errorf("%s: the encoding has changed; others rely on it.\nnow:\n%s\nkept:\n%s", name, &text, kept)
	}
	return want
}

// Text compares a text with testdata/name.golden, byte for byte, and returns what
// the file holds.
func Text(t testing.TB, name, text string) string {
	t.Helper()
	kept := string(read(t, name, []byte(text)))
	if kept != text {
		t.Errorf("%s: what is written has changed; others rely on it.\nnow:\n%s\nkept:\n%s", name, text, kept)
	}
	return kept
}

// Bytes joins what the lines hold.
func Bytes(lines []Line) []byte {
	var out []byte
	for _, l := range lines {
		out = append(out, l.Bytes...)
	}
	return out
}

// Of returns the lines of one who talks.
func Of(from string, lines []Line) []Line {
	var out []Line
	for _, l := range lines {
		if l.From == from {
			out = append(out, l)
		}
	}
	return out
}

// Path is the file of a name.
func Path(name string) string { return filepath.Join("testdata", name+".golden") }

// read returns the file of a name, which is written first where it is asked for.
func read(t testing.TB, name string, now []byte) []byte {
	t.Helper()
	if *Update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(Path(name), now, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(Path(name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%v; write it with go test -run Golden -update", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return kept
}

func parse(t testing.TB, text string) []Line {
	t.Helper()
	var out []Line
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		var l Line
		if len(words) == 2 {
			l.From = words[0]
		}
		var err error
		if l.Bytes, err = hex.DecodeString(words[len(words)-1]); err != nil || len(words) > 2 {
			t.Fatalf("%q is not a line of a golden file: %v", line, err)
		}
		out = append(out, l)
	}
	return out
}

func same(a, b []Line) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].From != b[i].From || !bytes.Equal(a[i].Bytes, b[i].Bytes) {
			return false
		}
	}
	return true
}
