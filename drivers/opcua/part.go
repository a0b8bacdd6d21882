package opcua

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"millrace/drivers/telemetry"
)

// Bounds of what a tag's options say.
const (
	maxFieldSteps = 32   // from a value to a field
	maxTexts      = 1024 // of an enum
)

// part says what a tag wants of a value beyond its type; most tags want nothing.
type part struct {
	field  string   // as configured
	steps  []string // to the field: names and indexes
	json   bool     // the whole as a JSON text
	texts  bool     // of an enumeration, the server's
	server bool     // they are asked for
	own    *names   // they are the config's; nil = none
}

// wants reads a tag's options.
func (w *wanted) wants(options map[string]string) (field string, m *mistake) {
	p := part{json: w.word == "json", field: options["field"]}
	if p.steps, m = parseSteps(p.field); m != nil {
		return "field", m
	}
	switch text := options["enum"]; {
	case text == "":
	case w.word != "" && w.word != "string" && w.word != "json":
		return "enum", &mistake{fmt.Sprintf("enum makes texts, and type is %s", w.word), "remove one of them"}
	case text == "server":
		p.texts, p.server = true, true
	default:
		if p.own, m = parseNames(text); m != nil {
			return "enum", m
		}
	}
	if p.json || len(p.steps) > 0 || p.server || p.own != nil {
		w.part = &p
	}
	return "", nil
}

// parseSteps reads "set.zones[2].temperature"; a name with a dot or bracket in it stands in double quotes.
func parseSteps(text string) (steps []string, m *mistake) {
	bad := func(what string) ([]string, *mistake) {
		return nil, &mistake{fmt.Sprintf("field %q: %s", clip(text), what), `use for example "set.temperature", "zones[2].name" or "[3]"`}
	}
	for rest := text; rest != ""; {
		var step string
		switch {
		case len(steps) == maxFieldSteps || len(text) > maxIdentifier:
			return bad("it is too long")
		case rest[0] == '[':
			inside, behind, ok := strings.Cut(rest[1:], "]")
			if !ok {
				return bad("a ']' is missing")
			}
			for index := range strings.SplitSeq(inside, ",") {
				if _, err := parseDecimal(strings.TrimSpace(index), 31); err != nil {
					return bad(fmt.Sprintf("%q is no index; the first element is 0", index))
				}
				steps = append(steps, strings.TrimSpace(index))
			}
			if rest = behind; rest != "" && rest[0] != '[' && rest[0] != '.' {
				return bad("a '.' is missing behind ']'")
			}
			if rest == "." {
				return bad("it ends in a dot")
			}
			rest = strings.TrimPrefix(rest, ".")
			continue
		case rest[0] == '"':
			var ok bool
			if step, rest, ok = strings.Cut(rest[1:], `"`); !ok {
				return bad("a double quote is missing")
			}
			if rest != "" && rest[0] != '.' && rest[0] != '[' {
				return bad("a '.' is missing behind the double quote")
			}
		default:
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			step, rest = rest[:end], rest[end:]
		}
		if step == "" || rest == "." {
			return bad("a name is empty")
		}
		steps, rest = append(steps, step), strings.TrimPrefix(rest, ".")
	}
	return steps, nil
}

// names are the texts of an enumeration, or of bits.
type names struct {
	of   map[int64]string
	bits bool
}

// parseNames reads "0=off, 1=on".
func parseNames(text string) (*names, *mistake) {
	all := &names{of: map[int64]string{}}
	for pair := range strings.SplitSeq(text, ",") {
		number, word, ok := strings.Cut(pair, "=")
		n, err := strconv.ParseInt(strings.TrimSpace(number), 0, 64)
		if word = strings.TrimSpace(word); !ok || err != nil || word == "" {
			return nil, &mistake{fmt.Sprintf("enum: %q is not a number and its text", clip(strings.TrimSpace(pair))), `write "server" for the server's texts, or a table such as "0=off, 1=on"`}
		}
		if other, twice := all.of[n]; twice {
			return nil, &mistake{fmt.Sprintf("enum: %d has two texts, %q and %q", n, clip(other), clip(word)), "delete one of them"}
		}
		if all.of[n] = word; len(all.of) > maxTexts {
			return nil, &mistake{fmt.Sprintf("enum has more than %d texts", maxTexts), "leave some out"}
		}
	}
	return all, nil
}

// text returns the text of a whole number; false when there is none.
func (n *names) text(v telemetry.Value) (string, bool) {
	if n == nil {
		return "", false
	}
	if !n.bits {
		text, ok := n.of[int64(v.Bits)]
		return text, ok
	}
	var set []string
	for bit := range int64(64) {
		if v.Bits>>bit&1 == 0 {
			continue
		}
		text, ok := n.of[bit]
		if !ok {
			return "", false
		}
		set = append(set, text)
	}
	return strings.Join(set, ", "), true
}

