package opcua

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/gateway/telemetry"
)

// Bounds of one value; a larger one is a bad reading, because one tag must not fill a message.
const (
	maxElements = 65535   // of an array, over all dimensions
	maxText     = 65535   // bytes of one text
	maxArray    = 1 << 20 // bytes of all texts of an array
	maxNesting  = 8       // dimensions of an array
)

// decoder turns the library's variants into values. It keeps its scratch memory between values.
type decoder struct {
	elems []telemetry.Value
	texts int // bytes of text in the array at hand
}

// value returns the variant as a value of the wanted type, or the reason why it cannot.
func (d *decoder) value(v *ua.Variant, want wanted) (telemetry.Value, string) {
	if v == nil || v.Type() == ua.TypeIDNull || v.Value() == nil {
		return telemetry.Value{}, "the server holds no value (null)"
	}
	if v.Has(ua.VariantArrayValues) {
		d.elems, d.texts = d.elems[:0], 0
		return d.array(v, want)
	}
	return d.scalar(v.Value(), want)
}

// scalar converts one value that is not an array.
func (d *decoder) scalar(v any, want wanted) (telemetry.Value, string) {
	value, ok := number(v)
	if !ok {
		value, ok = text(v)
	}
	if !ok {
		return telemetry.Value{}, unsupported(v)
	}
	if len(value.Text) > maxText {
		return telemetry.Value{}, fmt.Sprintf("text of %d bytes is over %d", len(value.Text), maxText)
	}
	return want.convert(value)
}

// number converts the types that are held in bits.
func number(v any) (telemetry.Value, bool) {
	switch x := v.(type) {
	case bool:
		return telemetry.Bool(x), true
	case int8:
		return telemetry.Int(int64(x)), true
	case int16:
		return telemetry.Int(int64(x)), true
	case int32: // enumerations too
		return telemetry.Int(int64(x)), true
	case int64:
		return telemetry.Int(x), true
	case uint8:
		return telemetry.Uint(uint64(x)), true
	case uint16:
		return telemetry.Uint(uint64(x)), true
	case uint32:
		return telemetry.Uint(uint64(x)), true
	case uint64:
		return telemetry.Uint(x), true
	case float32:
		return telemetry.Float32(x), true
	case float64:
		return telemetry.Float64(x), true
	case time.Time:
		return telemetry.Value{Kind: telemetry.KindTime, Bits: uint64(ticksOf(x))}, true
	case ua.StatusCode:
		return telemetry.Uint(uint64(x)), true
	}
	return telemetry.Value{}, false
}

// text converts the types that are held as text.
func text(v any) (telemetry.Value, bool) {
	switch x := v.(type) {
	case string:
		return telemetry.String(x), true
	case *ua.LocalizedText:
		return telemetry.String(x.Text), true
	case *ua.QualifiedName:
		if x.NamespaceIndex == 0 {
			return telemetry.String(x.Name), true
		}
		return telemetry.String(strconv.Itoa(int(x.NamespaceIndex)) + ":" + x.Name), true
	case ua.XMLElement:
		return telemetry.String(string(x)), true
	case []byte:
		return telemetry.String(hex.EncodeToString(x)), true
	case *ua.GUID:
		return telemetry.String(guidOf(x)), true
	case *ua.NodeID:
		return telemetry.String(nodeText(x)), true
	case *ua.ExpandedNodeID:
		return telemetry.String(expandedText(x)), true
	}
	return telemetry.Value{}, false
}

func unsupported(v any) string {
	switch v.(type) {
	case *ua.ExtensionObject:
		return "structures (ExtensionObject) cannot be read yet; use the node ids of the structure's fields"
	case *ua.DataValue:
		return "values of type DataValue cannot be read"
	case *ua.DiagnosticInfo:
		return "values of type DiagnosticInfo cannot be read"
	}
	return fmt.Sprintf("values of type %T cannot be read", v)
}

func guidOf(g *ua.GUID) string {
	var b [16]byte
	binary.BigEndian.PutUint32(b[0:], g.Data1)
	binary.BigEndian.PutUint16(b[4:], g.Data2)
	binary.BigEndian.PutUint16(b[6:], g.Data3)
	copy(b[8:], g.Data4)
	return guidText(b[:])
}

