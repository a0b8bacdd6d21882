package telemetry

import "testing"

func TestDataTypes(t *testing.T) {
	for _, c := range []struct {
		t      DataType
		number uint8 // stored on disk
		word   string
		kind   Kind
		scaled DataType
	}{
		{AnyType, 0, "", KindNone, AnyType},
		{BoolType, 1, "bool", KindBool, BoolType},
		{Int8Type, 2, "int8", KindInt, Float64Type},
		{Int16Type, 3, "int16", KindInt, Float64Type},
		{Int32Type, 4, "int32", KindInt, Float64Type},
		{Int64Type, 5, "int64", KindInt, Float64Type},
		{Uint8Type, 6, "uint8", KindUint, Float64Type},
		{Uint16Type, 7, "uint16", KindUint, Float64Type},
		{Uint32Type, 8, "uint32", KindUint, Float64Type},
		{Uint64Type, 9, "uint64", KindUint, Float64Type},
		{Float32Type, 10, "float32", KindFloat32, Float32Type},
		{Float64Type, 11, "float64", KindFloat64, Float64Type},
		{StringType, 12, "string", KindString, StringType},
		{TimeType, 13, "time", KindTime, TimeType},
		{ArrayType, 14, "array", KindArray, ArrayType},
		{EventType, 15, "event", KindString, EventType},
		{dataTypeEnd, 16, "", KindNone, dataTypeEnd}, // of a later version: kept, and says nothing
		{255, 255, "", KindNone, 255},
	} {
		if uint8(c.t) != c.number || c.t.String() != c.word || c.t.Kind() != c.kind || c.t.Scaled() != c.scaled {
			t.Errorf("%d: %q, kind %d, scaled %d; want number %d and %+v", c.t, c.t, c.t.Kind(), c.t.Scaled(), c.number, c)
		}
		if known := c.word != ""; c.t.Known() != known {
			t.Errorf("%d: known is %v", c.t, !known)
		}
	}
}

// TestDataTypeOf: the widest type of each kind, which has that kind.
func TestDataTypeOf(t *testing.T) {
	for k := KindNone; k < kindEnd; k++ {
		got := DataTypeOf(k)
		if got.Kind() != k || got.Known() != (k != KindNone) {
			t.Errorf("kind %d: type %d has kind %d", k, got, got.Kind())
		}
		for other := range dataTypeEnd {
			if numeric := k == KindInt || k == KindUint; numeric && other.Kind() == k && other > got {
				t.Errorf("kind %d: %v is wider than %v", k, other, got)
			}
		}
	}
	if got := DataTypeOf(200); got != AnyType {
		t.Errorf("unknown kind: %v", got)
	}
}
