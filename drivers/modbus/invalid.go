package modbus

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"millrace/drivers/telemetry"
)

// interval is values from low to high, as the tag's numbers.
type interval struct{ low, high telemetry.Value }

func (i interval) holds(v telemetry.Value) bool {
	return compare(v, i.low) >= 0 && compare(v, i.high) <= 0
}

// String returns the interval of whole numbers in words.
func (i interval) String() string {
	if i.low.Kind == telemetry.KindInt {
		return fmt.Sprintf("%d to %d", int64(i.low.Bits), int64(i.high.Bits))
	}
	return fmt.Sprintf("%d to %d", i.low.Bits, i.high.Bits)
}

const writeInvalid = "write it like 0x8000, 9999, 100..200, nan"

// parseInvalid reads "0x8000, 9999, 100..200, nan": hex digits are the bits of the value, other numbers its value.
func (c *check) parseInvalid(text string, k kind, all interval) *mistake {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		switch {
		case part == "":
			return &mistake{"an entry is empty", writeInvalid}
		case k.long():
			if c.text == nil {
				c.text = map[string]bool{}
			}
			c.text[part] = true
			continue
		case strings.EqualFold(part, "nan") && k.float():
			c.nan = true
			continue
		}
		i, m := parseInterval(part, k, all)
		if m != nil {
			return m
		}
		c.invalid = append(c.invalid, i)
	}
	return nil
}

// parseInterval reads a number or a range of what the kind can hold. One that never holds a value would be no check at all.
func parseInterval(part string, k kind, all interval) (interval, *mistake) {
	low, high, ranged := strings.Cut(part, "..")
	if !ranged {
		high = low
	}
	a, ok := parseRaw(low, k)
	b, ok2 := parseRaw(high, k)
	switch {
	case !ok || !ok2 || !k.number():
		return interval{}, &mistake{fmt.Sprintf("%q is not a value of the type %s", part, k), writeInvalid}
	case !all.holds(a) || !all.holds(b):
		return interval{}, &mistake{fmt.Sprintf("%q is not a value of the type %s", part, k), "its values are " + all.String()}
	case compare(a, b) > 0:
		return interval{}, &mistake{fmt.Sprintf("%q runs backwards, which no value is in", part), "write the least value first, such as " + strings.TrimSpace(high) + ".." + strings.TrimSpace(low)}
	}
	return interval{a, b}, nil
}

// limitsOf are the values that a kind can have; of bits of a register, those of the field's.
func limitsOf(k kind, f *field) interval {
	width := 16 * max(k.registers(), 1)
	switch k {
	case kindBool:
		width = 1
	case kindInt8, kindUint8:
		width = 8
	case kindBits:
		if f != nil && f.kind == kindBits {
			width = f.width()
		}
	case kindFloat16, kindFloat32, kindFloat64:
		return interval{telemetry.Float64(math.Inf(-1)), telemetry.Float64(math.Inf(1))} // parseRaw knows the finite ones
	case kindBCD16, kindBCD32, kindBCD64, kindMod32, kindMod48, kindMod64: // four decimal digits a register
		return interval{telemetry.Uint(0), telemetry.Uint(uint64(math.Pow10(width/4)) - 1)}
	}
	if kinds[k].data.Kind() == telemetry.KindInt {
		return interval{telemetry.Int(math.MinInt64 >> (64 - width)), telemetry.Int(math.MaxInt64 >> (64 - width))}
	}
	return interval{telemetry.Uint(0), telemetry.Uint(math.MaxUint64 >> (64 - width))}
}

// parseRaw reads a number as a value of the kind.
func parseRaw(text string, k kind) (telemetry.Value, bool) {
	text = strings.TrimSpace(text)
	width := 16 * max(k.registers(), 1)
	if k == kindInt8 || k == kindUint8 {
		width = 8
	}
	if hex, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		base := 16
		if k == kindBCD16 || k == kindBCD32 || k == kindBCD64 {
			base = 10 // the digits of its bits are those of the value
		}
		bits, err := strconv.ParseUint(hex, base, width)
		return fromBits(bits, k), err == nil
	}
	switch kinds[k].data.Kind() {
	case telemetry.KindFloat32:
		v, err := strconv.ParseFloat(text, 32) // to the nearest one: the device has no other 9999.9
		return telemetry.Float64(v), err == nil && !math.IsNaN(v) && (k != kindFloat16 || math.IsInf(v, 0) || math.Abs(v) <= 65504)
	case telemetry.KindFloat64:
		v, err := strconv.ParseFloat(text, 64)
		return telemetry.Float64(v), err == nil && !math.IsNaN(v)
	case telemetry.KindInt:
		v, err := strconv.ParseInt(text, 10, 64)
		return telemetry.Int(v), err == nil
	}
	v, err := strconv.ParseUint(text, 10, 64)
	return telemetry.Uint(v), err == nil
}

// fromBits makes a value of a bit pattern.
func fromBits(bits uint64, k kind) telemetry.Value {
	switch k {
	case kindInt8:
		return telemetry.Int(int64(int8(bits)))
	case kindInt16:
		return telemetry.Int(int64(int16(bits)))
	case kindInt32:
		return telemetry.Int(int64(int32(bits)))
	case kindInt48:
		return telemetry.Int(int64(bits<<16) >> 16)
	case kindInt64:
		return telemetry.Int(int64(bits))
	case kindFloat16:
		return telemetry.Float64(float64(float16(uint16(bits))))
	case kindFloat32:
		return telemetry.Float64(float64(math.Float32frombits(uint32(bits))))
	case kindFloat64:
		return telemetry.Float64(math.Float64frombits(bits))
	}
	return telemetry.Uint(bits)
}
