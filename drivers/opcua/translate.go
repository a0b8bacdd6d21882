package opcua

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

// Bounds of looking for browse paths.
const (
	maxTargets   = 8  // nodes that one path leads to and that are looked at
	maxExplained = 10 // paths whose end is looked for at a time; the others are said to lead to no node
)

// finder finds nodes by browse path, in one session.
type finder struct {
	call  func(ctx context.Context, service, want uint16, body func(b []byte) ([]byte, error)) (reader, error)
	names []string // the server's namespaces, by index
	why   string   // they could not be read; "" when they could
	most  int      // paths that one request may ask for
	bytes int      // of one request

	explain int               // ends that may still be looked for
	ends    map[string]string // those found, by the path to there
	lost    *lapsed
}

// findPaths looks for the nodes of all tags that are given by browse path.
func (d *driver) findPaths(ctx context.Context, names []string, why string) error {
	d.finder = finder{call: d.link.call, lost: &d.lost, names: names, why: why, bytes: min(maxRequest, d.link.channel.Request()/2)}
	for i := range d.groups {
		for j := range d.groups[i] {
			p := &d.groups[i][j].ask
			if len(p.lost) == 0 {
				continue
			}
			if err := d.learnPaths(ctx); err != nil {
				return err
			}
			lost, err := d.finder.locate(ctx, &d.groups[i][j], p.lost)
			if err != nil {
				return fmt.Errorf("look for browse paths: %w", err)
			}
			p.lost, p.search = lost, time.Now().Add(asideTime)
		}
	}
	return nil
}

// learnPaths reads how many paths one request may ask for, once.
func (d *driver) learnPaths(ctx context.Context) (err error) {
	if d.finder.most == 0 {
		d.finder.most, err = d.limit(ctx, id.Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIDs)
	}
	return err
}

// search looks again for some of the paths that led to no node when a poll was last asked for.
func (d *driver) search(ctx context.Context, g *group, now time.Time) error {
	p := &g.ask
	if len(p.lost) == 0 || now.Before(p.search) {
		return nil
	}
	p.search = now.Add(asideTime)
	n := min(len(p.lost), d.finder.most)
	still, err := d.finder.locate(ctx, g, p.lost[:n])
	if err == nil {
		p.lost = append(slices.Clone(p.lost[n:]), still...)
	}
	return err
}

// isLost reports whether the browse path of a tag has led to no node yet.
func (g *group) isLost(tag int) bool {
	return g.tags[tag].addr.kind == byPath && g.ask.ids[tag] == nil && g.nodeOf(tag) == tag
}

// locate looks for the nodes of tags that are given by browse path. It returns those that have none; their reasons say where the
// paths end.
func (f *finder) locate(ctx context.Context, g *group, tags []int) (lost []int, err error) {
	f.explain, f.ends = maxExplained, map[string]string{}
	for some := range slices.Chunk(tags, maxNodes) {
		paths := make([][]step, len(some))
		for i, tag := range some {
			paths[i], _ = parsePath(g.tags[tag].addr.text)
		}
		found, err := f.translate(ctx, paths)
		if err != nil {
			return nil, err
		}
		for i, tag := range some {
			reason := &g.ask.reasons[tag]
			switch t := &found[i]; {
			case t.node != nil:
				g.found(tag, t.node)
				continue
			case t.reason != "":
				*reason = t.reason
			default:
				if *reason, err = f.end(ctx, paths[i], *reason); err != nil {
					return nil, err
				}
			}
			lost = append(lost, tag)
		}
	}
	g.ask.handles.done = false
	g.build()
	return lost, nil
}

// found takes the node that a tag's browse path leads to.
func (g *group) found(tag int, node []byte) {
	p := &g.ask
	attribute, reason := ua.AttributeIDValue, ""
	if p.filters[tag] != nil {
		attribute, reason = ua.AttributeIDEventNotifier, eventsOnly
	}
	p.ids[tag], p.reasons[tag] = attributeOf(node, attribute), reason
	for _, other := range g.also[tag] {
		p.ids[other] = p.ids[tag]
	}
}

// target is what became of a browse path: a node, a reason, or neither where there is no such node.
type target struct {
	node   []byte // encoded node id
	reason string
}

