package opcua

import (
	"encoding/binary"
	"fmt"
	"math"
)

// maxDepth is how deep values or diagnostics may stand within each other. Every decoder must take so many,
// and may refuse more (OPC 10000-6, 5.1.12).
const maxDepth = 100

// The built-in types of OPC UA by their numbers on the wire (OPC 10000-6, 5.1.2).
const (
	typeNull = iota
	typeBoolean
	typeSByte
	typeByte
	typeInt16
	typeUInt16
	typeInt32
	typeUInt32
	typeInt64
	typeUInt64
	typeFloat
	typeDouble
	typeString
	typeDateTime
	typeGUID
	typeByteString
	typeXMLElement
	typeNodeID
	typeExpandedNodeID
	typeStatusCode
	typeQualifiedName
	typeLocalizedText
	typeExtensionObject
	typeDataValue
	typeVariant
	typeDiagnosticInfo
)

// The mask of a variant: its type and two flags.
const (
	maskType       = 0x3f
	maskDimensions = 0x40
	maskArray      = 0x80
)

// reader takes values off a message of which every byte may be wrong. It allocates nothing, and nothing it
// returns outlives the message. After the first mistake it gives zeros only, and err says what was wrong.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = malformedError(fmt.Sprintf(format, args...))
	}
	r.b = nil
}

// take returns the next n bytes, which stay in the message.
func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail("it ends early")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *reader) f64() float64 { return math.Float64frombits(r.u64()) }

// count returns the length of an array whose elements take at least size bytes each; of no array, 0.
func (r *reader) count(size int) int {
	n := int32(r.u32())
	switch {
	case n == -1:
		return 0
	case n < -1:
		r.fail("it holds a length of %d", n)
		return 0
	case int(n) > len(r.b)/size:
		r.fail("it tells of %d elements where %d bytes are left", n, len(r.b))
		return 0
	}
	return int(n)
}

// bytes returns a string or ByteString; nil for none.
func (r *reader) bytes() []byte { return r.take(r.count(1)) }

// nodeID is a node id as it stands in a message.
type nodeID struct {
	kind   byte   // 'i', 's', 'g' or 'b'
	ns     uint16 // namespace index
	number uint32
	text   []byte // of kinds s, g (as on the wire) and b
	uri    []byte // of an ExpandedNodeId
	server uint32 // of an ExpandedNodeId
}

// nodeID takes a NodeId (OPC 10000-6, 5.2.2.9).
func (r *reader) nodeID() nodeID { return r.identifier(r.u8()) }

// expandedNodeID takes an ExpandedNodeId (OPC 10000-6, 5.2.2.10), whose first byte has two flags more.
func (r *reader) expandedNodeID() nodeID {
	mask := r.u8()
	n := r.identifier(mask &^ 0xc0)
	if mask&0x80 != 0 {
		n.uri = r.bytes()
	}
	if mask&0x40 != 0 {
		n.server = r.u32()
	}
	return n
}

// identifier takes what follows a node id's first byte.
func (r *reader) identifier(kind byte) nodeID {
	n := nodeID{kind: 'i'}
	switch kind {
	case 0:
		n.number = uint32(r.u8())
	case 1:
		n.ns, n.number = uint16(r.u8()), uint32(r.u16())
	case 2:
		n.ns, n.number = r.u16(), r.u32()
	case 3:
		n.kind, n.ns, n.text = 's', r.u16(), r.bytes()
	case 4:
		n.kind, n.ns, n.text = 'g', r.u16(), r.take(16)
	case 5:
		n.kind, n.ns, n.text = 'b', r.u16(), r.bytes()
	default:
		r.fail("it holds a node id of the unknown kind %d", kind)
	}
	return n
}

// localizedText takes a LocalizedText and returns its text.
func (r *reader) localizedText() (text []byte) {
	mask := r.u8()
	if mask&1 != 0 {
		r.bytes()
	}
	if mask&2 != 0 {
		text = r.bytes()
	}
	return text
}

