package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/output"
)

// table prints rows of cells in columns.
type table struct {
	to    io.Writer
	cells output.Table
}

func newTable(out io.Writer, head ...string) *table {
	t := &table{to: out}
	if len(head) > 0 {
		t.row(head...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = cell(c)
	}
	t.cells.Row(cells...)
}

// flush prints the rows; that nobody takes them is noticed in the end, by run.
func (t *table) flush() { _ = t.cells.Flush(t.to) }

// cell is a text on one line, and a dash for none.
func cell(text string) string {
	if text == "" {
		return "-"
	}
	return printable(strings.Map(oneLine, text))
}

func oneLine(c rune) rune {
	if c == '\n' || c == '\t' {
		return unicode.ReplacementChar
	}
	return c
}

// printable takes away what could steer a terminal: names come from machines
// that somebody else may run.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '\n' || c == '\t' || unicode.IsPrint(c) {
			return c
		}
		return unicode.ReplacementChar
	}, s)
}

// size is a number of bytes for people.
func size(n uint64) string {
	if n < 1<<10 {
		return strconv.FormatUint(n, 10)
	}
	v, unit := float64(n), -1
	for v >= 1024 && unit < 5 {
		v /= 1024
		unit++
	}
	return number(v) + string("KMGTPE"[unit]) + "i"
}

// inBytes is a number of bytes in words: 512 B, 16 GiB.
func inBytes(n uint64) string {
	if n < 1<<10 {
		return strconv.FormatUint(n, 10) + " B"
	}
	s := size(n)
	return s[:len(s)-2] + " " + s[len(s)-2:] + "B"
}

// number is a number with three digits or as many as it has before the point.
func number(v float64) string {
	digits := 1
	switch {
	case v == math.Trunc(v) || math.Abs(v) >= 100:
		digits = 0
	case math.Abs(v) < 1:
		digits = 2
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// age is a time span for people: 3s, 5m, 7h, 2d.
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 100*time.Second:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < 100*time.Minute:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d"
}

func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return age(time.Since(t))
}

// parseSize reads a number of bytes with a unit: K, M, G, T or P, of 1000 each,
// or Ki, Mi and so on, of 1024 each; B may follow.
func parseSize(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(s, 10, 63); err == nil {
		return n, nil // to the last bit
	}
	digits := strings.TrimRight(strings.TrimSuffix(s, "B"), "KMGTPi")
	unit := strings.TrimSuffix(s[len(digits):], "B")
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(v >= 0) {
		return 0, fmt.Errorf("%q is not a size, such as 512Mi or 8Gi", s)
	}
	if unit != "" {
		base := 1000.0
		letter, binary := strings.CutSuffix(unit, "i")
		if binary {
			base = 1024
		}
		power := strings.Index("KMGTP", letter) + 1
		if power == 0 || len(letter) != 1 {
			return 0, fmt.Errorf("%q has the unit %q; known are K, M, G, T, P and Ki, Mi, Gi, Ti, Pi", s, unit)
		}
		v *= math.Pow(base, float64(power))
	}
	if v >= 1<<63 {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return uint64(v), nil
}
