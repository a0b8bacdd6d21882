package config

import (
	"fmt"
	"slices"
	"strings"
)

// maxErrors bounds the mistakes that one Load describes: more than a person reads, few enough to print.
const maxErrors = 100

// Position is a place in a config file. Line and Col count characters from 1; both are 0 where the mistake
// is the whole file's.
type Position struct {
	File      string
	Line, Col int
}

// String returns file:line:col, or the file alone.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Error is one mistake in a config.
type Error struct {
	Pos  Position
	What string // what is wrong
	Mend string // how to mend it
}

// Error returns the mistake as `file:line:col: what; mend`.
func (e *Error) Error() string {
	if e.Mend == "" {
		return e.Pos.String() + ": " + e.What
	}
	return e.Pos.String() + ": " + e.What + "; " + e.Mend
}

// Errors are all mistakes of a config in the order of its files and lines.
type Errors struct {
	List []*Error // at least one, at most 100
	More int      // mistakes beyond those in List
}

// Error returns one line for each mistake.
func (e *Errors) Error() string {
	var b strings.Builder
	for i, m := range e.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(m.Error())
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\nand %d more", e.More)
	}
	return b.String()
}

// Unwrap returns the mistakes for errors.As.
func (e *Errors) Unwrap() []error {
	list := make([]error, len(e.List))
	for i, m := range e.List {
		list[i] = m
	}
	return list
}

// pos is a Position in less memory; file is an index into loader.files.
type pos struct{ file, line, col int32 }

func (p pos) compare(q pos) int {
	for _, d := range [...]int32{p.file - q.file, p.line - q.line, p.col - q.col} {
		if d != 0 {
			return int(d)
		}
	}
	return 0
}

// mistake is an Error whose file is still an index, so that mistakes sort in the order of reading.
type mistake struct {
	pos
	what, mend string
}

// mistakes collects up to maxErrors mistakes and counts the rest.
type mistakes struct {
	list  []mistake
	total int
}

// errorf notes a mistake. The text is built only while there is room for it.
func (l *loader) errorf(at pos, mend, format string, args ...any) {
	l.mistakes.total++
	if len(l.mistakes.list) < maxErrors {
		l.mistakes.list = append(l.mistakes.list, mistake{at, fmt.Sprintf(format, args...), mend})
	}
}

// warnf notes what is no mistake and that a person should know, at most maxErrors times.
func (l *loader) warnf(at pos, mend, format string, args ...any) {
	if len(l.cfg.Warnings) < maxErrors {
		l.cfg.Warnings = append(l.cfg.Warnings, &Error{l.position(at), fmt.Sprintf(format, args...), mend})
	}
}

// full reports whether another mistake would only be counted, so that no mend need be worked out.
func (l *loader) full() bool { return len(l.mistakes.list) >= maxErrors }

// failure returns the mistakes as an error, nil for none.
func (l *loader) failure() error {
	m := &l.mistakes
	if m.total == 0 {
		return nil
	}
	slices.SortStableFunc(m.list, func(a, b mistake) int { return a.compare(b.pos) })
	e := &Errors{More: m.total - len(m.list)}
	m.list = slices.Compact(m.list) // one mistake of a template is one, though many groups come of it
	for _, one := range m.list {
		e.List = append(e.List, &Error{l.position(one.pos), one.what, one.mend})
	}
	return e
}

func (l *loader) position(p pos) Position {
	return Position{File: l.files[p.file].name, Line: int(p.line), Col: int(p.col)}
}
