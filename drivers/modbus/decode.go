package modbus

import (
	"encoding/binary"
	"math"
	"math/bits"
	"time"

	"millrace/drivers/telemetry"
)

// op is one line of the flat table by which an answer becomes readings: what stands at reg is of this
// kind and belongs to this tag. It is made once, when the driver is.
type op struct {
	reg   uint32 // register or bit, 0-based in its table
	tag   uint32
	arg   uint16 // see field.arg
	kind  kind
	order order
	check bool // the field has a check
}

// decode turns the values of one answer into readings; at is the source time in µs.
func (g *group) decode(b *block, data []byte, at int64, out []telemetry.Reading) {
	if b.table.bits() {
		decodeBits(b.ops, data, b.first, at, out)
	} else {
		g.decodeRegisters(b.ops, data, b.first, at, out)
	}
	for i := range b.ops {
		o := &b.ops[i]
		if r := &out[o.tag]; o.check && r.Quality == telemetry.Good {
			g.fields[o.tag].rare.check.apply(r)
		}
	}
}

// decodeRegisters turns the registers of one answer into readings. data begins with register first and
// holds every register of the ops; at is the source time in µs.
func (g *group) decodeRegisters(ops []op, data []byte, first uint32, at int64, out []telemetry.Reading) {
	for i := range ops {
		o := &ops[i]
		p := data[2*(o.reg-first):]
		r := &out[o.tag]
		switch o.kind {
		case kindUint16:
			set(r, o.tag, telemetry.KindUint, uint64(binary.BigEndian.Uint16(p)), at)
		case kindInt16:
			set(r, o.tag, telemetry.KindInt, uint64(int16(binary.BigEndian.Uint16(p))), at)
		case kindFloat32:
			set(r, o.tag, telemetry.KindFloat32, uint64(o.order.of32(binary.BigEndian.Uint32(p))), at)
		case kindUint32:
			set(r, o.tag, telemetry.KindUint, uint64(o.order.of32(binary.BigEndian.Uint32(p))), at)
		case kindInt32:
			set(r, o.tag, telemetry.KindInt, uint64(int32(o.order.of32(binary.BigEndian.Uint32(p)))), at)
		case kindFloat64:
			set(r, o.tag, telemetry.KindFloat64, o.order.of64(binary.BigEndian.Uint64(p)), at)
		case kindUint64:
			set(r, o.tag, telemetry.KindUint, o.order.of64(binary.BigEndian.Uint64(p)), at)
		case kindInt64:
			set(r, o.tag, telemetry.KindInt, o.order.of64(binary.BigEndian.Uint64(p)), at)
		case kindBool:
			set(r, o.tag, telemetry.KindBool, uint64(binary.BigEndian.Uint16(p)>>o.arg&1), at)
		case kindString, kindBytes:
			set(r, o.tag, telemetry.KindString, 0, at)
			r.Value.Text = g.text(o, p)
		default:
			g.decodeOther(o, p, at, r)
		}
	}
}

// decodeOther decodes the kinds that few devices use.
func (g *group) decodeOther(o *op, p []byte, at int64, r *telemetry.Reading) {
	word := binary.BigEndian.Uint16(p)
	switch o.kind {
	case kindBits:
		set(r, o.tag, telemetry.KindUint, uint64(word>>(o.arg&15))&(1<<(o.arg>>8)-1), at)
	case kindInt8:
		set(r, o.tag, telemetry.KindInt, uint64(int8(word>>o.arg)), at)
	case kindUint8:
		set(r, o.tag, telemetry.KindUint, uint64(uint8(word>>o.arg)), at)
	case kindFloat16:
		set(r, o.tag, telemetry.KindFloat32, uint64(math.Float32bits(float16(word))), at)
	case kindInt48:
		set(r, o.tag, telemetry.KindInt, uint64(int64(o.order.wide(p, 3)<<16)>>16), at)
	case kindUint48:
		set(r, o.tag, telemetry.KindUint, o.order.wide(p, 3), at)
	case kindBCD16, kindBCD32, kindBCD64:
		v, ok := fromBCD(o.order.wide(p, o.kind.registers()))
		setIf(ok, r, o.tag, telemetry.KindUint, v, at, "the registers hold no decimal digits (BCD)")
	case kindMod32, kindMod48, kindMod64:
		v, ok := fromMod10k(o.order.wide(p, o.kind.registers()), o.kind.registers())
		setIf(ok, r, o.tag, telemetry.KindUint, v, at, "a register is over 9999")
	default:
		t, ok := g.dateTime(o, p)
		setIf(ok, r, o.tag, telemetry.KindTime, telemetry.Time(t).Bits, at, "the registers hold no date and time")
	}
}

// decodeBits turns the bits of one answer into readings.
func decodeBits(ops []op, data []byte, first uint32, at int64, out []telemetry.Reading) {
	for i := range ops {
		o := &ops[i]
		n := o.reg - first
		set(&out[o.tag], o.tag, telemetry.KindBool, uint64(data[n/8]>>(n%8)&1), at)
	}
}

