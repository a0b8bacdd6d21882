package record

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestTrimmed tries every float32 decimal that can be trimmed: the shorter form must stand for the same bits.
func TestTrimmed(t *testing.T) {
	for e := 2; e <= maxExponent32; e++ {
		for whole := int64(100); whole < maxDecimal32; whole += 100 {
			short, shortE := trimmed(whole, e)
			if fromDecimal32(float64(short), shortE) != fromDecimal32(float64(whole), e) {
				t.Fatalf("%d/10^%d and %d/10^%d differ", whole, e, short, shortE)
			}
		}
	}
}

// TestDecimalsFound: whatever a plant shows as a decimal is stored as one, whether it was parsed, divided or
// rounded to float32.
func TestDecimalsFound(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200000 {
		e := rng.IntN(maxExponent64 + 1)
		x := float64(rng.Int64N(maxDecimal64)>>rng.IntN(47)) / math.Pow10(e)
		if _, ok := toDecimal64(x, math.Float64bits(x), e); !ok {
			t.Fatalf("%v is no decimal with exponent %d", x, e)
		}
		e = rng.IntN(maxExponent32 + 1)
		y := float32(float64(rng.Int64N(maxDecimal32)>>rng.IntN(23)) / math.Pow10(e))
		if _, ok := toDecimal32(float64(y), math.Float32bits(y), e); !ok {
			t.Fatalf("float32 %v is no decimal with exponent %d", y, e)
		}
	}
}
