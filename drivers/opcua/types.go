package opcua

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"millrace/drivers/telemetry"
)

// wanted is the type that a tag's `type` asks for. The zero wanted takes what the server sends.
type wanted struct {
	word string // as configured: "uint16"
	kind telemetry.Kind
	bits int // of integers: 8, 16, 32 or 64
	part *part
}

// typeWords are the words that `type` takes, in the order that messages list them.
const typeWords = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 string time json"

// parseType reads a tag's `type`; false means that the word is not known.
func parseType(word string) (wanted, bool) {
	w := wanted{word: word}
	switch word {
	case "":
	case "bool":
		w.kind = telemetry.KindBool
	case "int8", "int16", "int32", "int64":
		w.kind = telemetry.KindInt
	case "uint8", "uint16", "uint32", "uint64":
		w.kind = telemetry.KindUint
	case "float32":
		w.kind = telemetry.KindFloat32
	case "float64":
		w.kind = telemetry.KindFloat64
	case "string":
		w.kind = telemetry.KindString
	case "json":
		w.kind, w.part = telemetry.KindString, &part{json: true}
	case "time":
		w.kind = telemetry.KindTime
	default:
		return wanted{}, false
	}
	if w.kind == telemetry.KindInt || w.kind == telemetry.KindUint {
		w.bits, _ = strconv.Atoi(strings.TrimLeft(word, "uint"))
	}
	return w, true
}

// convert returns the value in the wanted type, or the reason why it does not fit. Integers must
// be exact and in range; a conversion to floating point rounds to the nearest.
func (w wanted) convert(v telemetry.Value) (telemetry.Value, string) {
	if w.word == "" {
		return v, ""
	}
	switch w.kind {
	case telemetry.KindString, telemetry.KindTime:
		if v.Kind == w.kind {
			return v, ""
		}
	case telemetry.KindBool:
		if v.Kind == telemetry.KindBool {
			return v, ""
		}
		if n, ok := v.Float(); ok && (n == 0 || n == 1) {
			return telemetry.Bool(n == 1), ""
		}
	case telemetry.KindInt, telemetry.KindUint:
		if n, ok := w.integer(v); ok {
			return n, ""
		}
	default:
		if n, ok := w.float(v); ok {
			return n, ""
		}
	}
	return telemetry.Value{}, fmt.Sprintf("the server's value %s does not fit type %s", describe(v), w.word)
}

// integer converts whole numbers that fit.
func (w wanted) integer(v telemetry.Value) (telemetry.Value, bool) {
	negative, magnitude := false, v.Bits
	switch v.Kind {
	case telemetry.KindBool, telemetry.KindUint:
	case telemetry.KindInt:
		if negative = int64(v.Bits) < 0; negative {
			magnitude = -v.Bits
		}
	case telemetry.KindFloat32, telemetry.KindFloat64:
		f, _ := v.Float()
		if f != math.Trunc(f) || math.Abs(f) >= 1<<64 { // NaN too
			return v, false
		}
		negative, magnitude = f < 0, uint64(math.Abs(f))
	default:
		return v, false
	}
	if w.kind == telemetry.KindUint {
		return telemetry.Uint(magnitude), !negative && magnitude <= math.MaxUint64>>(64-w.bits)
	}
	limit := uint64(1) << (w.bits - 1)
	if negative {
		return telemetry.Int(-int64(magnitude)), magnitude <= limit
	}
	return telemetry.Int(int64(magnitude)), magnitude < limit
}

// float converts numbers; a finite value that would become infinite does not fit.
func (w wanted) float(v telemetry.Value) (telemetry.Value, bool) {
	if v.Kind == w.kind {
		return v, true // its bit pattern stays, NaN too
	}
	f, ok := v.Float()
	if !ok || v.Kind == telemetry.KindBool {
		return v, false
	}
	if w.kind == telemetry.KindFloat64 {
		return telemetry.Float64(f), true
	}
	short := float32(f)
	return telemetry.Float32(short), math.IsInf(f, 0) || !math.IsInf(float64(short), 0)
}

// describe names a value for a reason: its type and, when short, the value itself.
func describe(v telemetry.Value) string {
	switch v.Kind {
	case telemetry.KindString:
		if len(v.Text) > 40 {
			return fmt.Sprintf("(a text of %d bytes)", len(v.Text))
		}
		return fmt.Sprintf("%q", v.Text)
	case telemetry.KindTime:
		return "(a date-time)"
	case telemetry.KindBool:
		return fmt.Sprint(v.Bits == 1)
	case telemetry.KindInt:
		return fmt.Sprint(int64(v.Bits))
	case telemetry.KindUint:
		return fmt.Sprint(v.Bits)
	}
	f, _ := v.Float()
	return fmt.Sprint(f)
}
