package config

import (
	"fmt"
	"math"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// checkWritable refuses the entries of `writes:` for tags of one connection that can never write anything, and warns of numbers
// without a range.
func (l *loader) checkWritable(members []int, d drivers.Driver) {
	typed, _ := d.(drivers.Typed)
	for i, member := range members {
		dev := &l.cfg.Devices[member]
		for j := range dev.Groups {
			ref := drivers.Ref{Device: i, Group: j}
			for k := range dev.Groups[j].Tags {
				id := writeID{device: dev.Name, tag: dev.Groups[j].Tags[k].Name}
				rule, ok := l.rules[id]
				if !ok {
					continue
				}
				delete(l.rules, id) // of two tags with one name, the first is written
				r := &ruleCheck{loader: l, Write: &l.cfg.Writes[rule], places: &l.writes[rule], device: dev, tag: &dev.Groups[j].Tags[k], write: drivers.Write{Group: ref, Tag: k}}
				r.typ = writtenType(r.tag)
				if typed != nil {
					r.typ = typed.DataTypes(ref)[k]
				}
				r.check(d)
			}
		}
	}
}

// checkCallable refuses the entries of `writes:` for methods of one connection that can never be called.
func (l *loader) checkCallable(members []int, d drivers.Driver) {
	caller, _ := d.(drivers.Caller)
	for i, member := range members {
		dev := &l.cfg.Devices[member]
		for _, rule := range l.calls[dev.Name] {
			w, at := &l.cfg.Writes[rule], l.writes[rule].at
			if caller == nil {
				l.errorf(at, "delete the entry", "call of method %q of device %q: the driver %s has no methods", w.Method, dev.Name, dev.Driver)
			} else if err := caller.CheckMethod(w.CallOf(i)); err != nil {
				l.errorf(at, "correct the entry", "call of method %q of device %q: %s", w.Method, dev.Name, l.scrub(err.Error()))
			}
		}
	}
}

// writtenType is the type of what is written to a tag as far as its own keys say it: where they make texts of its values, the device's own
// is written.
func writtenType(t *telemetry.Tag) telemetry.DataType {
	if t.Options["enum"] != "" || t.Type == "json" {
		return telemetry.AnyType
	}
	return declaredType(t)
}

// ruleCheck is one entry of `writes:` and the tag that it is for.
type ruleCheck struct {
	*loader
	*Write
	*places
	device *Device
	tag    *telemetry.Tag
	typ    telemetry.DataType
	write  drivers.Write
}

func (r *ruleCheck) check(d drivers.Driver) {
	checker, _ := d.(drivers.WriteChecker)
	kind := r.typ.Kind()
	switch _, writes := d.(drivers.Writer); {
	case !writes:
		r.never(fmt.Sprintf("the driver %s only reads", r.device.Driver))
		return
	case kind == telemetry.KindTime || kind == telemetry.KindArray:
		r.never(notNumbers(r.typ) + " can only be read")
		return
	case checker == nil:
		return
	}
	if err := checker.CheckWrite(r.write); err != nil {
		r.never(err.Error())
		return
	}
	switch what := notNumbers(r.typ); {
	case what != "" && r.Ranged:
		at, _ := r.field(r.loader, "min")
		r.errorf(at, "delete them", "min and max of tag %q are of numbers, and its values are %s", r.Tag, what)
	case !r.typ.Known() && !r.Ranged && r.tag.Options["enum"] != "":
		r.warnf(r.places.at, "add both", "of tag %q of device %q, which has enum, numbers are written and not their texts, and none without min and max", r.Tag, r.Device)
	case !r.typ.Known() && !r.Ranged: // it may be a bool or a text
	case what == "" && !r.Ranged:
		r.warnf(r.places.at, "add both", "no number is ever written to tag %q of device %q without min and max", r.Tag, r.Device)
	case what == "":
		r.checkRange(checker)
	}
}

// never refuses an entry that nothing can come of.
func (r *ruleCheck) never(why string) {
	at, _ := r.field(r.loader, "tag")
	r.errorf(at, "delete the entry", "write of tag %q of device %q: %s", r.Tag, r.Device, why)
}

// checkRange compares the range with what the type holds and with what the driver can encode.
func (r *ruleCheck) checkRange(checker drivers.WriteChecker) {
	scale, offset, how := 1.0, 0.0, ""
	if r.tag.Scaled() {
		if offset, how = r.tag.Offset, ", scaled,"; r.tag.Scale != 0 {
			scale = r.tag.Scale
		}
	}
	ends := [2]end{{"min", r.Min, (r.Min - offset) / scale}, {"max", r.Max, (r.Max - offset) / scale}}
	low, high := &ends[0], &ends[1]
	if scale < 0 {
		low, high = high, low
	}
	if k := r.typ.Kind(); k == telemetry.KindInt || k == telemetry.KindUint {
		least, most := r.typ.Bounds()
		for _, e := range []*end{low, high} {
			if slip := 1e-6 * math.Max(1, math.Abs(e.raw)); e.raw < least-slip || e.raw > most+slip {
				a, b := least*scale+offset, most*scale+offset
				r.beyond(e, fmt.Sprintf("the type %s%s holds %.15g to %.15g", r.typ, how, min(a, b), max(a, b)), "use a range within that")
				return
			}
		}
		low.raw, high.raw = whole(low.raw, math.Ceil), whole(high.raw, math.Floor)
		if low.raw > high.raw {
			at, _ := r.field(r.loader, "min")
			r.errorf(at, "widen the range", "no value from min %s to max %s of tag %q is one of the device's, which are %s apart", number(r.Min), number(r.Max), r.Tag, number(math.Abs(scale)))
			return
		}
	}
	for _, e := range []*end{low, high} {
		r.write.Value = r.value(e.raw)
		if err := checker.CheckWrite(r.write); err != nil {
			r.beyond(e, err.Error(), "use a range that the device can take")
			return
		}
	}
}

// end is one end of a range, as the config has it and as the device has it.
type end struct {
	name       string
	given, raw float64
}

func (r *ruleCheck) beyond(e *end, why, mend string) {
	at, _ := r.field(r.loader, e.name)
	r.errorf(at, mend, "%s %s of tag %q: %s", e.name, number(e.given), r.Tag, why)
}

// whole returns the whole number that x nearly is, or else the next one to one side.
func whole(x float64, side func(float64) float64) float64 {
	if near := math.Round(x); math.Abs(x-near) <= 1e-6*math.Max(1, math.Abs(x)) {
		return near
	}
	return side(x)
}

// value returns an end as a value of the tag's type; of 64 bits, at most what a float64 can tell from its neighbours.
func (r *ruleCheck) value(raw float64) telemetry.Value {
	const exact = 1<<53 - 1
	switch r.typ.Kind() {
	case telemetry.KindInt:
		return telemetry.Int(int64(min(max(raw, -exact), exact)))
	case telemetry.KindUint:
		return telemetry.Uint(uint64(min(raw, exact)))
	}
	return telemetry.Float64(raw)
}
