package importer

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Bounds of a workbook: a sheet has more rows and columns than any list of tags.
const (
	maxRows    = 200_000
	maxColumns = 256
)

// isWorkbook reports whether a file is an Excel workbook (.xlsx), or another archive.
func isWorkbook(data []byte) bool { return bytes.HasPrefix(data, []byte("PK\x03\x04")) }

// fromWorkbook returns the first sheet of a workbook as CSV, a line for each row, so that lines are rows. Numbers are as they are kept,
// not as the sheet shows them. Only what a list of tags needs of ISO/IEC 29500 is read, with the standard library: the usual package knows
// styles, charts and formulas, too, which nobody needs here.
func fromWorkbook(data []byte) ([]byte, error) {
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("read the workbook: %w", err)
	}
	var sheets []string
	for _, f := range archive.File {
		if ok, _ := path.Match("xl/worksheets/*.xml", f.Name); ok {
			sheets = append(sheets, f.Name)
		}
	}
	if len(sheets) == 0 {
		return nil, errors.New("the file is an archive without a sheet; save the table as .xlsx or CSV")
	}
	slices.SortFunc(sheets, func(a, b string) int { return (len(a)-len(b))*1000 + strings.Compare(a, b) }) // sheet10 after sheet9
	w := &sheetWriter{}
	if err := w.texts(archive); err != nil {
		return nil, err
	}
	if err := w.sheet(archive, sheets[0]); err != nil {
		return nil, fmt.Errorf("read %s of the workbook: %w", sheets[0], err)
	}
	return w.out.Bytes(), nil
}

// sheetWriter turns a sheet into CSV.
type sheetWriter struct {
	shared []string
	out    bytes.Buffer
	rows   int
}

// part decodes one file of the archive, which may be as long as an import's input when it is unpacked.
func part(archive *zip.Reader, name string, each func(d *xml.Decoder, e xml.StartElement) error) error {
	f, err := archive.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	in := &io.LimitedReader{R: f, N: maxInput + 1}
	for d := xml.NewDecoder(in); ; {
		token, err := d.Token()
		if in.N <= 0 {
			return fmt.Errorf("it has over %d MiB; split the table", maxInput>>20)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if e, ok := token.(xml.StartElement); ok {
			if err := each(d, e); err != nil {
				return err
			}
		}
	}
}

// richText is a text of the workbook, whole or in runs.
type richText struct {
	T string   `xml:"t"`
	R []string `xml:"r>t"`
}

func (t *richText) String() string { return t.T + strings.Join(t.R, "") }

// texts reads the texts that cells name by number; a workbook need not have any.
func (w *sheetWriter) texts(archive *zip.Reader) error {
	const name = "xl/sharedStrings.xml"
	if f, err := archive.Open(name); err != nil {
		return nil
	} else if err := f.Close(); err != nil {
		return err
	}
	err := part(archive, name, func(d *xml.Decoder, e xml.StartElement) error {
		if e.Name.Local != "si" {
			return nil
		}
		var t richText
		if err := d.DecodeElement(&t, &e); err != nil {
			return err
		}
		w.shared = append(w.shared, t.String())
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the texts of the workbook: %w", err)
	}
	return nil
}

func (w *sheetWriter) sheet(archive *zip.Reader, name string) error {
	return part(archive, name, func(d *xml.Decoder, e xml.StartElement) error {
		if e.Name.Local != "row" {
			return nil
		}
		var row struct {
			Number int `xml:"r,attr"`
			Cells  []struct {
				Place string   `xml:"r,attr"`
				Kind  string   `xml:"t,attr"`
				Value string   `xml:"v"`
				Text  richText `xml:"is"`
			} `xml:"c"`
		}
		if err := d.DecodeElement(&row, &e); err != nil {
			return err
		}
		var cells []string
		for _, c := range row.Cells {
			n := column(c.Place, len(cells))
			if n < len(cells) || n >= maxColumns {
				return fmt.Errorf("cell %q: it is out of order, or behind column %d", c.Place, maxColumns)
			}
			text := c.Value
			if c.Kind == "s" {
				i, err := strconv.Atoi(c.Value)
				if err != nil || i < 0 || i >= len(w.shared) {
					return fmt.Errorf("cell %q: the workbook has no text %q", c.Place, c.Value)
				}
				text = w.shared[i]
			} else if c.Kind == "inlineStr" {
				text = c.Text.String()
			}
			cells = append(append(cells, make([]string, n-len(cells))...), strings.Join(strings.Fields(text), " "))
		}
		return w.row(row.Number, cells)
	})
}

// row writes a row, and the empty ones before it.
func (w *sheetWriter) row(number int, cells []string) error {
	if number <= 0 {
		number = w.rows + 1
	}
	if number <= w.rows || number > maxRows {
		return fmt.Errorf("row %d: it is out of order, or behind row %d", number, maxRows)
	}
	for ; w.rows < number-1; w.rows++ {
		w.out.WriteByte('\n')
	}
	w.rows++
	out := csv.NewWriter(&w.out)
	if err := out.Write(cells); err != nil {
		return err
	}
	if out.Flush(); w.out.Len() > maxInput {
		return fmt.Errorf("it has over %d MiB; split the table", maxInput>>20)
	}
	return out.Error()
}

// column is the number of a cell's column, "C5" is 2; where the cell has no place it is the next one.
func column(place string, next int) (n int) {
	letters := strings.TrimRight(place, "0123456789")
	if letters == "" {
		return next
	}
	for _, c := range letters {
		if c < 'A' || c > 'Z' || n > maxColumns {
			return maxColumns
		}
		n = 26*n + int(c-'A') + 1
	}
	return n - 1
}
