package opcua

import (
	"fmt"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"
)

// plan says which nodes of a group are read together, in slices that every poll reuses.
type plan struct {
	nodes   [][]byte  // read together, in the order of the tags
	tags    []int     // nodes[i] belongs to tag tags[i]
	ids     [][]byte  // of each tag, nil when its namespace is not known
	reasons []string  // of each tag: why it is not read with the others, "" when it is
	aside   []int     // tags whose node spoils a request; tried alone now and then
	retry   time.Time // when the next of them is tried
	lost    []int     // tags whose browse path has led to no node yet
	search  time.Time // when they are looked for again
	hints   []string  // of each tag whose node is no variable: what to read instead, "" when not known yet; nil before
}

// valueOf asks for the value of a node: an encoded ReadValueId (OPC 10000-4, 7.29), made once for all polls.
func valueOf(n *ua.NodeID) ([]byte, error) {
	return ua.Encode(&ua.ReadValueID{NodeID: n, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}})
}

// resolve finds the nodes of all tags but those that are given by browse path: see locate. names are the server's namespaces,
// by index; reason says why they could not be read.
func (g *group) resolve(names []string, reason string) (err error) {
	p := &g.ask
	p.ids, p.reasons, p.aside, p.lost = make([][]byte, len(g.tags)), make([]string, len(g.tags)), nil, nil
	p.hints = nil
	for i, t := range g.tags {
		if t.addr.kind == byPath {
			p.lost = append(p.lost, i)
			continue
		}
		ns := t.addr.ns
		if t.addr.uri != "" {
			index := slices.Index(names, t.addr.uri)
			if index < 0 || index > 1<<16-1 {
				if p.reasons[i] = reason; reason == "" {
					p.reasons[i] = fmt.Sprintf("the server has no namespace %q", t.addr.uri)
				}
				continue
			}
			ns = uint16(index)
		}
		if p.ids[i], err = valueOf(t.addr.nodeID(ns)); err != nil {
			return fmt.Errorf("BUG: encode node id %q: %w", t.addr, err)
		}
	}
	g.build()
	return nil
}

// build lists the nodes that are read together.
func (g *group) build() {
	p := &g.ask
	p.nodes, p.tags = p.nodes[:0], p.tags[:0]
	for i, id := range p.ids {
		if p.reasons[i] == "" && id != nil {
			p.nodes, p.tags = append(p.nodes, id), append(p.tags, i)
		}
	}
}

// setAside marks a tag as one whose node spoils every request it is part of.
func (g *group) setAside(tag int, reason string) {
	p := &g.ask
	p.reasons[tag] = reason
	p.aside = append(p.aside, tag)
	p.retry = time.Now().Add(asideTime)
}

// rejoin takes a tag back that was set aside.
func (g *group) rejoin(tag int) {
	p := &g.ask
	p.reasons[tag] = ""
	p.aside = slices.DeleteFunc(p.aside, func(t int) bool { return t == tag })
	g.build()
}

// fit returns how many of the tags go into one request of at most limit nodes and so many bytes of
// node ids: at least one.
func (g *group) fit(tags []int, limit, bytes int) int {
	for n, tag := range tags[:min(limit, len(tags))] {
		size := g.tags[tag].addr.encodedSize()
		if tag < len(g.ask.ids) {
			size = max(size, len(g.ask.ids[tag]))
		}
		if bytes -= size; bytes < 0 && n > 0 {
			return n
		}
	}
	return min(limit, len(tags))
}
