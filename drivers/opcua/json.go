package opcua

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"millrace/drivers/telemetry"
)

// appendJSON appends a part of the value at hand; false when it is over maxArray.
func (d *decoder) appendJSON(dst []byte, at int, names bool) ([]byte, bool) {
	n := &d.nodes[at]
	ok := len(dst) <= maxArray
	switch {
	case !ok:
	case n.kind == list:
		dst = append(dst, '[')
		for i := range int(n.n) {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, ok = d.appendJSON(dst, int(n.first)+i, names); !ok {
				return dst, false
			}
		}
		dst = append(dst, ']')
	case n.kind == object:
		return d.appendObject(dst, n, names)
	case names && n.of != nil:
		text, known := n.of.names.text(n.value)
		if known {
			return appendString(dst, text), true
		}
		fallthrough
	default:
		dst = appendLeaf(dst, n.value)
	}
	return dst, ok && len(dst) <= maxArray
}

func (d *decoder) appendObject(dst []byte, n *node, names bool) (_ []byte, ok bool) {
	dst = append(dst, '{')
	first := true
	for i := range int(n.n) {
		at := int(n.first) + i
		if d.nodes[at].kind == absent {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(appendString(dst, n.fieldName(i)), ':')
		if dst, ok = d.appendJSON(dst, at, names); !ok {
			return dst, false
		}
	}
	dst = append(dst, '}')
	return dst, len(dst) <= maxArray
}

// fieldName returns the name of the i-th part of a structure.
func (n *node) fieldName(i int) string {
	if n.only > 0 {
		i = int(n.only) - 1
	}
	return n.of.structure.fields[i].name
}

func appendLeaf(dst []byte, v telemetry.Value) []byte {
	switch v.Kind {
	case telemetry.KindBool:
		return strconv.AppendBool(dst, v.Bits == 1)
	case telemetry.KindInt:
		return strconv.AppendInt(dst, int64(v.Bits), 10)
	case telemetry.KindUint:
		return strconv.AppendUint(dst, v.Bits, 10)
	case telemetry.KindFloat32:
		return appendFloatText(dst, float64(math.Float32frombits(uint32(v.Bits))), 32)
	case telemetry.KindFloat64:
		return appendFloatText(dst, math.Float64frombits(v.Bits), 64)
	case telemetry.KindString:
		return appendString(dst, v.Text)
	case telemetry.KindTime:
		return append(v.AsTime().AppendFormat(append(dst, '"'), "2006-01-02T15:04:05.9999999Z07:00"), '"')
	}
	return append(dst, "null"...)
}

// appendFloatText spells what JSON has no number for as OPC 10000-6, 5.4.2.4 does.
func appendFloatText(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	b, _ := json.Marshal(f) // finite: no error
	if bits == 32 {
		b, _ = json.Marshal(float32(f))
	}
	return append(dst, b...)
}

// appendString appends a text; what is no UTF-8 becomes the replacement character.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', byte(c))
		case c < ' ':
			dst = fmt.Appendf(dst, `\u%04x`, c)
		default:
			dst = utf8.AppendRune(dst, c)
		}
	}
	return append(dst, '"')
}
