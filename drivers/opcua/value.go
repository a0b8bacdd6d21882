package opcua

import (
	"context"
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
	maxElements = 65535    // of an array, over all dimensions
	maxParts    = 96 << 10 // parts of one value, over all its arrays and structures
	keptParts   = 32 << 10 // for the next value
	maxText     = 65535    // bytes of one text
	maxArray    = 1 << 20  // bytes of all texts of a value, and of one as JSON
	maxNesting  = 8        // dimensions of an array
	maxLevels   = 16       // structures within each other
)

// reader takes values off a message: see wire.Reader.
type reader struct{ wire.Reader }

func newReader(b []byte) reader { return reader{wire.Reader{B: b}} }

// decoder turns variants into values. It keeps its scratch memory between values.
type decoder struct {
	tree
	json []byte

	// Where the value at hand comes from, for what its type has to be asked about; no types = nobody can be asked.
	ctx   context.Context
	types *types
	group *group // nil = no tag's
	tag   int
}

// node returns the encoded request for the value at hand, nil when it is no tag's.
func (d *decoder) node() []byte {
	if d.group == nil || d.tag >= len(d.group.ask.ids) {
		return nil
	}
	return d.group.ask.ids[d.tag]
}

// value returns the variant, which wire.Reader has passed over, as a value of the wanted type, or the
// reason why it cannot.
func (d *decoder) value(variant []byte, want wanted) (telemetry.Value, string) {
	d.grown = false
	return d.also(variant, want)
}

// also returns another part of the value at hand.
func (d *decoder) also(variant []byte, want wanted) (telemetry.Value, string) {
	if len(variant) == 0 || variant[0]&wire.MaskType == wire.TypeNull {
		return telemetry.Value{}, noValue
	}
	if kind := variant[0]; want.part == nil && kind <= wire.TypeLocalizedText { // a plain value
		r := newReader(variant[1:])
		v, reason := r.leaf(kind)
		if reason != "" || want.word == "" {
			return v, reason
		}
		return want.convert(v)
	}
	return d.whole(variant, want)
}

const noValue = "the server holds no value (null)"

// leaf takes one value of a type that has no parts.
func (r *reader) leaf(kind byte) (telemetry.Value, string) {
	value, reason := r.number(kind)
	if reason != "" {
		if value, reason = r.text(kind); reason != "" {
			return value, reason
		}
	}
	switch {
	case r.Err != nil:
		return telemetry.Value{}, r.Err.Error()
	case len(value.Text) > maxText:
		return telemetry.Value{}, fmt.Sprintf("text of %d bytes is over %d", len(value.Text), maxText)
	}
	return value, ""
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
