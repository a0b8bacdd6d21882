package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v4"

	"millrace/drivers"
)

// value is a YAML node and where its text stands.
type value struct {
	n     *yaml.Node
	file  int32
	lines int32 // lines of the file before the piece of text that n.Line counts from
}

func (l *loader) at(v value) pos {
	return pos{v.file, int32(v.n.Line) + v.lines, int32(v.n.Column)}
}

// resolve follows an alias. It also counts what is read: aliases can repeat a subtree without end.
func (l *loader) resolve(v value) value {
	l.reads++
	if l.reads > maxVisit && !l.stopped {
		l.stopped = true
		l.errorf(l.at(v), "repeat less with aliases", "the config has more than %d values", maxVisit)
	}
	if v.n.Kind == yaml.AliasNode {
		v.n = v.n.Alias
	}
	return v
}

// field is one key of a mapping and its value.
type field struct {
	name string // the key
	in   string // what it is a key of, such as "a device"
	k, v value
}

// hooks let the reader of a device, group or tag see its keys pass.
type hooks struct {
	other func(field) bool       // takes a key that is not in the table, such as a driver's; false = unknown
	extra []drivers.Option       // keys that other takes, for suggestions
	note  func(f field, ok bool) // called after each known key
}

// read reads the mapping v into dst, key by key, and returns the bits of the keys of t that it holds. It
// reports whatever else is wrong with the mapping.
func read[T any](l *loader, v value, t *table[T], dst *T, h hooks) (seen uint64) {
	if v.n.Kind != yaml.MappingNode {
		l.errorf(l.at(v), fmt.Sprintf("write its keys, such as %q", t.keys[0].name+": ..."),
			"%s must be keys with values, not %s", t.in, kindOf(v.n))
		return 0
	}
	pairs := l.pairs(v)
	earlier := repeated(pairs)
	for i := 0; i+1 < len(pairs) && !l.stopped; i += 2 {
		f := field{in: t.in, k: value{pairs[i], v.file, v.lines}}
		f.v = l.resolve(value{pairs[i+1], v.file, v.lines})
		if f.k = l.resolve(f.k); f.k.n.Kind != yaml.ScalarNode {
			l.errorf(l.at(f.k), "write plain words as keys", "a key in %s is %s", t.in, kindOf(f.k.n))
			continue
		}
		f.name = f.k.n.Value
		if line := earlier(i); line > 0 {
			l.errorf(l.at(f.k), "delete one of them", "key %s stands twice in %s, first in line %d", quoteKey(f.name), t.in, line+int(v.lines))
			continue
		}
		if bit := t.bit(f.name); bit != 0 && i+3 < len(pairs) && cutByComma(pairs[i+1:i+4]) {
			l.errorf(l.at(f.v), commaMend, "%s has a comma, which begins another key here", f.name)
			if seen |= bit; h.note != nil {
				h.note(f, false)
			}
			i += 2
			continue
		}
		seen |= readKey(l, f, t, dst, h)
	}
	return seen
}

const commaMend = "a number has a point, not a comma; a text with a comma stands in quotes"

// cutByComma reports whether a value and the key and value behind it are one number with a decimal comma, as in {scale: 0,1}. It was not in quotes.
func cutByComma(nodes []*yaml.Node) bool {
	value, key, nothing := nodes[0], nodes[1], nodes[2]
	digits := func(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Style == 0 && n.Tag == "!!int" }
	return digits(value) && digits(key) && nothing.Kind == yaml.ScalarNode && nothing.Tag == "!!null" && nothing.Value == ""
}

// readKey reads one key and returns its bit in t.
func readKey[T any](l *loader, f field, t *table[T], dst *T, h hooks) (bit uint64) {
	known, ok := false, true
	for i := range t.keys {
		if k := &t.keys[i]; k.name == f.name {
			f.name, known, bit = k.name, true, 1<<i // the table's own name: the node can go
			ok = k.set(l, f, dst)
			break
		}
	}
	if !known && h.other != nil {
		before := l.mistakes.total
		known = h.other(f)
		ok = l.mistakes.total == before
	}
	if !known {
		// The key that was probably meant counts as seen: one mistake, one message.
		bit = t.bit(l.unknownKey(f, t.names(), h.extra))
	} else if h.note != nil {
		h.note(f, ok)
	}
	return bit
}

// lack reports the required keys that a mapping does not have and returns whether there were any. what names
// the mapping: `device "press-1"`.
func lack[T any](l *loader, v value, t *table[T], seen uint64, what string) bool {
	if v.n.Kind != yaml.MappingNode {
		return true
	}
	found := false
	for i := range t.keys {
		if k := &t.keys[i]; k.need != "" && seen&(1<<i|t.bit(k.or)) == 0 {
			found = true
			l.errorf(l.at(v), "add "+k.need, "%s has no key %q", what, k.name)
		}
	}
	return found
}

// pairs returns the keys and values of a mapping, those of merged mappings (<<: *name) after its own.
func (l *loader) pairs(v value) []*yaml.Node {
	merges := false
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		merges = merges || v.n.Content[i].Tag == "!!merge"
	}
	if !merges {
		return v.n.Content
	}
	have := map[string]bool{}
	var own, merged []*yaml.Node
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		k, val := v.n.Content[i], v.n.Content[i+1]
		if k.Tag == "!!merge" {
			merged = append(merged, val)
		} else {
			have[k.Value] = true
			own = append(own, k, val)
		}
	}
	for _, m := range merged {
		own = l.merge(own, have, value{m, v.file, v.lines})
	}
	return own
}

