package opcua

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"millrace/drivers"
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
	at               address         // root, parsed
	include, exclude []string        // patterns of paths, in small letters; include nil = all
	types            map[string]bool // data types, in small letters; nil = all
	values           bool            // variables that are no properties
	properties       bool
	depth, most      int
}

// ruleOptions are the keys of a group that make a rule.
func ruleOptions() []drivers.Option {
	return []drivers.Option{
		{Name: ruleOption, Example: "/Objects/2:Machine", Help: "node id or browse path of a node: the variables below it are tags of this group, beside those listed; found at each connect, and when the server says that its nodes have changed"},
		{Name: "browse_include", Example: "*.Speed, *.Temperature", Help: "with browse: only variables whose path below the node is like one of these, * is any text, ? any character, capitals or not (default: all)"},
		{Name: "browse_exclude", Example: "Diagnostics, *.Raw", Help: "with browse: not those whose path is like one of these, nor what is below them"},
		{Name: "browse_depth", Example: "5", Help: "with browse: levels below the node, 1 to 32 (default 5)"},
		{Name: "browse_types", Example: "float64, Int32", Help: "with browse: only variables of these data types, by the name of a tag's type or by OPC UA's (default: all)"},
		{Name: "browse_classes", Example: "variable, property", Help: "with browse: variable, property (what says something of another node), or both (default variable)"},
		{Name: "browse_max", Example: "1000", Help: "with browse: tags at most, 1 to 20000 (default 1000)"},
	}
}

// parseRule reads the keys of a rule; nil when there is none.
func parseRule(o map[string]string, fail func(field, what, mend string)) *rule {
	r := &rule{root: o[ruleOption]}
	if r.root == "" {
		for _, option := range ruleOptions()[1:] {
			if o[option.Name] != "" {
				fail(option.Name, option.Name+" is given without browse", "add browse: with the node below which to look, such as i=85, or remove it")
			}
		}
		return nil
	}
	var m *mistake
	if r.at, m = parseAddress(r.root); m != nil {
		fail(ruleOption, fmt.Sprintf("browse %q: %s", clip(r.root), m.what), m.mend)
	}
	r.include = patterns(o, "browse_include", fail)
	r.exclude = patterns(o, "browse_exclude", fail)
	for _, name := range patterns(o, "browse_types", fail) {
		if r.types == nil {
			r.types = map[string]bool{}
		}
		r.types[name] = true
	}
	for _, name := range patterns(o, "browse_classes", fail) {
		switch name {
		case "variable":
			r.values = true
		case "property":
			r.properties = true
		default:
			fail("browse_classes", fmt.Sprintf("browse_classes %q is not known", clip(name)), "use variable, property, or both")
		}
	}
	r.values = r.values || !r.properties
	r.depth = parseBound(o, "browse_depth", defaultDepth, maxDepth, fail)
	r.most = parseBound(o, "browse_max", defaultSelected, maxSelected, fail)
	return r
}

// patterns reads a list with commas between.
func patterns(o map[string]string, name string, fail func(field, what, mend string)) (all []string) {
	for one := range strings.SplitSeq(o[name], ",") {
		if one = strings.ToLower(strings.TrimSpace(one)); one != "" {
			all = append(all, one)
		}
	}
	switch {
	case o[name] != "" && all == nil:
		fail(name, name+" names nothing", "write one or several with commas between, or remove it")
	case len(all) > maxPatterns:
		fail(name, fmt.Sprintf("%s has %d entries, more than %d", name, len(all), maxPatterns), "use * and ? for several")
		return nil
	}
	return all
}

func parseBound(o map[string]string, name string, usual, most int, fail func(field, what, mend string)) int {
	v := o[name]
	if v == "" {
		return usual
	}
	n, err := parseDecimal(v, 16)
	if err != nil || n < 1 || int(n) > most {
		fail(name, fmt.Sprintf("%s %q is not a number from 1 to %d", name, clip(v), most), fmt.Sprintf("remove it to have %d", usual))
	}
	return int(n)
}

// takes reports whether a variable at this path can be a tag, as far as its path and class say it.
func (r *rule) takes(path string, property bool) bool {
	if property && !r.properties || !property && !r.values {
		return false
	}
	return r.include == nil || like(r.include, path)
}

// skips reports whether nothing at and below this path is to be a tag.
func (r *rule) skips(path string) bool { return like(r.exclude, path) }

// typed reports whether a variable is of a data type that the rule takes. Arrays go by their elements.
func (r *rule) typed(n *Child) bool {
	return r.types == nil || r.types[strings.ToLower(strings.TrimRight(n.Type, "[]"))] || n.Word != "" && r.types[n.Word]
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
	if r.types != nil {
		text += " of type " + strings.Join(slices.Sorted(maps.Keys(r.types)), ", ")
	}
	if r.include != nil {
		text += " whose path is like " + clip(strings.Join(r.include, ", "))
	}
	if r.exclude != nil {
		text += " and not like " + clip(strings.Join(r.exclude, ", "))
	}
	return fmt.Sprintf("%s: %d tags at most, found at each connect", text, r.most)
}

// like reports whether a path is like one of the patterns, capitals or not.
func like(patterns []string, path string) bool {
	path = strings.ToLower(path)
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, path) })
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
