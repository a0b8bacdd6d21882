package config

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// A YAML node takes about 180 bytes and a tag of seven keys is 15 of them, so the tree of 50,000 tags would
// take 150 MB. Long block lists of tags are therefore cut out of the text before it is parsed, and parsed
// in pieces when they are read (value.each). A cut is only a saving: wherever it might change the meaning of
// a file (anchors, unusual line breaks, a cut that is not a list of tags after all), the file is parsed whole.

// cut is a block list that was taken out of the text.
type cut struct {
	start, end int // bytes of loader.data: whole lines
	lines      int // lines before start
	col        int // indentation of its dashes
}

const (
	minCut   = 64       // items of a list worth cutting
	cutPiece = 64 << 10 // bytes of it parsed at a time: about 1.5 MB of nodes
)

// parse returns the root of a file's only document; it reports a file that is not YAML.
func (l *loader) parse(s *source, data []byte) (value, bool) {
	l.data, l.cuts = data, nil
	if cuts := findCuts(data); len(cuts) > 0 {
		n, err := compose(without(data, cuts))
		if err == nil && l.claim(n, cuts) {
			return value{n: n.Content[0], file: s.index}, true
		}
	}
	n, err := compose(data)
	if err != nil {
		l.syntaxError(s, data, 0, err)
		return value{}, false
	}
	if n == nil {
		if s.index == 0 {
			l.unread = true
			l.errorf(pos{}, "start from configs/reference.yaml", "the file is empty")
		}
		return value{}, false
	}
	return value{n: n.Content[0], file: s.index}, true
}

var errTooComplex = errors.New("too complex")

// secondDoc says where a second YAML document begins.
type secondDoc struct{ line, col int }

func (secondDoc) Error() string { return "second document" }

// compose parses one YAML document; nil for none.
func compose(data []byte) (*yaml.Node, error) {
	if separators(data) > maxNodes {
		return nil, errTooComplex
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxNesting))))
	if err != nil {
		return nil, err
	}
	var doc, next yaml.Node
	if err := loader.Load(&doc); err != nil {
		if doc.Kind == 0 && errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return nil, nil
	}
	if err := loader.Load(&next); err == nil {
		return nil, secondDoc{next.Line, next.Column}
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return &doc, nil
}

// separators counts the characters that can stand between two YAML nodes. There are at most two nodes for
// each, so the count bounds the memory of the tree before it is built.
func separators(data []byte) int {
	n := 0
	for _, c := range data {
		switch c {
		case '\n', '\r', ',', ':', '[', '{', '-', '?':
			n++
		}
	}
	return n
}

// findCuts returns the long block lists after a line `tags:`, nil when the file holds anything that makes
// cutting doubtful.
func findCuts(data []byte) []cut {
	if len(data) < cutPiece || doubtful(data) {
		return nil
	}
	var cuts []cut
	lines := lineReader{data: data}
	for lines.next() {
		key, ok := tagsKey(lines.line)
		if !ok {
			continue
		}
		c, items := lines.list(key)
		if items >= minCut {
			cuts = append(cuts, c)
		}
	}
	return cuts
}

// doubtful reports anchors (a piece could redefine one) and line breaks other than \n and \r\n (line
// numbers would differ), and text that is not UTF-8.
func doubtful(data []byte) bool {
	for i, c := range data {
		switch c {
		case '&':
			if i+1 < len(data) && data[i+1] > ' ' && (i == 0 || strings.IndexByte(" \t\r\n[{,:-", data[i-1]) >= 0) {
				return true
			}
		case '\r':
			if i+1 == len(data) || data[i+1] != '\n' {
				return true
			}
		case 0x85, 0xA8, 0xA9:
			if i > 0 && (data[i-1] == 0xC2 || data[i-1] == 0x80) {
				return true
			}
		}
	}
	return !utf8.Valid(data)
}

