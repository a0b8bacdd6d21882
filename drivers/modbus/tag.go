package modbus

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"millrace/drivers/telemetry"
)

// field is a tag as the driver understands it: 24 bytes, because there may be a hundred thousand.
type field struct {
	address
	kind     kind
	order    order
	length   uint8    // bytes of a string or of bytes, else 0
	count    uint8    // registers (or bits of a bit table) that it takes
	high     bool     // the 8-bit number is in the register's high byte
	page     codePage // of a string
	readBack bool     // after a write
	function uint8    // that writes it, 0 = what fits
	rare     *rare    // nil for most
}

// rare is what few tags have.
type rare struct {
	zone  *time.Location // of a date-time whose digits are local time; nil = UTC
	check *check         // what is made of the value once it is decoded; nil = nothing
}

// check returns what is made of the value once it is decoded; nil = nothing.
func (f *field) check() *check {
	if f.rare == nil {
		return nil
	}
	return f.rare.check
}

// zone returns that of the digits of a date-time.
func (f *field) zone() *time.Location {
	if f.rare == nil || f.rare.zone == nil {
		return time.UTC
	}
	return f.rare.zone
}

// textSize is the most bytes that the tag's text has, 0 where it is none. A character beyond ASCII counts as one.
func (f *field) textSize() (n int) {
	switch c := f.check(); {
	case c != nil && c.enum != nil:
		for _, text := range c.enum {
			n = max(n, len(text))
		}
	case c != nil && c.flags != nil:
		for _, one := range c.flags {
			n += len(one.text) + len(", ")
		}
	case f.kind == kindBytes:
		n = 2 * int(f.length) // as hex digits
	default:
		n = int(f.length)
	}
	return n
}

// data is the data type of the tag's values before scaling.
func (f *field) data() telemetry.DataType {
	if c := f.check(); c != nil && (c.enum != nil || c.flags != nil) {
		return telemetry.StringType
	}
	return kinds[f.kind].data
}

// arg is what decoding needs to know beside the kind: which bit, which bits, which byte, or the length.
func (f *field) arg() uint16 {
	switch f.kind {
	case kindBool:
		return uint16(max(f.bit, 0))
	case kindBits:
		return uint16(f.bit) | uint16(f.last-f.bit+1)<<8
	case kindInt8, kindUint8:
		if f.high {
			return 8
		}
		return 0
	}
	return uint16(f.length)
}

