package telemetry

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

func roundTrip(t *testing.T, r *Record) []byte {
	t.Helper()
	b := AppendRecord(nil, r)
	var got Record
	if err := DecodeRecord(b, &got); err != nil {
		t.Fatalf("decode %x: %v", b, err)
	}
	if got.Time != r.Time || len(got.Readings) != len(r.Readings) {
		t.Fatalf("got time %d with %d readings, want %d with %d", got.Time, len(got.Readings), r.Time, len(r.Readings))
	}
	for i := range r.Readings {
		if !reflect.DeepEqual(got.Readings[i], r.Readings[i]) {
			t.Fatalf("reading %d:\n got %+v\nwant %+v", i, got.Readings[i], r.Readings[i])
		}
	}
	return b
}

// randomRecord is any record that the rules allow, with all that is seldom.
func randomRecord(rng *rand.Rand) *Record {
	at := rng.Int64()
	n := rng.IntN(300)
	reasons := []string{"", "timeout", "illegal address", "x", string(make([]byte, 300))}
	r := &Record{Time: at}
	order := rng.IntN(4)
	tag := 0
	kinds := 1 + rng.IntN(int(kindEnd))
	for i := range n {
		switch order {
		case 0:
			tag = i
		case 1:
			tag += 1 + rng.IntN(3)
		case 2:
			tag += 1 + rng.IntN(300)
		case 3:
			tag = rng.IntN(MaxTags)
		}
		rd := Reading{Tag: uint32(tag), Time: at, Value: randomValue(rng, kinds)}
		if rng.IntN(20) == 0 {
			rd.Time = rng.Int64N(1<<62) - 1<<61
		}
		if rng.IntN(10) == 0 {
			rd.Quality, rd.Reason = Quality(rng.IntN(3)), reasons[rng.IntN(len(reasons))]
		}
		r.Readings = append(r.Readings, rd)
	}
	return r
}

func randomValue(rng *rand.Rand, kinds int) Value {
	size := rng.IntN(65)
	u := rng.Uint64() >> (size & 63)
	switch Kind(rng.IntN(kinds)) {
	case KindBool:
		return Bool(u&1 == 1)
	case KindInt:
		return Int(int64(u))
	case KindUint:
		return Uint(u)
	case KindFloat32:
		if rng.IntN(2) == 0 {
			return Value{Kind: KindFloat32, Bits: uint64(uint32(rng.Uint64()))}
		}
		return Float32(float32(float64(rng.IntN(100000)-50000) / math.Pow10(rng.IntN(6))))
	case KindFloat64:
		if rng.IntN(2) == 0 {
			return Value{Kind: KindFloat64, Bits: u}
		}
		return Float64(float64(rng.IntN(100000)-50000) / math.Pow10(rng.IntN(6)))
	case KindString:
		return String(string(make([]byte, rng.IntN(200))))
	case KindTime:
		return Value{Kind: KindTime, Bits: u}
	case KindArray:
		return Array([]Value{Int(int64(u)), String("abc"), Array([]Value{Float32(1.5)})})
	}
	return Value{}
}

func TestRecordRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 3000 {
		roundTrip(t, randomRecord(rng))
	}
}
