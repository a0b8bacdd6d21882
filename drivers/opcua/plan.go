package opcua

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers/telemetry"
)

// plan says which nodes of a group are read together, in slices that every poll reuses.
type plan struct {
	nodes   [][]byte        // read together, in the order of the tags
	tags    []int           // nodes[i] belongs to tag tags[i]
	ids     [][]byte        // of each tag, nil when its namespace is not known
	reasons []string        // of each tag: why it is not read with the others, "" when it is
	aside   []int           // tags whose node spoils a request; tried alone now and then
	retry   time.Time       // when the next of them is tried
	lost    []int           // tags whose browse path has led to no node yet
	search  time.Time       // when they are looked for again
	filters map[int][]byte  // of tags of events, encoded; nil = none
	bands   map[int]float64 // deadbands that the server is asked for and has not refused; nil = none
	handles handles         // see register
	hints   []string        // of each tag whose node is no variable: what to read instead, "" when not known yet; nil before
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
	p.hints, p.filters, p.bands, p.handles = nil, nil, g.bands(), handles{}
	g.about.next = time.Now().Add(describeEvery)
	for i, t := range g.tags {
		ns, why := t.addr.index(names, reason)
		if why != "" {
			p.reasons[i] = why
			continue
		}
		if t.event != nil {
			if err := g.listen(i, ns, names, reason); err != nil {
				return err
			}
			continue
		}
		if t.addr.kind == byPath {
			if g.nodeOf(i) == i {
				p.lost = append(p.lost, i)
			}
			continue
		}
		if p.ids[i], err = valueOf(t.addr.nodeID(ns)); err != nil {
			return fmt.Errorf("BUG: encode node id %q: %w", t.addr, err)
		}
	}
	for tag, to := range g.follows {
		p.ids[tag], p.reasons[tag] = p.ids[to], shared
	}
	g.build()
	return nil
}

// index returns the index of the address's namespace, or why it has none.
func (a *address) index(names []string, reason string) (ns uint16, why string) {
	if a.uri == "" {
		return a.ns, ""
	}
	index := slices.Index(names, a.uri)
	if index < 0 || index > 1<<16-1 {
		return 0, cmp.Or(reason, fmt.Sprintf("the server has no namespace %q", a.uri))
	}
	return uint16(index), ""
}

// eventsOnly is why a tag of events is not read with the values.
const eventsOnly = "events come by subscription only, and this group is polled"

// listen finds the node of a tag of events, and makes its filter.
func (g *group) listen(tag int, ns uint16, names []string, reason string) (err error) {
	p, t := &g.ask, &g.tags[tag]
	kind := uint16(0)
	if t.event.kind != nil {
		var why string
		if kind, why = t.event.kind.index(names, reason); why != "" {
			p.reasons[tag] = "event_type: " + why
			return nil
		}
	}
	filter, err := t.event.filter(kind)
	switch {
	case err != nil:
	case t.addr.kind == byPath:
		p.lost = append(p.lost, tag)
	default:
		p.ids[tag], err = notifierOf(t.addr.nodeID(ns))
	}
	if err != nil {
		return fmt.Errorf("BUG: encode the filter of events of %q: %w", t.addr, err)
	}
	if p.filters == nil {
		p.filters = map[int][]byte{}
	}
	p.filters[tag], p.reasons[tag] = filter, eventsOnly
	return nil
}

// share finds the tags that are parts of the node of a tag before them. A group without parts has none.
func (g *group) share() {
	if !slices.ContainsFunc(g.tags, func(t tag) bool { return t.want.part != nil }) {
		return
	}
	first := map[address]int{}
	for i, t := range g.tags {
		if t.event != nil || t.deadband > 0 {
			continue
		}
		to, found := first[t.addr]
		if !found {
			first[t.addr] = i
			continue
		}
		if g.also == nil {
			g.also, g.follows = map[int][]int{}, map[int]int{}
		}
		g.also[to], g.follows[i] = append(g.also[to], i), to
	}
}

// nodeOf returns the tag whose node a tag is, or is a part of.
func (g *group) nodeOf(tag int) int {
	if to, ok := g.follows[tag]; ok {
		return to
	}
	return tag
}

// asked returns the tags that are asked for.
func (g *group) asked() []int {
	all := make([]int, 0, len(g.tags))
	for i := range g.tags {
		if g.nodeOf(i) == i {
			all = append(all, i)
		}
	}
	return all
}

// shared is why a tag is not read by itself, and its reading as long as that of its node is not known. Nobody sees it.
const shared = "it is part of another tag's node"

// unanswered marks the readings of tags that are parts of another's node.
func (g *group) unanswered(readings []telemetry.Reading) {
	for _, others := range g.also {
		for _, tag := range others {
			readings[tag] = telemetry.BadReading(tag, 0, shared)
		}
	}
}

// spread gives the tags that are parts of a node without a value the node's reason.
func (g *group) spread(readings []telemetry.Reading) {
	for to, others := range g.also {
		for _, tag := range others {
			if r := &readings[tag]; r.Reason == shared {
				*r = readings[to]
				r.Tag = uint32(tag)
			}
		}
	}
}

// spreadBad appends to bad readings those of the tags that are parts of their nodes.
func (g *group) spreadBad(bad []telemetry.Reading) []telemetry.Reading {
	for _, r := range bad {
		for _, tag := range g.also[int(r.Tag)] {
			r.Tag = uint32(tag)
			bad = append(bad, r)
		}
	}
	return bad
}

// build lists the nodes that are read together.
func (g *group) build() {
	p := &g.ask
	p.nodes, p.tags = p.nodes[:0], p.tags[:0]
	for i, id := range p.ids {
		if p.reasons[i] == "" && id != nil && g.nodeOf(i) == i {
			p.nodes, p.tags = append(p.nodes, p.ask(i)), append(p.tags, i)
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
			size = max(size, len(g.ask.ids[tag]), len(g.ask.ask(tag)))
		}
		if bytes -= size; bytes < 0 && n > 0 {
			return n
		}
	}
	return min(limit, len(tags))
}
