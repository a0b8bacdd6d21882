package modbus

import (
	"fmt"
	"strings"

	"millrace/drivers/telemetry"
)

// kind is how the bytes of a tag become a value.
type kind uint8

const (
	kindBool kind = iota // a coil, a discrete input or one bit of a register
	kindInt16
	kindUint16
	kindInt32
	kindUint32
	kindFloat32
	kindInt64
	kindUint64
	kindFloat64
	kindString
	kindBits // some bits of a register
	kindInt8
	kindUint8
	kindInt48
	kindUint48
	kindFloat16
	kindBCD16
	kindBCD32
	kindBCD64
	kindMod32
	kindMod48
	kindMod64
	kindBytes
	kindUnix32
	kindUnix64
	kindUnixMs64
	kindYMDHMS
	kindYMDHMS3
	kindCP56
	kindEnd
)

// kinds is what is true of each: the word for it, the registers that it takes (0: as many as its length says), whether the
// order of bytes matters to it, and the data type of its values.
var kinds = [kindEnd]struct {
	name      string
	registers int
	ordered   bool
	data      telemetry.DataType
}{
	kindBool:     {"bool", 1, false, telemetry.BoolType},
	kindInt16:    {"int16", 1, false, telemetry.Int16Type},
	kindUint16:   {"uint16", 1, false, telemetry.Uint16Type},
	kindInt32:    {"int32", 2, true, telemetry.Int32Type},
	kindUint32:   {"uint32", 2, true, telemetry.Uint32Type},
	kindFloat32:  {"float32", 2, true, telemetry.Float32Type},
	kindInt64:    {"int64", 4, true, telemetry.Int64Type},
	kindUint64:   {"uint64", 4, true, telemetry.Uint64Type},
	kindFloat64:  {"float64", 4, true, telemetry.Float64Type},
	kindString:   {"string", 0, false, telemetry.StringType},
	kindBits:     {"bits", 1, false, telemetry.Uint16Type},
	kindInt8:     {"int8", 1, false, telemetry.Int8Type},
	kindUint8:    {"uint8", 1, false, telemetry.Uint8Type},
	kindInt48:    {"int48", 3, true, telemetry.Int64Type},
	kindUint48:   {"uint48", 3, true, telemetry.Uint64Type},
	kindFloat16:  {"float16", 1, false, telemetry.Float32Type},
	kindBCD16:    {"bcd16", 1, false, telemetry.Uint16Type},
	kindBCD32:    {"bcd32", 2, true, telemetry.Uint32Type},
	kindBCD64:    {"bcd64", 4, true, telemetry.Uint64Type},
	kindMod32:    {"mod10k32", 2, true, telemetry.Uint32Type},
	kindMod48:    {"mod10k48", 3, true, telemetry.Uint64Type},
	kindMod64:    {"mod10k64", 4, true, telemetry.Uint64Type},
	kindBytes:    {"bytes", 0, false, telemetry.StringType},
	kindUnix32:   {"unix32", 2, true, telemetry.TimeType},
	kindUnix64:   {"unix64", 4, true, telemetry.TimeType},
	kindUnixMs64: {"unixms64", 4, true, telemetry.TimeType},
	kindYMDHMS:   {"ymdhms", 6, false, telemetry.TimeType},
	kindYMDHMS3:  {"ymdhms3", 3, false, telemetry.TimeType},
	kindCP56:     {"cp56", 4, false, telemetry.TimeType},
}

func (k kind) String() string { return kinds[k].name }

// registers is how many registers a value takes; a string takes what its length says.
func (k kind) registers() int { return kinds[k].registers }

// long reports whether the kind needs a length.
func (k kind) long() bool { return k == kindString || k == kindBytes }

// float reports whether values are floating-point numbers.
func (k kind) float() bool { return k == kindFloat16 || k == kindFloat32 || k == kindFloat64 }

// number reports whether values are numbers.
func (k kind) number() bool { return !k.long() && k != kindBool && !k.time() }

// time reports whether values are date-times.
func (k kind) time() bool { return k >= kindUnix32 && k <= kindCP56 }