// translate looks for the nodes of some browse paths, in requests that shrink when the server refuses them for their size.
func (f *finder) translate(ctx context.Context, paths [][]step) ([]target, error) {
	all := make([]target, len(paths))
	var ask [][]byte
	var of []int
	for i, path := range paths {
		b, reason := f.encodePath(path)
		if all[i].reason = reason; reason == "" {
			ask, of = append(ask, b), append(of, i)
		}
	}
	for refusals := 0; len(ask) > 0; {
		n := f.fit(ask)
		found, err := f.request(ctx, ask[:n])
		switch {
		case err != nil && splittable(err) && n > 1 && refusals < maxRefusals:
			f.most = n / 2
			refusals++
			continue
		case err != nil && unlessRefused(err) != nil:
			return nil, err
		case err != nil:
			found = slices.Repeat([]target{{reason: fmt.Sprintf("the server does not say where the browse path leads: %v; use the node id", err)}}, n)
		}
		for i := range found {
			all[of[i]] = found[i]
		}
		ask, of = ask[n:], of[n:]
	}
	return all, nil
}

// fit returns how many encoded paths go into one request: at least one.
func (f *finder) fit(paths [][]byte) int {
	bytes := f.bytes
	for n, path := range paths[:min(f.most, len(paths))] {
		if bytes -= len(path); bytes < 0 && n > 0 {
			return n
		}
	}
	return min(f.most, len(paths))
}

// request looks for some encoded paths in one request.
func (f *finder) request(ctx context.Context, paths [][]byte) ([]target, error) {
	r, err := f.call(ctx, id.TranslateBrowsePathsToNodeIDsRequest_Encoding_DefaultBinary, id.TranslateBrowsePathsToNodeIDsResponse_Encoding_DefaultBinary,
		func(b []byte) ([]byte, error) {
			b = binary.LittleEndian.AppendUint32(b, uint32(len(paths)))
			return append(b, slices.Concat(paths...)...), nil
		})
	if err != nil {
		return nil, err
	}
	if n := r.Count(8); r.Err == nil && n != len(paths) {
		return nil, protocolError(fmt.Sprintf("the server answered with %d results for %d browse paths", n, len(paths)))
	}
	all := make([]target, len(paths))
	for i := range all {
		all[i] = r.target(f.names)
	}
	return all, r.Err
}

// encodePath returns a BrowsePath (OPC 10000-4, 7.6) from the Root folder along hierarchical references, or why there can be none.
func (f *finder) encodePath(path []step) (b []byte, reason string) {
	b = binary.LittleEndian.AppendUint32([]byte{0, id.RootFolder}, uint32(len(path)))
	for _, s := range path {
		ns := int(s.ns)
		if s.uri != "" {
			switch ns = slices.Index(f.names, s.uri); {
			case f.why != "":
				return nil, f.why
			case ns < 0 || ns > 1<<16-1:
				return nil, fmt.Sprintf("the server has no namespace %q", s.uri)
			}
		}
		b = append(b, 0, id.HierarchicalReferences, 0, 1) // forward; with subtypes
		b = wire.AppendBytes(binary.LittleEndian.AppendUint16(b, uint16(ns)), []byte(s.name))
	}
	return b, ""
}

// target takes a BrowsePathResult (OPC 10000-4, 5.9.4.2). A node that is reached in two ways is one; two are none.
func (r *reader) target(names []string) (t target) {
	status := ua.StatusCode(r.U32())
	var nodes [][]byte
	var spelled []string
	n := r.Count(6)
	elsewhere := n > 0
	for ; n > 0 && r.Err == nil; n-- {
		from := r.B
		node := r.ExpandedNodeID()
		raw := from[:len(from)-len(r.B)]
		if whole := r.U32() == 1<<32-1; !whole || r.Err != nil || node.Server != 0 || len(nodes) == maxTargets {
			continue
		}
		if len(node.URI) > 0 || len(raw) > maxIdentifier { // strictly read, bounded
			if raw = encodeSpelled(spell(node), names); raw == nil {
				continue
			}
		}
		if !slices.ContainsFunc(nodes, func(b []byte) bool { return string(b) == string(raw) }) {
			nodes, spelled = append(nodes, slices.Clone(raw)), append(spelled, spell(node))
		}
	}
	switch {
	case r.Err != nil:
	case len(nodes) > 1:
		t.reason = fmt.Sprintf("the browse path leads to several nodes: %s; use the node id of one", strings.Join(spelled, ", "))
	case len(nodes) == 1:
		t.node = nodes[0]
	case elsewhere:
		t.reason = "the browse path leads to another server; give that server a device of its own"
	case status>>31 != 0 && status != ua.StatusBadNoMatch:
		t.reason = "the browse path leads nowhere: " + statusText(status)
	}
	return t
}

