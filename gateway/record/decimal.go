package record

import (
	"math"

	"millrace/drivers/telemetry"
)

// Decimals: most floats of a plant are decimals of few digits (21.53), which a whole number and an exponent
// hold in less space than their bit pattern: 2153, 2. A float is stored so only if the reverse gives
// exactly its bits, so that -0, infinities, NaNs and everything odd fall back to the bit pattern.

// rawExponent marks a float stored as its bit pattern.
const rawExponent = 15

const (
	maxExponent32 = 7
	maxExponent64 = 14
	maxDecimal32  = 1 << 23 // with its sign one byte less than the bit pattern
	maxDecimal64  = 1 << 47 // two bytes less than the bit pattern
	roundToWhole  = 3 << 51 // x + this - this is x rounded to a whole number, for |x| < 2^51
)

// The powers 10^e, and the float64 nearest to 10^-e.
var (
	powers   = [16]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14}
	inverses = [16]float64{1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14}
)

// fromDecimal32 and fromDecimal64 are part of the stored form and may not change. The division makes a
// float64 correctly rounded, as every decimal that was parsed or divided is; for a float32 the faster
// product is close enough.
func fromDecimal32(whole float64, e int) uint32 {
	return math.Float32bits(float32(whole * inverses[e&15]))
}

func fromDecimal64(whole float64, e int) uint64 {
	return math.Float64bits(whole / powers[e&15])
}

// toDecimal32 returns the whole number that stands for x with exponent e, if fromDecimal32 restores b from it.
func toDecimal32(x float64, b uint32, e int) (whole float64, ok bool) {
	whole = float64(x*powers[e&15]) + roundToWhole - roundToWhole
	return whole, math.Abs(whole) < maxDecimal32 && fromDecimal32(whole, e) == b
}

// toDecimal64 does the same for a float64. The first comparison spares most vain divisions.
func toDecimal64(x float64, b uint64, e int) (whole float64, ok bool) {
	scaled := float64(x * powers[e&15])
	whole = scaled + roundToWhole - roundToWhole
	far := math.Abs(whole-scaled) > math.Abs(scaled)*0x1p-51
	return whole, !far && math.Abs(whole) < maxDecimal64 && fromDecimal64(whole, e) == b
}

// setFloat32 sets the next number and returns the exponent to try first for the one after: its own. That a
// number such as 21.5 keeps the exponent 2 of its neighbour makes the exponents alike from poll to poll.
func (c *chunk) setFloat32(b uint32, hint int) int {
	x := float64(math.Float32frombits(b))
	if whole, ok := toDecimal32(x, b, hint); ok {
		return c.setDecimal(trimmed(int64(whole), hint))
	}
	if c.searching() {
		for e := 0; e <= maxExponent32; e++ {
			if whole, ok := toDecimal32(x, b, e); ok {
				return c.setDecimal(int64(whole), e)
			}
		}
	}
	c.setRaw(uint64(b))
	return hint
}

func (c *chunk) setFloat64(b uint64, hint int) int {
	x := math.Float64frombits(b)
	if whole, ok := toDecimal64(x, b, hint); ok {
		return c.setDecimal(trimmed(int64(whole), hint))
	}
	if c.searching() {
		for e := 0; e <= maxExponent64; e++ {
			if whole, ok := toDecimal64(x, b, e); ok {
				return c.setDecimal(int64(whole), e)
			}
		}
	}
	c.setRaw(b)
	return hint
}

// searching is false once so many floats of the chunk are no decimals that the search is not worth its time.
func (c *chunk) searching() bool { return c.raw < 8+c.n/2 }

func (c *chunk) setDecimal(whole int64, e int) int {
	c.values[c.n], c.exponents[c.n] = zigzag(whole), uint8(e)
	return e
}

// trimmed takes the zeros from the end of a whole number where there are two or more: they are the hint's
// fault and cost space. The result stands for the same float: a float64 is the same quotient; for float32
// TestTrimmed tries all there are.
func trimmed(whole int64, e int) (int64, int) {
	if e >= 2 && whole%100 == 0 && whole != 0 {
		for e > 0 && whole%10 == 0 {
			whole, e = whole/10, e-1
		}
	}
	return whole, e
}

func (c *chunk) setRaw(b uint64) {
	c.values[c.n], c.exponents[c.n] = b, rawExponent
	c.raw++
}

// float32 and float64 return the bit pattern of the number v that has index k.
func (c *chunk) float32(k int, v uint64) uint32 {
	e := int(c.exponents[k])
	if e == rawExponent {
		return uint32(v)
	}
	return fromDecimal32(float64(unzigzag(v)), e)
}

func (c *chunk) float64(k int, v uint64) uint64 {
	e := int(c.exponents[k])
	if e == rawExponent {
		return v
	}
	return fromDecimal64(float64(unzigzag(v)), e)
}

// makeRaw turns all numbers of the chunk back to bit patterns.
func (c *chunk) makeRaw(kind telemetry.Kind) {
	for k, v := range c.values[:c.n] {
		if kind == telemetry.KindFloat32 {
			c.values[k] = uint64(c.float32(k, v))
		} else {
			c.values[k] = c.float64(k, v)
		}
	}
}
