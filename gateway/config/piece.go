package config

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v4"
)

// each calls read for every item of the list v, piece by piece where it was cut out of the text.
func (l *loader) each(v value, read func(value)) {
	c, ok := l.cuts[v.n]
	if !ok {
		for _, item := range v.n.Content {
			if l.stopped {
				return
			}
			read(l.resolve(value{n: item, file: v.file, lines: v.lines}))
		}
		return
	}
	delete(l.cuts, v.n)
	for len(c.text) > 0 && !l.stopped {
		text := c.text[:c.piece(l.piece)]
		n, err := l.composePiece(text, c.lines)
		if err != nil {
			// An item may go on below the dashes inside brackets or quotes: only all of the list can tell.
			text = c.text
			var whole error
			if n, whole = compose(text); whole != nil {
				if !errors.Is(whole, errTooComplex) {
					err = whole
				}
				l.syntaxError(l.files[v.file], text, c.lines, err)
				return
			}
		}
		if n != nil {
			l.each(value{n: n.Content[0], file: v.file, lines: int32(c.lines)}, read)
		}
		c.lines += bytes.Count(text, []byte("\n"))
		c.text = c.text[len(text):]
	}
}

func (l *loader) composePiece(text []byte, lines int) (*yaml.Node, error) {
	if n, ok := l.composeCut(text, lines); ok {
		return n, nil
	}
	return compose(text)
}

// piece returns the length of the items to parse next, about least bytes.
func (c *cut) piece(least int) int {
	lines := lineReader{data: c.text}
	for lines.next() {
		text := bytes.TrimLeft(lines.line, " ")
		if lines.start >= least && len(lines.line)-len(text) == c.col && dash(text) {
			return lines.start
		}
	}
	return len(c.text)
}

// syntaxError reports text that is not YAML. lines is how many lines of the file are before data. The
// parser's messages can quote the text, which may be a secret, so only known ones are passed on.
func (l *loader) syntaxError(s *source, data []byte, lines int, err error) {
	l.unread = true
	at := pos{file: s.index}
	var le *yaml.LoadError
	var second secondDoc
	switch {
	case errors.Is(err, errTooComplex):
		l.errorf(at, "split it with include, or write lists of tags one tag a line without anchors",
			"the file has too many items to be parsed in one piece")
	case errors.As(err, &second):
		at.line, at.col = int32(second.line), int32(second.col)
		l.errorf(at, "delete the line of dashes, or include the second part as a file", "the file holds a second document")
	case errors.As(err, &le) && le.Mark.Line > 0:
		mark, what, mend := explain(le, data)
		at.line, at.col = int32(mark.Line+lines), int32(max(mark.Column, 1))
		l.errorf(at, mend, "this is not YAML: %s", what)
	default:
		at.line, at.col = badCharacter(data, lines)
		l.errorf(at, "save the file as UTF-8 without control characters", "this is not text: an unreadable character")
	}
}

// explain returns where the parser gave up, or what it could not close began, what it found and how to mend it.
func explain(le *yaml.LoadError, data []byte) (at yaml.Mark, what, mend string) {
	const quoted = "put quotes around a text that begins with one of { [ * & ! % @ ` or holds \": \" or \" #\""
	at = le.Mark
	if m, w, how := glued(data, at, le.ContextMark); w != "" {
		return m, w, how
	}
	if strings.Contains(le.Message, "cannot start any token") {
		if c := charAt(data, at); c != '\t' {
			return at, fmt.Sprintf("a text cannot begin with %c", c), "put quotes around it"
		}
		return at, "a tab in the indentation", "indent with spaces"
	}
	if strings.Contains(le.Message, "did not find expected '-' indicator") && charAt(data, at) != '-' {
		return at, "this line is no item of the list above it, and is not indented as a key of one",
			"indent it as far as the first key of its item, which stands behind the dash; if it is an item, put a dash in front; if it belongs to what has the list, indent it as the key of the list"
	}
	for _, known := range [...]struct {
		part, what, mend string
		opened           bool // the place to show is where the parser began
	}{
		{"mapping values are not allowed", "a second key on one line, a wrong indentation, or a key above without its colon",
			"put each key on its own line at one indentation, or quotes around a text that holds \": \"", false},
		{"unexpected end of stream", "the quote that opens here is not closed", "close it", true},
		{"expected ',' or ']'", "the list that opens here is not closed or lacks a comma", "close it with ] or put a comma between its items", true},
		{"expected ',' or '}'", "the braces that open here are not closed or lack a comma", "close them with } or put a comma between the keys", true},
		{"could not find expected ':'", "a key without a colon", "put a colon and a space after the key", false},
		{"did not find expected key", "a wrong indentation, or a text after a closed quote or brace", "indent the keys of one block alike; " + quoted, false},
		{"did not find expected node content", "a value is missing here, or a comma is too many", "write the value or delete the comma", false},
		{"did not find expected '-' indicator", "a wrong indentation in a list", "start each item with - at one indentation", false},
		{"unknown anchor", "an alias (*name) without its anchor (&name) before it", "define the anchor above, or put quotes around a text that begins with *", false},
		{"exceeded", "brackets or indentations are nested too deep", "flatten them", false},
		{"block sequence entries are not allowed", "a list cannot begin here", "start the list on its own line", false},
		{"unknown escape character", "an unknown \\ sequence in double quotes", "use single quotes, in which \\ is an ordinary character", false},
	} {
		if !strings.Contains(le.Message, known.part) {
			continue
		}
		if known.opened && le.ContextMark.Line > 0 {
			at = le.ContextMark
		}
		return at, known.what, known.mend
	}
	return at, "it cannot be read from here on", "compare with what millrace config reference prints"
}

var (
	indentTab = regexp.MustCompile(`^ *\t\s*[^\s#]`)
	noSpace   = regexp.MustCompile(`^[ ]*(?:- )?[a-z_]+:[^\s:]`)
	dashGlued = regexp.MustCompile(`^[ ]*-[a-z_]+:(?: |$)`)
)

// glued looks for a tab or a missing space where the parser gave up or began, and on the line above: it notices those late. Such a
// line is named in fixed words, since it may hold a secret.
func glued(data []byte, marks ...yaml.Mark) (at yaml.Mark, what, mend string) {
	lines := bytes.Split(data, []byte("\n"))
	for _, m := range marks {
		for _, n := range []int{m.Line, m.Line - 1} {
			if n < 1 || n > len(lines) {
				continue
			}
			line := lines[n-1]
			at = yaml.Mark{Line: n, Column: len(line) - len(bytes.TrimLeft(line, " ")) + 1}
			switch {
			case indentTab.Match(line):
				return at, "a tab in the indentation", "indent with spaces"
			case noSpace.Match(line):
				return at, "a key without a space after its colon", "put a space after the colon"
			case dashGlued.Match(line):
				return at, "a dash without a space after it", "put a space after the dash"
			}
		}
	}
	return at, "", ""
}

// charAt returns the character at a mark, '?' where there is none.
func charAt(data []byte, at yaml.Mark) rune {
	for range at.Line - 1 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	if runes := []rune(string(line)); at.Column >= 1 && at.Column <= len(runes) {
		return runes[at.Column-1]
	}
	return '?'
}

// badCharacter returns where the first byte stands that is not UTF-8 text; the start when there is none.
func badCharacter(data []byte, lines int) (line, col int32) {
	line, col = int32(lines+1), 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1, r < ' ' && !strings.ContainsRune("\t\n\r", r):
			return line, col
		case r == '\n':
			line, col = line+1, 0
		}
		col++
		i += size
	}
	return int32(lines + 1), 1
}
