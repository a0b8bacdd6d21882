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
// take 150 MB. Long block lists are therefore cut out of the text before it is parsed, and parsed in pieces
// when they are read (value.each); a piece that is still long is cut again. A cut is only a saving: wherever
// it might change the meaning of a file (anchors, unusual line breaks, a cut that is not a list after all),
// the text is parsed whole.

// cut is a block list that was taken out of the text.
type cut struct {
	key   string // above the list
	text  []byte // whole lines
	at    int    // of text in the text that it was cut from
	lines int    // of the file before text; in findCuts, of the text that it is cut from
	col   int    // indentation of its dashes
}

const (
	minCut   = 64       // items of a list worth cutting, if it is not long in bytes
	cutPiece = 64 << 10 // bytes parsed at a time: about 1.5 MB of nodes
)

// parse returns the root of a file's only document; it reports a file that is not YAML.
func (l *loader) parse(s *source, data []byte) (value, bool) {
	l.cuts = map[*yaml.Node]cut{}
	if line, long := longText(data, maxRun); long {
		l.unread = true
		l.errorf(pos{file: s.index, line: int32(line), col: 1}, "shorten it; see whether this is the right file", "a text that begins here is longer than %s", formatSize(maxRun))
		return value{}, false
	}
	if l.whole = doubtful(data); !l.whole {
		if n, ok := l.composeCut(data, 0); ok {
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
			l.errorf(pos{}, "start from what millrace config reference prints", "the file is empty")
		}
		return value{}, false
	}
	return value{n: n.Content[0], file: s.index}, true
}

// composeCut parses data without its long lists. It reports false where the whole of data must be parsed.
func (l *loader) composeCut(data []byte, lines int) (*yaml.Node, bool) {
	if l.whole || len(data) < 2*l.piece {
		return nil, false
	}
	cuts := findCuts(data, l.piece)
	if len(cuts) == 0 {
		return nil, false
	}
	n, err := compose(without(data, cuts))
	if err != nil || n == nil {
		return nil, false
	}
	byLine := make(map[int]cut, len(cuts))
	for _, c := range cuts {
		byLine[c.lines] = c
	}
	claimed := map[*yaml.Node]cut{}
	claim(n, byLine, claimed)
	if len(claimed) != len(cuts) {
		return nil, false // what was cut is something else, such as part of a quoted text
	}
	for node, c := range claimed {
		node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
		c.lines += lines
		l.cuts[node] = c
	}
	return n, true
}

// claim finds the empty value above every cut.
func claim(n *yaml.Node, byLine map[int]cut, claimed map[*yaml.Node]cut) {
	for i, child := range n.Content {
		claim(child, byLine, claimed)
		if n.Kind != yaml.MappingNode || n.Style&yaml.FlowStyle != 0 || i%2 == 1 {
			continue
		}
		list := n.Content[i+1]
		c, ok := byLine[child.Line]
		if ok && child.Value == c.key && list.Kind == yaml.ScalarNode && list.Value == "" && list.Style == 0 {
			claimed[list] = c
		}
	}
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

// longText returns the line where text begins that goes on for more than most bytes without anything that can end it, and whether there is such.
// The parser takes about six times its size. A text that holds such a character itself is not noticed.
func longText(data []byte, most int) (line int, long bool) {
	line = 1
	start, at := 0, 1 // where the text begins that is looked at, and in which line
	for i, c := range data {
		switch {
		case c == '\n':
			line++
		case strings.IndexByte(",:[]{}#", c) >= 0, c == '-' && (i == 0 || data[i-1] <= ' '):
			start, at = i, line
		}
		if i-start > most {
			return at, true
		}
	}
	return 0, false
}

// findCuts returns the block lists of many items or bytes in a text that is not doubtful, outermost only.
func findCuts(data []byte, long int) []cut {
	var cuts []cut
	lines := lineReader{data: data}
	for lines.next() {
		key, indent := listKey(lines.line)
		if key == "" {
			continue
		}
		start := lines
		if c, items := lines.list(indent); items >= minCut || len(c.text) >= long {
			c.key = key
			cuts = append(cuts, c)
		} else {
			lines = start // a list in it may be long
		}
	}
	return cuts
}

// doubtful reports anchors (a piece could redefine one), line breaks other than \n and \r\n (line
// numbers would differ), quoted text that goes on in the next line (what follows may look like an item), and text that is not UTF-8.
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
	for lines := (lineReader{data: data}); lines.next(); {
		if quoteOpen(lines.line) {
			return true
		}
	}
	return !utf8.Valid(data)
}

// quoteOpen reports a quoted text that begins in the line and does not end there.
func quoteOpen(line []byte) bool {
	quote := byte(0) // open here
	for i := 0; i < len(line); i++ {
		c := line[i]
		begins := i == 0 || strings.IndexByte(" \t[{,:-", line[i-1]) >= 0
		switch {
		case quote == '"' && c == '\\', quote == '\'' && bytes.HasPrefix(line[i:], []byte("''")):
			i++
		case c == quote:
			quote = 0
		case quote != 0:
		case c == '#' && begins:
			return false
		case (c == '"' || c == '\'') && begins:
			quote = c
		}
	}
	return quote != 0
}

// listKey returns the key of a list that is alone on its line, and its indentation.
func listKey(line []byte) (key string, indent int) {
	text := bytes.TrimLeft(line, " ")
	if bytes.HasPrefix(text, []byte("- ")) {
		text = bytes.TrimLeft(text[2:], " ")
	}
	for _, k := range [...]string{"devices", "groups", "tags"} {
		if after, ok := bytes.CutPrefix(text, []byte(k+":")); ok && blank(after) {
			return k, len(line) - len(text)
		}
	}
	return "", 0
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
	c = cut{at: r.end, lines: r.count + 1, col: -1}
	end := r.end
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
			c.text = r.data[c.at:end]
			return c, items
		}
		end, last = r.end, *r
	}
	*r = last
	c.text = r.data[c.at:end]
	return c, items
}

// without returns data with the lines of the cuts emptied, so that line numbers stay.
func without(data []byte, cuts []cut) []byte {
	var b bytes.Buffer
	at := 0
	for _, c := range cuts {
		b.Write(data[at:c.at])
		for range bytes.Count(c.text, []byte("\n")) {
			b.WriteByte('\n')
		}
		at = c.at + len(c.text)
	}
	b.Write(data[at:])
	return b.Bytes()
}
