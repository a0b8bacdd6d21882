package opcua

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/gopcua/opcua/id"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
)

// ruleOption is the group option that makes a rule: see drivers.Protocol.
const ruleOption = "browse"

// Bounds of what a rule says.
const (
	defaultDepth, maxDepth       = 5, 32
	defaultSelected, maxSelected = 1000, 20_000
	maxPatterns                  = 64 // of include, exclude and types each
)

// rule selects the variables below a node that become tags of a group.
type rule struct {
	root             string
	at               address  // root, parsed
	include, exclude wordList // patterns of paths; include without any = all
	types            wordList // data types; none = all
	values           bool     // variables that are no properties
	properties       bool
	depth, most      int
}

// wordList is the entries of a list, as they are written and in small letters.
type wordList struct{ written, small []string }

func (w *wordList) none() bool { return len(w.small) == 0 }

func (w *wordList) String() string { return clip(strings.Join(w.written, ", ")) }

// ruleOptions are the keys of a group that make a rule.
func ruleOptions() []drivers.Option {
	return []drivers.Option{
		{Name: ruleOption, Example: "/Objects/2:Machine", Help: "node id, or browse path from the Root folder on, each name with its namespace, of a node: the variables below it are tags of this group, beside those listed; found at each connect, and when the server says that its nodes have changed"},
		{Name: "browse_include", List: true, Example: "*.Speed, *.Temperature", Help: "with browse: only variables whose path below the node is like one of these, commas between, * is any text, ? any character, capitals or not (default: all)"},
		{Name: "browse_exclude", List: true, Example: "Diagnostics, *.Raw", Help: "with browse: not those whose path is like one of these, commas between, nor what is below them"},
		{Name: "browse_depth", Example: "5", Help: fmt.Sprintf("with browse: levels below the node, 1 to %d (default %d)", maxDepth, defaultDepth)},
		{Name: "browse_types", List: true, Example: "float64, Int32", Help: "with browse: only variables of these data types, by the name of a tag's type or by OPC UA's (default: all)"},
		{Name: "browse_classes", List: true, Example: "variable, property", Help: "with browse: variable, property (what says something of another node), or both (default variable)"},
		{Name: "browse_max", Example: "1000", Help: fmt.Sprintf("with browse: tags at most, 1 to %d (default %d)", maxSelected, defaultSelected)},
	}
}

// parseRule reads the keys of a rule; nil when there is none.
func parseRule(o map[string]string, fail func(field, what, mend string)) *rule {
	root, given := o[ruleOption]
	switch {
	case !given:
		for _, option := range ruleOptions()[1:] {
			if _, given := o[option.Name]; given {
				fail(option.Name, option.Name+" is given without browse", "add browse: with the node below which to look, such as i=85, or remove it")
			}
		}
		return nil
	case root == "":
		fail(ruleOption, "browse is empty", "write the node below which to look, such as i=85, or remove it")
		return nil
	}
	r := &rule{root: root}
	var m *mistake
	if r.at, m = parseAddress(r.root); m != nil {
		fail(ruleOption, fmt.Sprintf("browse %q: %s", clip(r.root), m.what), m.mend)
	}
	r.include = parseWords(o, "browse_include", fail)
	r.exclude = parseWords(o, "browse_exclude", fail)
	r.types = parseWords(o, "browse_types", fail)
	for i, name := range r.types.small {
		if !typeNamed(name) {
			fail("browse_types", fmt.Sprintf("browse_types %q is not known", clip(r.types.written[i])), "use the types of tags ("+strings.Join(selectable(), ", ")+"), or those of OPC UA itself such as Double, UtcTime or Range")
		}
	}
	classes := parseWords(o, "browse_classes", fail)
	for i, name := range classes.small {
		switch name {
		case "variable":
			r.values = true
		case "property":
			r.properties = true
		default:
			fail("browse_classes", fmt.Sprintf("browse_classes %q is not known", clip(classes.written[i])), "use variable, property, or both")
		}
	}
	r.values = r.values || !r.properties
	r.depth = parseBound(o, "browse_depth", defaultDepth, maxDepth, fail)
	r.most = parseBound(o, "browse_max", defaultSelected, maxSelected, fail)
	return r
}