// set makes a good reading in place, field by field: a third of the time of assigning the whole struct,
// because texts are only touched when there is one.
func set(r *telemetry.Reading, tag uint32, kind telemetry.Kind, bits uint64, at int64) {
	r.Value.Kind, r.Value.Bits = kind, bits
	if r.Value.Text != "" {
		r.Value.Text = ""
	}
	if r.Reason != "" {
		r.Reason = ""
	}
	r.Time, r.Tag, r.Quality = at, tag, telemetry.Good
}

// setIf makes a good reading, or a bad one for a reason.
func setIf(ok bool, r *telemetry.Reading, tag uint32, kind telemetry.Kind, bits uint64, at int64, reason string) {
	if !ok {
		*r = telemetry.BadReading(int(tag), at, reason)
		return
	}
	set(r, tag, kind, bits, at)
}

// of32 brings the four bytes of a value into the order ABCD, and back.
func (o order) of32(v uint32) uint32 {
	switch o {
	case orderBADC:
		return v&0x00ff00ff<<8 | v>>8&0x00ff00ff
	case orderCDAB:
		return bits.RotateLeft32(v, 16)
	case orderDCBA:
		return bits.ReverseBytes32(v)
	}
	return v
}

// of64 brings the eight bytes of a value into the order ABCDEFGH, and back.
func (o order) of64(v uint64) uint64 {
	const low = 0x00ff00ff00ff00ff
	switch o {
	case orderBADC:
		return v&low<<8 | v>>8&low
	case orderCDAB:
		v = bits.ReverseBytes64(v)
		return v&low<<8 | v>>8&low
	case orderDCBA:
		return bits.ReverseBytes64(v)
	}
	return v
}

// wide returns one to four registers as one number.
func (o order) wide(p []byte, registers int) (v uint64) {
	for i := range registers {
		n := i
		if o.swapsRegisters() {
			n = registers - 1 - i
		}
		word := binary.BigEndian.Uint16(p[2*n:])
		if o.swapsBytes() {
			word = bits.ReverseBytes16(word)
		}
		v = v<<16 | uint64(word)
	}
	return v
}

// narrow puts a number into one to four registers.
func (o order) narrow(dst []byte, v uint64, registers int) {
	for i := range registers {
		n := registers - 1 - i
		if o.swapsRegisters() {
			n = i
		}
		word := uint16(v >> (16 * i))
		if o.swapsBytes() {
			word = bits.ReverseBytes16(word)
		}
		binary.BigEndian.PutUint16(dst[2*n:], word)
	}
}

// float16 returns an IEEE 754 binary16 number.
func float16(h uint16) float32 {
	sign, exponent, fraction := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch {
	case exponent == 31:
		return math.Float32frombits(sign | 255<<23 | fraction<<13)
	case exponent == 0:
		v := float32(fraction) / (1 << 24)
		return math.Float32frombits(sign | math.Float32bits(v))
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}

// fromBCD reads four bits a digit.
func fromBCD(v uint64) (n uint64, ok bool) {
	for shift := 60; shift >= 0; shift -= 4 {
		digit := v >> shift & 15
		if digit > 9 {
			return 0, false
		}
		n = 10*n + digit
	}
	return n, true
}

func toBCD(n uint64) (v uint64) {
	for shift := 0; n > 0 && shift < 64; shift += 4 {
		v |= n % 10 << shift
		n /= 10
	}
	return v
}

// fromMod10k reads registers of four decimal digits each, as some power meters count energy.
func fromMod10k(v uint64, registers int) (n uint64, ok bool) {
	for i := registers - 1; i >= 0; i-- {
		word := v >> (16 * i) & 0xffff
		if word > 9999 {
			return 0, false
		}
		n = 10000*n + word
	}
	return n, true
}

// dateTime reads the date-times of common meters.
func (g *group) dateTime(o *op, p []byte) (time.Time, bool) {
	zone := g.fields[o.tag].zone()
	w := func(i int) int { return int(binary.BigEndian.Uint16(p[2*i:])) }
	switch o.kind {
	case kindUnix32:
		return time.Unix(int64(o.order.wide(p, 2)), 0), true
	case kindUnix64:
		s := o.order.wide(p, 4)
		return time.Unix(int64(s), 0), s < 1<<38 // the year 10680
	case kindUnixMs64:
		ms := o.order.wide(p, 4)
		return time.UnixMilli(int64(ms)), ms < 1<<48
	case kindYMDHMS:
		return date(w(0), w(1), w(2), w(3), w(4), 1000*w(5), zone)
	case kindYMDHMS3:
		return date(w(0)>>8, w(0)&255, w(1)>>8, w(1)&255, w(2)>>8, 1000*(w(2)&255), zone)
	}
	// IEC 60870-5-4: year; month and day; hour and minute; milliseconds, with flags in the bits between.
	return date(w(0)&127, w(1)>>8&15, w(1)&31, w(2)>>8&31, w(2)&63, w(3), zone)
}

// date makes a time of digits that are all in their bounds; a year of two digits is one after 2000.
func date(year, month, day, hour, minute, ms int, zone *time.Location) (time.Time, bool) {
	if year < 100 {
		year += 2000
	}
	t := time.Date(year, time.Month(month), day, hour, minute, ms/1000, ms%1000*1e6, zone)
	ok := year >= 1970 && year < 2200 && month >= 1 && month <= 12 && day >= 1 && int(t.Month()) == month && hour < 24 && minute < 60 && ms < 60000
	return t, ok
}
