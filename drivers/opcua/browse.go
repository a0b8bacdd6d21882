package opcua

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// Bounds of browsing.
const (
	maxBrowsed  = 1000    // references in one answer
	maxChildren = 100_000 // of one node
)

// What Browse asks to be told of each node (OPC 10000-4, 5.9.2.2, resultMask): kind of reference, class, browse name and display name.
const browseMask = 1 | 4 | 8 | 16

// Child is a node that another refers to. What the server does not tell is "".
type Child struct {
	drivers.Node
	Class    string // one of classes, such as "object", "variable" or "method"
	Access   string // what the user may do, such as "read+write+history", "call" or "events"; "none"
	Word     string // what a tag's type says for its values
	Range    telemetry.Range
	Property bool   // it says something of the node above
	Source   bool   // the node above only tells its events: it has its place somewhere else
	node     []byte // its id, encoded; nil = by a namespace's URI
	rank     int32  // of its value
}

// Browse yields the children of a node of the server, "" for the Objects folder: drivers.Browser. Addresses have the namespace's
// URI, which stays when its index does not.
func (d *driver) Browse(ctx context.Context, parent string) iter.Seq2[drivers.Node, error] {
	return func(yield func(drivers.Node, error) bool) {
		if err := d.browse(ctx, parent, maxBrowsed, func(c Child) bool { return yield(c.Node, nil) }); err != nil {
			yield(drivers.Node{}, err)
		}
	}
}

// browse is Browse with at most so many references in an answer.
func (d *driver) browse(ctx context.Context, parent string, most uint32, yield func(Child) bool) (err error) {
	defer caught(&err)
	if d.link == nil {
		return errors.New("not connected")
	}
	names, err := d.namespaces(ctx)
	if err != nil {
		return err
	}
	node, err := d.node(ctx, parent, names)
	if err != nil {
		return err
	}
	ask, answer := encodeBrowseAll(node, most), uint16(id.BrowseResponse_Encoding_DefaultBinary)
	kind := uint16(id.BrowseRequest_Encoding_DefaultBinary)
	for seen := 0; seen < maxChildren; {
		r, err := d.link.call(ctx, kind, answer, ask)
		if err != nil {
			return err
		}
		nodes, more, err := r.children(names)
		if err != nil {
			return fmt.Errorf("node %q: %w", cmp.Or(clip(parent), "Objects"), err)
		}
		for _, n := range nodes {
			if !yield(n) {
				return nil
			}
		}
		if seen += len(nodes); len(more) == 0 {
			return nil
		}
		kind, answer, ask = id.BrowseNextRequest_Encoding_DefaultBinary, id.BrowseNextResponse_Encoding_DefaultBinary, encodeBrowseNext(more, false)
	}
	return fmt.Errorf("the node has more than %d children; browse one of them", maxChildren)
}

// namespaces reads the server's namespaces, by index.
func (d *driver) namespaces(ctx context.Context) ([]string, error) {
	list, err := d.readOne(ctx, id.Server_NamespaceArray)
	if err != nil {
		return nil, fmt.Errorf("read the server's namespaces: %w", err)
	}
	return texts(list.Value), nil
}

// node returns an address as a node id on the wire, which is looked for when it is a browse path.
func (d *driver) node(ctx context.Context, text string, names []string) ([]byte, error) {
	if !strings.HasPrefix(text, "/") {
		return encodeNode(text, names)
	}
	a, m := parseAddress(text)
	if m != nil {
		return nil, fmt.Errorf("node %q: %s; %s", clip(text), m.what, m.mend)
	}
	path, _ := parsePath(a.text)
	f := finder{call: d.link.call, lost: &d.lost, names: names, most: 1, bytes: maxRequest, explain: 1, ends: map[string]string{}}
	found, err := f.translate(ctx, [][]step{path})
	switch {
	case err != nil:
		return nil, err
	case found[0].node != nil:
		return found[0].node, nil
	case found[0].reason == "":
		found[0].reason, err = f.end(ctx, path, "")
	}
	return nil, cmp.Or(err, fmt.Errorf("node %q: %s", text, found[0].reason))
}

// encodeNode returns an address as a node id on the wire.
func encodeNode(text string, names []string) ([]byte, error) {
	if text == "" {
		text = fmt.Sprintf("i=%d", id.ObjectsFolder)
	}
	a, m := parseAddress(text)
	if m != nil {
		return nil, fmt.Errorf("node %q: %s; %s", text, m.what, m.mend)
	}
	ns := a.ns
	if a.uri != "" {
		found := false
		for i, name := range names {
			if name == a.uri {
				ns, found = uint16(i), true
			}
		}
		if !found {
			return nil, fmt.Errorf("node %q: the server has no namespace %q", text, a.uri)
		}
	}
	return a.nodeID(ns).Encode()
}

