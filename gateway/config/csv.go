package config

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
)

// `tags: {csv: press.csv}` reads the tags of a group from a table: the first line names the keys, each further line is a tag,
// an empty cell a key left out. Each line becomes the YAML node that a person would have written, so that there is one
// way from a key to a tag, and one set of messages.

// readTags reads `tags:`, a list or {csv: FILE}.
func (l *loader) readTags(g *groupDraft, place *groupPlace) {
	if g.tags.v.n.Kind != yaml.MappingNode {
		l.list(g.tags, func(v value) { l.readTag(g, place, v) })
		return
	}
	var name string
	var at field
	t := &table[string]{in: "tags", keys: []key[string]{{name: "csv", need: `"csv:" with the path of a file`, kind: kind[string]{
		set: func(l *loader, f field, s *string) bool { at = f; return l.short(f, s, maxText) }}}}}
	if seen := read(l, g.tags.v, t, &name, hooks{}); lack(l, g.tags.v, t, seen, "tags") || name == "" {
		return
	}
	l.readCSV(g, place, at, name)
}

// readCSV reads the tags of a group from a file.
func (l *loader) readCSV(g *groupDraft, place *groupPlace, f field, name string) {
	path := beside(l.files[f.v.file], name)
	data, err := readRegular(path, maxFile)
	if l.total += int64(len(data)); err == nil && l.total > maxTotal {
		err = fmt.Errorf("the files together are larger than %s", formatSize(maxTotal))
	}
	if err != nil {
		l.unread, g.device.unread = true, true
		l.errorf(l.at(f.v), besideMend, "read csv %s: %s", quote(f.v.n.Value), reason(err))
		return
	}
	file := int32(len(l.files))
	l.files = append(l.files, &source{name: path, index: file})
	place.tagFile = file
	before := l.mistakes.total
	defer func() { g.device.unread = g.device.unread || l.mistakes.total > before }()
	if !utf8.Valid(data) {
		l.errorf(pos{file: file}, "save it as UTF-8 (in Excel: CSV UTF-8)", "the file is not UTF-8")
		return
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	r := csv.NewReader(bytes.NewReader(data))
	r.Comma, r.Comment, r.ReuseRecord = separator(data), '#', true
	header, err := r.Read()
	if err != nil {
		l.csvError(file, r, err)
		return
	}
	keys, tags := l.csvHeader(g, file, r, slices.Clone(header)), 0
	for !l.stopped {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			if tags == 0 && l.mistakes.total == before {
				l.errorf(pos{file: file, line: 1, col: 1}, "add a line for each tag, or delete the group", "the file names keys and no tag")
			}
			return
		}
		if err != nil {
			if l.csvError(file, r, err); !errors.Is(err, csv.ErrFieldCount) {
				return
			}
			continue
		}
		if n := csvNode(r, keys, cells); len(n.Content) > 0 { // spreadsheets leave lines of nothing behind
			l.readTag(g, place, value{n: n, file: file})
			tags++
		}
	}
}

// separator returns what parts the cells: in the first line, whichever of , ; and tab there is most of.
func separator(data []byte) rune {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	best := ','
	for _, c := range ";\t" {
		if bytes.Count(line, []byte(string(c))) > bytes.Count(line, []byte(string(best))) {
			best = c
		}
	}
	return best
}

// csvHeader returns the key of each column, "" for one that is reported.
func (l *loader) csvHeader(g *groupDraft, file int32, r *csv.Reader, header []string) []string {
	known := slices.DeleteFunc(l.tables.tag.names(), func(name string) bool { return name == "labels" })
	for _, o := range tagOptions(g.device.protocol) {
		known = append(known, o.Name)
	}
	wrong := false
	for i, name := range header {
		line, col := r.FieldPos(i)
		at := pos{file, int32(line), int32(col)}
		header[i] = strings.ToLower(strings.TrimSpace(name))
		switch {
		case header[i] == "" || slices.Contains(header[:i], header[i]):
			l.errorf(at, "give each column the key that it holds", "column %d has no name of its own", i+1)
			header[i] = ""
		case !slices.Contains(known, header[i]) && g.device.protocol != nil:
			wrong = true
			l.errorf(at, didYouMean(header[i], known, "the keys of a tag are"), "column %s is no key of a tag", quote(name))
			header[i] = ""
		}
	}
	for _, name := range l.tables.tag.names() {
		if wrong && !slices.Contains(header, name) {
			g.meant |= l.tables.tag.bit(name)
		}
	}
	return header
}

// csvNode returns a line as the mapping that it stands for. With semicolons between the cells, a comma in a number is a decimal comma.
func csvNode(r *csv.Reader, keys, cells []string) *yaml.Node {
	line, _ := r.FieldPos(0)
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: line, Column: 1}
	for i, cell := range cells {
		cell = strings.TrimSpace(cell)
		if cell == "" || keys[i] == "" {
			continue
		}
		if r.Comma == ';' && isDecimal(cell) {
			cell = strings.Replace(cell, ",", ".", 1)
		}
		line, col := r.FieldPos(i)
		n.Content = append(n.Content,
			&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: keys[i], Line: line, Column: col},
			&yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: strings.Clone(cell), Line: line, Column: col})
	}
	return n
}

// isDecimal reports a number with one comma, such as -0,5.
func isDecimal(s string) bool {
	whole, part, ok := strings.Cut(strings.TrimPrefix(s, "-"), ",")
	digits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	return ok && digits(whole) && digits(strings.TrimSuffix(part, "%"))
}

// csvError reports what is wrong with a file as a whole or with one of its lines.
func (l *loader) csvError(file int32, r *csv.Reader, err error) {
	at, what := pos{file: file}, "it has no line that names the keys"
	var pe *csv.ParseError
	if errors.As(err, &pe) {
		at.line, at.col, what = int32(pe.StartLine), int32(max(pe.Column, 1)), pe.Err.Error()
	}
	switch {
	case errors.Is(err, csv.ErrFieldCount):
		what = fmt.Sprintf("the line has not the %d cells of the first", r.FieldsPerRecord)
	case errors.Is(err, csv.ErrQuote), errors.Is(err, csv.ErrBareQuote):
		what = "a quote that is not closed, or stands inside a cell"
	}
	l.errorf(at, "make the first line the keys, such as name,address,type, and each further line one tag with as many cells", "read csv: %s", what)
}
