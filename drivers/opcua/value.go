package opcua

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"

	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// Bounds of one value; a larger one is a bad reading, because one tag must not fill a message.
const (
	maxElements = 65535   // of an array, over all dimensions
	maxText     = 65535   // bytes of one text
	maxArray    = 1 << 20 // bytes of all texts of an array
	maxNesting  = 8       // dimensions of an array
)

// reader takes values off a message: see wire.Reader.
type reader struct{ wire.Reader }

func newReader(b []byte) reader { return reader{wire.Reader{B: b}} }

// decoder turns variants into values. It keeps its scratch memory between values.
type decoder struct {
	elems []telemetry.Value // a stack: inner arrays use its end
	texts int               // bytes of text in the array at hand
}

// value returns the variant, which wire.Reader has passed over, as a value of the wanted type, or the
// reason why it cannot.
func (d *decoder) value(variant []byte, want wanted) (telemetry.Value, string) {
	d.elems, d.texts = d.elems[:0], 0
	r := newReader(variant)
	v, reason := d.variant(&r, want, 0)
	if r.Err != nil {
		return telemetry.Value{}, r.Err.Error()
	}
	return v, reason
}

// variant converts a variant that is an element of depth arrays.
func (d *decoder) variant(r *reader, want wanted, depth int) (telemetry.Value, string) {
	if len(r.B) == 0 || r.B[0]&wire.MaskType == wire.TypeNull {
		return telemetry.Value{}, "the server holds no value (null)"
	}
	mask := r.U8()
	if mask&wire.MaskArray != 0 {
		return d.array(r, mask, want, depth)
	}
	if mask&wire.MaskType == wire.TypeVariant {
		return telemetry.Value{}, "a value within a value cannot be read"
	}
	return d.scalar(r, mask&wire.MaskType, want)
}

// scalar converts one value that is not an array.
func (d *decoder) scalar(r *reader, kind byte, want wanted) (telemetry.Value, string) {
	value, reason := r.number(kind)
	if reason != "" {
		if value, reason = r.text(kind); reason != "" {
			return value, reason
		}
	}
	if len(value.Text) > maxText {
		return telemetry.Value{}, fmt.Sprintf("text of %d bytes is over %d", len(value.Text), maxText)
	}
	return want.convert(value)
}

// number takes a value of the types that are held in bits. Of others it takes nothing and gives a reason.
func (r *reader) number(kind byte) (telemetry.Value, string) {
	switch kind {
	case wire.TypeBoolean:
		return telemetry.Bool(r.U8() != 0), ""
	case wire.TypeSByte:
		return telemetry.Int(int64(int8(r.U8()))), ""
	case wire.TypeInt16:
		return telemetry.Int(int64(int16(r.U16()))), ""
	case wire.TypeInt32: // enumerations too
		return telemetry.Int(int64(int32(r.U32()))), ""
	case wire.TypeInt64:
		return telemetry.Int(int64(r.U64())), ""
	case wire.TypeByte:
		return telemetry.Uint(uint64(r.U8())), ""
	case wire.TypeUInt16:
		return telemetry.Uint(uint64(r.U16())), ""
	case wire.TypeUInt32, wire.TypeStatusCode:
		return telemetry.Uint(uint64(r.U32())), ""
	case wire.TypeUInt64:
		return telemetry.Uint(r.U64()), ""
	case wire.TypeFloat:
		return telemetry.Float32(math.Float32frombits(r.U32())), ""
	case wire.TypeDouble:
		return telemetry.Float64(r.F64()), ""
	case wire.TypeDateTime:
		return telemetry.Value{Kind: telemetry.KindTime, Bits: uint64(ticksOf(int64(r.U64())))}, ""
	}
	return telemetry.Value{}, "no number"
}

// text takes a value of the types that are held as text, or gives the reason why there is no such.
func (r *reader) text(kind byte) (telemetry.Value, string) {
	switch kind {
	case wire.TypeString, wire.TypeXMLElement:
		return telemetry.String(string(r.Bytes())), ""
	case wire.TypeLocalizedText:
		return telemetry.String(string(r.LocalizedText())), ""
	case wire.TypeQualifiedName:
		if ns := r.U16(); ns != 0 {
			return telemetry.String(strconv.Itoa(int(ns)) + ":" + string(r.Bytes())), ""
		}
		return telemetry.String(string(r.Bytes())), ""
	case wire.TypeByteString:
		return telemetry.String(hex.EncodeToString(r.Bytes())), ""
	case wire.TypeGUID:
		return telemetry.String(guidOf(r.Take(16))), ""
	case wire.TypeNodeID:
		return telemetry.String(spell(r.NodeID())), ""
	case wire.TypeExpandedNodeID:
		return telemetry.String(spell(r.ExpandedNodeID())), ""
	case wire.TypeExtensionObject:
		return telemetry.Value{}, "structures (ExtensionObject) cannot be read yet; use the node ids of the structure's fields"
	case wire.TypeDataValue:
		return telemetry.Value{}, "values of type DataValue cannot be read"
	case wire.TypeDiagnosticInfo:
		return telemetry.Value{}, "values of type DiagnosticInfo cannot be read"
	}
	return telemetry.Value{}, fmt.Sprintf("values of type %d cannot be read", kind)
}

