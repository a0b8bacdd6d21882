package command

import (
	"fmt"
	"math"
	"strconv"

	"millrace/drivers/telemetry"
)

// longest is how many bytes a value may have: a text tag of any device is shorter.
const longest = 1024

// raw reads a value as a person writes it, checks its range, takes the scale off, and fits it to the tag's type.
func (t *target) raw(text string) (telemetry.Value, error) {
	if len(text) > longest {
		return telemetry.Value{}, fmt.Errorf("%w: it has %d bytes; use %d at most", ErrValue, len(text), longest)
	}
	switch t.Type.Kind() {
	case telemetry.KindBool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return telemetry.Value{}, fmt.Errorf("%w: use true or false", ErrValue)
		}
		return telemetry.Bool(b), nil
	case telemetry.KindString:
		return telemetry.String(text), nil
	case telemetry.KindTime, telemetry.KindArray:
		return telemetry.Value{}, fmt.Errorf("%w: type %s is read only", ErrValue, t.Type)
	}
	x, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil || math.IsNaN(x) || math.IsInf(x, 0):
		return telemetry.Value{}, fmt.Errorf("%w: use a number", ErrValue)
	case !t.Rule.Ranged:
		return telemetry.Value{}, fmt.Errorf("%w: the rule of a number needs min and max", ErrNotAllowed)
	case x < t.Rule.Min || x > t.Rule.Max:
		return telemetry.Value{}, fmt.Errorf("%w: use %v to %v", ErrValue, t.Rule.Min, t.Rule.Max)
	}
	return t.fit(x)
}

// fit makes a number in range one of the tag's type, unscaled. What a whole type cannot hold is refused: the equipment would get another value than was asked for.
func (t *target) fit(x float64) (telemetry.Value, error) {
	scale, offset := 1.0, 0.0
	if t.Tag.Scaled() {
		offset = t.Tag.Offset
		if t.Tag.Scale != 0 {
			scale = t.Tag.Scale
		}
	}
	raw := (x - offset) / scale
	switch t.Type.Kind() {
	case telemetry.KindFloat32:
		if math.Abs(raw) > math.MaxFloat32 {
			return telemetry.Value{}, fmt.Errorf("%w: too large for a %s", ErrValue, t.Type)
		}
		return telemetry.Float32(float32(raw)), nil
	case telemetry.KindInt, telemetry.KindUint:
		if near := math.Round(raw); math.Abs(raw-near) > 1e-6*math.Max(1, math.Abs(raw)) {
			return telemetry.Value{}, fmt.Errorf("%w: the device holds %s or %s", ErrValue, digits(math.Floor(raw)*scale+offset), digits(math.Ceil(raw)*scale+offset))
		}
		return t.whole(math.Round(raw), scale, offset)
	}
	if math.IsInf(raw, 0) {
		return telemetry.Value{}, fmt.Errorf("%w: too large without its scale", ErrValue)
	}
	return telemetry.Float64(raw), nil
}

// whole makes a whole number one of the tag's type. What it was rounded to must be in the rule's range, too.
func (t *target) whole(raw, scale, offset float64) (telemetry.Value, error) {
	least, most := bounds(t.Type)
	if raw < least || raw > most {
		return telemetry.Value{}, fmt.Errorf("%w: without its scale it is %s, and a %s holds %s to %s", ErrValue, digits(raw), t.Type, digits(least), digits(most))
	}
	back := raw*scale + offset
	if slip := 1e-9 * math.Abs(back); back < t.Rule.Min-slip || back > t.Rule.Max+slip {
		return telemetry.Value{}, fmt.Errorf("%w: the device rounds it to %s; use %v to %v", ErrValue, digits(back), t.Rule.Min, t.Rule.Max)
	}
	if t.Type.Kind() == telemetry.KindUint {
		return telemetry.Uint(uint64(raw)), nil
	}
	return telemetry.Int(int64(raw)), nil
}

// digits writes a number as a person would: without what scaling leaves in the last digit.
func digits(x float64) string {
	if x == math.Trunc(x) && math.Abs(x) < 1e18 {
		return strconv.FormatFloat(x, 'f', -1, 64)
	}
	return strconv.FormatFloat(x, 'g', 15, 64)
}

// bounds returns the least and the most that a whole type holds and a float64 can tell from its neighbours.
func bounds(typ telemetry.DataType) (least, most float64) {
	const exact = 1<<53 - 1
	least, most = typ.Bounds()
	return max(least, -exact), min(most, exact)
}
