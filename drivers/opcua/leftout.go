package opcua

import (
	"fmt"
	"slices"
	"strings"

	"millrace/drivers/telemetry"
)

// maxNamed is how many data types, and patterns of browse_exclude, are named that have left something out.
const maxNamed = 3

// leftOut is what a walk has passed over, by what of the rule left it out.
type leftOut struct {
	nodes    int   // that were found, before anything was left out
	excluded []int // by each pattern of browse_exclude; what is below them was not looked at
	unlike   unmet // patterns that nothing was like, of browse_include and browse_exclude
	class    int   // variables or properties that browse_classes does not name
	path     int   // variables that are not like browse_include
	example  string
	deep     int // objects at the last level, below which was not looked
	kind     int // variables whose data type browse_types does not name
	kinds    []string
	access   int // variables that this user may not read
}

// unmet are the patterns that no path was like, in small letters: of include no variable's, of exclude no node's.
type unmet struct {
	include, exclude []string
	begun            bool
}

// see takes a path.
func (u *unmet) see(r *rule, path string, variable bool) {
	if !u.begun {
		u.include, u.exclude, u.begun = slices.Clone(r.include.small), slices.Clone(r.exclude.small), true
	}
	if len(u.include)+len(u.exclude) == 0 {
		return
	}
	path = strings.ToLower(path)
	like := func(pattern string) bool { return matches(pattern, path) }
	if u.exclude = slices.DeleteFunc(u.exclude, like); variable {
		u.include = slices.DeleteFunc(u.include, like)
	}
}

// words says which patterns have no effect, "" for none.
func (u *unmet) words() string {
	var out []string
	for _, p := range u.include {
		out = append(out, fmt.Sprintf("nothing that was looked at is like %q of browse_include", clip(p)))
	}
	for _, p := range u.exclude {
		out = append(out, fmt.Sprintf("nothing that was looked at is like %q of browse_exclude", clip(p)))
	}
	if more := len(out) - maxNamed; more > 0 {
		out = append(out[:maxNamed], fmt.Sprintf("and so with %d more", more))
	}
	return strings.Join(out, "; ")
}

// exclude counts a node that is like a pattern of browse_exclude.
func (l *leftOut) exclude(pattern int) {
	for len(l.excluded) <= pattern { // at most maxPatterns
		l.excluded = append(l.excluded, 0)
	}
	l.excluded[pattern]++
}

// include counts a variable that is not like browse_include.
func (l *leftOut) include(path string) {
	if l.path++; l.path == 1 {
		l.example = path
	}
}

// mistype counts a variable of another data type.
func (l *leftOut) mistype(name string) {
	l.kind++
	if name != "" && len(l.kinds) < maxNamed && !slices.Contains(l.kinds, name) {
		l.kinds = append(l.kinds, name)
	}
}

// words says of a rule that selects nothing what has left everything out, and how much of it.
func (l *leftOut) words(r *rule) string {
	if l.nodes == 0 {
		return fmt.Sprintf("there is no node below %s", clip(r.root))
	}
	var out []string
	add := func(n int, format string, args ...any) {
		if n > 0 {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	for i, n := range l.excluded {
		if len(out) < maxNamed {
			add(n, "%s with all below by %q of browse_exclude", telemetry.Count(n, "node"), clip(r.exclude.written[i]))
		}
	}
	add(l.path, "%s such as %q by browse_include (%v)", telemetry.Count(l.path, "variable"), clip(l.example), &r.include)
	add(l.kind, "%s%s by browse_types (%v)", telemetry.Count(l.kind, "variable"), l.kindWords(), &r.types)
	add(l.access, "%s that this user may not read", telemetry.Count(l.access, "variable"))
	add(l.deep, "all below %s by browse_depth %d", telemetry.Count(l.deep, "node"), r.depth)
	add(l.class, "%s by browse_classes, %s", telemetry.Count(l.class, "variable"), map[bool]string{true: "for being properties", false: "for being no properties"}[r.values])
	found := fmt.Sprintf("%s below %s", telemetry.Count(l.nodes, "node"), clip(r.root))
	if len(out) == 0 {
		return "there are no variables among the " + found
	}
	return "of the " + found + " none is selected; left out: " + strings.Join(out, "; ")
}

func (l *leftOut) kindWords() string {
	if len(l.kinds) == 0 {
		return ""
	}
	return " of " + clip(strings.Join(l.kinds, ", "))
}
