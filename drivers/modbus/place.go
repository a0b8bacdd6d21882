package modbus

import (
	"errors"
	"maps"
	"slices"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Place is where a tag lies in its device, and how its value lies there: what a simulated device needs to know.
type Place struct {
	Unit     byte
	Function byte // that reads it, 1 to 4
	First    int  // register or bit, from 0 on
	Count    int  // registers or bits
	field    field
}

// Places returns the places of the tags of a connection, by device, group and tag. Its error is that of Protocol.New.
func Places(c drivers.Connection) ([][][]Place, error) {
	d, err := newDriver(&c, nil)
	if err != nil {
		return nil, err
	}
	devices := make([][][]Place, len(d.groups))
	for i, groups := range d.groups {
		for _, g := range groups {
			places := make([]Place, len(g.fields))
			for k := range g.fields {
				f := g.fields[k]
				places[k] = Place{Unit: g.unit.id, Function: f.table.function(), First: int(f.number), Count: int(f.count), field: f}
			}
			devices[i] = append(devices[i], places)
		}
	}
	return devices, nil
}

// Caller returns where a device that calls makes its connection, and the packets that it sends of its own accord; no place for what
// does not call. Its error is that of Protocol.New.
func Caller(c drivers.Connection) (address string, registration, heartbeat []byte, err error) {
	d, err := newDriver(&c, nil)
	if err != nil || d.link.network != netListen {
		return "", nil, nil, err
	}
	return d.link.address, d.link.slot.registration, d.link.slot.heartbeat, nil
}

// Partial reports whether the tag is only some bits of a register.
func (p *Place) Partial() bool { return p.field.partial() }

// Type is the type of the tag's values before scaling; for a tag with an enum, the type of its numbers.
func (p *Place) Type() telemetry.DataType { return kinds[p.field.kind].data }

// Length is how many bytes a text has, 0 for what is none.
func (p *Place) Length() int { return int(p.field.length) }

// Numbers returns the numbers that have a text in the tag's enum, in order; nil without one.
func (p *Place) Numbers() []int64 {
	c := p.field.check()
	if c == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(c.enum))
}

// errNoValue is the error of Put for a value that the tag could not have.
var errNoValue = errors.New("a device that held it would say that the value is not available or not plausible")

// Put writes a raw value into what the device holds at the place: two bytes a register, or for a bit one byte of 0 or 1. Where
// the value does not fit the type, or would not be a good reading, it fails and data stays as it is.
func (p *Place) Put(data []byte, v telemetry.Value) error {
	f := &p.field
	held := slices.Clone(data)
	switch {
	case f.table.bits():
		on, err := f.encodeBool(v)
		if err != nil {
			return err
		}
		if held[0] = 0; on {
			held[0] = 1
		}
	case f.partial():
		bits, mask, err := f.encodeBits(v)
		if err != nil {
			return err
		}
		held[0], held[1] = held[0]&^byte(mask>>8)|byte(bits>>8), held[1]&^byte(mask)|byte(bits)
	default:
		words, err := f.encode(v)
		if err != nil {
			return err
		}
		copy(held, words)
	}
	if !f.takes(held) {
		return errNoValue
	}
	copy(data, held)
	return nil
}

// takes reports whether what a device holds is a good reading.
func (f *field) takes(data []byte) bool {
	g := group{fields: []field{*f}, texts: make([]kept, 1)}
	s := &span{table: f.table, ops: []op{{kind: f.kind, order: f.order, arg: f.arg(), check: f.check() != nil}}}
	var out [1]telemetry.Reading
	g.decode(&block{span: s, ops: s.ops}, data, 0, out[:])
	return out[0].Quality == telemetry.Good
}
