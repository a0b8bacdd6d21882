package modbus

import (
	"fmt"
	"strconv"
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
)

var kindNames = [...]string{"bool", "int16", "uint16", "int32", "uint32", "float32", "int64", "uint64", "float64", "string"}

func (k kind) String() string { return kindNames[k] }

// registers is how many registers a value takes; a string takes what its length says.
func (k kind) registers() int {
	switch {
	case k <= kindUint16:
		return 1
	case k <= kindFloat32:
		return 2
	}
	return 4
}

// kindWords are names that people give the types elsewhere.
var kindWords = map[string]kind{
	"boolean": kindBool, "bit": kindBool,
	"int": kindInt16, "short": kindInt16, "i16": kindInt16, "s16": kindInt16,
	"uint": kindUint16, "word": kindUint16, "ushort": kindUint16, "u16": kindUint16,
	"dint": kindInt32, "long": kindInt32, "i32": kindInt32, "s32": kindInt32,
	"udint": kindUint32, "dword": kindUint32, "ulong": kindUint32, "u32": kindUint32,
	"float": kindFloat32, "real": kindFloat32, "single": kindFloat32, "f32": kindFloat32,
	"lint": kindInt64, "i64": kindInt64, "s64": kindInt64,
	"ulint": kindUint64, "qword": kindUint64, "u64": kindUint64,
	"double": kindFloat64, "lreal": kindFloat64, "f64": kindFloat64,
	"text": kindString, "char": kindString, "ascii": kindString, "str": kindString,
}

func parseKind(text string) (kind, *mistake) {
	for k, name := range kindNames {
		if text == name {
			return kind(k), nil
		}
	}
	m := &mistake{"there is no such type", "use " + strings.Join(kindNames[:], ", ")}
	word := strings.ToLower(text)
	if k, ok := kindWords[word]; ok {
		m.mend = fmt.Sprintf("did you mean %s?", k)
	} else if name := nearest(word, kindNames[:]); name != "" {
		m.mend = fmt.Sprintf("did you mean %s?", name)
	}
	return 0, m
}

// order says in which order the device puts the bytes of a value on the wire; A is the most significant.
// The four names are those of 32 bits. For 64 bits they mean the same two swaps: of the registers
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

// field is a tag as the driver understands it.
type field struct {
	address
	kind   kind
	order  order
	length int // bytes of a string, else 0
	count  int // registers (or bits of a bit table) that it takes
}

// parseField reads a tag. It reports every mistake and returns false when there was one.
func parseField(t *telemetry.Tag, dev *settings, r *reporter) (field, bool) {
	before := len(r.errs)
	f := field{kind: kindUint16, order: dev.order, count: 1}
	a, m := parseAddress(strings.TrimSpace(t.Address))
	located := r.check("address", t.Address, m)
	f.address = a
	if located && (a.table.bits() || a.bit >= 0) {
		f.kind = kindBool
	}
	if t.Type != "" {
		k, m := parseKind(t.Type)
		if !r.check("type", t.Type, m) {
			return f, false
		}
		if located {
			r.check("type", t.Type, fitType(a, k))
		}
		f.kind = k
	}
	f.options(t.Options, r)
	if len(r.errs) > before {
		return f, false
	}
	return f, r.check("address", t.Address, f.fit(dev))
}

// fitType says why a type cannot stand at an address.
func fitType(a address, k kind) *mistake {
	switch {
	case a.table.bits() && k != kindBool:
		return &mistake{fmt.Sprintf("%s is a single bit", a), "leave the type out"}
	case a.bit >= 0 && k != kindBool:
		return &mistake{fmt.Sprintf("%s is a single bit", a), fmt.Sprintf("leave the type out, or read the whole register with %s:%d", a.table, a.number)}
	case a.bit < 0 && !a.table.bits() && k == kindBool:
		return &mistake{fmt.Sprintf("%s is a register of 16 bits", a), fmt.Sprintf("say which bit: %s:%d.0 is the least significant", a.table, a.number)}
	}
	return nil
}

// options reads the tag's own keys: order and length.
func (f *field) options(o map[string]string, r *reporter) {
	if text, ok := o["order"]; ok {
		order, m := parseOrder(text)
		if r.check("order", text, m) && r.check("order", text, f.fitOrder(order)) {
			f.order = order
		}
	} else if f.kind == kindString {
		f.order = orderABCD // the device's order is that of its numbers
	}
	text, ok := o["length"]
	switch {
	case f.kind == kindString && !ok:
		r.add("length", "a string needs a length", "give its length in bytes, 1 to 250")
	case f.kind == kindString:
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 250 {
			r.add("length", fmt.Sprintf("length %q: it is not a number of bytes from 1 to 250", text), "two bytes are one register")
			return
		}
		f.length = n
	case ok:
		r.add("length", fmt.Sprintf("length %q: the type %s has no length", text, f.kind), "leave it out; it is for strings")
	}
}

// fitOrder says why a byte order means nothing for the field's type.
func (f *field) fitOrder(o order) *mistake {
	switch {
	case f.kind == kindString && o != orderABCD && o != orderBADC:
		return &mistake{"a string has no register order", "use ABCD (first character in the high byte) or BADC (in the low byte)"}
	case f.kind <= kindUint16:
		return &mistake{fmt.Sprintf("the type %s has no byte order", f.kind), "leave the order out; it is for values of two or four registers"}
	}
	return nil
}

// fit sets how many registers the field takes and says why they are too many.
func (f *field) fit(dev *settings) *mistake {
	f.count = f.kind.registers()
	if f.kind == kindString {
		f.count = (f.length + 1) / 2
	}
	if last := int(f.number) + f.count - 1; last > lastRegister {
		return &mistake{fmt.Sprintf("the %s there ends at register %d", f.kind, last), fmt.Sprintf("the last register is %d", lastRegister)}
	}
	if f.count > dev.maxRegisters {
		return &mistake{fmt.Sprintf("the %s there takes %d registers in one request", f.kind, f.count), fmt.Sprintf("max_registers of the device is %d", dev.maxRegisters)}
	}
	return nil
}