// tagsKey returns the indentation of a key `tags:` that is alone on its line.
func tagsKey(line []byte) (int, bool) {
	text := bytes.TrimLeft(line, " ")
	if bytes.HasPrefix(text, []byte("- ")) {
		text = bytes.TrimLeft(text[2:], " ")
	}
	after, ok := bytes.CutPrefix(text, []byte("tags:"))
	if !ok || (!blank(after) && after[0] != ' ') {
		return 0, false
	}
	return len(line) - len(text), blank(after)
}

// blank reports a line without content: white space or a comment.
func blank(line []byte) bool {
	line = bytes.TrimLeft(line, " ")
	return len(line) == 0 || line[0] == '\n' || line[0] == '\r' || line[0] == '#'
}

// dash reports whether the text after a line's indentation begins an item of a block list.
func dash(text []byte) bool {
	return len(text) > 1 && text[0] == '-' && (text[1] == ' ' || text[1] == '\n' || text[1] == '\r')
}

// lineReader walks over the lines of data.
type lineReader struct {
	data  []byte
	line  []byte // with its line break
	start int    // of line
	end   int    // of line
	count int    // lines before line
	began bool
}

func (r *lineReader) next() bool {
	if r.began {
		r.count++
	}
	r.began = true
	r.start = r.end
	if r.start >= len(r.data) {
		return false
	}
	if i := bytes.IndexByte(r.data[r.start:], '\n'); i >= 0 {
		r.end = r.start + i + 1
	} else {
		r.end = len(r.data)
	}
	r.line = r.data[r.start:r.end]
	return true
}

// list walks over the block list below a key at the indentation key and stops at its last line. It returns
// the list and the number of its items, 0 where no list begins.
func (r *lineReader) list(key int) (c cut, items int) {
	c = cut{start: r.end, end: r.end, lines: r.count + 1, col: -1}
	last := *r
	for r.next() {
		if blank(r.line) {
			continue
		}
		text := bytes.TrimLeft(r.line, " ")
		indent := len(r.line) - len(text)
		switch {
		case c.col < 0 && indent >= key && dash(text):
			c.col = indent
			items++
		case c.col >= 0 && indent == c.col && dash(text):
			items++
		case c.col >= 0 && indent > c.col:
		default:
			*r = last
			return c, items
		}
		c.end, last = r.end, *r
	}
	*r = last
	return c, items
}

// without returns data with the lines of the cuts emptied, so that line numbers stay.
func without(data []byte, cuts []cut) []byte {
	var b bytes.Buffer
	at := 0
	for _, c := range cuts {
		b.Write(data[at:c.start])
		for range bytes.Count(data[c.start:c.end], []byte("\n")) {
			b.WriteByte('\n')
		}
		at = c.end
	}
	b.Write(data[at:])
	return b.Bytes()
}

// claim finds the empty value of `tags:` for every cut and gives it the list back. It reports false when one
// is not there: then the text that was cut is something else, such as part of a quoted text.
func (l *loader) claim(doc *yaml.Node, cuts []cut) bool {
	if doc == nil {
		return false
	}
	byLine := make(map[int]cut, len(cuts))
	for _, c := range cuts {
		byLine[c.lines] = c
	}
	l.cuts = make(map[*yaml.Node]cut, len(cuts))
	l.claimIn(doc, byLine)
	if len(l.cuts) == len(cuts) {
		return true
	}
	l.cuts = nil
	return false
}

func (l *loader) claimIn(n *yaml.Node, byLine map[int]cut) {
	for i, child := range n.Content {
		l.claimIn(child, byLine)
		if n.Kind != yaml.MappingNode || n.Style&yaml.FlowStyle != 0 || i%2 == 1 || child.Value != "tags" {
			continue
		}
		list := n.Content[i+1]
		c, ok := byLine[child.Line]
		if ok && list.Kind == yaml.ScalarNode && list.Value == "" && list.Style == 0 {
			list.Kind, list.Tag = yaml.SequenceNode, "!!seq"
			l.cuts[list] = c
		}
	}
}
