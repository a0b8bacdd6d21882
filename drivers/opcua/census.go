package opcua

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

const (
	maxTypeName = 100 // bytes of a data type's name that are kept
	maxFailures = 3   // connections that may be lost during a census; it may be the asking that the server does not bear

	noNode  = "-" // instead of a data type: there is no such node
	untyped = "?" // there is one, but what its data type is the server does not say
)

// census is what the tags' addresses meant at a connect, so that the next one can say what has changed: a server that was configured anew
// may have other nodes under the same ids, and nothing else would tell.
type census struct {
	names []string // the server's namespaces, by index; nil = not known
	types []string // of each tag, group by group: its data type, noNode, untyped, or "" for not known
}

// notice compares what the addresses mean now with the last connect.
func (d *driver) notice(ctx context.Context, names []string) error {
	if !d.counts() {
		return nil
	}
	now := census{names: names}
	var tags []tag
	seen := map[string]string{} // most tags have one of a few types
	for i := range d.groups {
		for j := range d.groups[i] {
			g := &d.groups[i][j]
			types, err := d.dataTypes(ctx, g, names, seen)
			if err != nil {
				d.failures++
				return fmt.Errorf("look for what has changed: %w", err)
			}
			now.types, tags = append(now.types, types...), append(tags, g.tags...)
		}
	}
	if d.before != nil {
		now.keep(d.before)
		d.news = strings.Join(append(d.before.moved(&now, tags), d.before.changed(&now, tags)...), "; ")
	}
	d.before = &now
	return nil
}

// counts reports whether the server bears a census.
func (d *driver) counts() bool { return d.failures < maxFailures }

// keep takes over what was known before and is not now.
func (c *census) keep(before *census) {
	if c.names == nil {
		c.names = before.names
	}
	for i, t := range c.types {
		if t == "" {
			c.types[i] = before.types[i]
		}
	}
}

// Warning says once what has changed between two connects: drivers.Warner.
func (d *driver) Warning() string {
	news := d.news
	if d.news = ""; news != "" {
		news = "the server is not as it was: " + news
	}
	return news
}

// dataTypes reads the data type of each tag's node, in requests that shrink when the server refuses them for their size.
func (d *driver) dataTypes(ctx context.Context, g *group, names []string, seen map[string]string) ([]string, error) {
	all := make([]string, len(g.tags))
	var tags []int
	for tag, node := range g.ask.ids {
		if node != nil {
			tags = append(tags, tag)
		} else if g.ask.reasons[tag] != "" {
			all[tag] = noNode
		}
	}
	for most, refusals := d.most, 0; len(tags) > 0; {
		n := g.fit(tags, most, min(maxRequest, d.link.channel.Request()/2))
		nodes := make([][]byte, n)
		for i, tag := range tags[:n] {
			nodes[i] = attributeOf(askedNode(g.ask.ids[tag]), ua.AttributeIDDataType)
		}
		r, err := d.request(ctx, nodes)
		switch {
		case err == nil:
			for _, tag := range tags[:n] {
				v := r.DataValue(0)
				all[tag] = typeName(&v, names, seen)
			}
			tags = tags[n:]
		case unlessRefused(err) != nil:
			return nil, err
		case n > 1 && refusals < maxRefusals:
			most = n / 2
			refusals++
		default: // not known, then
			tags, most = tags[n:], d.most
		}
	}
	return all, nil
}

// typeName returns what the answer says that a node's data type is.
func typeName(v *wire.DataValue, names []string, seen map[string]string) string {
	switch status := ua.StatusCode(v.Status); {
	case noSuchNode(status):
		return noNode
	case status>>31 != 0:
		return untyped
	}
	r := newReader(v.Variant)
	if r.U8() != wire.TypeNodeID {
		return untyped
	}
	n := r.NodeID()
	name := spellWithURI(spell(n), names)
	if n.NS == 0 && n.Kind == 'i' && id.Name(n.Number) != "" {
		name = id.Name(n.Number)
	}
	if r.Err != nil || len(name) > maxTypeName {
		return untyped
	}
	if known, ok := seen[name]; ok {
		return known
	}
	seen[name] = name
	return name
}

// moved says which namespaces, that addresses name by index, are others now.
func (c *census) moved(now *census, tags []tag) (words []string) {
	at := func(names []string, index int) string {
		if index < len(names) {
			return names[index]
		}
		return ""
	}
	told := map[uint16]bool{0: true}
	for i := range tags {
		for _, ns := range tags[i].addr.indexes() {
			old, new := at(c.names, int(ns)), at(now.names, int(ns))
			if told[ns] || old == new || c.names == nil || now.names == nil || len(told) > maxHints {
				continue
			}
			told[ns] = true
			words = append(words, fmt.Sprintf("namespace %d is %.100q now, and was %.100q: addresses with this index may mean other nodes; write nsu= instead", ns, new, old))
		}
	}
	return words
}

// indexes returns the namespaces that an address names by index.
func (a address) indexes() (all []uint16) {
	if a.kind != byPath {
		return []uint16{a.ns}
	}
	steps, _ := parsePath(a.text)
	for _, s := range steps {
		all = append(all, s.ns)
	}
	return all
}

// changed says which nodes are gone, have come, or have another data type.
func (c *census) changed(now *census, tags []tag) (words []string) {
	var gone, come, other kindOfChange
	for i := range tags {
		switch old, new := c.types[i], now.types[i]; {
		case old == new || old == "" || new == "":
		case new == noNode:
			gone.add(&tags[i], "")
		case old == noNode:
			come.add(&tags[i], "")
		case old != untyped && new != untyped:
			other.add(&tags[i], fmt.Sprintf(" (%s, and was %s)", new, old))
		}
	}
	return slices.Concat(gone.words("gone"), come.words("there again"), other.words("of another data type"))
}

// kindOfChange counts nodes and names the first.
type kindOfChange struct {
	count   int
	example string
}

func (k *kindOfChange) add(t *tag, more string) {
	if k.count++; k.count == 1 {
		k.example = fmt.Sprintf("%q%s", clip(t.addr.String()), more)
	}
}

func (k *kindOfChange) words(what string) []string {
	switch k.count {
	case 0:
		return nil
	case 1:
		return []string{"node " + k.example + " is " + what}
	}
	return []string{fmt.Sprintf("%d nodes are %s, such as %s", k.count, what, k.example)}
}
