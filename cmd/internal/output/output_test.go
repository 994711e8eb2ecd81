package output

import (
	"errors"
	"strings"
	"testing"
)

func TestColumnsStandBelowEachOther(t *testing.T) {
	var table Table
	table.Row("NAME", "CITY", "STATUS")
	table.Row("alpha", "São Paulo", "online")
	table.Row("东京-一号", "東京", "offline")
	table.Row("한국", "Cafe\u0301", "online")
	table.Row("🚀", "ｆｕｌｌ", "a long last cell does not count")
	table.Row("-", "", "x")
	var b strings.Builder
	if err := table.Flush(&b); err != nil {
		t.Fatal(err)
	}
	// As a terminal shows it, each line has its third cell at the same column.
	want := "NAME       CITY       STATUS\n" +
		"alpha      São Paulo  online\n" +
		"东京-一号  東京       offline\n" +
		"한국       Cafe\u0301       online\n" +
		"🚀         ｆｕｌｌ   a long last cell does not count\n" +
		"-                     x\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// broken takes some bytes, and no more.
type broken struct {
	strings.Builder
	left int
}

var errFull = errors.New("no space left on device")

func (b *broken) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	b.Builder.Write(p[:n])
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func TestStdoutKeepsTheFirstError(t *testing.T) {
	to := &broken{left: 5}
	var told []error
	out := NewStdout(to, func(err error) { told = append(told, err) })
	_, _ = out.Write([]byte("abc"))
	_, _ = out.Write([]byte("def"))
	to.left = 10 // there is room again
	_, _ = out.Write([]byte("ghi"))
	if to.String() != "abcde" {
		t.Errorf("written: %q, want the beginning alone", to.String())
	}
	err := out.Err()
	if !errors.Is(err, errFull) || !strings.Contains(err.Error(), "stdout") {
		t.Errorf("%v, want an error that names stdout", err)
	}
	if len(told) != 1 || told[0] != err { //nolint:errorlint // it is that very one
		t.Errorf("told: %v", told)
	}
}
