package telemetry

import "math"

// DataType is what type of value a tag has: the kind and, for numbers, the width that the device uses. Formats with typed
// births (Sparkplug) need it before the first value.
type DataType uint8

// The data types. Their numbers are stored on disk: append, never renumber.
const (
	AnyType DataType = iota // not known yet
	BoolType
	Int8Type
	Int16Type
	Int32Type
	Int64Type
	Uint8Type
	Uint16Type
	Uint32Type
	Uint64Type
	Float32Type
	Float64Type
	StringType
	TimeType
	ArrayType
	EventType // a text that is one JSON object: what happened, not how something is
	dataTypeEnd
)

var dataTypeNames = [dataTypeEnd]string{"", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
	"float32", "float64", "string", "time", "array", "event"}

// String returns the type's word, "" for AnyType and for a number that this version does not know.
func (t DataType) String() string {
	if t >= dataTypeEnd {
		return ""
	}
	return dataTypeNames[t]
}

// Known reports whether the type says anything.
func (t DataType) Known() bool { return t != AnyType && t < dataTypeEnd }

// Kind returns the kind that values of the type have, KindNone for AnyType.
func (t DataType) Kind() Kind {
	switch {
	case t == BoolType:
		return KindBool
	case t >= Int8Type && t <= Int64Type:
		return KindInt
	case t >= Uint8Type && t <= Uint64Type:
		return KindUint
	case t == Float32Type:
		return KindFloat32
	case t == Float64Type:
		return KindFloat64
	case t == StringType || t == EventType:
		return KindString
	case t == TimeType:
		return KindTime
	case t == ArrayType:
		return KindArray
	}
	return KindNone
}

// DataTypeOf returns the widest type of a kind: what a value shows of its tag's type where nothing else is known.
func DataTypeOf(k Kind) DataType {
	switch k {
	case KindBool:
		return BoolType
	case KindInt:
		return Int64Type
	case KindUint:
		return Uint64Type
	case KindFloat32:
		return Float32Type
	case KindFloat64:
		return Float64Type
	case KindString:
		return StringType
	case KindTime:
		return TimeType
	case KindArray:
		return ArrayType
	}
	return AnyType
}

// Bounds returns the least and the most that a whole type holds, of 64 bits as nearly as a float64 can say it; infinities for
// every other type.
func (t DataType) Bounds() (least, most float64) {
	switch t {
	case Int8Type:
		return math.MinInt8, math.MaxInt8
	case Int16Type:
		return math.MinInt16, math.MaxInt16
	case Int32Type:
		return math.MinInt32, math.MaxInt32
	case Int64Type:
		return math.MinInt64, math.MaxInt64
	case Uint8Type:
		return 0, math.MaxUint8
	case Uint16Type:
		return 0, math.MaxUint16
	case Uint32Type:
		return 0, math.MaxUint32
	case Uint64Type:
		return 0, math.MaxUint64
	}
	return math.Inf(-1), math.Inf(1)
}

// Scaled returns the type after scaling: a float32 keeps its width, every other number becomes a float64.
func (t DataType) Scaled() DataType {
	switch t.Kind() {
	case KindInt, KindUint, KindFloat64:
		return Float64Type
	}
	return t
}
