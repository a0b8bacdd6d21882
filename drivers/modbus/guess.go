package modbus

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode"

	"millrace/drivers/telemetry"
)

// Guess is one way to understand some registers, in the words of the config.
type Guess struct {
	Type, Order string // Order is "" where it does not matter
	Registers   int    // that the value takes
	Value       telemetry.Value
	Likely      float64 // 0 to 1: how much it looks like a value that a device would hold
}

// Guesses returns what the first registers may hold, in every type and order that they suffice for, the likely ones first.
// registers are as on the wire, two bytes each; all of them may be one text.
func Guesses(registers []byte) []Guess {
	var list []Guess
	for k := kindInt16; k < kindEnd; k++ {
		if k == kindBits || k == kindInt8 || k == kindUint8 || k == kindBytes {
			continue
		}
		orders := []order{orderABCD}
		if k == kindString {
			orders = []order{orderABCD, orderBADC}
		} else if kinds[k].ordered {
			orders = []order{orderABCD, orderCDAB, orderBADC, orderDCBA}
		}
		for _, o := range orders {
			if g, ok := guess(registers, k, o); ok {
				list = append(list, g)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b Guess) int { return cmp.Compare(b.Likely, a.Likely) })
	return list
}

// guess decodes as the driver does.
func guess(registers []byte, k kind, o order) (Guess, bool) {
	n, length := k.registers(), 0
	if k.long() {
		length = min(len(registers)&^1, 250)
		n = length / 2
	}
	if n == 0 || len(registers) < 2*n {
		return Guess{}, false
	}
	f := field{kind: k, order: o, length: uint8(length), count: uint8(n)}
	g := group{fields: []field{f}, texts: make([]kept, 1)}
	var out [1]telemetry.Reading
	g.decodeRegisters([]op{{kind: k, order: o, arg: f.arg()}}, registers[:2*n], 0, 0, out[:])
	if out[0].Quality != telemetry.Good {
		return Guess{}, false
	}
	found := Guess{Type: k.String(), Registers: n, Value: out[0].Value, Likely: likely(k, o, out[0].Value)}
	if kinds[k].ordered || k == kindString {
		found.Order = o.String()
	}
	return found, true
}

// likely says how much a value looks like one that a device would hold. The figures only rank: measured values are mostly
// floats of a moderate size or small integers, a wrong order makes absurd exponents and multiples of 65536.
func likely(k kind, o order, v telemetry.Value) float64 {
	rank := 0.0
	f, _ := v.Float()
	switch {
	case k.time():
		if year := v.AsTime().Year(); year >= 2010 && year <= time.Now().Year()+5 {
			rank = 0.55
		}
	case k.long():
		rank = likelyText(v.Text)
	case k.float():
		rank = likelyFloat(f)
		if k == kindFloat16 {
			rank *= 0.3 // rare
		}
	case k == kindUint16, k == kindInt16:
		rank = likelyInteger(f, 1<<15)
	case k == kindInt32, k == kindUint32:
		rank = 0.9 * likelyInteger(f, 1e7)
	default:
		rank = 0.5 * likelyInteger(f, 1e7) // wide integers, and decimal digits
	}
	if o == orderBADC || o == orderDCBA {
		rank *= 0.9 // rarer than a swap of registers
	}
	return rank
}

func likelyFloat(f float64) float64 {
	size := math.Abs(f)
	switch {
	case f == 0:
		return 0.3
	case size >= 1e-3 && size < 1e7:
		if len(strconv.FormatFloat(f, 'g', 7, 64)) <= 6 {
			return 1 // few digits: somebody set it, or it is a rounded measurement
		}
		return 0.9
	case size >= 1e-6 && size < 1e12:
		return 0.35
	}
	return 0.02 // also not-a-number and infinity
}

func likelyInteger(f, moderate float64) float64 {
	size := math.Abs(f)
	switch {
	case f == 0:
		return 0.3
	case math.Mod(size, 65536) == 0:
		return 0.05
	case size < 10000:
		return 0.6
	case size < moderate:
		return 0.5
	}
	return 0.1
}

// likelyText ranks by how much is printable.
func likelyText(text string) float64 {
	letters, all := 0, 0
	for _, r := range text {
		all++
		if r == unicode.ReplacementChar || r < ' ' || r > 0x7e && r < 0xa0 {
			return 0
		}
		if r < 0x7f && (unicode.IsLetter(r) || unicode.IsDigit(r)) || r == ' ' {
			letters++
		}
	}
	if all < 3 || 3*letters < 2*all {
		return 0.05
	}
	return min(0.5+0.1*float64(all), 1)
}

// Locate says what an address means on the wire: the function code that reads it, 1 to 4, and the number of the register or
// bit, 0 to 65535. An address of single bits of a register is none.
func Locate(text string) (function byte, number int, err error) {
	a, m := parseAddress(text)
	if m == nil && a.bit >= 0 {
		m = &mistake{"it is some bits of a register", "leave out what stands after the dot"}
	}
	if m != nil {
		return 0, 0, fmt.Errorf("address %q: %s; %s", text, m.what, m.mend)
	}
	return a.table.function(), int(a.number), nil
}

// function is the code that reads a table.
func (t table) function() byte {
	return [...]byte{coil: readCoils, discrete: readDiscretes, input: readInput, holding: readHolding}[t]
}

// ExceptionText is an exception code in words: "exception 2: illegal data address".
func ExceptionText(code byte) string { return exception(code).Error() }
