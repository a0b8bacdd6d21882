package pipeline

import (
	"math"

	"millrace/drivers/telemetry"
)

// scale is value = raw*mul/div + offset. A scale such as 0.1 is kept as a division by 10, because
// 3/10 is the double nearest to 0.3 while 3*0.1 is not. mul 0 = not scaled.
type scale struct{ mul, div, offset float64 }

// newScales returns one scale for each tag, or nil when none is scaled.
func newScales(tags []telemetry.Tag) []scale {
	var all []scale
	for i := range tags {
		if !tags[i].Scaled() {
			continue
		}
		if all == nil {
			all = make([]scale, len(tags))
		}
		all[i] = newScale(&tags[i])
	}
	return all
}

func newScale(t *telemetry.Tag) scale {
	s := scale{mul: t.Scale, div: 1, offset: t.Offset}
	if s.mul == 0 {
		s.mul = 1
	}
	if inv := math.Round(1 / s.mul); math.Abs(inv) > 1 && 1/inv == s.mul {
		s.mul, s.div = 1, inv
	}
	return s
}

func applyScales(scales []scale, readings []telemetry.Reading) {
	for i := range readings {
		r := &readings[i]
		if s := &scales[r.Tag]; s.mul != 0 {
			r.Value = s.apply(r.Value)
		}
	}
}

// apply scales a number; other kinds pass unchanged.
func (s *scale) apply(v telemetry.Value) telemetry.Value {
	if v.Kind == telemetry.KindBool {
		return v
	}
	raw, ok := v.Float()
	if !ok {
		return v
	}
	return number(v.Kind, s.number(raw))
}

func (s *scale) number(raw float64) float64 { return raw*s.mul/s.div + s.offset }

// applyRange scales a range. A scale below 0 turns it round.
func (s *scale) applyRange(r telemetry.Range) telemetry.Range {
	a, b := s.number(r.Low), s.number(r.High)
	return telemetry.Range{Low: min(a, b), High: max(a, b)}
}

// Range is from Low to High, both included.
type Range struct{ Low, High float64 }

// clamped is the reason of a reading that was.
const clamped = "beyond its range, clamped"

// applyClamps keeps numbers in their range. A number that is none is neither below nor above.
func applyClamps(clamps map[int]Range, readings []telemetry.Reading) {
	for i := range readings {
		r := &readings[i]
		c, there := clamps[int(r.Tag)]
		x, ok := r.Value.Float()
		if !there || !ok || !(x < c.Low || x > c.High) {
			continue
		}
		r.Value = number(r.Value.Kind, min(max(x, c.Low), c.High))
		if r.Quality == telemetry.Good {
			r.Quality, r.Reason = telemetry.Uncertain, clamped
		}
	}
}

// number returns x as a float32 if the value was one: its 24 bits of precision are all that the device gave. Every other becomes a float64.
func number(was telemetry.Kind, x float64) telemetry.Value {
	if was == telemetry.KindFloat32 {
		return telemetry.Float32(float32(x))
	}
	return telemetry.Float64(x)
}
