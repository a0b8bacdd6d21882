package record

import (
	"math/bits"
	"slices"

	"millrace/drivers/telemetry"
)

// chunkSize is how many numbers are laid out together.
const chunkSize = 128

// chunk is up to chunkSize numbers of one kind on their way between the readings and the stored form.
type chunk struct {
	n         int
	raw       int // floats that are no decimals
	values    [chunkSize]uint64
	sizes     [chunkSize]uint8 // bytes that the value needs, less one
	exponents [chunkSize]uint8 // of floats
}

// The forms of a chunk's sizes and exponents. Below sizes2 and exponents4 the form is the one size or
// exponent of all its numbers.
const (
	sizes2     = 8  // an array of two bits a number
	sizes4     = 9  // an array of four bits a number
	sizesRaw   = 10 // floats only: all are bit patterns, no form of exponents follows
	exponents4 = 16 // an array of four bits a number
)

func isFloat(k telemetry.Kind) bool { return k == telemetry.KindFloat32 || k == telemetry.KindFloat64 }

func floatSize(k telemetry.Kind) int {
	if k == telemetry.KindFloat32 {
		return 4
	}
	return 8
}

func (c *chunk) appendColumn(dst []byte, r *Record, kind telemetry.Kind) []byte {
	for rs := r.Readings; len(rs) > 0; {
		rs = c.gather(rs, r.Time, kind)
		if c.n > 0 {
			dst = c.append(dst, kind)
		}
	}
	return dst
}

// gather fills the chunk with the values of the kind and returns the readings that it has not looked at.
func (c *chunk) gather(rs []telemetry.Reading, at int64, kind telemetry.Kind) (rest []telemetry.Reading) {
	c.n, c.raw = 0, 0
	hint := 0
	for i := range rs {
		v := &rs[i].Value
		if v.Kind != kind {
			continue
		}
		switch kind {
		case telemetry.KindUint:
			c.values[c.n] = v.Bits
		case telemetry.KindInt:
			c.values[c.n] = zigzag(int64(v.Bits))
		case telemetry.KindTime:
			c.values[c.n] = zigzag(int64(v.Bits) - at*10)
		case telemetry.KindFloat32:
			hint = c.setFloat32(uint32(v.Bits), hint)
		case telemetry.KindFloat64:
			hint = c.setFloat64(v.Bits, hint)
		}
		c.n++
		if c.n == chunkSize {
			return rs[i+1:]
		}
	}
	return nil
}

// append writes the chunk: the form of its sizes, for floats that of its exponents, the arrays that the forms
// ask for, then the values' bytes as planes, the highest bytes of all values first: the bytes that hardly
// change from poll to poll lie together, and a compressor finds them.
func (c *chunk) append(dst []byte, kind telemetry.Kind) []byte {
	sizesForm, total := c.measure()
	exponentsForm := byte(0)
	if isFloat(kind) {
		exponentsForm = c.exponentsForm()
		if c.raw > 0 && c.length(sizesForm, exponentsForm, total) >= c.n*floatSize(kind) {
			return c.appendRaw(dst, kind)
		}
	}
	dst = append(dst, sizesForm)
	if isFloat(kind) {
		dst = append(dst, exponentsForm)
	}
	switch sizesForm {
	case sizes2:
		dst = appendPacked(dst, c.sizes[:c.n], 2)
	case sizes4:
		dst = appendPacked(dst, c.sizes[:c.n], 4)
	}
	if exponentsForm == exponents4 {
		dst = appendPacked(dst, c.exponents[:c.n], 4)
	}
	dst, planes := extend(dst, total)
	if sizesForm < sizes2 {
		c.fillEven(planes, int(sizesForm))
	} else {
		c.fillUneven(planes, topSize(sizesForm))
	}
	return dst
}

// appendRaw writes all floats of the chunk as bit patterns.
func (c *chunk) appendRaw(dst []byte, kind telemetry.Kind) []byte {
	c.makeRaw(kind)
	dst, planes := extend(append(dst, sizesRaw), c.n*floatSize(kind))
	c.fillEven(planes, floatSize(kind)-1)
	return dst
}

// extend lengthens dst by n bytes and also returns these.
func extend(dst []byte, n int) (longer, added []byte) {
	at := len(dst)
	dst = slices.Grow(dst, n)[:at+n]
	return dst, dst[at:]
}

// length is how many bytes the chunk takes in these forms, its values so many.
func (c *chunk) length(sizesForm, exponentsForm byte, values int) int {
	n := 2 + values
	if sizesForm >= sizes2 {
		n += (c.n + 3) / 4 * int(sizesForm-sizes2+1)
	}
	if exponentsForm == exponents4 {
		n += (c.n + 1) / 2
	}
	return n
}

// measure sets the sizes and returns their form and the bytes of all values in that form.
func (c *chunk) measure() (form byte, total int) {
	var all uint64
	for i, v := range c.values[:c.n] {
		size := (bits.Len64(v|1) - 1) / 8
		c.sizes[i] = uint8(size)
		total += size
		all |= v
	}
	total += c.n
	largest := (bits.Len64(all|1) - 1) / 8
	even := c.n * (largest + 1)
	switch {
	case largest < 4 && even > total+(c.n+3)/4:
		return sizes2, total
	case largest >= 4 && even > total+(c.n+1)/2:
		return sizes4, total
	}
	return byte(largest), even
}

func (c *chunk) exponentsForm() byte {
	for _, e := range c.exponents[1:c.n] {
		if e != c.exponents[0] {
			return exponents4
		}
	}
	return c.exponents[0]
}

