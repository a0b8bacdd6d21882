package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"millrace/drivers/opcua"
	"millrace/drivers/telemetry"
	"millrace/gateway/web"
)

// listing prints the nodes that a walk has found.
type listing struct {
	flags *browseFlags
	out   io.Writer
	names map[string]bool // of tags
	err   error

	listed, variables int
	unreadable        int // variables that are no tags
}

func (l *listing) printf(format string, args ...any) {
	if l.err == nil {
		_, l.err = fmt.Fprintf(l.out, format, args...)
	}
}

// print prints all below a place.
func (l *listing) print(url string, top *place) error {
	var show func(p *place)
	end := func() error { return l.err }
	switch l.flags.format {
	case "table":
		show, end = l.table()
	case "json":
		show = l.json(json.NewEncoder(l.out))
	case "csv":
		show, end = l.csv(csv.NewWriter(l.out))
	case "yaml":
		l.head(url)
		show, end = l.tag, l.foot
	default:
		show = l.line
	}
	l.each(top, show)
	return end()
}

// each shows the places below one, in the order of a tree: all, or with a filter the variables that it lets through.
func (l *listing) each(above *place, show func(p *place)) {
	for _, p := range above.below {
		variable := p.Class == "variable"
		if variable {
			l.variables++
		}
		if l.flags.filter == "" || variable && strings.Contains(strings.ToLower(p.path), strings.ToLower(l.flags.filter)) {
			if variable {
				l.listed++
			}
			show(p)
		}
		l.each(p, show)
	}
}

// line shows a node in a tree; what a filter has let through stands for itself.
func (l *listing) line(p *place) {
	indent, name, between := strings.Repeat("  ", p.level), p.Name, "  "
	if l.flags.filter != "" {
		indent, name = "", p.path
	}
	var more []string
	for _, word := range []string{p.Type, p.Unit, rangeText(p.Range), p.Access} {
		if word != "" {
			more = append(more, word)
		}
	}
	if p.Class == "variable" {
		between = " = "
	}
	l.printf("%s\n", strings.TrimRight(safe(indent+name+between+p.ID+"  "+strings.Join(more, ", ")), " "))
}

// listedNode is a node as -o json has it; a table and CSV have the same columns.
type listedNode struct {
	Path        string    `json:"path"`
	Node        string    `json:"node"`
	Class       string    `json:"class"`
	Type        string    `json:"type,omitempty"`
	Unit        string    `json:"unit,omitempty"`
	Range       web.Range `json:"range,omitzero"`
	Access      string    `json:"access,omitempty"`
	Description string    `json:"description,omitempty"`
}

// rangeText is a range in words, "" for none.
func rangeText(r telemetry.Range) string {
	if !r.Known() {
		return ""
	}
	return floatText(r.Low, 64) + " to " + floatText(r.High, 64)
}

func listed(p *place) listedNode {
	n := listedNode{p.path, p.ID, p.Class, p.Type, p.Unit, web.Range(p.Range), p.Access, p.Description}
	if p.Class == "method" {
		n.Type = ""
	}
	return n
}

func (n *listedNode) cells() []string {
	return []string{n.Path, n.Node, n.Class, n.Type, n.Unit, rangeText(telemetry.Range(n.Range)), n.Access, n.Description}
}

func (l *listing) json(enc *json.Encoder) func(p *place) {
	return func(p *place) {
		if l.err == nil {
			l.err = enc.Encode(listed(p))
		}
	}
}

func (l *listing) csv(w *csv.Writer) (show func(p *place), end func() error) {
	w.Write([]string{"path", "node", "class", "type", "unit", "range", "access", "description"}) // Error tells
	show = func(p *place) {
		n := listed(p)
		w.Write(n.cells())
	}
	return show, func() error {
		w.Flush()
		return w.Error()
	}
}

func (l *listing) table() (show func(p *place), end func() error) {
	t := &table{out: l.out, widest: 80}
	t.head("PATH", "NODE", "CLASS", "TYPE", "UNIT", "RANGE", "ACCESS", "DESCRIPTION")
	show = func(p *place) {
		n := listed(p)
		t.add(n.cells()...)
	}
	return show, t.flush
}

func (l *listing) head(url string) {
	l.names = map[string]bool{}
	l.printf("- name: server\n  driver: opcua\n  url: %s\n", strconv.Quote(url))
	for _, o := range opcua.Protocol().DeviceOptions {
		if v, ok := l.flags.options[o.Name]; ok && !o.Secret {
			l.printf("  %s: %s\n", o.Name, strconv.Quote(v))
		}
	}
	l.printf("  groups:\n    - name: all\n      interval: 1s\n      tags:\n")
}

// tag shows a variable as a tag of a config.
func (l *listing) tag(p *place) {
	switch {
	case p.Address == "":
		return
	case p.about:
		l.listed--
		return
	case p.Access != "" && !strings.Contains(p.Access, "read"):
		l.listed--
		l.unreadable++
		return
	}
	name := p.path
	if len(name) > 200 { // names have 255 bytes at most
		name = p.Name[max(0, len(p.Name)-200):]
	}
	for i, base := 2, name; l.names[name]; i++ {
		name = fmt.Sprintf("%s %d", base, i)
	}
	l.names[name] = true
	more := ""
	if p.Word != "" {
		more += ", type: " + p.Word
	}
	if p.Unit != "" {
		more += ", unit: " + quoteYAML(p.Unit)
	}
	l.printf("        - {name: %s, address: %s%s}\n", quoteYAML(name), quoteYAML(p.Address), more)
}

func (l *listing) foot() error {
	if l.unreadable > 0 {
		l.printf("        # left out: %s that this user may not read\n", web.Count(uint64(l.unreadable), "variable"))
	}
	return l.err
}

// quoteYAML writes a text that came from a server as a YAML scalar: Go's escapes are YAML's, and ${ stands for something in a config.
func quoteYAML(s string) string {
	return strings.ReplaceAll(strconv.Quote(strings.ToValidUTF8(s, "?")), "${", "$${")
}
