package telemetry

import (
	"encoding/binary"
	"math"
	"time"
	"unsafe"
)

// Kind says which type a Value holds.
type Kind uint8

// The kinds of value. Their numbers are stored on disk: append, never renumber.
const (
	KindNone    Kind = iota // no value: the reading is bad
	KindBool                // Bits is 0 or 1
	KindInt                 // Bits is an int64
	KindUint                // Bits is a uint64
	KindFloat32             // Bits is the IEEE 754 binary32 pattern in the low 32 bits
	KindFloat64             // Bits is the IEEE 754 binary64 pattern
	KindString              // Text is UTF-8, not checked
	KindTime                // Bits is an int64 of 100 ns ticks since 1970-01-01 UTC (the resolution of OPC UA DateTime)
	KindArray               // Text is the packed elements, see Array
	kindEnd
)

// Value is one value of one tag: a number in Bits or a text in Text, as Kind says.
// It is small, copied freely and never changed in place.
type Value struct {
	Bits uint64
	Text string
	Kind Kind
}

// Bool returns a boolean value.
func Bool(v bool) Value {
	if v {
		return Value{Kind: KindBool, Bits: 1}
	}
	return Value{Kind: KindBool}
}

// Int returns a signed integer value.
func Int(v int64) Value { return Value{Kind: KindInt, Bits: uint64(v)} }

// Uint returns an unsigned integer value.
func Uint(v uint64) Value { return Value{Kind: KindUint, Bits: v} }

// Float32 returns a single precision value; its bit pattern is kept exactly.
func Float32(v float32) Value { return Value{Kind: KindFloat32, Bits: uint64(math.Float32bits(v))} }

// Float64 returns a double precision value; its bit pattern is kept exactly.
func Float64(v float64) Value { return Value{Kind: KindFloat64, Bits: math.Float64bits(v)} }

// String returns a text value.
func String(v string) Value { return Value{Kind: KindString, Text: v} }

// Time returns a date-time value with the resolution of 100 ns.
func Time(t time.Time) Value {
	ticks := t.Unix()*1e7 + int64(t.Nanosecond()/100)
	return Value{Kind: KindTime, Bits: uint64(ticks)}
}

// AsTime returns the date-time that a KindTime value holds, in UTC.
func (v Value) AsTime() time.Time {
	ticks := int64(v.Bits)
	sec := ticks / 1e7
	return time.Unix(sec, (ticks-sec*1e7)*100).UTC()
}

// Float returns a numeric or boolean value as a float64 and whether it is one.
func (v Value) Float() (float64, bool) {
	switch v.Kind {
	case KindBool, KindUint:
		return float64(v.Bits), true
	case KindInt:
		return float64(int64(v.Bits)), true
	case KindFloat32:
		return float64(math.Float32frombits(uint32(v.Bits))), true
	case KindFloat64:
		return math.Float64frombits(v.Bits), true
	}
	return 0, false
}

// Array returns an array value of the elements. Elements may be of different kinds; an element
// that is itself an array keeps its shape (OPC UA multi-dimensional arrays become arrays of arrays).
// Arrays may be nested 31 deep in an array; a record with deeper ones cannot be decoded.
func Array(elems []Value) Value {
	var b []byte
	for _, e := range elems {
		b = append(b, byte(e.Kind))
		if e.Kind != KindString {
			b = binary.AppendUvarint(b, e.Bits)
		}
		if e.hasText() {
			b = binary.AppendUvarint(b, uint64(len(e.Text)))
			b = append(b, e.Text...)
		}
	}
	return Value{Kind: KindArray, Text: unsafe.String(unsafe.SliceData(b), len(b)), Bits: uint64(len(elems))}
}

func (v Value) hasText() bool { return v.Kind == KindString || v.Kind == KindArray }

// Elements calls yield for each element of an array value, in order, until yield returns false.
// It returns false when the packed form is damaged. Texts of elements alias the array's text.
func (v Value) Elements(yield func(Value) bool) bool {
	for s := v.Text; len(s) > 0; {
		e := Value{Kind: Kind(s[0])}
		s = s[1:]
		if e.Kind >= kindEnd {
			return false
		}
		if e.Kind != KindString {
			n, w := uvarint(s)
			if w <= 0 {
				return false
			}
			e.Bits, s = n, s[w:]
		}
		if e.hasText() {
			n, w := uvarint(s)
			if w <= 0 || n > uint64(len(s)-w) {
				return false
			}
			e.Text, s = s[w:w+int(n)], s[w+int(n):]
		}
		if !yield(e) {
			return true
		}
	}
	return true
}

// MaxNesting is how many arrays deep an array may be, itself included. It bounds every reader's recursion.
const MaxNesting = 32

// Whole reports whether an array value and all arrays in it can be walked to the end, hold as many
// elements as they say and are at most 32 deep.
func (v Value) Whole() bool { return v.whole(0) }

func (v Value) whole(nesting int) bool {
	if nesting == MaxNesting {
		return false
	}
	n, good := uint64(0), true
	walked := v.Elements(func(e Value) bool {
		n++
		good = e.Kind != KindArray || e.whole(nesting+1)
		return good
	})
	return walked && good && n == v.Bits
}

func uvarint(s string) (uint64, int) {
	return binary.Uvarint(unsafe.Slice(unsafe.StringData(s), min(len(s), binary.MaxVarintLen64)))
}
