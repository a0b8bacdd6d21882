package modbus

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"millrace/drivers/telemetry"
)

// encodeError says why a value cannot be written to a tag.
type encodeError struct{ what string }

func (e *encodeError) Error() string { return e.what }

func cannot(format string, args ...any) error { return &encodeError{fmt.Sprintf(format, args...)} }

// partial reports whether the value is only a part of a register.
func (f *field) partial() bool {
	return f.bit >= 0 || f.kind == kindInt8 || f.kind == kindUint8
}

// tooLong says why one request cannot write the field.
func (f *field) tooLong() error {
	if most := f.mostWritten(); int(f.count) > most {
		return cannot("one request writes at most %d registers, and the %s has %d", most, f.kind, f.count)
	}
	return nil
}

func (f *field) encodeBool(v telemetry.Value) (bool, error) {
	v, err := f.unnamed(v)
	if n, ok := v.Float(); err == nil && ok && (n == 0 || n == 1) {
		return n == 1, nil
	}
	return false, cannot("a bit is true or false")
}

// encodeBits returns the bits of a part of a register, in place, and which they are.
func (f *field) encodeBits(v telemetry.Value) (bits, mask uint16, err error) {
	low, width := 0, 8
	switch {
	case f.bit >= 0:
		low, width = int(f.bit), int(f.last-f.bit+1)
	case f.high:
		low = 8
	}
	if f.kind == kindBool {
		on, err := f.encodeBool(v)
		if err != nil {
			return 0, 0, err
		}
		v = telemetry.Bool(on)
	}
	n, err := f.whole(v, width, f.kind == kindInt8)
	mask = uint16(1<<width-1) << low
	return uint16(n) << low & mask, mask, err
}

// maxNamed is how many texts of an enum are named in an error.
const maxNamed = 8

// unnamed returns the number of a text of the tag's enum.
func (f *field) unnamed(v telemetry.Value) (telemetry.Value, error) {
	c := f.check()
	if v.Kind != telemetry.KindString || c == nil || c.enum == nil {
		return v, nil
	}
	for n, text := range c.enum {
		if text == v.Text {
			return telemetry.Int(n), nil
		}
	}
	var some []string
	for _, n := range slices.Sorted(maps.Keys(c.enum))[:min(len(c.enum), maxNamed)] {
		some = append(some, strconv.Quote(c.enum[n]))
	}
	if len(some) < len(c.enum) {
		some = append(some, "…")
	}
	return v, cannot("%q is not in enum, which has %s", v.Text, strings.Join(some, ", "))
}

// whole returns a number as an integer of so many bits, exactly.
func (f *field) whole(v telemetry.Value, width int, signed bool) (uint64, error) {
	v, err := f.unnamed(v)
	if err != nil {
		return 0, err
	}
	neg, n := false, v.Bits
	switch v.Kind {
	case telemetry.KindBool, telemetry.KindUint:
	case telemetry.KindInt:
		if neg = int64(n) < 0; neg {
			n = -n
		}
	case telemetry.KindFloat32, telemetry.KindFloat64:
		x, _ := v.Float()
		if x != math.Trunc(x) || math.Abs(x) >= 1<<64 {
			return 0, cannot("%v is not a whole number that the type %s holds", x, f.kind)
		}
		if neg = x < 0; neg {
			x = -x
		}
		n = uint64(x)
	default:
		return 0, cannot("the type %s takes a number", f.kind)
	}
	limit := uint64(math.MaxUint64) >> (64 - width)
	switch {
	case signed && neg && n <= limit/2+1:
		return -n & limit, nil
	case signed && !neg && n <= limit/2, !signed && (!neg || n == 0) && n <= limit:
		return n, nil
	}
	sign := ""
	if neg {
		sign = "-"
	}
	return 0, cannot("%s%d is out of range for the type %s", sign, n, f.kind)
}

