package importer

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
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
}

// openTable finds the header: the first row that has all the columns wanted. Rows above it are skipped, 20 at most.
func openTable(data []byte, wanted ...string) (*table, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, errors.New("the file is UTF-16; save it as UTF-8")
	}
	for _, comma := range []rune{',', ';', '\t'} {
		t := &table{reader: csv.NewReader(bytes.NewReader(data)), decimal: comma == ';'}
		t.reader.Comma, t.reader.FieldsPerRecord, t.reader.LazyQuotes, t.reader.ReuseRecord = comma, -1, true, true
		for range 20 {
			row, err := t.reader.Read()
			if err != nil {
				break
			}
			if t.header(row, wanted) {
				return t, nil
			}
		}
	}
	return nil, fmt.Errorf("no row has the columns %s; check that the format is right", strings.Join(wanted, ", "))
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

func columnName(s string) string {
	return strings.NewReplacer(" ", "", "_", "").Replace(strings.ToLower(strings.TrimSpace(s)))
}

// next reads a row and returns where it stands; io.EOF ends the table.
func (t *table) next() (string, error) {
	row, err := t.reader.Read()
	if errors.Is(err, io.EOF) {
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("read the table: %w", err)
	}
	t.row = row
	for i, text := range row {
		if i < len(t.names) && strings.TrimSpace(text) != "" {
			t.filled[columnName(t.names[i])] = strings.TrimSpace(t.names[i])
		}
	}
	line, _ := t.reader.FieldPos(0)
	return fmt.Sprintf("line %d", line), nil
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
func (t *table) sayUnread(b *builder) {
	var names []string
	for column, name := range t.filled {
		if column != "" && !t.asked[column] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	sayUnread(b, "the file", "columns", names)
}
