package opcua

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

// Bounds of asking for a data type.
const (
	maxLookup   = 10 // request timeouts that it may take
	maxAbove    = 32
	maxRelated  = 256 // references of a node that are looked at
	lookupAgain = time.Minute

	maxDictionaries = 4 // type dictionaries of a session, each of one answer's size at most
)

// types knows the data types of one session, as far as values have named them. Polls and pushes share it, on goroutines of their own.
type types struct {
	mu    sync.Mutex
	link  *link
	asked *wire.Call // made with the first request
	until time.Time  // for the lookup under way

	encodings map[string]*dataType // by the encoded id that values name
	byID      map[string]*dataType // by the data type's node id, spelled
	ofNode    map[string]*names    // of variables, by the encoded request for their value
	again     map[string]time.Time // when to ask once more for what could not be found, by its key in one of these
	kept      int                  // bytes, see maxKept

	dictionaries map[string]*dictionary // by their node ids, spelled

	most         int  // nodes that a request may ask for
	untranslated bool // the server does not look for nodes by name
	lapses       *atomic.Int32
	down         bool    // the link was lost over a request
	lost         *lapsed // over encodings, and keys of ofNode
}

func newTypes(l *link) *types {
	return &types{link: l, encodings: map[string]*dataType{}, byID: map[string]*dataType{}, most: defaultNodes, dictionaries: map[string]*dictionary{}, ofNode: map[string]*names{}, again: map[string]time.Time{}, lost: new(lapsed)}
}