// extensionObject passes over a structure; its body is not looked at.
func (r *reader) extensionObject() {
	r.expandedNodeID()
	switch encoding := r.u8(); encoding {
	case 0:
	case 1, 2:
		r.bytes()
	default:
		r.fail("it holds a structure in the unknown encoding %d", encoding)
	}
}

// diagnosticInfo passes over a DiagnosticInfo (OPC 10000-6, 5.2.2.12) and those within it.
func (r *reader) diagnosticInfo() {
	for depth := 0; ; depth++ {
		mask := r.u8()
		for bit := byte(1); bit <= 8; bit <<= 1 { // indexes into the string table
			if mask&bit != 0 {
				r.u32()
			}
		}
		if mask&0x10 != 0 {
			r.bytes()
		}
		if mask&0x20 != 0 {
			r.u32()
		}
		if mask&0x40 == 0 {
			return
		}
		if depth == maxDepth {
			r.fail("it holds diagnostics nested deeper than %d", maxDepth)
			return
		}
	}
}

// dataValue is the result for one node. The variant is whole: its lengths and types have been checked, not yet
// whether they suit us.
type dataValue struct {
	variant        []byte // nil when there is none
	status         uint32
	source, server int64 // timestamps in ticks since 1601, 0 when there is none
}

// dataValue takes a DataValue (OPC 10000-6, 5.2.2.17) that stands within depth others.
func (r *reader) dataValue(depth int) (v dataValue) {
	mask := r.u8()
	if mask&1 != 0 {
		from := r.b
		r.variant(depth)
		v.variant = from[:len(from)-len(r.b)]
	}
	if mask&2 != 0 {
		v.status = r.u32()
	}
	if mask&4 != 0 {
		v.source = int64(r.u64())
	}
	if mask&0x10 != 0 {
		r.u16() // picoseconds
	}
	if mask&8 != 0 {
		v.server = int64(r.u64())
	}
	if mask&0x20 != 0 {
		r.u16()
	}
	return v
}

// variant passes over a Variant (OPC 10000-6, 5.2.2.16) that stands within depth others.
func (r *reader) variant(depth int) {
	if depth > maxDepth {
		r.fail("it holds values nested deeper than %d", maxDepth)
		return
	}
	mask := r.u8()
	kind := mask & maskType
	switch {
	case kind == typeNull:
		return
	case kind > typeDiagnosticInfo:
		r.fail("it holds a value of the unknown type %d", kind)
		return
	case mask&maskArray == 0:
		r.skip(kind, depth)
		return
	}
	n := r.count(1)
	if size := fixedSize(kind); size > 0 {
		r.take(n * size) // n is at most the bytes left: no overflow
	} else {
		for i := 0; i < n && r.err == nil; i++ {
			r.skip(kind, depth)
		}
	}
	if mask&maskDimensions != 0 {
		r.take(4 * r.count(4))
	}
}

// fixedSize returns how many bytes a value of the type always takes, 0 when they differ.
func fixedSize(kind byte) int {
	switch kind {
	case typeBoolean, typeSByte, typeByte:
		return 1
	case typeInt16, typeUInt16:
		return 2
	case typeInt32, typeUInt32, typeFloat, typeStatusCode:
		return 4
	case typeInt64, typeUInt64, typeDouble, typeDateTime:
		return 8
	case typeGUID:
		return 16
	}
	return 0
}

// skip passes over one value of a type.
func (r *reader) skip(kind byte, depth int) {
	switch kind {
	case typeString, typeByteString, typeXMLElement:
		r.bytes()
	case typeNodeID:
		r.nodeID()
	case typeExpandedNodeID:
		r.expandedNodeID()
	case typeQualifiedName:
		r.u16()
		r.bytes()
	case typeLocalizedText:
		r.localizedText()
	case typeExtensionObject:
		r.extensionObject()
	case typeDataValue:
		r.dataValue(depth + 1)
	case typeVariant:
		r.variant(depth + 1)
	case typeDiagnosticInfo:
		r.diagnosticInfo()
	default:
		r.take(fixedSize(kind))
	}
}
