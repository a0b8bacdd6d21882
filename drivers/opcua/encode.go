package opcua

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"unicode/utf8"

	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// builtins are OPC UA's names of the built-in types by their numbers (OPC 10000-6, 5.1.2), of those that are written with the tag's type that
// takes their values.
var builtins = [...]struct {
	name string
	typ  telemetry.DataType // AnyType: it is not written
}{
	wire.TypeNull:            {"null", telemetry.AnyType},
	wire.TypeBoolean:         {"Boolean", telemetry.BoolType},
	wire.TypeSByte:           {"SByte", telemetry.Int8Type},
	wire.TypeByte:            {"Byte", telemetry.Uint8Type},
	wire.TypeInt16:           {"Int16", telemetry.Int16Type},
	wire.TypeUInt16:          {"UInt16", telemetry.Uint16Type},
	wire.TypeInt32:           {"Int32", telemetry.Int32Type},
	wire.TypeUInt32:          {"UInt32", telemetry.Uint32Type},
	wire.TypeInt64:           {"Int64", telemetry.Int64Type},
	wire.TypeUInt64:          {"UInt64", telemetry.Uint64Type},
	wire.TypeFloat:           {"Float", telemetry.Float32Type},
	wire.TypeDouble:          {"Double", telemetry.Float64Type},
	wire.TypeString:          {"String", telemetry.StringType},
	wire.TypeDateTime:        {"DateTime", telemetry.TimeType},
	wire.TypeGUID:            {"Guid", telemetry.StringType},
	wire.TypeByteString:      {"ByteString", telemetry.StringType},
	wire.TypeXMLElement:      {"XmlElement", telemetry.StringType},
	wire.TypeNodeID:          {"NodeId", telemetry.AnyType},
	wire.TypeExpandedNodeID:  {"ExpandedNodeId", telemetry.AnyType},
	wire.TypeStatusCode:      {"StatusCode", telemetry.Uint32Type},
	wire.TypeQualifiedName:   {"QualifiedName", telemetry.AnyType},
	wire.TypeLocalizedText:   {"LocalizedText", telemetry.StringType},
	wire.TypeExtensionObject: {"structure", telemetry.AnyType},
	wire.TypeDataValue:       {"DataValue", telemetry.AnyType},
	wire.TypeVariant:         {"Variant", telemetry.AnyType},
	wire.TypeDiagnosticInfo:  {"DiagnosticInfo", telemetry.AnyType},
}

// builtinOf returns the built-in type that holds a tag's type, TypeNull for none.
func builtinOf(word string) byte {
	for kind, b := range builtins {
		if word != "" && b.typ.String() == word { // of those that hold texts String is the first
			return byte(kind)
		}
	}
	return wire.TypeNull
}

// form is what a node, or an argument of a method, holds.
type form struct {
	kind  byte // built-in type
	array bool
}

func (f form) String() string {
	name := fmt.Sprintf("type %d", f.kind)
	if int(f.kind) < len(builtins) {
		name = builtins[f.kind].name
	}
	if f.array {
		name += "[]"
	}
	return name
}

// writable says why no value of the form is written, nil when one is.
func (f form) writable() error {
	if int(f.kind) >= len(builtins) || builtins[f.kind].typ == telemetry.AnyType {
		return unfit(fmt.Sprintf("values of type %s are not written", form{kind: f.kind}))
	}
	return nil
}

// unfit is why a value cannot be written. Nothing was sent.
type unfit string

func (e unfit) Error() string { return string(e) }

// appendVariant appends a value as a variant of the form (OPC 10000-6, 5.2.2.16). What the form cannot hold just so is refused.
func (f form) appendVariant(b []byte, v telemetry.Value) (_ []byte, err error) {
	if err := f.writable(); err != nil {
		return nil, err
	}
	if !f.array {
		if v.Kind == telemetry.KindArray {
			return nil, unfit(fmt.Sprintf("it holds a single %s, not an array", f))
		}
		return f.append(append(b, f.kind), v)
	}
	if v.Kind != telemetry.KindArray {
		return nil, unfit(fmt.Sprintf("it holds an array, %s; write one such as [1, 2, 3]", f))
	}
	b = binary.LittleEndian.AppendUint32(append(b, f.kind|wire.MaskArray), uint32(v.Bits))
	n := 0
	whole := v.Elements(func(e telemetry.Value) bool {
		if b, err = f.append(b, e); err != nil {
			err = unfit(fmt.Sprintf("element %d: %v", n, err))
		}
		n++
		return err == nil
	})
	if err == nil && (!whole || uint64(n) != v.Bits) {
		err = unfit("BUG: the array is not whole")
	}
	return b, err
}