// structure returns the type of values that name the encoding. node is asked for the value, nil when not known. The reason says why
// there is none.
func (t *types) structure(ctx context.Context, encoding []byte, n wire.NodeID, node []byte) (*dataType, string) {
	if t == nil {
		return nil, "structures cannot be read here"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	found := t.encodings[string(encoding)]
	switch {
	case found != nil && (found.reason == "" || time.Now().Before(t.again[string(encoding)])):
	case found == nil && !t.room(string(encoding)):
		return nil, tooManyTypes
	case t.lost.often(string(encoding)) || t.lost.often(anyType):
		return nil, unbearable
	default:
		found = t.find(ctx, encoding, n, node)
		t.note(string(encoding))
		t.encodings[string(encoding)] = found
		t.again[string(encoding)] = time.Now().Add(lookupAgain)
	}
	return found, found.reason
}

// note takes whether the link was lost over a question about a data type.
func (t *types) note(what string) {
	var lost error
	if t.down {
		lost = t.link.channel.Err()
	}
	t.lost.note(what, lost)
	t.lost.note(anyType, lost)
}

var tooManyTypes = fmt.Sprintf("the server has more data types than are kept (%d)", maxTypes)

// room reports whether one more data type, or encoding of one, may be kept.
func (t *types) room(key string) bool {
	return len(t.encodings)+len(t.byID) < 2*maxTypes && t.keep(len(key))
}

// find asks for the type of an encoding: the data type that it belongs to, itself where a server sends data types as encodings, or the
// node's own.
func (t *types) find(ctx context.Context, encoding []byte, n wire.NodeID, node []byte) *dataType {
	name := clip(spell(n))
	if n.URI != nil || n.Server != 0 {
		return &dataType{reason: fmt.Sprintf("the structure %s is of another server", name)}
	}
	t.until = time.Now().Add(maxLookup * t.link.timeout)
	owners, reason := t.related(ctx, encoding, id.HasEncoding, inverse)
	for _, o := range owners {
		found := t.dataType(ctx, o.node)
		if found.structure != nil {
			return found
		}
		reason = cmp.Or(reason, found.reason)
	}
	if found := t.dataType(ctx, encoding); found.structure != nil {
		return found
	}
	old := t.fromDictionary(ctx, encoding)
	if old.structure != nil {
		return old
	}
	reason = cmp.Or(old.reason, reason)
	if node != nil {
		found := t.dataTypeOf(ctx, askedNode(node))
		if found.structure != nil && sameNode(found.encoding, encoding) {
			return found
		}
		reason = cmp.Or(reason, found.reason)
	}
	if reason != "" {
		reason = ": " + reason
	}
	return &dataType{reason: fmt.Sprintf("the server does not describe the structure %s%s", name, reason)}
}

// dataTypeOf returns the data type that a variable says that it has.
func (t *types) dataTypeOf(ctx context.Context, node []byte) *dataType {
	v, reason := t.attribute(ctx, node, ua.AttributeIDDataType)
	if reason != "" {
		return &dataType{reason: reason}
	}
	r := newReader(v.Variant)
	if r.U8() != wire.TypeNodeID {
		return &dataType{reason: "the node has no data type"}
	}
	return t.dataType(ctx, bytes.Clone(r.nodeID()))
}

// sameNode compares encoded node ids, which may be of several lengths.
func sameNode(a, b []byte) bool { return spellBytes(a) == spellBytes(b) }

func spellBytes(b []byte) string {
	r := newReader(b)
	return spell(r.NodeID())
}

// dataType returns a data type by its encoded node id. Its reason says why its values cannot be read.
func (t *types) dataType(ctx context.Context, node []byte) *dataType {
	r := newReader(node)
	n := r.NodeID()
	if r.Err != nil {
		return &dataType{reason: r.Err.Error()}
	}
	if n.Kind == 'i' && n.NS == 0 {
		if kind := standard(n.Number); kind != 0 {
			return &builtinTypes[kind]
		}
	}
	key := spell(n)
	if found, ok := t.byID[key]; ok && (found.reason == "" || time.Now().Before(t.again[key])) {
		return found
	}
	if !t.room(key) {
		return &dataType{name: clip(key), reason: tooManyTypes}
	}
	made := &dataType{name: key}
	t.byID[key] = made // before its fields, which may be of it
	t.again[key] = time.Now().Add(lookupAgain)
	t.describe(ctx, made, bytes.Clone(node))
	return made
}

// keep counts what is kept of a name.
func (t *types) keep(n int) bool {
	t.kept += 64 + n
	return t.kept <= maxKept
}

// describe fills in a data type.
func (t *types) describe(ctx context.Context, d *dataType, node []byte) {
	values, reason := t.attributes(ctx, node, ua.AttributeIDDataTypeDefinition, ua.AttributeIDBrowseName, ua.AttributeIDIsAbstract)
	if reason != "" {
		d.reason = reason
		return
	}
	if r := newReader(values[1].Variant); r.U8() == wire.TypeQualifiedName {
		r.U16()
		d.name = clip(string(r.Bytes()))
	}
	definition := newReader(values[0].Variant)
	number := uint32(0)
	var body reader
	if definition.U8() == wire.TypeExtensionObject {
		number, body = definition.extension()
	}
	switch number {
	case id.StructureDefinition_Encoding_DefaultBinary:
		if abstract := values[2].Variant; len(abstract) == 2 && abstract[0] == wire.TypeBoolean && abstract[1] != 0 {
			d.builtin = wire.TypeExtensionObject // each value names its own type
			return
		}
		t.fields(ctx, d, &body)
	case id.EnumDefinition_Encoding_DefaultBinary:
		if d.names, d.reason = body.enumDefinition(); d.reason == "" {
			t.number(ctx, d, node)
		}
	default:
		t.number(ctx, d, node)
	}
}

// fields fills in a structure.
func (t *types) fields(ctx context.Context, d *dataType, body *reader) {
	def, reason := body.structureDefinition()
	if d.reason = reason; reason == "" {
		t.build(ctx, d, def)
	}
}

// build makes a structure of its description.
func (t *types) build(ctx context.Context, d *dataType, def described) {
	s := &structure{optional: def.kind == kindOptional, union: def.kind == kindUnion || def.kind == kindUnionSubtypes}
	subtypes := def.kind == kindSubtypes || def.kind == kindUnionSubtypes
	bits := 0
	for _, f := range def.fields {
		of := t.dataType(ctx, f.dataType)
		switch {
		case of.reason != "" && of.structure == nil:
			d.reason = fmt.Sprintf("its field %q: %s", clip(f.name), of.reason)
			return
		case f.rank == 0 || f.rank < -1:
			d.reason = fmt.Sprintf("its field %q may be an array or not, which nothing on the wire tells", clip(f.name))
			return
		case !t.keep(len(f.name) + len(def.encoding)):
			d.reason = "the server's data types have more fields than are kept"
			return
		case subtypes && f.optional:
			of = subtypeOf(of)
		}
		made := field{name: f.name, of: of, rank: f.rank, optional: s.optional && f.optional}
		if made.optional {
			bits++
		}
		s.fields = append(s.fields, made)
	}
	if bits > 32 {
		d.reason = fmt.Sprintf("it has %d optional fields, over 32", bits)
		return
	}
	d.structure, d.encoding = s, def.encoding
}

// subtypeOf returns the type of a field whose values may be of subtypes: they name their own.
func subtypeOf(of *dataType) *dataType {
	if of.structure != nil || of.builtin == wire.TypeExtensionObject {
		return &builtinTypes[wire.TypeExtensionObject]
	}
	return &builtinTypes[wire.TypeVariant]
}

// number finds out which built-in type a data type without fields has, and its texts where it is an enumeration.
func (t *types) number(ctx context.Context, d *dataType, node []byte) {
	above := node
	for range maxAbove {
		super, reason := t.related(ctx, above, id.HasSubtype, inverse)
		if len(super) == 0 {
			if reason == "" {
				reason = "the server does not say what it is"
			}
			d.reason = reason
			return
		}
		above = super[0].node
		r := newReader(above)
		n := r.NodeID()
		if n.Kind != 'i' || n.NS != 0 {
			continue
		}
		kind := standard(n.Number)
		switch {
		case kind == wire.TypeExtensionObject:
			d.reason = fmt.Sprintf("the data type %s has no DataTypeDefinition", d.name)
			return
		case kind == 0:
			continue
		}
		d.builtin = kind
		if d.names == nil && n.Number == id.Enumeration {
			d.names = t.texts(ctx, node)
		}
		if d.names != nil {
			d.names.bits = n.Number != id.Enumeration
			for _, text := range d.names.of {
				if !t.keep(len(text)) {
					d.names = nil
					return
				}
			}
		}
		return
	}
	d.reason = "its supertypes have no end"
}

// texts reads EnumStrings or EnumValues of a node; nil when it has neither.
func (t *types) texts(ctx context.Context, node []byte) *names {
	properties, _ := t.related(ctx, node, id.HasProperty, forward)
	for _, p := range properties {
		if p.name != "EnumStrings" && p.name != "EnumValues" {
			continue
		}
		if v, reason := t.attribute(ctx, p.node, ua.AttributeIDValue); reason == "" {
			if all := enumTexts(v.Variant); all != nil {
				return all
			}
		}
	}
	return nil
}

// namesOf returns the texts of a variable's numbers, by the encoded request for its value; nil when there are none, and why these are not known where the server
// does not bear to be asked.
func (t *types) namesOf(ctx context.Context, node []byte) (all *names, untold string) {
	if t == nil || node == nil {
		return nil, ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key := "node " + string(node)
	found, ok := t.ofNode[key]
	if ok && (found != nil || time.Now().Before(t.again[key])) {
		return found, ""
	}
	if t.lost.often(key) || t.lost.often(anyType) {
		return nil, "the texts of its numbers are not known: " + unbearable
	}
	t.until = time.Now().Add(maxLookup * t.link.timeout)
	if found = t.dataTypeOf(ctx, askedNode(node)).names; found == nil {
		if found = t.texts(ctx, askedNode(node)); found != nil {
			for _, text := range found.of {
				if !t.keep(len(text)) {
					found = nil
					break
				}
			}
		}
	}
	t.note(key)
	t.ofNode[key] = found // one of the config's nodes: they are bounded by it
	t.again[key] = time.Now().Add(lookupAgain)
	return found, ""
}

// behindNode is the size of what follows the node in an encoded ReadValueId: attribute, no index range, no data encoding.
const behindNode = 4 + 4 + 2 + 4

// askedNode returns the node of an encoded ReadValueId.
func askedNode(ask []byte) []byte { return ask[:len(ask)-behindNode] }

// attributeOf returns an encoded ReadValueId for an attribute of an encoded node.
func attributeOf(node []byte, attribute ua.AttributeID) []byte {
	b := binary.LittleEndian.AppendUint32(bytes.Clone(node), uint32(attribute))
	return append(b, 0xff, 0xff, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff)
}

func (t *types) attribute(ctx context.Context, node []byte, attribute ua.AttributeID) (wire.DataValue, string) {
	all, reason := t.attributes(ctx, node, attribute)
	if reason != "" {
		return wire.DataValue{}, reason
	}
	if status := ua.StatusCode(all[0].Status); status>>31 != 0 {
		return all[0], statusText(status)
	}
	return all[0], ""
}

// attributes reads some attributes of a node, which are valid until the next request. Their statuses are not looked at.
func (t *types) attributes(ctx context.Context, node []byte, attributes ...ua.AttributeID) ([]wire.DataValue, string) {
	var asks [][]byte
	for _, a := range attributes {
		asks = append(asks, attributeOf(node, a))
	}
	r, reason := t.call(ctx, id.ReadRequest_Encoding_DefaultBinary, id.ReadResponse_Encoding_DefaultBinary, encodeRead(asks))
	if reason != "" {
		return nil, reason
	}
	if n := r.Count(1); n != len(asks) && r.Err == nil {
		return nil, fmt.Sprintf("the server answers for %d of %d attributes", n, len(asks))
	}
	all := make([]wire.DataValue, len(asks))
	for i := range all {
		if all[i] = r.DataValue(0); ua.StatusCode(all[i].Status)>>31 != 0 {
			all[i].Variant = nil
		}
	}
	if r.Err != nil {
		return nil, r.Err.Error()
	}
	return all, ""
}

// call makes a request beside those of polls and subscriptions.
func (t *types) call(ctx context.Context, service, want uint16, body func(b []byte) ([]byte, error)) (reader, string) {
	if time.Now().After(t.until) {
		return reader{}, "the server takes too long to describe it"
	}
	r, err := t.ask(ctx, service, want, body)
	if err != nil {
		return reader{}, err.Error()
	}
	return r, ""
}

func (t *types) ask(ctx context.Context, service, want uint16, body func(b []byte) ([]byte, error)) (reader, error) {
	if t.asked == nil {
		t.asked = wire.NewCall()
	}
	t.asked.Trim()
	r, err := t.link.exchange(ctx, t.asked, t.link.timeout, service, want, body)
	if err != nil {
		t.down = t.link.channel.Err() != nil
		return reader{}, judged(err, t.down, t.link.timeout)
	}
	return r, nil
}

// related is a node that another refers to.
type related struct {
	node []byte // its id, encoded
	name string // browse name
}

// Directions of references (OPC 10000-4, 7.5).
const (
	forward = 0
	inverse = 1
)

// related returns the nodes that an encoded node refers to by one type of reference.
func (t *types) related(ctx context.Context, node []byte, reference, direction uint32) (all []related, reason string) {
	r, reason := t.call(ctx, id.BrowseRequest_Encoding_DefaultBinary, id.BrowseResponse_Encoding_DefaultBinary, encodeRelated(node, reference, direction))
	if reason != "" || r.Count(1) == 0 {
		return nil, reason
	}
	if status := ua.StatusCode(r.U32()); status>>31 != 0 {
		return nil, statusText(status)
	}
	r.Bytes() // continuation point: what comes behind it is not needed
	for n := r.Count(10); n > 0 && r.Err == nil; n-- {
		r.NodeID()
		r.U8()
		from := r.B
		found := r.ExpandedNodeID()
		id := from[:len(from)-len(r.B)]
		r.U16()
		name := r.Bytes()
		r.LocalizedText()
		r.U32()
		r.ExpandedNodeID()
		if r.Err == nil && found.URI == nil && found.Server == 0 && len(all) < maxRelated && len(id) <= maxIdentifier && len(name) <= maxIdentifier {
			all = append(all, related{bytes.Clone(id), string(name)})
		}
	}
	if r.Err != nil {
		return nil, r.Err.Error()
	}
	return all, ""
}

// encodeRelated returns the body of a Browse request for the nodes that one refers to by one type of reference.
func encodeRelated(node []byte, reference, direction uint32) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		b = append(b, make([]byte, 2+8+4)...) // no view with its time and version
		b = binary.LittleEndian.AppendUint32(b, maxRelated)
		b = append(binary.LittleEndian.AppendUint32(b, 1), node...)
		b = binary.LittleEndian.AppendUint32(b, direction)
		b = append(b, 0, byte(reference), 1) // with subtypes
		b = binary.LittleEndian.AppendUint32(b, 0)
		return binary.LittleEndian.AppendUint32(b, 8), nil // with browse names
	}
}
