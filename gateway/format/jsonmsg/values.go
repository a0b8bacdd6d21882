package jsonmsg

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"millrace/drivers/telemetry"
)

// Why a value that the device gave cannot stand in JSON. They become reasons in "bad".
const (
	notANumber   = "not a number"
	plusInf      = "+infinity"
	minusInf     = "-infinity"
	timeRange    = "date-time outside the years 0000 to 9999"
	noValue      = "no value"
	damagedArray = "damaged array"
	deepArray    = "array nested too deeply"
)

// maxDepth bounds the nesting of arrays.
const maxDepth = 16

// maxExact is the largest integer up to which every integer has its own float64.
const maxExact = 1 << 53

// appendValue appends a value and returns "", or why it cannot stand in JSON; dst then ends in garbage.
func (s *stream) appendValue(dst []byte, v *telemetry.Value) ([]byte, string) {
	switch v.Kind {
	case telemetry.KindUint:
		if s.bigText && v.Bits > maxExact {
			return append(strconv.AppendUint(append(dst, '"'), v.Bits, 10), '"'), ""
		}
		return strconv.AppendUint(dst, v.Bits, 10), ""
	case telemetry.KindInt:
		if n := int64(v.Bits); s.bigText && (n > maxExact || n < -maxExact) {
			return append(strconv.AppendInt(append(dst, '"'), n, 10), '"'), ""
		}
		return strconv.AppendInt(dst, int64(v.Bits), 10), ""
	case telemetry.KindFloat32:
		return appendFloat(dst, float64(math.Float32frombits(uint32(v.Bits))), 32)
	case telemetry.KindFloat64:
		return appendFloat(dst, math.Float64frombits(v.Bits), 64)
	case telemetry.KindBool:
		return strconv.AppendBool(dst, v.Bits != 0), ""
	case telemetry.KindString:
		return appendText(dst, v.Text), ""
	case telemetry.KindTime:
		t := v.AsTime()
		if y := t.Year(); y < 0 || y > 9999 {
			return dst, timeRange
		}
		return append(t.AppendFormat(append(dst, '"'), "2006-01-02T15:04:05.9999999Z07:00"), '"'), ""
	case telemetry.KindArray:
		return s.appendArray(dst, v, maxDepth)
	}
	return dst, noValue
}

// appendArray appends an array. An element that JSON cannot hold becomes null, so that the others keep
// their places.
func (s *stream) appendArray(dst []byte, v *telemetry.Value, depth int) (_ []byte, why string) {
	if depth == 0 {
		return dst, deepArray
	}
	open := len(dst)
	whole := v.Elements(func(e telemetry.Value) bool {
		dst = append(dst, ',')
		if e.Kind == telemetry.KindArray {
			dst, why = s.appendArray(dst, &e, depth-1)
			return why == ""
		}
		before, unfit := len(dst), ""
		if dst, unfit = s.appendValue(dst, &e); unfit != "" {
			dst = append(dst[:before], "null"...)
		}
		return true
	})
	if why == "" && !whole {
		why = damagedArray
	}
	return enclose(dst, open, "[]"), why
}

// roundToWhole: x + roundToWhole - roundToWhole is x rounded to a whole number, for |x| < 2^51.
const roundToWhole = 3 << 51

// appendFloat appends the shortest decimal that reads back as the same number of 32 or 64 bits.
func appendFloat(dst []byte, x float64, size int) ([]byte, string) {
	// Most values of a plant have few decimals. Where n/1000 of at most 6 digits (15 for 64 bits) is this number, it is the
	// shortest form too, because all decimals of so many digits are different numbers. -0 is not for it.
	n := float64(x*1000) + roundToWhole - roundToWhole
	if n != 0 && (size == 32 && n > -1e6 && n < 1e6 && float32(n)/1000 == float32(x) || size == 64 && n > -1e15 && n < 1e15 && n/1000 == x) {
		return appendThousandths(dst, int64(n)), ""
	}
	form := byte('f') // exponents only where the plain form would be long, as encoding/json does
	switch a := math.Abs(x); {
	case math.IsNaN(x):
		return dst, notANumber
	case math.IsInf(x, 1):
		return dst, plusInf
	case math.IsInf(x, -1):
		return dst, minusInf
	case a != 0 && a < 1e-6 || a >= 1e21:
		form = 'e'
	}
	return strconv.AppendFloat(dst, x, form, -1, size), ""
}

// appendThousandths appends n/1000 without needless zeros.
func appendThousandths(dst []byte, n int64) []byte {
	if n < 0 {
		dst, n = append(dst, '-'), -n
	}
	dst = strconv.AppendInt(dst, n/1000, 10)
	frac := n % 1000
	if frac == 0 {
		return dst
	}
	dst = append(dst, '.', byte('0'+frac/100), byte('0'+frac/10%10), byte('0'+frac%10))
	return bytes.TrimRight(dst, "0")
}

// appendText appends a quoted string. Bytes that are not UTF-8 become U+FFFD.
func appendText(dst []byte, text string) []byte {
	dst = append(dst, '"')
	plain := 0 // start of what needs no escaping
	for i, r := range text {
		if r >= ' ' && r != '"' && r != '\\' && r != utf8.RuneError {
			continue
		}
		_, size := utf8.DecodeRuneInString(text[i:])
		dst = appendEscape(append(dst, text[plain:i]...), r)
		plain = i + size
	}
	return append(append(dst, text[plain:]...), '"')
}

// appendEscape appends a character that may not stand in a text as it is.
func appendEscape(dst []byte, r rune) []byte {
	if i := strings.IndexRune("\"\\\n\r\t", r); i >= 0 {
		return append(dst, '\\', "\"\\nrt"[i])
	}
	if r == utf8.RuneError {
		return append(dst, "\uFFFD"...)
	}
	return fmt.Appendf(dst, `\u%04x`, r)
}