// append appends one value without a mask.
func (f form) append(b []byte, v telemetry.Value) ([]byte, error) {
	if v.Kind == telemetry.KindArray {
		return nil, unfit("arrays within arrays are not written")
	}
	want, _ := parseType(builtins[f.kind].typ.String())
	got, reason := want.convert(v)
	if reason != "" || !exact(v, got) {
		return nil, unfit(fmt.Sprintf("the value %s does not fit the node's type %s", describe(v), form{kind: f.kind}))
	}
	switch got.Kind {
	case telemetry.KindString:
		return appendText(b, f.kind, got.Text)
	case telemetry.KindTime:
		return appendTime(b, int64(got.Bits))
	}
	var whole [8]byte // of a number only as many low bytes as its type has are sent
	binary.LittleEndian.PutUint64(whole[:], got.Bits)
	return append(b, whole[:sizeOf(f.kind)]...), nil
}

func sizeOf(kind byte) int {
	switch kind {
	case wire.TypeBoolean, wire.TypeSByte, wire.TypeByte:
		return 1
	case wire.TypeInt16, wire.TypeUInt16:
		return 2
	case wire.TypeInt32, wire.TypeUInt32, wire.TypeFloat, wire.TypeStatusCode:
		return 4
	}
	return 8
}

// exact reports whether a number became the same number. A decimal fraction is taken to its nearest neighbour, which is what writing it
// as one means; a whole number is not.
func exact(v, got telemetry.Value) bool {
	f, ok := got.Float()
	if !ok || got.Kind != telemetry.KindFloat32 && got.Kind != telemetry.KindFloat64 || v.Kind == got.Kind {
		return true
	}
	if v.Kind == telemetry.KindFloat32 || v.Kind == telemetry.KindFloat64 {
		was, _ := v.Float()
		return was != math.Trunc(was) || was == f
	}
	back, ok := (wanted{kind: v.Kind, bits: 64}).integer(telemetry.Float64(f))
	return ok && back.Bits == v.Bits
}

func appendText(b []byte, kind byte, s string) ([]byte, error) {
	switch kind {
	case wire.TypeGUID:
		g, ok := parseGUID(s)
		if !ok {
			return nil, unfit(fmt.Sprintf("the value %s is no Guid, 32 hex digits in groups of 8-4-4-4-12", describe(telemetry.String(s))))
		}
		b = binary.LittleEndian.AppendUint32(b, binary.BigEndian.Uint32(g))
		b = binary.LittleEndian.AppendUint16(b, binary.BigEndian.Uint16(g[4:]))
		b = binary.LittleEndian.AppendUint16(b, binary.BigEndian.Uint16(g[6:]))
		return append(b, g[8:]...), nil
	case wire.TypeByteString:
		raw, err := hex.DecodeString(s)
		if err != nil {
			return nil, unfit(fmt.Sprintf("the value %s is no ByteString, two hex digits a byte", describe(telemetry.String(s))))
		}
		s = string(raw)
	case wire.TypeLocalizedText:
		b = append(b, 2) // a text, without a locale
		fallthrough
	default:
		if !utf8.ValidString(s) {
			return nil, unfit("the text is not UTF-8")
		}
	}
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...), nil
}

// appendTime appends a DateTime. Its first and its last one mean "not set" and "never", so that no other time may become one of them.
func appendTime(b []byte, ticks int64) ([]byte, error) {
	if ticks <= firstTick || ticks >= lastTick {
		return nil, unfit("the time is out of OPC UA's range, 1601 to 9999")
	}
	return binary.LittleEndian.AppendUint64(b, uint64(ticks-firstTick)), nil
}