// guidOf returns the text of 16 bytes as they stand in a message: three numbers, then bytes.
func guidOf(b []byte) string {
	if len(b) < 16 {
		return ""
	}
	g := binary.BigEndian.AppendUint32(make([]byte, 0, 16), binary.LittleEndian.Uint32(b))
	g = binary.BigEndian.AppendUint16(g, binary.LittleEndian.Uint16(b[4:]))
	g = binary.BigEndian.AppendUint16(g, binary.LittleEndian.Uint16(b[6:]))
	return guidText(append(g, b[8:]...))
}

// spell spells a node id as addresses do.
func spell(n wire.NodeID) string {
	s := ""
	if n.Server != 0 {
		s = "svr=" + strconv.FormatUint(uint64(n.Server), 10) + ";"
	}
	switch {
	case len(n.URI) > 0:
		s += "nsu=" + uriEscaper.Replace(string(n.URI)) + ";"
	case n.NS != 0:
		s += "ns=" + strconv.Itoa(int(n.NS)) + ";"
	}
	switch n.Kind {
	case 's':
		return s + "s=" + string(n.Text)
	case 'g':
		return s + "g=" + guidOf(n.Text)
	case 'b':
		return s + "b=" + base64.StdEncoding.EncodeToString(n.Text)
	}
	return s + "i=" + strconv.FormatUint(uint64(n.Number), 10)
}

// array converts an array behind its mask. An array of several dimensions is an array of arrays.
func (d *decoder) array(r *reader, mask byte, want wanted, depth int) (telemetry.Value, string) {
	n := r.Count(1)
	switch {
	case depth == maxNesting:
		return telemetry.Value{}, fmt.Sprintf("array of more than %d dimensions", maxNesting)
	case n > maxElements:
		return telemetry.Value{}, fmt.Sprintf("array of %d elements is over %d", n, maxElements)
	}
	base := len(d.elems)
	for i := range n {
		e, reason := d.element(r, mask&wire.MaskType, want, depth)
		if reason != "" {
			return telemetry.Value{}, fmt.Sprintf("element %d: %s", i, reason)
		}
		if reason = d.push(e); reason != "" {
			return telemetry.Value{}, reason
		}
	}
	if mask&wire.MaskDimensions != 0 {
		if reason := d.fold(r, base, depth); reason != "" {
			return telemetry.Value{}, reason
		}
	}
	a := telemetry.Array(d.elems[base:])
	d.elems = d.elems[:base]
	return a, ""
}

// element converts one element; one that is a variant holds a value of any type, or an array.
func (d *decoder) element(r *reader, kind byte, want wanted, depth int) (telemetry.Value, string) {
	switch {
	case kind != wire.TypeVariant:
		return d.scalar(r, kind, want)
	case len(r.B) > 0 && r.B[0]&wire.MaskType == wire.TypeNull:
		return telemetry.Value{}, "null"
	}
	return d.variant(r, want, depth+1)
}

// push adds an element to the array at hand.
func (d *decoder) push(e telemetry.Value) string {
	if d.texts += len(e.Text); d.texts > maxArray {
		return fmt.Sprintf("array of more than %d bytes", maxArray)
	}
	d.elems = append(d.elems, e)
	return ""
}

// fold makes the elements from base on, which stand row by row, into arrays after the dimensions that
// follow them (OPC 10000-6, 5.2.2.16).
func (d *decoder) fold(r *reader, base, depth int) string {
	var dims [maxNesting]int
	n, product, elements := r.Count(4), 1, len(d.elems)-base
	if n > maxNesting-depth {
		return fmt.Sprintf("array of more than %d dimensions", maxNesting)
	}
	for i := range n {
		dims[i] = int(int32(r.U32()))
		if dims[i] < 0 || dims[i] > maxElements {
			product = -1
			break
		}
		product = min(product*dims[i], maxElements+1)
	}
	if n > 0 && product != elements {
		return fmt.Sprintf("array whose dimensions do not fit its %d elements", elements)
	}
	if elements == 0 {
		return ""
	}
	for i := n - 1; i > 0; i-- {
		inner := d.elems[base:]
		d.elems = d.elems[:base]
		for ; len(inner) > 0; inner = inner[dims[i]:] {
			if reason := d.push(telemetry.Array(inner[:dims[i]])); reason != "" {
				return reason
			}
		}
	}
	return ""
}
