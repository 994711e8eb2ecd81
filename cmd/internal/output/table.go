package output

import (
	"io"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// Width is how many columns a terminal takes for a text without control characters: two for
// a character of East Asian scripts or an emoji, none for an accent that joins the one before.
func Width(s string) (columns int) {
	for _, r := range s {
		switch kind := width.LookupRune(r).Kind(); {
		case r < 0x300: // most often
			columns++
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case kind == width.EastAsianWide || kind == width.EastAsianFullwidth:
			columns += 2
		default:
			columns++
		}
	}
	return columns
}

// Pad fills a text with spaces up to a number of columns.
func Pad(s string, columns int) string {
	return s + strings.Repeat(" ", max(0, columns-Width(s)))
}

// Table is rows of cells in columns, with two spaces between them. Cells are single lines.
type Table struct{ rows [][]string }

// Row adds a row. Rows need not have the same number of cells; the last cell of a row may
// be of any width.
func (t *Table) Row(cells ...string) { t.rows = append(t.rows, cells) }

// Flush writes the rows, and begins anew.
func (t *Table) Flush(to io.Writer) error {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row[:max(0, len(row)-1)] {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], Width(cell))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		for i, cell := range row {
			if i < len(row)-1 {
				cell = Pad(cell, widths[i]+2)
			}
			b.WriteString(cell)
		}
		b.WriteByte('\n')
	}
	t.rows = nil
	_, err := io.WriteString(to, b.String())
	return err
}
