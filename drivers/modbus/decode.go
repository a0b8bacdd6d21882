package modbus

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unsafe"

	"millrace/drivers/telemetry"
)

// op is one line of the flat table by which an answer becomes readings: what stands at reg is of this
// kind and belongs to this tag. It is made once, when the driver is.
type op struct {
	reg   uint32 // register or bit, 0-based in its table
	tag   uint32
	arg   uint16 // kindBool of a register: which bit; kindString: length in bytes
	kind  kind
	order order
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
		case kindString:
			set(r, o.tag, telemetry.KindString, 0, at)
			r.Value.Text = g.text(o, p)
		}
	}
}

// decodeBits turns the bits of one answer into readings.
func decodeBits(ops []op, data []bool, first uint32, at int64, out []telemetry.Reading) {
	for i := range ops {
		o := &ops[i]
		var bit uint64
		if data[o.reg-first] {
			bit = 1
		}
		set(&out[o.tag], o.tag, telemetry.KindBool, bit, at)
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

// of32 brings the four bytes of a value into the order ABCD.
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

// of64 brings the eight bytes of a value into the order ABCDEFGH.
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

// text returns the characters of a string up to the first NUL, less the blanks that pad it. A text that
// did not change since the last poll is not copied again.
func (g *group) text(o *op, p []byte) string {
	p = p[:(o.arg+1)&^1]
	var swapped [250]byte
	if o.order == orderBADC {
		for i := 0; i < len(p); i += 2 {
			swapped[i], swapped[i+1] = p[i+1], p[i]
		}
		p = swapped[:len(p)]
	}
	p = p[:o.arg]
	if end := bytes.IndexByte(p, 0); end >= 0 {
		p = p[:end]
	}
	p = bytes.TrimRight(p, " ")
	if last := g.texts[o.tag]; last == unsafe.String(unsafe.SliceData(p), len(p)) {
		return last
	}
	g.texts[o.tag] = string(p)
	return g.texts[o.tag]
}