// merge appends the pairs of what `<<:` names, one mapping or a list of them, that are not in have.
func (l *loader) merge(own []*yaml.Node, have map[string]bool, m value) []*yaml.Node {
	m = l.resolve(m)
	sources := []*yaml.Node{m.n}
	if m.n.Kind == yaml.SequenceNode {
		sources = m.n.Content
	}
	for _, s := range sources {
		from := l.resolve(value{s, m.file, m.lines})
		if from.n.Kind != yaml.MappingNode {
			l.errorf(l.at(from), "write <<: *name with the anchor &name on a block of keys", "<< must name keys with values, not %s", kindOf(from.n))
			continue
		}
		for i := 0; i+1 < len(from.n.Content) && !l.stopped; i += 2 {
			k := from.n.Content[i]
			if k.Tag == "!!merge" {
				l.errorf(l.at(value{k, m.file, m.lines}), "name both anchors in one list: <<: [*a, *b]", "<< within a merged block")
			} else if l.resolve(from); !have[k.Value] {
				have[k.Value] = true
				own = append(own, k, from.n.Content[i+1])
			}
		}
	}
	return own
}

// repeated returns a function that tells in which line the key at index i stood before, 0 for never.
func repeated(pairs []*yaml.Node) func(i int) int {
	if len(pairs) <= 64 { // nearly always: no map
		return func(i int) int {
			for j := 0; j < i; j += 2 {
				if pairs[j].Value == pairs[i].Value && pairs[j].Kind == pairs[i].Kind {
					return pairs[j].Line
				}
			}
			return 0
		}
	}
	first := make(map[string]int, len(pairs)/2)
	return func(i int) int {
		line, ok := first[pairs[i].Value]
		if !ok {
			first[pairs[i].Value] = pairs[i].Line
		}
		return line
	}
}

// formerly are keys that other words have replaced, or that stand elsewhere, and what to write.
var formerly = map[string]string{"spare_url": `write "urls: [URL, SPARE]" in place of url and spare_url`, "csv": `write "tags: {csv: FILE}" in place of the list`}

// foreign are the words of other gateways and of manuals for keys of ours, in lower case.
var foreign = map[string]string{"slave": "unit", "slave_id": "unit", "slaveid": "unit", "unit_id": "unit", "unitid": "unit", "station": "unit",
	"host": "url", "ip": "url", "server": "url", "broker": "url", "controller": "url", "endpoint": "url", "poll_interval": "interval", "scan_rate": "interval",
	"period": "interval", "register": "address", "offset_address": "address", "node_id": "address", "nodeid": "address", "node": "address",
	"datatype": "type", "data_type": "type", "byte_order": "order", "byteorder": "order", "word_order": "order", "endianness": "order",
	"factor": "scale", "multiplier": "scale", "gain": "scale", "units": "unit", "eu": "unit", "protocol": "driver"}

// meantKey returns the key that was probably meant by a word, "" for none.
func meantKey(word string, known []string) string {
	if key := foreign[strings.ToLower(word)]; key != "" && slices.Contains(known, key) {
		return key
	}
	return Nearest(word, known)
}

// unknownKey reports a key that nobody knows, and returns the key that was probably meant, if any.
func (l *loader) unknownKey(f field, known []string, extra []drivers.Option) (meant string) {
	if l.full() {
		l.errorf(l.at(f.k), "", "")
		return ""
	}
	for _, o := range extra {
		known = append(known, o.Name)
	}
	word, _, _ := strings.Cut(f.name, ":")
	mend := formerly[word]
	if mend == "" {
		if meant = meantKey(word, known); meant != "" {
			mend = fmt.Sprintf("did you mean %q?", meant)
		} else if mend = l.home(word, f.in); mend == "" {
			mend = didYouMean(word, known, "its keys are")
		}
	}
	if _, err := strconv.Atoi(f.name); err == nil {
		mend = commaMend
	}
	if strings.Contains(f.name, ":") {
		mend = "put a space after the colon"
	}
	l.errorf(l.at(f.k), mend, "unknown key %s in %s", quoteKey(f.name), f.in)
	return meant
}

// list calls read for every item of the list in f.
func (l *loader) list(f field, read func(value)) {
	if f.v.n.Kind != yaml.SequenceNode {
		l.errorf(l.at(f.v), "write one item a line, each after a dash", "%s must be a list, not %s", f.name, kindOf(f.v.n))
		return
	}
	if _, long := l.cuts[f.v.n]; len(f.v.n.Content) == 0 && !long {
		l.errorf(l.at(f.v), "add an item, or delete what needs none", "%s is empty", f.name)
	}
	l.each(f.v, read)
}

// kindOf names what a node is without showing it: it may be a secret.
func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "keys with values"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	}
	return "a single value"
}

// quote shows a text of the config, bounded.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q...", strings.ToValidUTF8(s[:most], ""))
	}
	return fmt.Sprintf("%q", s)
}

// quoteKey shows a key. What follows a colon is cut off: `password:hunter2` without a space is one key.
func quoteKey(s string) string {
	if word, _, ok := strings.Cut(s, ":"); ok {
		return quote(word+":") + "..."
	}
	return quote(s)
}
