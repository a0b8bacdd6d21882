package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// table writes rows of which more may come later: a column keeps its width, or grows. (text/tabwriter begins anew at each flush.)
type table struct {
	out    io.Writer
	widest int // column; 0 = widest
	widths []int
	rows   [][]string // not written yet
	bare   bool       // the only row is the head, which gets its widths from the first of the others
}

// widest is how wide a column grows: one long text must not push the others away for good.
const widest = 40

// head adds the names of the columns. They are written with the first row, and not without one.
func (t *table) head(names ...string) {
	t.add(names...)
	t.bare = true
}

func (t *table) add(cells ...string) {
	t.widths = append(t.widths, make([]int, max(0, len(cells)-len(t.widths)))...)
	for i, c := range cells {
		cells[i] = strings.Map(printable, c)
		t.widths[i] = max(t.widths[i], min(utf8.RuneCountInString(cells[i]), cmp.Or(t.widest, widest)))
	}
	t.rows, t.bare = append(t.rows, cells), false
}

// cut shortens a text to so many characters, the last of which says so.
func cut(text string, most int) string {
	n, end := 0, 0
	for i := range text {
		switch n++; {
		case n == most:
			end = i
		case n > most:
			return text[:end] + "…"
		}
	}
	return text
}

// printable keeps what a device or a broker says from steering the terminal.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return utf8.RuneError
}

func (t *table) flush() error {
	if t.bare {
		return nil
	}
	var out strings.Builder
	for _, cells := range t.rows {
		line := ""
		for i, c := range cells {
			line += fmt.Sprintf("%-*s  ", t.widths[i], c)
		}
		out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	t.rows = t.rows[:0]
	_, err := io.WriteString(t.out, out.String())
	return err
}