// parseWords reads a list with commas between.
func parseWords(o map[string]string, name string, fail func(field, what, mend string)) (w wordList) {
	text, given := o[name]
	if !given {
		return w
	}
	empty := 0
	for one := range strings.SplitSeq(text, ",") {
		if one = strings.TrimSpace(one); one == "" {
			empty++
			continue
		}
		w.written, w.small = append(w.written, one), append(w.small, strings.ToLower(one))
	}
	switch {
	case w.none():
		fail(name, name+" names nothing", "write one or several with commas between, or remove it")
	case len(w.small) > maxPatterns:
		fail(name, fmt.Sprintf("%s has %d entries, more than %d", name, len(w.small), maxPatterns), "use * and ? for several")
		return wordList{}
	case empty > 0:
		fail(name, fmt.Sprintf("%s %q has an empty entry", name, clip(text)), "write one comma between two entries, and none at the end")
	}
	return w
}

// selectable are the types of tags that a variable's can be.
func selectable() []string {
	return slices.DeleteFunc(strings.Fields(typeWords), func(word string) bool { return builtinOf(word) == wire.TypeNull })
}

// typeNamed reports whether a word, in small letters, is a type of tags or a name that OPC UA itself has for a data type.
func typeNamed(word string) bool { return slices.Contains(selectable(), word) || standardNames()[word] }

// standardNames are the names of OPC UA's own nodes without those of parts of others, in small letters. Which of them are data types the library does not tell.
var standardNames = sync.OnceValue(func() map[string]bool {
	all := map[string]bool{}
	for n := range uint32(maxStandard) {
		if name := id.Name(n); name != "" && !strings.Contains(name, "_") {
			all[strings.ToLower(name)] = true
		}
	}
	for _, b := range builtins {
		all[strings.ToLower(b.name)] = true
	}
	return all
})

// maxStandard is above the numbers of all nodes that OPC UA itself has.
const maxStandard = 1 << 15

func parseBound(o map[string]string, name string, usual, most int, fail func(field, what, mend string)) int {
	v, given := o[name]
	if !given {
		return usual
	}
	n, err := parseDecimal(v, 16)
	if err != nil || n < 1 || int(n) > most {
		fail(name, fmt.Sprintf("%s %q is not a number from 1 to %d", name, clip(v), most), fmt.Sprintf("remove it to have %d", usual))
	}
	return int(n)
}

// classed reports whether variables that are properties, or those that are none, can be tags.
func (r *rule) classed(property bool) bool { return property && r.properties || !property && r.values }

// includes reports whether a variable at this path can be a tag.
func (r *rule) includes(path string) bool {
	return r.include.none() || like(r.include.small, path) >= 0
}

// skips returns the pattern for which nothing at and below this path is to be a tag, -1 when there is none.
func (r *rule) skips(path string) int { return like(r.exclude.small, path) }

// typed reports whether a variable is of a data type that the rule takes. Arrays go by their elements.
func (r *rule) typed(n *Child) bool {
	return r.types.none() || slices.Contains(r.types.small, strings.ToLower(strings.TrimRight(n.Type, "[]"))) || n.Word != "" && slices.Contains(r.types.small, n.Word)
}

// String says in words what the rule selects.
func (r *rule) String() string {
	what := "variables"
	switch {
	case r.values && r.properties:
		what = "variables and properties"
	case r.properties:
		what = "properties"
	}
	text := fmt.Sprintf("select %s up to %d levels below %s", what, r.depth, clip(r.root))
	if !r.types.none() {
		text += " of type " + r.types.String()
	}
	if !r.include.none() {
		text += " whose path is like " + r.include.String()
	}
	switch {
	case r.exclude.none():
	case r.include.none():
		text += " whose path is not like " + r.exclude.String()
	default:
		text += " and not like " + r.exclude.String()
	}
	return fmt.Sprintf("%s: %d tags at most, found at each connect", text, r.most)
}

// like returns the first of the patterns, which are in small letters, that a path is like, capitals or not; -1 when there is none.
func like(patterns []string, path string) int {
	path = strings.ToLower(path)
	return slices.IndexFunc(patterns, func(p string) bool { return matches(p, path) })
}

// matches reports whether a text is like a pattern in which * is any text and ? any character. It takes time in proportion to both lengths.
func matches(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	star, from := -1, 0
	i, j := 0, 0
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == '*':
			star, from = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == t[j]):
			i, j = i+1, j+1
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// pathBelow is the path of a node by that of the one above it: the names from where the rule begins, with dots between.
func pathBelow(above, name string) string {
	if above == "" {
		return name
	}
	return above + "." + cmp.Or(name, "?")
}