// whole returns a variant, or the part of it that a tag wants, as a value. The variant is taken apart once for all of its tags.
func (d *decoder) whole(variant []byte, want wanted) (telemetry.Value, string) {
	d.nameless = ""
	if !d.grown {
		d.why = d.grow(variant)
		d.grown = true
	}
	if d.why != "" {
		return telemetry.Value{}, d.why
	}
	var p part
	if want.part != nil {
		p = *want.part
	}
	at, reason := d.pick(p.steps)
	if reason != "" {
		return telemetry.Value{}, fmt.Sprintf("field %q: %s", clip(p.field), reason)
	}
	if p.json || d.parts(at) {
		return d.asJSON(at, want, p.texts)
	}
	return d.build(at, want)
}

// pick goes from the whole to a part of it.
func (d *decoder) pick(steps []string) (at int, reason string) {
	for _, step := range steps {
		n := &d.nodes[at]
		switch n.kind {
		case list:
			i, err := parseDecimal(step, 31)
			switch {
			case err != nil:
				return 0, fmt.Sprintf("%q is asked of an array; use an index such as [0]", step)
			case i >= uint64(n.n):
				return 0, fmt.Sprintf("there is no element %s: the array has %d, from 0", step, n.n)
			}
			at = int(n.first) + int(i)
		case object:
			if at, reason = n.named(step); reason != "" {
				return 0, reason
			}
		default:
			return 0, fmt.Sprintf("%q is asked of %s, which has no parts", step, describe(n.value))
		}
	}
	if d.nodes[at].kind == absent {
		return 0, "it is optional, and not there now"
	}
	return at, ""
}

// named returns a field of a structure.
func (n *node) named(name string) (at int, reason string) {
	fields := n.of.structure.fields
	for i := range fields {
		switch {
		case fields[i].name != name:
		case n.only == 0:
			return int(n.first) + i, ""
		case int(n.only) == i+1:
			return int(n.first), ""
		default:
			return 0, fmt.Sprintf("the union holds %q now", n.fieldName(0))
		}
	}
	return 0, fmt.Sprintf("%s has no field %q; it has %s", n.of.name, name, n.of.structure.list())
}

// parts reports whether something in a part has names.
func (d *decoder) parts(at int) bool {
	n := &d.nodes[at]
	if n.kind == list && d.objects {
		for i := range int(n.n) {
			if d.parts(int(n.first) + i) {
				return true
			}
		}
	}
	return n.kind == object
}

// asJSON returns a part as a JSON text.
func (d *decoder) asJSON(at int, want wanted, texts bool) (telemetry.Value, string) {
	switch want.word {
	case "", "string", "json":
	default:
		n := &d.nodes[at]
		if n.kind == object {
			return telemetry.Value{}, fmt.Sprintf("a structure does not fit type %s; name one of its fields with `field`: %s", want.word, n.of.structure.list())
		}
		return telemetry.Value{}, fmt.Sprintf("an array of structures does not fit type %s; name an element and a field with `field`", want.word)
	}
	var ok bool
	if d.json, ok = d.appendJSON(d.json[:0], at, texts); !ok {
		d.json = nil
		return telemetry.Value{}, fmt.Sprintf("it is over %d bytes as JSON; name its fields with `field`", maxArray)
	}
	v := telemetry.String(string(d.json))
	if cap(d.json) > maxText {
		d.json = nil
	}
	return v, ""
}

// build returns a part in which nothing has names.
func (d *decoder) build(at int, want wanted) (telemetry.Value, string) {
	n := &d.nodes[at]
	if n.kind != list {
		return d.scalar(n, want)
	}
	elems := make([]telemetry.Value, n.n)
	for i := range elems {
		var reason string
		e := &d.nodes[int(n.first)+i]
		if elems[i], reason = d.build(int(n.first)+i, want); e.kind == leaf && e.value.Kind == telemetry.KindNone {
			reason = "null"
		}
		if reason != "" {
			return telemetry.Value{}, fmt.Sprintf("element %d: %s", i, reason)
		}
	}
	return telemetry.Array(elems), ""
}

// scalar returns a leaf, an enumeration as its text.
func (d *decoder) scalar(n *node, want wanted) (telemetry.Value, string) {
	p := want.part
	switch {
	case n.value.Kind == telemetry.KindNone:
		return telemetry.Value{}, noValue
	case p == nil || !p.server && p.own == nil:
		return want.convert(n.value)
	}
	all, untold := p.own, ""
	if all == nil && n.of != nil {
		all = n.of.names
	} else if all == nil && len(p.steps) == 0 {
		all, untold = d.types.namesOf(d.ctx, d.node())
	}
	digits, whole := integerText(n.value)
	if !whole {
		return telemetry.Value{}, fmt.Sprintf("enum is for whole numbers, and the server's value is %s", describe(n.value))
	}
	text, ok := all.text(n.value)
	if !ok {
		text, d.nameless = digits, cmp.Or(untold, "the value has no text in enum")
	}
	return telemetry.String(text), ""
}

// integerText returns the digits of a whole number; false when it is none.
func integerText(v telemetry.Value) (string, bool) {
	switch v.Kind {
	case telemetry.KindInt:
		return strconv.FormatInt(int64(v.Bits), 10), true
	case telemetry.KindUint, telemetry.KindBool:
		return strconv.FormatUint(v.Bits, 10), true
	}
	return "", false
}
