package config

import (
	"strings"

	yaml "go.yaml.in/yaml/v4"

	"millrace/drivers"
)

// key is one key that a mapping may have, and all that millrace knows of it: reading, defaults, printing, the hash, the
// reference and the JSON schema come from here.
type key[T any] struct {
	name string
	def  string // default as a config would write it; "" = none
	show string // what the reference shows where there is no default; it begins with a dash for a list of plain values
	need string // for a required key: what to add when it is missing
	or   string // a key that does instead of a required one
	help string // one line; the kind adds the bounds

	restart bool // a change of it, or of what is below it, takes a restart
	kind[T]
}

// kind is how the value of a key is read, written and described.
type kind[T any] struct {
	set   func(*loader, field, *T) bool                        // false: a mistake is reported, and the value is as before
	get   func(*T) string                                      // as YAML in one line; "" = left out
	block func(p *printer, lead, name string, v *T) (any bool) // writes it over several lines instead
	reset func(*loader, *T)                                    // sets the defaults of what is below it
	fixed func(prefix string, whole bool, a, b *T) []string    // changed keys below it that take a restart
	form  form
}

// form describes a value to people and editors.
type form struct {
	words   string // its bounds
	schema  schema
	section *section // the keys of a mapping, or of each item of a list
	list    bool
	also    schema // another way to write it
}

// section is a table without the type of what it sets.
type section struct {
	in      string
	entries []entry
	options optionsOf
}

type entry struct {
	name, def, show, need, or, help string
	restart                         bool
	form                            form
}

// optionsOf are a driver's own keys at one level.
type optionsOf func(*drivers.Protocol) []drivers.Option

// of returns the options of a protocol, none while it is not known or where a level has none.
func (o optionsOf) of(p *drivers.Protocol) []drivers.Option {
	if o == nil || p == nil {
		return nil
	}
	return o(p)
}

// table says which keys a mapping may have.
type table[T any] struct {
	in      string // "a device"
	flow    bool   // printed in braces
	keys    []key[T]
	options optionsOf
	given   func(*T) (*drivers.Protocol, map[string]string) // the driver's keys as they are set
}

func (t *table[T]) names() []string {
	names := make([]string, len(t.keys))
	for i := range t.keys {
		names[i] = t.keys[i].name
	}
	return names
}

// bit returns the bit of a key, 0 if it is not in the table.
func (t *table[T]) bit(name string) uint64 {
	for i := range t.keys {
		if t.keys[i].name == name {
			return 1 << i
		}
	}
	return 0
}

func (t *table[T]) section() *section {
	s := &section{in: t.in, options: t.options}
	for i := range t.keys {
		k := &t.keys[i]
		s.entries = append(s.entries, entry{k.name, k.def, k.show, k.need, k.or, k.help, k.restart, k.form})
	}
	return s
}

// reset sets every default of a table.
func (t *table[T]) reset(l *loader, dst *T) {
	for i := range t.keys {
		k := &t.keys[i]
		if k.kind.reset != nil {
			k.kind.reset(l, dst)
		} else if k.def != "" {
			k.set(l, field{name: k.name, in: t.in, v: value{n: &yaml.Node{Kind: yaml.ScalarNode, Value: k.def}}}, dst)
		}
	}
}

// fixed returns the keys in which a and b differ and a change of which takes a restart; whole says that this goes for all keys.
func (t *table[T]) fixed(prefix string, whole bool, a, b *T) (changed []string) {
	for i := range t.keys {
		switch k := &t.keys[i]; {
		case k.kind.fixed != nil:
			changed = append(changed, k.kind.fixed(prefix+k.name+".", whole || k.restart, a, b)...)
		case (whole || k.restart) && k.get(a) != k.get(b):
			changed = append(changed, prefix+k.name)
		}
	}
	return changed
}

// print writes each key on its own line. The first is led by lead, which may end in a dash, the others by as many blanks.
func (t *table[T]) print(p *printer, lead string, v *T) {
	next := func() string { // the dash goes before the first key only
		now := lead
		lead = strings.Repeat(" ", len(lead))
		return now
	}
	for i := range t.keys {
		k := &t.keys[i]
		if k.form.list { // what is long comes last
			t.eachOption(v, func(name, text string) { p.line(next(), name, text) })
		}
		if k.block != nil {
			if k.block(p, lead, k.name, v) {
				next()
			}
		} else if s := k.get(v); s != "" {
			p.line(next(), k.name, s)
		}
	}
}

// inFlow returns the keys in braces, "" when there are none.
func (t *table[T]) inFlow(v *T) string {
	var b strings.Builder
	add := func(name, text string) {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name + ": " + text)
	}
	for i := range t.keys {
		if s := t.keys[i].get(v); s != "" {
			add(t.keys[i].name, s)
		}
	}
	t.eachOption(v, add)
	if b.Len() == 0 {
		return ""
	}
	return "{" + b.String() + "}"
}

// eachOption calls f for each driver's key that is set, in the driver's order.
func (t *table[T]) eachOption(v *T, f func(name, text string)) {
	if t.given == nil {
		return
	}
	protocol, values := t.given(v)
	if len(values) == 0 {
		return
	}
	for _, o := range t.options.of(protocol) {
		if s, ok := values[o.Name]; ok && o.Secret {
			f(o.Name, text(mask))
		} else if ok {
			f(o.Name, text(s))
		}
	}
}
