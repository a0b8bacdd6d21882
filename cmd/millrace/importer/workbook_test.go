package importer

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// workbook makes one of a CSV file as Excel does: texts are shared, or in the cell, numbers are numbers, empty cells are not there.
func workbook(t testing.TB, table []byte, inline bool) []byte {
	t.Helper()
	r := csv.NewReader(bytes.NewReader(table))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	var sheet, shared strings.Builder
	texts := 0
	for i, row := range rows {
		fmt.Fprintf(&sheet, `<row r="%d">`, i+1)
		for j, cell := range row {
			place := fmt.Sprintf("%c%d", 'A'+j, i+1)
			switch {
			case cell == "":
			case strings.Trim(cell, "0123456789.") == "":
				fmt.Fprintf(&sheet, `<c r="%s"><v>%s</v></c>`, place, cell)
			case inline:
				fmt.Fprintf(&sheet, `<c r="%s" t="inlineStr"><is><t>%s</t></is></c>`, place, escape.Replace(cell))
			default:
				fmt.Fprintf(&sheet, `<c r="%s" t="s"><v>%d</v></c>`, place, texts)
				fmt.Fprintf(&shared, `<si><r><t>%s</t></r><r><t>%s</t></r></si>`, escape.Replace(string([]rune(cell)[:1])), escape.Replace(string([]rune(cell)[1:])))
				texts++
			}
		}
		sheet.WriteString("</row>")
	}
	files := map[string]string{"[Content_Types].xml": "<Types/>", "xl/worksheets/sheet10.xml": "<worksheet/>",
		"xl/worksheets/sheet2.xml": `<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>` + sheet.String() + "</sheetData></worksheet>"}
	if !inline {
		files["xl/sharedStrings.xml"] = `<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">` + shared.String() + "</sst>"
	}
	return archive(t, files)
}

func archive(t testing.TB, files map[string]string) []byte {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for name, text := range files {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestWorkbook imports the same from a workbook as from its CSV, down to the remarks and the lines that they name.
func TestWorkbook(t *testing.T) {
	for _, format := range []string{"neuron-csv", "kepware-csv"} {
		table, err := os.ReadFile("testdata/" + samples[format])
		if err != nil {
			t.Fatal(err)
		}
		if format == "neuron-csv" { // as a workbook has numbers
			table = []byte(strings.NewReplacer("\ufeff", "", ",", ".", ";", ",").Replace(string(table)))
		}
		want, err := Import(format, table, Options{URL: placeholder})
		if err != nil {
			t.Fatal(err)
		}
		for _, inline := range []bool{false, true} {
			got, err := Import(format, workbook(t, table, inline), Options{URL: placeholder})
			if err != nil {
				t.Fatal(err)
			}
			var a, b bytes.Buffer
			if err := want.WriteYAML(&a); err != nil {
				t.Fatal(err)
			}
			if err := got.WriteYAML(&b); err != nil {
				t.Fatal(err)
			}
			if got.Tags == 0 || a.String() != b.String() || !reflect.DeepEqual(got.Problems, want.Problems) {
				t.Errorf("%s: the workbook gives\n%s\nthe CSV\n%s", format, &b, &a)
			}
		}
	}
}

func TestWorkbookRefuses(t *testing.T) {
	sheet := func(rows string) map[string]string {
		return map[string]string{"xl/worksheets/sheet1.xml": "<worksheet><sheetData>" + rows + "</sheetData></worksheet>"}
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"no archive":      {[]byte("PK\x03\x04 no"), "read the workbook"},
		"no sheet":        {archive(t, map[string]string{"word/document.xml": ""}), "without a sheet"},
		"no such text":    {archive(t, sheet(`<row r="1"><c r="A1" t="s"><v>3</v></c></row>`)), `no text "3"`},
		"behind the last": {archive(t, sheet(`<row r="1048576"/>`)), "behind row 200000"},
		"twice":           {archive(t, sheet(`<row r="2"/><row r="2"/>`)), "out of order"},
		"far to the left": {archive(t, sheet(`<row r="1"><c r="XFD1"><v>3</v></c></row>`)), "behind column 256"},
		"cut off":         {archive(t, sheet(`<row r="1"><c r="A1">`)), "syntax error"},
		"a bomb":          {archive(t, sheet("<row/>"+strings.Repeat(" ", maxInput+1))), "over 32 MiB"},
	} {
		if r, err := Import("neuron-csv", c.data, Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v; want %q", name, r, err, c.want)
		}
	}
}

func FuzzWorkbook(f *testing.F) {
	for _, rows := range []string{`<row r="1"><c r="A1" t="inlineStr"><is><t>group</t></is></c><c r="C1"><v>4.5</v></c></row>`, `<row><c t="s"><v>0</v></c><c r="B3"/></row>`} {
		f.Add(rows, "<sst><si><t>a</t></si></sst>")
	}
	f.Fuzz(func(t *testing.T, rows, shared string) {
		data := archive(t, map[string]string{"xl/worksheets/sheet1.xml": rows, "xl/sharedStrings.xml": shared})
		if out, err := fromWorkbook(data); err == nil && len(out) > maxInput+maxInput/2 {
			t.Errorf("%d bytes of CSV", len(out))
		}
	})
}