// fillEven writes planes of values of equal size (less one).
func (c *chunk) fillEven(dst []byte, size int) {
	for ; size >= 0; size-- {
		plane := dst[:c.n]
		dst = dst[c.n:]
		for i, v := range c.values[:c.n] {
			plane[i] = byte(v >> (8 * size & 63))
		}
	}
}

// fillUneven writes planes in which only the values that are large enough take part. It writes a byte for
// the others too, which the next overwrites: there is always one, as all take part in the last plane.
func (c *chunk) fillUneven(dst []byte, top int) {
	at := 0
	for size := top; size >= 0; size-- {
		for i, v := range c.values[:c.n] {
			dst[at] = byte(v >> (8 * size & 63))
			at += atLeast(c.sizes[i], size)
		}
	}
}

// topSize is the largest size that an array of sizes can hold.
func topSize(sizesForm byte) int {
	if sizesForm == sizes2 {
		return 3
	}
	return 7
}

// atLeast is 1 if size >= least, else 0.
func atLeast(size uint8, least int) int {
	return int(uint32(least-int(size)-1) >> 31)
}

func (d *decoder) column(c *chunk, rs []telemetry.Reading, at int64, kind telemetry.Kind, count int) {
	for count > 0 && !d.bad {
		c.n = min(chunkSize, count)
		count -= c.n
		d.chunk(c, kind)
		rs = c.scatter(rs, at, kind)
	}
}

// scatter puts the chunk's numbers into the readings of the kind and returns the readings after the last.
func (c *chunk) scatter(rs []telemetry.Reading, at int64, kind telemetry.Kind) (rest []telemetry.Reading) {
	k := 0
	for i := range rs {
		v := &rs[i].Value
		if v.Kind != kind {
			continue
		}
		u := c.values[k&(chunkSize-1)]
		switch kind {
		case telemetry.KindUint:
			v.Bits = u
		case telemetry.KindInt:
			v.Bits = uint64(unzigzag(u))
		case telemetry.KindTime:
			v.Bits = uint64(unzigzag(u) + at*10)
		case telemetry.KindFloat32:
			v.Bits = uint64(c.float32(k, u))
		case telemetry.KindFloat64:
			v.Bits = c.float64(k, u)
		}
		k++
		if k == c.n {
			return rs[i+1:]
		}
	}
	return nil
}

// chunk reads the next c.n numbers.
func (d *decoder) chunk(c *chunk, kind telemetry.Kind) {
	form, exponentsForm := d.byte(), byte(0)
	switch {
	case !isFloat(kind):
	case form == sizesRaw:
		form, exponentsForm = byte(floatSize(kind)-1), rawExponent
	default:
		exponentsForm = d.byte()
	}
	total := d.sizes(c, form, kind)
	if isFloat(kind) {
		d.exponents(c, exponentsForm)
	}
	planes := d.bytes(total)
	switch {
	case d.bad:
	case form < sizes2:
		c.readEven(planes, int(form))
	default:
		c.readUneven(planes, topSize(form))
	}
}

// sizes reads the array of sizes, if the form has one, and returns the bytes of all numbers.
func (d *decoder) sizes(c *chunk, form byte, kind telemetry.Kind) int {
	switch {
	case form == sizes2:
		sum, _ := d.unpack(c.sizes[:c.n], 2)
		return sum + c.n
	case kind == telemetry.KindFloat32 && form > 3: // more than four bytes a number
	case form < sizes2:
		return c.n * int(form+1)
	case form == sizes4:
		if sum, all := d.unpack(c.sizes[:c.n], 4); all < 8 {
			return sum + c.n
		}
	}
	d.fail()
	return 0
}

func (d *decoder) exponents(c *chunk, form byte) {
	switch {
	case form < exponents4:
		for i := range c.exponents[:c.n] {
			c.exponents[i] = form
		}
	case form == exponents4:
		d.unpack(c.exponents[:c.n], 4)
	default:
		d.fail()
	}
}

func (c *chunk) readEven(planes []byte, size int) {
	for i, b := range planes[:c.n] {
		c.values[i&(chunkSize-1)] = uint64(b)
	}
	for ; size > 0; size-- {
		planes = planes[c.n:]
		for i, b := range planes[:c.n] {
			c.values[i&(chunkSize-1)] = c.values[i&(chunkSize-1)]<<8 | uint64(b)
		}
	}
}

// readUneven reads what fillUneven wrote.
func (c *chunk) readUneven(planes []byte, top int) {
	values := c.values[:c.n]
	clear(values)
	at := 0
	for size := top; size >= 0; size-- {
		for i := range values {
			has := atLeast(c.sizes[i], size)
			values[i] = values[i]<<(8*has) | uint64(planes[at])&-uint64(has)
			at += has
		}
	}
}

// appendPacked writes numbers of so many bits (2 or 4), the first in the lowest bits.
func appendPacked(dst []byte, numbers []uint8, width int) []byte {
	acc, n := 0, 0
	for _, b := range numbers {
		acc |= int(b) << n
		if n += width; n == 8 {
			dst = append(dst, byte(acc))
			acc, n = 0, 0
		}
	}
	if n > 0 {
		dst = append(dst, byte(acc))
	}
	return dst
}

// unpack reads what appendPacked wrote and returns the sum of the numbers and their bits or-ed.
func (d *decoder) unpack(numbers []uint8, width int) (sum int, all uint8) {
	packed := d.bytes((len(numbers)*width + 7) / 8)
	if d.bad {
		return 0, 0
	}
	mask := byte(1<<width - 1)
	for i := range numbers {
		bit := i * width
		b := packed[bit>>3] >> (bit & 7) & mask
		numbers[i] = b
		sum += int(b)
		all |= b
	}
	return sum, all
}