// encode returns a value as registers.
func (f *field) encode(v telemetry.Value) ([]byte, error) {
	registers := int(f.count)
	if err := f.tooLong(); err != nil {
		return nil, err
	}
	words := make([]byte, 2*registers)
	n, err := uint64(0), error(nil)
	switch data := kinds[f.kind].data; {
	case f.kind == kindString, f.kind == kindBytes:
		return words, f.encodeText(words, v)
	case f.kind.time():
		return words, f.encodeTime(words, v)
	case f.kind == kindFloat16:
		return nil, cannot("the type float16 can only be read")
	case f.kind.float():
		n, err = f.encodeFloat(v)
	case f.kind >= kindBCD16 && f.kind <= kindBCD64:
		if n, err = f.whole(v, 64, false); err == nil && n >= pow10(4*registers) {
			err = cannot("%d has more than %d digits", n, 4*registers)
		}
		n = toBCD(n)
	case f.kind >= kindMod32 && f.kind <= kindMod64:
		if n, err = f.whole(v, 64, false); err == nil && n >= pow10(4*registers) {
			err = cannot("%d has more than %d digits", n, 4*registers)
		}
		n = toMod10k(n)
	default:
		n, err = f.whole(v, 16*registers, data.Kind() == telemetry.KindInt)
	}
	f.order.narrow(words, n, min(registers, 4))
	return words, err
}

func pow10(digits int) uint64 {
	n := uint64(1)
	for range digits {
		n *= 10
	}
	return n
}

func toMod10k(n uint64) (v uint64) {
	for shift := 0; n > 0 && shift < 64; shift += 16 {
		v |= n % 10000 << shift
		n /= 10000
	}
	return v
}

func (f *field) encodeFloat(v telemetry.Value) (uint64, error) {
	x, ok := v.Float()
	switch {
	case !ok:
		return 0, cannot("the type %s takes a number", f.kind)
	case f.kind == kindFloat64:
		return math.Float64bits(x), nil
	case !math.IsInf(x, 0) && math.Abs(x) > math.MaxFloat32:
		return 0, cannot("%v is out of range for the type %s", x, f.kind)
	}
	return uint64(math.Float32bits(float32(x))), nil
}

// encodeText fills the registers with a text, and NULs after it.
func (f *field) encodeText(words []byte, v telemetry.Value) error {
	if v.Kind != telemetry.KindString {
		return cannot("the type %s takes a text", f.kind)
	}
	length := int(f.length)
	b, ok := f.page.encode(v.Text)
	if f.kind == kindBytes {
		var err error
		b, err = hex.DecodeString(v.Text)
		if err != nil || len(b) != length {
			return cannot("%d bytes take %d hex digits", length, 2*length)
		}
	}
	switch {
	case !ok:
		return cannot("the text has a character that the tag's code page has not")
	case len(b) > length:
		return cannot("the text has %d bytes, and the tag %d", len(b), length)
	}
	copy(words, b)
	if f.order == orderBADC {
		for i := 0; i < len(words); i += 2 {
			words[i], words[i+1] = words[i+1], words[i]
		}
	}
	return nil
}

// encodeTime fills the registers with a date-time.
func (f *field) encodeTime(words []byte, v telemetry.Value) error {
	if v.Kind != telemetry.KindTime {
		return cannot("the type %s takes a date and time", f.kind)
	}
	t := v.AsTime().In(f.zone())
	if t.Year() < 1970 || t.Year() > 2099 || f.kind == kindUnix32 && t.Unix() > math.MaxUint32 {
		return cannot("the year %d is out of range for the type %s", t.Year(), f.kind)
	}
	put := func(i, n int) { binary.BigEndian.PutUint16(words[2*i:], uint16(n)) }
	switch f.kind {
	case kindUnix32:
		f.order.narrow(words, uint64(t.Unix()), 2)
	case kindUnix64:
		f.order.narrow(words, uint64(t.Unix()), 4)
	case kindUnixMs64:
		f.order.narrow(words, uint64(t.UnixMilli()), 4)
	case kindYMDHMS:
		for i, n := range []int{t.Year(), int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second()} {
			put(i, n)
		}
	case kindYMDHMS3:
		put(0, t.Year()%100<<8|int(t.Month()))
		put(1, t.Day()<<8|t.Hour())
		put(2, t.Minute()<<8|t.Second())
	default:
		put(0, t.Year()%100)
		put(1, int(t.Month())<<8|t.Day())
		put(2, t.Hour()<<8|t.Minute())
		put(3, 1000*t.Second()+t.Nanosecond()/1e6)
	}
	return nil
}