// kindWords are names that people give the types elsewhere.
var kindWords = map[string]kind{
	"boolean": kindBool, "bit": kindBool,
	"byte": kindUint8, "sint": kindInt8, "usint": kindUint8, "i8": kindInt8, "u8": kindUint8,
	"int": kindInt16, "short": kindInt16, "i16": kindInt16, "s16": kindInt16,
	"uint": kindUint16, "word": kindUint16, "ushort": kindUint16, "u16": kindUint16,
	"dint": kindInt32, "long": kindInt32, "i32": kindInt32, "s32": kindInt32,
	"udint": kindUint32, "dword": kindUint32, "ulong": kindUint32, "u32": kindUint32,
	"float": kindFloat32, "real": kindFloat32, "single": kindFloat32, "f32": kindFloat32,
	"lint": kindInt64, "i64": kindInt64, "s64": kindInt64,
	"ulint": kindUint64, "qword": kindUint64, "u64": kindUint64,
	"double": kindFloat64, "lreal": kindFloat64, "f64": kindFloat64, "half": kindFloat16, "f16": kindFloat16,
	"text": kindString, "char": kindString, "ascii": kindString, "str": kindString,
	"bcd": kindBCD16, "lbcd": kindBCD32, "hex": kindBytes, "raw": kindBytes,
	"datetime": kindYMDHMS, "date": kindYMDHMS, "time": kindUnix32, "timestamp": kindUnix32, "epoch": kindUnix32,
}

// kindNames are the words for the kinds, in order.
func kindNames() []string {
	names := make([]string, kindEnd)
	for k := range kinds {
		names[k] = kinds[k].name
	}
	return names
}

func parseKind(text string) (kind, *mistake) {
	for k := range kinds {
		if text == kinds[k].name {
			return kind(k), nil
		}
	}
	m := &mistake{"there is no such type", "use " + strings.Join(kindNames(), ", ")}
	word := strings.ToLower(text)
	if k, ok := kindWords[word]; ok {
		m.mend = fmt.Sprintf("did you mean %s?", k)
	} else if name := nearest(word, kindNames()); name != "" {
		m.mend = fmt.Sprintf("did you mean %s?", name)
	}
	return 0, m
}

// order says in which order the device puts the bytes of a value on the wire; A is the most significant.
// The four names are those of 32 bits. For 48 and 64 bits they mean the same two swaps: of the registers
// (CDAB, DCBA) and of the bytes within each register (BADC, DCBA).
type order uint8

const (
	orderABCD order = iota
	orderBADC
	orderCDAB
	orderDCBA
)

var orderNames = [...]string{"ABCD", "BADC", "CDAB", "DCBA"}

func (o order) String() string { return orderNames[o] }

// swapsBytes reports whether the low byte of each register comes first.
func (o order) swapsBytes() bool { return o == orderBADC || o == orderDCBA }

// swapsRegisters reports whether the low register comes first.
func (o order) swapsRegisters() bool { return o == orderCDAB || o == orderDCBA }

func parseOrder(text string) (order, *mistake) {
	for o, name := range orderNames {
		if text == name {
			return order(o), nil
		}
	}
	m := &mistake{"there is no such byte order", "use ABCD (big-endian), BADC, CDAB or DCBA (little-endian)"}
	words := map[string]order{"abcd": orderABCD, "badc": orderBADC, "cdab": orderCDAB, "dcba": orderDCBA,
		"big": orderABCD, "big-endian": orderABCD, "be": orderABCD, "1234": orderABCD,
		"little": orderDCBA, "little-endian": orderDCBA, "le": orderDCBA, "4321": orderDCBA,
		"2143": orderBADC, "3412": orderCDAB, "hgfedcba": orderDCBA, "abcdefgh": orderABCD, "ghefcdab": orderCDAB, "badcfehg": orderBADC}
	if o, ok := words[strings.ToLower(text)]; ok {
		m.mend = fmt.Sprintf("did you mean %s?", o)
	}
	return 0, m
}
