package wire

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
	TypeNull = iota
	TypeBoolean
	TypeSByte
	TypeByte
	TypeInt16
	TypeUInt16
	TypeInt32
	TypeUInt32
	TypeInt64
	TypeUInt64
	TypeFloat
	TypeDouble
	TypeString
	TypeDateTime
	TypeGUID
	TypeByteString
	TypeXMLElement
	TypeNodeID
	TypeExpandedNodeID
	TypeStatusCode
	TypeQualifiedName
	TypeLocalizedText
	TypeExtensionObject
	TypeDataValue
	TypeVariant
	TypeDiagnosticInfo
)

// The mask of a variant: its type and two flags.
const (
	MaskType       = 0x3f
	MaskDimensions = 0x40
	MaskArray      = 0x80
)

// Reader takes values off a message of which every byte may be wrong. It allocates nothing, and nothing it
// returns outlives the message. After the first mistake it gives zeros only, and err says what was wrong.
type Reader struct {
	B     []byte // what is left of the message
	Err   error  // the first mistake, a MalformedError
	Clock int64  // a DateTime: the server's clock when it answered, once Response has been taken
}

// Fail records the first mistake and gives up on the rest of the message.
func (r *Reader) Fail(format string, args ...any) {
	if r.Err == nil {
		r.Err = MalformedError(fmt.Sprintf(format, args...))
	}
	r.B = nil
}

// Take returns the next n bytes, which stay in the message.
func (r *Reader) Take(n int) []byte {
	if n < 0 || n > len(r.B) {
		r.Fail("it ends early")
		return nil
	}
	b := r.B[:n]
	r.B = r.B[n:]
	return b
}

// U8 takes a little-endian number; 0 when the message ends early.
func (r *Reader) U8() byte {
	if b := r.Take(1); b != nil {
		return b[0]
	}
	return 0
}

