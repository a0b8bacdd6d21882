package importer

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// table reads a CSV file with a header: a byte order mark, and semicolons or tabs for commas, are understood.
type table struct {
	reader  *csv.Reader
	columns map[string]int // by name in lower case without blanks and underlines
	row     []string
	asked   map[string]bool
	filled  map[string]string // columns that hold something in some row, and their names as written
	names   []string
	decimal bool // a comma is the decimal point, as spreadsheets with semicolons have it
	builder *builder
}

// openTable finds the header: the first row that has all the columns wanted. Rows above it are skipped, 20 at most.
func openTable(b *builder, data []byte, wanted ...string) (*table, error) {
	for _, comma := range []rune{',', ';', '\t'} {
		t := &table{reader: csv.NewReader(bytes.NewReader(data)), decimal: comma == ';', builder: b}
		t.reader.Comma, t.reader.FieldsPerRecord, t.reader.LazyQuotes, t.reader.ReuseRecord = comma, -1, true, true
		for range 20 {
			row, err := t.reader.Read()
			if err != nil {
				break
			}
			if t.header(row, wanted) {
				t.sayTwice()
				return t, nil
			}
		}
	}
	return nil, fmt.Errorf("none of the first 20 rows has the columns %s; see whether it is the right file, and keep the row of headings in it", strings.Join(wanted, ", "))
}

func (t *table) header(row, wanted []string) bool {
	t.columns, t.names = make(map[string]int, len(row)), slices.Clone(row)
	t.asked, t.filled = map[string]bool{}, map[string]string{}
	for i, name := range row {
		if name = columnName(name); name != "" {
			t.columns[name] = i
		}
	}
	for _, w := range wanted {
		if _, ok := t.columns[columnName(w)]; !ok {
			return false
		}
	}
	return true
}

// sayTwice names the headings that two columns have.
func (t *table) sayTwice() {
	for i, name := range t.names {
		if last, ok := t.columns[columnName(name)]; ok && last != i {
			t.builder.problem("the file", "two columns are called %q, and the last was taken; delete the other", strings.TrimSpace(name))
		}
	}
}

func columnName(s string) string {
	return strings.NewReplacer(" ", "", "_", "").Replace(strings.ToLower(strings.TrimSpace(s)))
}

// next reads a row that has something in it and returns where it stands; io.EOF ends the table.
func (t *table) next() (string, error) {
	for {
		row, err := t.reader.Read()
		var wrong *csv.ParseError
		if errors.As(err, &wrong) {
			return "", fmt.Errorf("line %d, column %d: %w; mend the row there", wrong.Line, wrong.Column, wrong.Err)
		}
		if err != nil {
			return "", err
		}
		t.row = row
		line, _ := t.reader.FieldPos(0)
		where := fmt.Sprintf("line %d", line)
		if t.look(where) {
			return where, nil
		}
	}
}

// look notes which columns have something in this row, and says what may be wrong with its form. It reports whether
// there is anything in it.
func (t *table) look(where string) (something bool) {
	for i, text := range t.row {
		if lines := strings.Count(text, "\n"); lines > 0 {
			t.builder.problem(where, "one of its texts goes on for %d more lines, and rows in it are not read; see whether a quotation mark is missing", lines)
		}
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		something = true
		if i < len(t.names) {
			t.filled[columnName(t.names[i])] = strings.TrimSpace(t.names[i])
		} else {
			t.builder.problem(where, "%q stands behind the last heading, so others may be under the wrong one; see whether a text with a comma lacks its quotation marks", clip(text, 60))
			break
		}
	}
	return something
}

// get returns the first of the columns that has a text.
func (t *table) get(names ...string) string {
	for _, name := range names {
		t.asked[columnName(name)] = true
	}
	for _, name := range names {
		if i, ok := t.columns[columnName(name)]; ok && i < len(t.row) {
			if s := strings.TrimSpace(t.row[i]); s != "" {
				return s
			}
		}
	}
	return ""
}

// number returns the number in a column; ok is false where the text is none. No text is 0.
func (t *table) number(name string) (x float64, ok bool) {
	s := t.get(name)
	if s == "" {
		return 0, true
	}
	if t.decimal {
		s = strings.Replace(s, ",", ".", 1)
	}
	x, err := strconv.ParseFloat(s, 64)
	return x, err == nil && finite(x)
}

// sayUnread names the columns that hold something and were not asked for.
func (t *table) sayUnread() {
	var names []string
	for column, name := range t.filled {
		if column != "" && !t.asked[column] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	sayUnread(t.builder, "the file", "columns", names)
}
