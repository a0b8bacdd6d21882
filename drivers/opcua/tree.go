package opcua

import (
	"fmt"

	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// tree is a value with parts: an array, a structure, or what stands within them. The first node is the whole.
type tree struct {
	nodes    []node
	texts    int    // bytes of all texts
	objects  bool   // there are structures
	grown    bool   // it is of the value at hand
	why      string // why not
	nameless string // why a number of the part that was asked for last had no text, "" = none was without
}

// node is one part. The parts of a part stand together.
type node struct {
	value    telemetry.Value // of a leaf; of none, null
	of       *dataType       // of a structure; of an enumeration
	first, n int32           // its parts
	kind     partKind
	only     uint16 // of a union: the field that it holds
}

type partKind uint8

const (
	leaf partKind = iota
	list
	object
	absent // an optional field
)

// reserve makes room for n parts.
func (t *tree) reserve(n int) (first int, reason string) {
	first = len(t.nodes)
	if n > maxParts-first {
		return 0, fmt.Sprintf("value of more than %d parts", maxParts)
	}
	if first+n > cap(t.nodes) { // append would grow a large one in many small steps
		t.nodes = append(make([]node, 0, min(max(2*cap(t.nodes), first+n, 16), maxParts)), t.nodes...)
	}
	t.nodes = t.nodes[:first+n]
	clear(t.nodes[first:])
	return first, ""
}

// grow takes a whole variant apart.
func (d *decoder) grow(variant []byte) string {
	if cap(d.nodes) > keptParts { // rare ones do not cost memory for ever
		d.nodes = nil
	}
	d.nodes, d.texts, d.objects = append(d.nodes[:0], node{}), 0, false
	r := newReader(variant)
	reason := d.variant(&r, 0, 0, 0)
	if reason == "" && r.Err != nil {
		return r.Err.Error()
	}
	return reason
}

// variant takes a variant that stands within so many arrays and structures.
func (d *decoder) variant(r *reader, at, depth, level int) string {
	mask := r.U8()
	kind := mask & wire.MaskType
	switch {
	case r.Err != nil || kind == wire.TypeNull || int(kind) >= len(builtinTypes):
		return ""
	case mask&wire.MaskArray == 0 && kind == wire.TypeVariant:
		return "a value within a value cannot be read"
	case mask&wire.MaskArray == 0:
		return d.one(r, at, &builtinTypes[kind], depth, level)
	}
	if depth == maxNesting {
		return fmt.Sprintf("array of more than %d dimensions", maxNesting)
	}
	if reason := d.list(r, at, r.Count(1), &builtinTypes[kind], depth+1, level); reason != "" {
		return reason
	}
	if mask&wire.MaskDimensions == 0 {
		return ""
	}
	dims, reason := r.dimensions(maxNesting - depth)
	if reason != "" {
		return reason
	}
	return d.fold(at, dims)
}

// list takes n values of one type.
func (d *decoder) list(r *reader, at, n int, t *dataType, depth, level int) string {
	if n > maxElements {
		return fmt.Sprintf("array of %d elements is over %d", n, maxElements)
	}
	first, reason := d.reserve(n)
	if reason != "" {
		return reason
	}
	d.nodes[at] = node{kind: list, first: int32(first), n: int32(n)}
	for i := range n {
		if reason := d.one(r, first+i, t, depth, level); reason != "" {
			return fmt.Sprintf("element %d: %s", i, reason)
		}
		if r.Err != nil {
			return ""
		}
	}
	return ""
}

// one takes one value of a type.
func (d *decoder) one(r *reader, at int, t *dataType, depth, level int) string {
	switch {
	case t.reason != "":
		return t.reason
	case t.structure != nil:
		return d.structure(r, at, t, level)
	case t.builtin == wire.TypeVariant:
		return d.variant(r, at, depth, level)
	case t.builtin == wire.TypeExtensionObject:
		return d.extension(r, at, level)
	case t.builtin == wire.TypeDataValue:
		return d.dataValue(r, at, depth, level)
	}
	v, reason := r.leaf(t.builtin)
	if d.texts += len(v.Text); d.texts > maxArray && reason == "" {
		reason = fmt.Sprintf("array of more than %d bytes", maxArray)
	}
	d.nodes[at].value = v
	if t.names != nil {
		d.nodes[at].of = t
	}
	return reason
}

// extension takes a structure that names its type.
func (d *decoder) extension(r *reader, at, level int) string {
	from := r.B
	id := r.ExpandedNodeID()
	name := from[:len(from)-len(r.B)]
	switch encoding := r.U8(); {
	case r.Err != nil, encoding == 0:
		return "" // it holds none
	case encoding == 2:
		r.Bytes()
		return fmt.Sprintf("the structure %s is sent as XML, which cannot be read", spell(id))
	case encoding != 1:
		r.Fail("it holds a structure in the unknown encoding %d", encoding)
		return ""
	}
	body := newReader(r.Bytes())
	t, reason := d.types.structure(d.ctx, name, id, d.node())
	if reason != "" {
		return reason
	}
	reason = d.structure(&body, at, t, level)
	switch {
	case body.Err != nil:
		return fmt.Sprintf("the structure %s is not what the server describes: %v", t.name, body.Err)
	case reason == "" && len(body.B) > 0:
		return fmt.Sprintf("the structure %s is not what the server describes: %d bytes are left of it", t.name, len(body.B))
	}
	return reason
}

// structure takes the fields of a structure (OPC 10000-6, 5.2.6 to 5.2.8).
func (d *decoder) structure(r *reader, at int, t *dataType, level int) string {
	if level == maxLevels {
		return fmt.Sprintf("structures within each other, more than %d", maxLevels)
	}
	s := t.structure
	if s.union {
		return d.union(r, at, t, level)
	}
	var present uint32
	if s.optional {
		present = r.U32()
	}
	first, reason := d.reserve(len(s.fields))
	if reason != "" {
		return reason
	}
	d.objects = true
	d.nodes[at] = node{kind: object, of: t, first: int32(first), n: int32(len(s.fields))}
	for i := range s.fields {
		f := &s.fields[i]
		if f.optional {
			there := present&1 != 0
			if present >>= 1; !there {
				d.nodes[first+i].kind = absent
				continue
			}
		}
		if reason := d.field(r, first+i, f, level+1); reason != "" || r.Err != nil {
			return inField(f, reason)
		}
	}
	return ""
}

func inField(f *field, reason string) string {
	if reason == "" {
		return ""
	}
	return fmt.Sprintf("field %q: %s", f.name, reason)
}

// union takes the one field that a union holds.
func (d *decoder) union(r *reader, at int, t *dataType, level int) string {
	which := r.U32()
	switch {
	case which == 0:
		return ""
	case uint64(which) > uint64(len(t.structure.fields)):
		return fmt.Sprintf("the union %s holds field %d of %d", t.name, which, len(t.structure.fields))
	}
	first, reason := d.reserve(1)
	if reason != "" {
		return reason
	}
	d.objects = true
	d.nodes[at] = node{kind: object, of: t, first: int32(first), n: 1, only: uint16(which)}
	f := &t.structure.fields[which-1]
	return inField(f, d.field(r, first, f, level+1))
}

// field takes a field's value, which has no mask of its own (OPC 10000-6, 5.2.5).
func (d *decoder) field(r *reader, at int, f *field, level int) string {
	switch {
	case f.rank < 1:
		return d.one(r, at, f.of, 0, level)
	case f.rank == 1:
		return d.list(r, at, r.Count(1), f.of, 1, level)
	}
	dims, reason := r.dimensions(maxNesting)
	if reason != "" {
		return reason
	}
	n := product(dims)
	if n > len(r.B) {
		r.Fail("it tells of %d elements where %d bytes are left", n, len(r.B))
		return ""
	}
	if reason = d.list(r, at, n, f.of, len(dims), level); reason != "" {
		return reason
	}
	return d.fold(at, dims)
}

// dimensions takes the lengths of an array, at most so many.
func (r *reader) dimensions(most int) (dims []int, reason string) {
	n := r.Count(4)
	if n > most {
		return nil, fmt.Sprintf("array of more than %d dimensions", maxNesting)
	}
	for range n {
		dims = append(dims, int(int32(r.U32())))
	}
	return dims, ""
}

// product returns how many elements an array has, over maxElements for too many and for a length that is none.
func product(dims []int) int {
	n := 1
	for _, d := range dims {
		if d < 0 || d > maxElements {
			return maxElements + 1
		}
		n = min(n*d, maxElements+1)
	}
	return n
}

// fold makes the elements of a list, which stand row by row, into lists of lists (OPC 10000-6, 5.2.2.16).
func (d *decoder) fold(at int, dims []int) string {
	n := int(d.nodes[at].n)
	switch {
	case len(dims) > 0 && product(dims) != n:
		return fmt.Sprintf("array whose dimensions do not fit its %d elements", n)
	case n == 0:
		return ""
	}
	for i := len(dims) - 1; i > 0; i-- {
		from, rows := int(d.nodes[at].first), n/dims[i]
		first, reason := d.reserve(rows)
		if reason != "" {
			return reason
		}
		for row := range rows {
			d.nodes[first+row] = node{kind: list, first: int32(from + row*dims[i]), n: int32(dims[i])}
		}
		d.nodes[at].first, d.nodes[at].n, n = int32(first), int32(rows), rows
	}
	return ""
}

// dataValueType is what a DataValue is as a structure.
var dataValueType = &dataType{name: "DataValue", structure: &structure{fields: []field{{name: "value"}, {name: "status"}, {name: "source_time"}}}}

// dataValue takes a value with its status and time.
func (d *decoder) dataValue(r *reader, at, depth, level int) string {
	if depth == maxNesting || level == maxLevels {
		return fmt.Sprintf("values within each other, more than %d", maxNesting)
	}
	v := r.DataValue(0)
	if r.Err != nil {
		return ""
	}
	first, reason := d.reserve(3)
	if reason != "" {
		return reason
	}
	d.objects = true
	d.nodes[at] = node{kind: object, of: dataValueType, first: int32(first), n: 3}
	d.nodes[first+1].value = telemetry.Uint(uint64(v.Status))
	if d.nodes[first+2].kind = absent; v.Source > 0 {
		d.nodes[first+2] = node{value: telemetry.Value{Kind: telemetry.KindTime, Bits: uint64(ticksOf(v.Source))}}
	}
	if v.Variant == nil {
		return ""
	}
	inner := newReader(v.Variant)
	return inField(&dataValueType.structure.fields[0], d.variant(&inner, first, depth+1, level+1))
}