// encodeBrowseAll returns the body of a Browse request for everything right below a node.
func encodeBrowseAll(node []byte, most uint32) func(b []byte) ([]byte, error) {
	return encodeBrowseMany([][]byte{node}, most)
}

// encodeBrowseMany is encodeBrowseAll for some nodes, with at most so many references each.
func encodeBrowseMany(nodes [][]byte, most uint32) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		b = append(b, make([]byte, 2+8+4)...) // no view with its time and version
		b = binary.LittleEndian.AppendUint32(b, most)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(nodes)))
		for _, node := range nodes {
			b = append(b, node...)
			b = append(b, 0, 0, 0, 0, 0, id.HierarchicalReferences, 1) // forward; with subtypes
			b = binary.LittleEndian.AppendUint32(b, 0)                 // of every class
			b = binary.LittleEndian.AppendUint32(b, browseMask)
		}
		return b, nil
	}
}

// encodeBrowseNext returns the body of a BrowseNext request (OPC 10000-4, 5.9.3) that goes on behind a continuation point, or only lets the server
// forget it.
func encodeBrowseNext(point []byte, release bool) func(b []byte) ([]byte, error) {
	point = append([]byte(nil), point...)
	return func(b []byte) ([]byte, error) {
		if b = append(b, 0); release {
			b[len(b)-1] = 1
		}
		return wire.AppendBytes(binary.LittleEndian.AppendUint32(b, 1), point), nil
	}
}

// children takes a Browse or BrowseNext response behind its header and returns the nodes of the first result, and where to go on.
func (r *reader) children(names []string) (all []Child, more []byte, err error) {
	if r.Count(1) == 0 {
		return nil, nil, r.Err
	}
	var status statusError
	if all, more, err = r.below(names); errors.As(err, &status) {
		err = fmt.Errorf("the node cannot be browsed: %s", statusTexts{}.reason(ua.StatusCode(status)))
	}
	return all, more, err
}

// below takes a BrowseResult (OPC 10000-4, 7.6). An error is its status, or that of the reader.
func (r *reader) below(names []string) (all []Child, more []byte, err error) {
	status := ua.StatusCode(r.U32())
	more = r.Bytes()
	for n := r.Count(10); n > 0 && r.Err == nil; n-- {
		reference := r.NodeID()
		r.U8() // forward
		from := r.B
		node := r.ExpandedNodeID()
		raw := from[:len(from)-len(r.B)]
		r.U16()
		name := r.Bytes()
		title := r.LocalizedText()
		class := ua.NodeClass(r.U32())
		r.ExpandedNodeID() // type definition
		if r.Err != nil || node.Server != 0 {
			continue
		}
		if len(all) >= maxBrowsed {
			continue // more than was asked for
		}
		c := childOf(spellWithURI(spell(node), names), string(name), string(title), class)
		if node.URI == nil && len(raw) <= maxIdentifier {
			c.node = bytes.Clone(raw)
		}
		c.refer(reference)
		all = append(all, c)
	}
	if r.Err == nil && status>>31 != 0 {
		return nil, nil, statusError(status)
	}
	return all, more, r.Err
}

// classes are OPC UA's kinds of nodes.
var classes = map[ua.NodeClass]string{ua.NodeClassObject: "object", ua.NodeClassVariable: "variable", ua.NodeClassMethod: "method", ua.NodeClassView: "view",
	ua.NodeClassObjectType: "object type", ua.NodeClassVariableType: "variable type", ua.NodeClassDataType: "data type", ua.NodeClassReferenceType: "reference type"}

func childOf(address, name, title string, class ua.NodeClass) Child {
	c := Child{Node: drivers.Node{ID: address, Name: cmp.Or(name, title, address)}, Class: classes[class]}
	if title != name {
		c.Description = title
	}
	switch class {
	case ua.NodeClassVariable:
		c.Address = address
	case ua.NodeClassMethod:
		c.Type = "method"
	}
	return c
}

// refer takes the kind of reference by which the node was found.
func (c *Child) refer(kind wire.NodeID) {
	if kind.Kind != 'i' || kind.NS != 0 {
		return
	}
	switch kind.Number {
	case id.HasProperty, id.HasHistoricalConfiguration:
		c.Property = true
	case id.HasEventSource, id.HasNotifier:
		c.Source = true
	}
}

// spellWithURI replaces the namespace's index in an address by its URI, where the server says it.
func spellWithURI(text string, names []string) string {
	a, m := parseAddress(text)
	if m != nil || a.ns == 0 || int(a.ns) >= len(names) || names[a.ns] == "" || len(names[a.ns]) > maxIdentifier {
		return text
	}
	a.uri, a.ns = names[a.ns], 0
	return a.String()
}
