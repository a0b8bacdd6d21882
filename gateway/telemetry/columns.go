package telemetry

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// The columns of a record: the values of each kind together, in the order of the kinds' numbers and,
// within a kind, of the readings. Numbers go in chunks of at most chunkSize.

const chunkSize = 128

// chunk is the numbers of one column, between the readings and their stored form. A number's control
// byte is (bytes-1)<<4 | exponent.
type chunk struct {
	n       int
	control [chunkSize]byte
	values  [chunkSize]uint64
}

// Modes of a chunk: below modeControls it is the control byte of all its numbers.
const modeControls = 0x80

// rawExponent marks a float stored as its bit pattern.
const rawExponent = 15

func appendColumns(dst []byte, r *Record, counts *kindCounts) []byte {
	rs := r.Readings
	if counts[KindBool] > 0 {
		dst = appendBools(dst, rs, counts[KindBool])
	}
	for _, kind := range [...]Kind{KindInt, KindUint, KindFloat32, KindFloat64, KindTime} {
		if counts[kind] > 0 {
			dst = appendNumbers(dst, r, kind)
		}
	}
	if counts[KindString] > 0 {
		dst = appendTexts(dst, rs, KindString)
	}
	if counts[KindArray] > 0 {
		for i := range rs {
			if rs[i].Value.Kind == KindArray {
				dst = binary.AppendUvarint(dst, rs[i].Value.Bits)
			}
		}
		dst = appendTexts(dst, rs, KindArray)
	}
	return dst
}

func (d *decoder) columns(rs []Reading, at int64, counts *kindCounts) {
	if d.bad {
		return
	}
	if counts[KindBool] > 0 {
		d.bools(rs, counts[KindBool])
	}
	for _, kind := range [...]Kind{KindInt, KindUint, KindFloat32, KindFloat64, KindTime} {
		if counts[kind] > 0 {
			d.numbers(rs, at, kind, counts[kind])
		}
	}
	if counts[KindString] > 0 {
		d.texts(rs, KindString)
	}
	if counts[KindArray] > 0 {
		for i := range rs {
			if rs[i].Value.Kind == KindArray {
				rs[i].Value.Bits = d.uvarint()
			}
		}
		d.texts(rs, KindArray)
		d.checkArrays(rs)
	}
}

func appendBools(dst []byte, rs []Reading, n int) []byte {
	at := len(dst)
	dst = appendZeros(dst, (n+7)/8)
	k := 0
	for i := range rs {
		if rs[i].Value.Kind == KindBool {
			dst[at+k/8] |= byte(rs[i].Value.Bits&1) << (k % 8)
			k++
		}
	}
	return dst
}

func (d *decoder) bools(rs []Reading, n int) {
	packed := d.bytes((n + 7) / 8)
	if d.bad {
		return
	}
	k := 0
	for i := range rs {
		if rs[i].Value.Kind == KindBool {
			rs[i].Value.Bits = uint64(packed[k/8] >> (k % 8) & 1)
			k++
		}
	}
}

// appendTexts writes the lengths of all texts, then all texts.
func appendTexts(dst []byte, rs []Reading, kind Kind) []byte {
	for i := range rs {
		if rs[i].Value.Kind == kind {
			dst = binary.AppendUvarint(dst, uint64(len(rs[i].Value.Text)))
		}
	}
	for i := range rs {
		if rs[i].Value.Kind == kind {
			dst = append(dst, rs[i].Value.Text...)
		}
	}
	return dst
}

func (d *decoder) texts(rs []Reading, kind Kind) {
	lengths := decoder{src: d.src}
	for i := range rs {
		if rs[i].Value.Kind == kind {
			d.uvarint()
		}
	}
	for i := range rs {
		if rs[i].Value.Kind == kind {
			rs[i].Value.Text = d.text(lengths.count(len(d.src)))
			d.bad = d.bad || lengths.bad
		}
	}
}

// checkArrays refuses arrays that Elements could not walk or whose count is not theirs.
func (d *decoder) checkArrays(rs []Reading) {
	for i := range rs {
		if v := rs[i].Value; v.Kind == KindArray && !d.bad {
			n := uint64(0)
			if !v.Elements(func(Value) bool { n++; return true }) || n != v.Bits {
				d.fail()
			}
		}
	}
}