// nodeText spells a node id as addresses do.
func nodeText(n *ua.NodeID) string {
	a := address{ns: n.Namespace(), kind: 'i', number: n.IntID()}
	switch n.Type() {
	case ua.NodeIDTypeString:
		a.kind, a.text = 's', n.StringID()
	case ua.NodeIDTypeByteString:
		return prefix(n) + "b=" + n.StringID()
	case ua.NodeIDTypeGUID:
		if b, ok := parseGUID(n.StringID()); ok {
			a.kind, a.text = 'g', string(b)
		}
	}
	return a.String()
}

func prefix(n *ua.NodeID) string {
	if n.Namespace() == 0 {
		return ""
	}
	return "ns=" + strconv.Itoa(int(n.Namespace())) + ";"
}

func expandedText(n *ua.ExpandedNodeID) string {
	s := nodeText(n.NodeID)
	if n.NamespaceURI != "" {
		s = "nsu=" + uriEscaper.Replace(n.NamespaceURI) + ";" + s[len(prefix(n.NodeID)):]
	}
	if n.ServerIndex != 0 {
		s = "svr=" + strconv.FormatUint(uint64(n.ServerIndex), 10) + ";" + s
	}
	return s
}

// array converts an array of one or more dimensions. An array of several is an array of arrays.
func (d *decoder) array(v *ua.Variant, want wanted) (telemetry.Value, string) {
	if n := v.ArrayLength(); n > maxElements {
		return telemetry.Value{}, fmt.Sprintf("array of %d elements is over %d", n, maxElements)
	}
	return d.slice(reflect.ValueOf(v.Value()), want, 0)
}

// slice converts the elements of one dimension. d.elems is a stack: inner dimensions use its end.
func (d *decoder) slice(v reflect.Value, want wanted, depth int) (telemetry.Value, string) {
	if v.Kind() != reflect.Slice {
		return telemetry.Value{}, unsupported(v.Interface())
	}
	if depth == maxNesting {
		return telemetry.Value{}, fmt.Sprintf("array of more than %d dimensions", maxNesting)
	}
	base := len(d.elems)
	reason := d.elements(v, want, depth)
	if reason != "" {
		return telemetry.Value{}, reason
	}
	a := telemetry.Array(d.elems[base:])
	d.elems = d.elems[:base]
	return a, ""
}

func (d *decoder) elements(v reflect.Value, want wanted, depth int) string {
	for i := range v.Len() {
		e, reason := d.element(v.Index(i), want, depth)
		if reason != "" {
			return fmt.Sprintf("element %d: %s", i, reason)
		}
		if d.texts += len(e.Text); d.texts > maxArray {
			return fmt.Sprintf("array of more than %d bytes", maxArray)
		}
		d.elems = append(d.elems, e)
	}
	return ""
}

// element converts one element. Numbers are read by kind, which spares an allocation each.
func (d *decoder) element(v reflect.Value, want wanted, depth int) (telemetry.Value, string) {
	switch v.Kind() {
	case reflect.Bool:
		return want.convert(telemetry.Bool(v.Bool()))
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return want.convert(telemetry.Int(v.Int()))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return want.convert(telemetry.Uint(v.Uint()))
	case reflect.Float32:
		return want.convert(telemetry.Float32(float32(v.Float())))
	case reflect.Float64:
		return want.convert(telemetry.Float64(v.Float()))
	}
	switch x := v.Interface().(type) {
	case []byte: // a ByteString; a dimension of Byte is a ua.ByteArray
		return d.scalar(x, want)
	case *ua.Variant:
		return d.inner(x, want, depth)
	default:
		if v.Kind() == reflect.Slice {
			return d.slice(v, want, depth+1)
		}
		return d.scalar(x, want)
	}
}

// inner converts an element that is a variant: it holds a value of any type, or an array.
func (d *decoder) inner(v *ua.Variant, want wanted, depth int) (telemetry.Value, string) {
	switch {
	case v == nil || v.Type() == ua.TypeIDNull || v.Value() == nil:
		return telemetry.Value{}, "null"
	case v.Has(ua.VariantArrayValues):
		return d.slice(reflect.ValueOf(v.Value()), want, depth+1)
	}
	return d.scalar(v.Value(), want)
}