// U16 takes a little-endian number; 0 when the message ends early.
func (r *Reader) U16() uint16 {
	if b := r.Take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

// U32 takes a little-endian number; 0 when the message ends early.
func (r *Reader) U32() uint32 {
	if b := r.Take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// U64 takes a little-endian number; 0 when the message ends early.
func (r *Reader) U64() uint64 {
	if b := r.Take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// F64 takes a little-endian number; 0 when the message ends early.
func (r *Reader) F64() float64 { return math.Float64frombits(r.U64()) }

// Count returns the length of an array whose elements take at least size bytes each; of no array, 0.
func (r *Reader) Count(size int) int {
	n := int32(r.U32())
	switch {
	case n == -1:
		return 0
	case n < -1:
		r.Fail("it holds a length of %d", n)
		return 0
	case int(n) > len(r.B)/size:
		r.Fail("it tells of %d elements where %d bytes are left", n, len(r.B))
		return 0
	}
	return int(n)
}

// Bytes returns a string or ByteString; nil for none.
func (r *Reader) Bytes() []byte { return r.Take(r.Count(1)) }

// NodeID is a node id as it stands in a message.
type NodeID struct {
	Kind   byte   // 'i', 's', 'g' or 'b'
	NS     uint16 // namespace index
	Number uint32
	Text   []byte // of kinds s, g (as on the wire) and b
	URI    []byte // of an ExpandedNodeId
	Server uint32 // of an ExpandedNodeId
}

// NodeID takes a NodeId (OPC 10000-6, 5.2.2.9).
func (r *Reader) NodeID() NodeID { return r.identifier(r.U8()) }

// ExpandedNodeID takes an ExpandedNodeId (OPC 10000-6, 5.2.2.10), whose first byte has two flags more.
func (r *Reader) ExpandedNodeID() NodeID {
	mask := r.U8()
	n := r.identifier(mask &^ 0xc0)
	if mask&0x80 != 0 {
		n.URI = r.Bytes()
	}
	if mask&0x40 != 0 {
		n.Server = r.U32()
	}
	return n
}

// identifier takes what follows a node id's first byte.
func (r *Reader) identifier(kind byte) NodeID {
	n := NodeID{Kind: 'i'}
	switch kind {
	case 0:
		n.Number = uint32(r.U8())
	case 1:
		n.NS, n.Number = uint16(r.U8()), uint32(r.U16())
	case 2:
		n.NS, n.Number = r.U16(), r.U32()
	case 3:
		n.Kind, n.NS, n.Text = 's', r.U16(), r.Bytes()
	case 4:
		n.Kind, n.NS, n.Text = 'g', r.U16(), r.Take(16)
	case 5:
		n.Kind, n.NS, n.Text = 'b', r.U16(), r.Bytes()
	default:
		r.Fail("it holds a node id of the unknown kind %d", kind)
	}
	return n
}

// LocalizedText takes a LocalizedText and returns its text.
func (r *Reader) LocalizedText() (text []byte) {
	mask := r.U8()
	if mask&1 != 0 {
		r.Bytes()
	}
	if mask&2 != 0 {
		text = r.Bytes()
	}
	return text
}

// ExtensionObject passes over a structure; its body is not looked at.
func (r *Reader) ExtensionObject() {
	r.ExpandedNodeID()
	switch encoding := r.U8(); encoding {
	case 0:
	case 1, 2:
		r.Bytes()
	default:
		r.Fail("it holds a structure in the unknown encoding %d", encoding)
	}
}

// DiagnosticInfo passes over a DiagnosticInfo (OPC 10000-6, 5.2.2.12) and those within it.
func (r *Reader) DiagnosticInfo() {
	for depth := 0; ; depth++ {
		mask := r.U8()
		for bit := byte(1); bit <= 8; bit <<= 1 { // indexes into the string table
			if mask&bit != 0 {
				r.U32()
			}
		}
		if mask&0x10 != 0 {
			r.Bytes()
		}
		if mask&0x20 != 0 {
			r.U32()
		}
		if mask&0x40 == 0 {
			return
		}
		if depth == maxDepth {
			r.Fail("it holds diagnostics nested deeper than %d", maxDepth)
			return
		}
	}
}

// DataValue is the result for one node. The variant is whole: its lengths and types have been checked, not yet
// whether they suit us.
type DataValue struct {
	Variant        []byte // nil when there is none
	Status         uint32
	Source, Server int64 // timestamps in ticks since 1601, 0 when there is none
}

// DataValue takes a DataValue (OPC 10000-6, 5.2.2.17) that stands within depth others.
func (r *Reader) DataValue(depth int) (v DataValue) {
	mask := r.U8()
	if mask&1 != 0 {
		from := r.B
		r.Variant(depth)
		v.Variant = from[:len(from)-len(r.B)]
	}
	if mask&2 != 0 {
		v.Status = r.U32()
	}
	if mask&4 != 0 {
		v.Source = int64(r.U64())
	}
	if mask&0x10 != 0 {
		r.U16() // picoseconds
	}
	if mask&8 != 0 {
		v.Server = int64(r.U64())
	}
	if mask&0x20 != 0 {
		r.U16()
	}
	return v
}

// Variant passes over a Variant (OPC 10000-6, 5.2.2.16) that stands within depth others.
func (r *Reader) Variant(depth int) {
	if depth > maxDepth {
		r.Fail("it holds values nested deeper than %d", maxDepth)
		return
	}
	mask := r.U8()
	kind := mask & MaskType
	switch {
	case kind == TypeNull:
		return
	case kind > TypeDiagnosticInfo:
		r.Fail("it holds a value of the unknown type %d", kind)
		return
	case mask&MaskArray == 0:
		r.Skip(kind, depth)
		return
	}
	n := r.Count(1)
	if size := fixedSize(kind); size > 0 {
		r.Take(n * size) // n is at most the bytes left: no overflow
	} else {
		for i := 0; i < n && r.Err == nil; i++ {
			r.Skip(kind, depth)
		}
	}
	if mask&MaskDimensions != 0 {
		r.Take(4 * r.Count(4))
	}
}

// fixedSize returns how many bytes a value of the type always takes, 0 when they differ.
func fixedSize(kind byte) int {
	switch kind {
	case TypeBoolean, TypeSByte, TypeByte:
		return 1
	case TypeInt16, TypeUInt16:
		return 2
	case TypeInt32, TypeUInt32, TypeFloat, TypeStatusCode:
		return 4
	case TypeInt64, TypeUInt64, TypeDouble, TypeDateTime:
		return 8
	case TypeGUID:
		return 16
	}
	return 0
}

// Skip passes over one value of a type.
func (r *Reader) Skip(kind byte, depth int) {
	switch kind {
	case TypeString, TypeByteString, TypeXMLElement:
		r.Bytes()
	case TypeNodeID:
		r.NodeID()
	case TypeExpandedNodeID:
		r.ExpandedNodeID()
	case TypeQualifiedName:
		r.U16()
		r.Bytes()
	case TypeLocalizedText:
		r.LocalizedText()
	case TypeExtensionObject:
		r.ExtensionObject()
	case TypeDataValue:
		r.DataValue(depth + 1)
	case TypeVariant:
		r.Variant(depth + 1)
	case TypeDiagnosticInfo:
		r.DiagnosticInfo()
	default:
		r.Take(fixedSize(kind))
	}
}
