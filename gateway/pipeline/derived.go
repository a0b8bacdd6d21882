package pipeline

import (
	"millrace/drivers/telemetry"
	"millrace/gateway/derive"
)

// Derived is a tag of a group that is worked out from others of its device. Its index in the schema follows those of the
// tags that are read.
type Derived struct {
	Formula *derive.Formula
	Report  Report
}

// Device is what the groups of one device know of each other for their derived tags: the last readings of what the formulas
// name. The groups share one goroutine.
type Device struct {
	last map[string]*telemetry.Reading // nil = not read yet; only of names that a formula has
}

// NewDevice returns what the groups of a device share for these formulas, nil when there are none.
func NewDevice(formulas []*derive.Formula) *Device {
	if len(formulas) == 0 {
		return nil
	}
	d := &Device{last: map[string]*telemetry.Reading{}}
	for _, f := range formulas {
		for _, name := range f.Inputs() {
			d.last[name] = nil
		}
	}
	return d
}

// derived is the derived tags of a group and what the group reads for those of others.
type derived struct {
	device  *Device
	feeds   map[uint32]string // tags that a formula of the device names
	tags    []Derived
	first   uint32 // index of the first of tags
	inputs  []*telemetry.Reading
	results []telemetry.Reading
}

// newDerived returns nil when no formula has to do with the group.
func newDerived(o *Options) *derived {
	if o.Device == nil {
		return nil
	}
	d := &derived{device: o.Device, feeds: map[uint32]string{}, tags: o.Derived, first: uint32(len(o.Tags))}
	for i := range o.Tags {
		if _, named := o.Device.last[o.Tags[i].Name]; named {
			d.feeds[uint32(i)] = o.Tags[i].Name
		}
	}
	if len(d.feeds) == 0 && len(d.tags) == 0 {
		return nil
	}
	return d
}

// add returns the readings with those of the derived tags behind them. The slice that it gets stays as it is. at is the time of the poll.
func (d *derived) add(at int64, readings []telemetry.Reading) []telemetry.Reading {
	for i := range readings {
		if name, ok := d.feeds[readings[i].Tag]; ok {
			d.keep(name, &readings[i])
		}
	}
	if len(d.tags) == 0 {
		return readings
	}
	d.results = append(d.results[:0], readings...)
	for i := range d.tags {
		f := d.tags[i].Formula
		d.inputs = d.inputs[:0]
		for _, name := range f.Inputs() {
			d.inputs = append(d.inputs, d.device.last[name])
		}
		r := f.Eval(d.inputs)
		r.Tag = d.first + uint32(i)
		d.results = append(d.results, r)
	}
	stamp(d.results, at)
	return d.results
}

func (d *derived) keep(name string, r *telemetry.Reading) {
	last := d.device.last[name]
	if last == nil {
		last = new(telemetry.Reading)
		d.device.last[name] = last
	}
	*last = *r
}