// parseField reads a tag. It reports every mistake and returns false when there was one.
func parseField(t *telemetry.Tag, dev *settings, r *reporter) (field, bool) {
	before := len(r.errs)
	f := field{kind: kindUint16, order: dev.order, count: 1, page: dev.page}
	a, m := parseAddress(strings.TrimSpace(t.Address))
	located := r.check("address", t.Address, m)
	f.address = a
	switch {
	case located && a.last > a.bit:
		f.kind = kindBits
	case located && (a.table.bits() || a.bit >= 0):
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
	zone := dev.zone
	if text, ok := t.Options["time_zone"]; ok {
		if zone = parseZone(text, r); !f.kind.time() {
			r.add("time_zone", fmt.Sprintf("time_zone %q of the type %s", text, f.kind), "leave it out, it is for date-times")
		}
	}
	if c := parseCheck(t, &f, dev, r); c != nil || f.kind.time() && zone != time.UTC {
		f.rare = &rare{zone, c}
	}
	if len(r.errs) > before {
		return f, false
	}
	return f, r.check("address", t.Address, f.fit(dev)) && r.check("write_function", t.Options["write_function"], f.fitFunction())
}

// fitType says why a type cannot stand at an address.
func fitType(a address, k kind) *mistake {
	bits := a.last > a.bit
	switch {
	case a.table.bits() && k != kindBool:
		return &mistake{fmt.Sprintf("%s is a single bit", a), "leave the type out"}
	case bits && k != kindBits:
		return &mistake{fmt.Sprintf("%s is some bits of a register", a), "leave the type out"}
	case !bits && k == kindBits:
		return &mistake{fmt.Sprintf("%s does not say which bits", a), fmt.Sprintf("write %s:%d.0-3 for the lowest four", a.table, a.number)}
	case !bits && a.bit >= 0 && k != kindBool:
		return &mistake{fmt.Sprintf("%s is a single bit", a), fmt.Sprintf("leave the type out, or read the whole register with %s:%d", a.table, a.number)}
	case a.bit < 0 && !a.table.bits() && k == kindBool:
		return &mistake{fmt.Sprintf("%s is a register of 16 bits", a), fmt.Sprintf("say which bit: %s:%d.0 is the least significant", a.table, a.number)}
	}
	return nil
}

// options reads the tag's own keys that say how to decode it.
func (f *field) options(o map[string]string, r *reporter) {
	if text, ok := o["order"]; ok {
		order, m := parseOrder(text)
		if r.check("order", text, m) && r.check("order", text, f.fitOrder(order)) {
			f.order = order
		}
	} else if f.kind.long() {
		f.order = orderABCD // the device's order is that of its numbers
	}
	f.parseLength(o, r)
	if text, ok := o["byte"]; ok {
		f.high = text == "high"
		if text != "high" && text != "low" || f.kind != kindInt8 && f.kind != kindUint8 {
			r.add("byte", fmt.Sprintf("byte %q of the type %s", text, f.kind), "use high or low, for int8 and uint8")
		}
	}
	if text, ok := o["read_back"]; ok {
		f.readBack = text == "true"
		if text != "true" && text != "false" {
			r.add("read_back", fmt.Sprintf("read_back %q: it is neither true nor false", text), "the default is false")
		}
		if f.readBack && f.readOnly() {
			r.add("read_back", fmt.Sprintf("read_back of %s: it can only be read", f.address), "leave it out")
		}
	}
	if text, ok := o["write_function"]; ok {
		n, err := strconv.ParseUint(text, 10, 8)
		if f.function = uint8(n); err != nil || n == 0 {
			r.add("write_function", fmt.Sprintf("write_function %q: it is not the code of a function", text), useFunction)
		}
	}
	if text, ok := o["code_page"]; ok {
		page, m := parsePage(text)
		if r.check("code_page", text, m) && f.kind != kindString {
			r.add("code_page", fmt.Sprintf("code_page %q of the type %s", text, f.kind), "leave it out, it is for strings")
		}
		f.page = page
	}
}

const useFunction = "use 6, 16 or 23 for registers, 5 or 15 for a coil, or leave it out"

// fitFunction says why the function that is to write the field cannot.
func (f *field) fitFunction() *mistake {
	switch {
	case f.function == 0:
	case f.readOnly():
		return &mistake{fmt.Sprintf("%s can only be read", f.address), "leave it out"}
	case f.partial():
		return &mistake{"a part of a register is written with function 22, or by reading and writing the register", "leave it out"}
	case f.table == coil && f.function != writeCoil && f.function != writeCoils,
		f.table == holding && f.function != writeRegister && f.function != writeRegisters && f.function != readWriteRegisters:
		return &mistake{fmt.Sprintf("it does not write to %s", f.address), useFunction}
	case f.function == writeRegister && f.count > 1:
		return &mistake{fmt.Sprintf("it writes one register, and the %s has %d", f.kind, f.count), "use 16 or 23"}
	case int(f.count) > f.mostWritten():
		return &mistake{fmt.Sprintf("it writes at most %d registers, and the %s has %d", f.mostWritten(), f.kind, f.count), "shorten it"}
	}
	return nil
}

// mostWritten is how many registers one request writes (Modbus Application Protocol V1.1b3, 6.12 and 6.17).
func (f *field) mostWritten() int {
	if f.function == readWriteRegisters {
		return 121
	}
	return 123
}

// readOnly reports whether no request can write the table.
func (f *field) readOnly() bool { return f.table == discrete || f.table == input }

// width is how many bits the value has.
func (f *field) width() int {
	switch {
	case f.bit >= 0:
		return int(f.last-f.bit) + 1
	case f.table.bits():
		return 1
	case f.kind == kindInt8 || f.kind == kindUint8:
		return 8
	}
	return 16 * f.kind.registers()
}

func parseZone(text string, r *reporter) *time.Location {
	zone, err := time.LoadLocation(text)
	if err != nil || text == "" {
		r.add("time_zone", fmt.Sprintf("time_zone %q: there is no such time zone", text), "use a name like Europe/Berlin; the default is UTC")
		return time.UTC
	}
	return zone
}

func (f *field) parseLength(o map[string]string, r *reporter) {
	text, ok := o["length"]
	switch {
	case f.kind.long() && !ok:
		r.add("length", fmt.Sprintf("a %s needs a length", f.kind), "give its length in bytes, 1 to 250")
	case f.kind.long():
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 250 {
			r.add("length", fmt.Sprintf("length %q: it is not a number of bytes from 1 to 250", text), "two bytes are one register")
			return
		}
		f.length = uint8(n)
	case ok:
		r.add("length", fmt.Sprintf("length %q: the type %s has no length", text, f.kind), "leave it out; it is for strings")
	}
}

// fitOrder says why a byte order means nothing for the field's type.
func (f *field) fitOrder(o order) *mistake {
	switch {
	case f.kind.long() && o.swapsRegisters():
		return &mistake{"a string has no register order", "use ABCD (first character in the high byte) or BADC (in the low byte)"}
	case !f.kind.long() && !kinds[f.kind].ordered:
		return &mistake{fmt.Sprintf("the type %s has no byte order", f.kind), "leave the order out; it is for values of two or four registers"}
	}
	return nil
}

// fit sets how many registers the field takes and says why they are too many.
func (f *field) fit(dev *settings) *mistake {
	f.count = uint8(f.kind.registers())
	if f.kind.long() {
		f.count = (f.length + 1) / 2
	}
	last := int(f.number) + int(f.count) - 1
	if last > lastRegister {
		return &mistake{fmt.Sprintf("the %s there ends at register %d", f.kind, last), fmt.Sprintf("the last register is %d", lastRegister)}
	}
	if int(f.count) > dev.maxRegisters {
		return &mistake{fmt.Sprintf("the %s there takes %d registers in one request", f.kind, f.count), fmt.Sprintf("max_registers of the device is %d", dev.maxRegisters)}
	}
	if dev.forbids(f.table, f.number, uint32(last)) {
		return &mistake{"the device's forbidden registers are there", "move the tag or change forbidden"}
	}
	return nil
}
