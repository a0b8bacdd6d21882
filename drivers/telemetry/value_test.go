package telemetry

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestValueFloat(t *testing.T) {
	for _, c := range []struct {
		value Value
		want  float64
		ok    bool
	}{
		{Bool(true), 1, true},
		{Bool(false), 0, true},
		{Int(-40000), -40000, true},
		{Uint(math.MaxUint64), 1 << 64, true},
		{Float32(0.5), 0.5, true},
		{Float64(-0.1), -0.1, true},
		{String("1"), 0, false},
		{Time(time.Unix(1, 0)), 0, false},
		{Array([]Value{Int(1)}), 0, false},
		{Value{}, 0, false},
	} {
		if got, ok := c.value.Float(); got != c.want || ok != c.ok {
			t.Errorf("%+v: got %v, %v, want %v, %v", c.value, got, ok, c.want, c.ok)
		}
	}
}

func TestValueKeepsFloatBits(t *testing.T) {
	if v := Float64(math.Copysign(0, -1)); v.Bits != 1<<63 {
		t.Errorf("-0 as float64: bits %x", v.Bits)
	}
	if v := Float32(math.Float32frombits(0x7fc12345)); v.Bits != 0x7fc12345 {
		t.Errorf("a NaN as float32: bits %x", v.Bits)
	}
}

func TestValueTime(t *testing.T) {
	for _, at := range []time.Time{
		time.Date(2026, 11, 23, 10, 30, 0, 123456700, time.UTC),
		time.Date(1601, 1, 1, 0, 0, 0, 0, time.UTC), // the first of OPC UA
		time.Date(1969, 12, 31, 23, 59, 59, 999999900, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		time.Unix(0, 0).UTC(),
		{},
	} {
		if got := Time(at).AsTime(); got != at {
			t.Errorf("got %v, want %v", got, at)
		}
	}
	east := time.Date(2026, 1, 1, 1, 0, 0, 199, time.FixedZone("east", 3600))
	if got, want := Time(east).AsTime(), time.Date(2026, 1, 1, 0, 0, 0, 100, time.UTC); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func elements(v Value) (es []Value, whole bool) {
	whole = v.Elements(func(e Value) bool { es = append(es, e); return true })
	return es, whole
}

func TestArrayElements(t *testing.T) {
	inner := Array([]Value{Int(1), Int(2)})
	for _, want := range [][]Value{
		nil,
		{Int(-3), Uint(3), Bool(true), Bool(false), {}},
		{Float32(21.53), Float64(math.Inf(-1)), ticks(-1)},
		{String(""), String("a\x00b")},
		{inner, inner, Array(nil), Array([]Value{inner})},
	} {
		v := Array(want)
		if v.Kind != KindArray || v.Bits != uint64(len(want)) {
			t.Errorf("array of %+v: kind %d, count %d", want, v.Kind, v.Bits)
		}
		if got, whole := elements(v); !whole || !slices.Equal(got, want) {
			t.Errorf("got %+v (whole: %v), want %+v", got, whole, want)
		}
	}
}

func TestElementsStops(t *testing.T) {
	n := 0
	if !Array([]Value{Int(1), Int(2), Int(3)}).Elements(func(Value) bool { n++; return n < 2 }) || n != 2 {
		t.Errorf("stopped after %d", n)
	}
}

func TestElementsDamaged(t *testing.T) {
	for name, text := range map[string]string{
		"unknown kind":   "\x09\x00",
		"no bits":        "\x02",
		"bits too long":  "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"no length":      "\x06",
		"text too long":  "\x06\x03ab",
		"array, no text": "\x08\x01",
		"huge length":    "\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01a",
		"second damaged": "\x02\x02\x06\x05",
	} {
		if es, whole := elements(Value{Kind: KindArray, Text: text}); whole {
			t.Errorf("%s: taken for whole: %+v", name, es)
		}
	}
}

func TestQualityString(t *testing.T) {
	for q, want := range map[Quality]string{Good: "good", Uncertain: "uncertain", Bad: "bad", 200: "bad"} {
		if got := q.String(); got != want {
			t.Errorf("quality %d: got %q, want %q", q, got, want)
		}
	}
}

func TestTagScaled(t *testing.T) {
	for _, c := range []struct {
		tag  Tag
		want bool
	}{
		{Tag{}, false}, {Tag{Scale: 1}, false}, {Tag{Scale: 0.1}, true}, {Tag{Offset: -40}, true}, {Tag{Scale: 1, Offset: 1}, true}, {Tag{Scale: -1}, true},
	} {
		if got := c.tag.Scaled(); got != c.want {
			t.Errorf("%+v: got %v", c.tag, got)
		}
	}
}

func TestBadReading(t *testing.T) {
	want := Reading{Tag: 3, Time: 5, Quality: Bad, Reason: "timeout"}
	if got := BadReading(3, 5, "timeout"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func ticks(t int64) Value { return Value{Kind: KindTime, Bits: uint64(t)} }