func appendNumbers(dst []byte, r *Record, kind Kind) []byte {
	var c chunk
	hint := 0
	for i := range r.Readings {
		v := r.Readings[i].Value
		if v.Kind != kind {
			continue
		}
		switch kind {
		case KindInt:
			c.put(zigzag(int64(v.Bits)), 0)
		case KindUint:
			c.put(v.Bits, 0)
		case KindTime:
			c.put(zigzag(int64(v.Bits)-r.Time*10), 0)
		case KindFloat32:
			hint = c.putFloat32(uint32(v.Bits), hint)
		case KindFloat64:
			hint = c.putFloat64(v.Bits, hint)
		}
		if c.n == chunkSize {
			dst = c.append(dst, kind)
			c.n = 0
		}
	}
	if c.n > 0 {
		dst = c.append(dst, kind)
	}
	return dst
}

func (c *chunk) put(u uint64, exponent int) {
	size := (bits.Len64(u|1) - 1) / 8
	c.control[c.n] = byte(size<<4 | exponent)
	c.values[c.n] = u
	c.n++
}

func (d *decoder) numbers(rs []Reading, at int64, kind Kind, count int) {
	var c chunk
	k := 0
	for i := range rs {
		v := &rs[i].Value
		if v.Kind != kind {
			continue
		}
		if k == c.n {
			k, c.n = 0, min(chunkSize, count)
			count -= c.n
			if !d.chunk(&c) {
				return
			}
		}
		u, exponent := c.values[k], c.control[k]&15
		k++
		switch kind {
		case KindInt:
			v.Bits = uint64(unzigzag(u))
		case KindUint:
			v.Bits = u
		case KindTime:
			v.Bits = uint64(unzigzag(u) + at*10)
		case KindFloat32:
			if exponent != rawExponent {
				u = uint64(math.Float32bits(float32FromDecimal(float64(unzigzag(u)), int(exponent))))
			}
			v.Bits = uint64(uint32(u))
		case KindFloat64:
			if exponent != rawExponent {
				u = math.Float64bits(float64FromDecimal(float64(unzigzag(u)), int(exponent)))
			}
			v.Bits = u
		}
	}
}

// append writes the chunk in the shorter of its forms.
func (c *chunk) append(dst []byte, kind Kind) []byte {
	controls := c.control[:c.n]
	all, largest, sum := controls[0], byte(0), c.n
	same := true
	for _, b := range controls {
		same = same && b&15 == all&15
		largest = max(largest, b>>4)
		sum += int(b>>4) + 1
	}
	uniform := c.n * int(largest+1)
	switch {
	case kind == KindFloat32 && sum >= 4*c.n && !(same && uniform < 4*c.n):
		return c.appendRaw(dst, 4)
	case kind == KindFloat64 && sum >= 8*c.n && !(same && uniform < 8*c.n):
		return c.appendRaw(dst, 8)
	case same && uniform <= sum:
		dst = append(dst, largest<<4|all&15)
		for i := range controls {
			controls[i] = largest << 4
		}
	default:
		dst = append(dst, modeControls)
		dst = append(dst, controls...)
	}
	for i, v := range c.values[:c.n] {
		for range controls[i]>>4 + 1 {
			dst = append(dst, byte(v))
			v >>= 8
		}
	}
	return dst
}

func (c *chunk) appendRaw(dst []byte, size int) []byte {
	dst = append(dst, byte(size-1)<<4|rawExponent)
	for i, v := range c.values[:c.n] {
		if e := int(c.control[i] & 15); e != rawExponent {
			if size == 4 {
				v = uint64(math.Float32bits(float32FromDecimal(float64(unzigzag(v)), e)))
			} else {
				v = math.Float64bits(float64FromDecimal(float64(unzigzag(v)), e))
			}
		}
		for range size {
			dst = append(dst, byte(v))
			v >>= 8
		}
	}
	return dst
}

// chunk reads the next c.n numbers.
func (d *decoder) chunk(c *chunk) bool {
	head := d.bytes(1)
	if d.bad || head[0] > modeControls {
		d.fail()
		return false
	}
	if head[0] == modeControls {
		copy(c.control[:c.n], d.bytes(c.n))
	} else {
		for i := range c.control[:c.n] {
			c.control[i] = head[0]
		}
	}
	if d.bad {
		return false
	}
	for i, b := range c.control[:c.n] {
		size := int(b>>4) + 1
		if b >= 0x80 || size > len(d.src) {
			d.fail()
			return false
		}
		v := uint64(0)
		for j := size - 1; j >= 0; j-- {
			v = v<<8 | uint64(d.src[j])
		}
		d.src = d.src[size:]
		c.values[i] = v
	}
	return true
}
