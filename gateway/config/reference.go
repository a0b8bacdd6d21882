package config

import (
	"fmt"
	"slices"
	"strings"

	"millrace/drivers"
)

const referenceHead = `# Every key of a millrace config with its default, or with an example where there is no default: such keys are
# required, or stand in a comment. Printed by: millrace config reference. Check a config with: millrace check --config FILE
#
# Durations: ms, s, m, h, d (500ms, 1m30s, 30d). Sizes: B, KB, MB, GB, TB or KiB, MiB, GiB, TiB.
# ${env:NAME} and ${file:PATH} stand for an environment variable and for the text of a file, in any value.
# A relative path starts at the folder of the file it stands in.
`

// Reference returns a config with every key: its default or an example, what it means and its bounds. It loads.
func Reference(protocols []drivers.Protocol) string {
	r := &reference{protocols: protocols}
	r.WriteString(referenceHead)
	tables := newTables()
	for _, e := range tables.top.section().entries {
		r.WriteByte('\n')
		r.entry("", &e, nil)
	}
	return strings.TrimRight(r.String(), "\n") + "\n"
}

type reference struct {
	strings.Builder
	protocols []drivers.Protocol
}

// about is what an entry means, its bounds and when a change takes effect.
func (e *entry) about() string {
	var parts []string
	if e.help != "" {
		parts = append(parts, e.help)
	}
	if e.form.words != "" {
		parts = append(parts, e.form.words)
	}
	if e.restart {
		parts = append(parts, "a change takes a restart")
	}
	return strings.Join(parts, "; ")
}

// optional reports whether an entry has neither a default nor need to be there.
func (e *entry) optional() bool {
	if s := e.form.section; s != nil && !e.form.list {
		return !slices.ContainsFunc(s.entries, func(e entry) bool { return !e.optional() })
	}
	return e.need == "" && e.def == ""
}

// entry writes a key after lead, its indentation. What is optional stands in a comment, and so does what is below it.
func (r *reference) entry(lead string, e *entry, p *drivers.Protocol) {
	if e.optional() && !strings.Contains(lead, "#") {
		lead += "# "
	}
	about := e.about()
	if e.need != "" {
		about = strings.TrimSuffix("required; "+about, "; ")
	}
	s := e.form.section
	switch {
	case s == nil && strings.HasPrefix(e.show, "- "):
		r.line(lead, e.name, "", about)
		r.WriteString(lead + "  " + e.show + "\n")
	case s == nil:
		r.line(lead, e.name, e.def+e.show, about)
	case s.in == "a device":
		r.line(lead, e.name, "", about)
		for i := range r.protocols {
			r.device(s, &r.protocols[i], i == 0)
		}
	default:
		r.line(lead, e.name, "", about)
		item := e.form.list
		for i := range s.entries {
			below := lead + "  "
			switch {
			case item:
				below += "- "
			case e.form.list:
				below += "  "
			}
			r.entry(below, &s.entries[i], p)
			item = false
		}
	}
}

// nextLead returns the indentation of the next key: the first key of an item has a dash before it.
func nextLead(lead *string, item *bool) string {
	now := *lead
	if *item {
		now, *lead, *item = now+"- ", now+"  ", false
	}
	return now
}

func (r *reference) options(lead string, options []drivers.Option, p *drivers.Protocol) {
	for _, o := range options {
		r.line(lead+"# ", o.Name, o.Example, p.Name+": "+o.Help)
	}
}

// device writes a device of one driver: of the first with every common key, of the others with what is required.
func (r *reference) device(s *section, p *drivers.Protocol, whole bool) {
	lead, item := "  ", true
	x := &p.Example
	for _, d := range s.entries {
		switch {
		case d.form.list:
			r.options(lead, s.options.of(p), p)
			r.groups(lead+"  ", &d, p, whole)
			continue
		case d.name == "name":
			d.show = x.Device
		case d.name == "driver":
			d.show = p.Name
		case d.name == "url":
			d.show, d.help = x.URL, x.URLHelp
		case !whole:
			continue
		}
		r.entry(nextLead(&lead, &item), &d, p)
	}
	r.WriteByte('\n')
}

func (r *reference) groups(lead string, groups *entry, p *drivers.Protocol, whole bool) {
	r.line(lead[2:], groups.name, "", "required; "+groups.about())
	item := true
	for _, g := range groups.form.section.entries {
		switch {
		case g.form.list:
			r.options(lead, groups.form.section.options.of(p), p)
			r.tags(lead+"  ", &g, p, whole)
			continue
		case !whole && g.need == "":
			continue
		}
		r.entry(nextLead(&lead, &item), &g, p)
	}
}

func (r *reference) tags(lead string, tags *entry, p *drivers.Protocol, whole bool) {
	r.line(lead[2:], tags.name, "", "required; "+tags.about())
	item := true
	for _, t := range tags.form.section.entries {
		switch {
		case t.name == "address":
			t.show, t.help = p.Example.Address, p.Example.AddressHelp
		case t.name == "type" && p.Example.Type != "":
			t.def, t.show, t.help = p.Example.Type, "", p.Example.TypeHelp
		case !whole && t.need == "":
			continue
		}
		r.entry(nextLead(&lead, &item), &t, p)
	}
	r.options(lead, tags.form.section.options.of(p), p)
}

// line writes one key with its comment in a column of its own, wrapped.
func (r *reference) line(lead, name, value, about string) {
	const column, width = 38, 100
	text := lead + name + ":"
	if value != "" {
		text += " " + value
	}
	for about != "" {
		part := about
		if end := strings.LastIndexByte(part[:min(len(part), width)], ' '); len(part) > width && end > 0 {
			part = part[:end]
		}
		about = strings.TrimPrefix(about[len(part):], " ")
		fmt.Fprintf(r, "%-*s # %s\n", column, text, part)
		text = ""
	}
	if text != "" {
		r.WriteString(text + "\n")
	}
}
