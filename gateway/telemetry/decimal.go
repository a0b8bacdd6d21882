package telemetry

import "math"

// Decimals: most floats of a plant are decimals of few digits (21.53), which an integer and an exponent
// hold in less space than their bit pattern: 2153, 2. A float is stored so only if the reverse gives
// exactly its bits, so that -0, infinities, NaNs and everything odd fall back to the bit pattern.

// powers and inverses are 10^e and the float64 nearest to 10^-e.
var (
	powers   = [16]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}
	inverses = [16]float64{1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 1e-15}
)

const (
	maxExponent32 = 7
	maxExponent64 = 14
	maxDecimal32  = 1 << 23 // one byte less than the bit pattern, with its sign
	maxDecimal64  = 1 << 47 // two bytes less than the bit pattern
	roundToWhole  = 3 << 51 // x + this - this is x rounded to a whole number, for |x| < 2^51
)

// float32FromDecimal and float64FromDecimal are part of the stored format: they may not change. The division
// makes the float64 correctly rounded; a float32 is far from needing it.
func float32FromDecimal(whole float64, exponent int) float32 {
	return float32(whole * inverses[exponent&15])
}

func float64FromDecimal(whole float64, exponent int) float64 {
	return whole / powers[exponent&15]
}

// putFloat32 adds a float32 and returns the exponent to try first for the next.
func (c *chunk) putFloat32(b uint32, hint int) int {
	x := float64(math.Float32frombits(b))
	if whole, ok := decimal32(x, b, hint); ok {
		c.put(zigzag(int64(whole)), hint)
		return hint
	}
	for e := 0; e <= maxExponent32; e++ {
		if whole, ok := decimal32(x, b, e); ok {
			c.put(zigzag(int64(whole)), e)
			return e
		}
	}
	c.put(uint64(b), rawExponent)
	return hint
}

func decimal32(x float64, b uint32, e int) (float64, bool) {
	whole := float64(x*powers[e&15]) + roundToWhole - roundToWhole
	return whole, math.Abs(whole) < maxDecimal32 && math.Float32bits(float32FromDecimal(whole, e)) == b
}

// putFloat64 adds a float64 and returns the exponent to try first for the next.
func (c *chunk) putFloat64(b uint64, hint int) int {
	x := math.Float64frombits(b)
	if whole, ok := decimal64(x, b, hint); ok {
		c.put(zigzag(int64(whole)), hint)
		return hint
	}
	for e := 0; e <= maxExponent64; e++ {
		if whole, ok := decimal64(x, b, e); ok {
			c.put(zigzag(int64(whole)), e)
			return e
		}
	}
	c.put(b, rawExponent)
	return hint
}

func decimal64(x float64, b uint64, e int) (float64, bool) {
	whole := float64(x*powers[e&15]) + roundToWhole - roundToWhole
	return whole, math.Abs(whole) < maxDecimal64 && math.Float64bits(float64FromDecimal(whole, e)) == b
}