// encodeSpelled returns a node id on the wire, nil where it is none.
func encodeSpelled(text string, names []string) []byte {
	b, err := encodeNode(text, names)
	if err != nil {
		return nil
	}
	return b
}

// end says at which element a browse path ends, and what is there instead. before is what was said last.
func (f *finder) end(ctx context.Context, path []step, before string) (string, error) {
	for n := range path {
		if known := f.ends[pathText(path[:n+1])]; known != "" {
			return known, nil
		}
	}
	if f.explain--; f.explain < 0 {
		return cmp.Or(before, "the browse path leads to no node"), nil
	}
	begins := make([][]step, 0, len(path))
	for n := 1; n < len(path); n++ {
		begins = append(begins, path[:n])
	}
	found, err := f.translate(ctx, begins)
	if err != nil {
		return "", err
	}
	at, node := 0, []byte{0, id.RootFolder}
	for ; at < len(found) && found[at].node != nil; at++ {
		node = found[at].node
	}
	there, err := f.below(ctx, node, path[at])
	if err != nil {
		return "", err
	}
	reason := fmt.Sprintf("the browse path ends at %q; below %q %s", clip(path[at].String()), clip(cmp.Or(pathText(path[:at]), "/")), there)
	f.ends[pathText(path[:at+1])] = reason
	return reason, nil
}

// below says what is right below a node, what looks most like the missing element first.
func (f *finder) below(ctx context.Context, node []byte, missing step) (string, error) {
	const nobodyKnows = "is something else"
	if f.lost.often(anyBelow) {
		return nobodyKnows, nil
	}
	r, err := f.call(ctx, id.BrowseRequest_Encoding_DefaultBinary, id.BrowseResponse_Encoding_DefaultBinary, encodeBrowseAll(node, maxBrowsed))
	f.lost.note(anyBelow, unlessRefused(err))
	if err != nil {
		return nobodyKnows, unlessRefused(err)
	}
	all, more := r.browseNames()
	if r.Err != nil {
		return nobodyKnows, unlessRefused(r.Err)
	}
	if len(more) > 0 { // the server may keep few of these points
		if _, err := f.call(ctx, id.BrowseNextRequest_Encoding_DefaultBinary, id.BrowseNextResponse_Encoding_DefaultBinary, encodeBrowseNext(more, true)); err != nil && unlessRefused(err) != nil {
			return "", err
		}
	}
	if len(all) == 0 {
		return "is nothing", nil
	}
	slices.SortStableFunc(all, func(a, b step) int { return unlike(a.name, missing.name) - unlike(b.name, missing.name) })
	var words []string
	for _, s := range all[:min(len(all), maxHints)] {
		if missing.uri != "" && s.ns > 0 && int(s.ns) < len(f.names) {
			s.uri = f.names[s.ns]
		}
		words = append(words, fmt.Sprintf("%q", clip(s.String())))
	}
	said := "are " + strings.Join(words, ", ")
	if n := len(all) - len(words); n > 0 {
		said += fmt.Sprintf(" and %d more", n)
	}
	return said, nil
}

// unlike says how little two names look like each other.
func unlike(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	switch {
	case a == b:
		return 0
	case strings.Contains(a, b) || strings.Contains(b, a):
		return 1
	}
	return 2
}

// browseNames takes a Browse response behind its header and returns the different names in its first result, and where it goes on.
func (r *reader) browseNames() (all []step, more []byte) {
	if r.Count(1) == 0 {
		return nil, nil
	}
	r.U32() // status: what cannot be browsed has nothing below it
	more = slices.Clone(r.Bytes())
	seen := map[step]bool{}
	for n := r.Count(10); n > 0 && r.Err == nil; n-- {
		r.NodeID()
		r.U8()
		r.ExpandedNodeID()
		s := step{ns: r.U16(), name: string(r.Bytes())}
		r.LocalizedText()
		r.U32()
		r.ExpandedNodeID()
		if r.Err == nil && !seen[s] && len(seen) < maxBrowsed && s.name != "" && len(s.name) <= maxName {
			seen[s] = true
			all = append(all, s)
		}
	}
	return all, more
}
