package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"millrace/drivers/telemetry"
)

// longest is how many bytes a value may have: a text tag of any device is shorter.
const longest = 1024

// Parse reads a value of a type, or an array of it, as a person writes it: without a rule and without a scale, for tools. Numbers are
// taken as they stand; whether the device's type holds them is for its driver to say.
func Parse(text string, typ telemetry.DataType, array bool) (telemetry.Value, error) {
	v, err := parse(text, typ, array, plain)
	if num := (*strconv.NumError)(nil); errors.As(err, &num) {
		err = num.Err
		if errors.Is(err, strconv.ErrSyntax) {
			err = needs(typ.Kind())
		}
	}
	if err != nil {
		return v, fmt.Errorf("value %q of the type %s: %w", clip(text), typ, err)
	}
	return v, nil
}

// needs says what a value of the kind looks like.
func needs(k telemetry.Kind) error {
	switch k {
	case telemetry.KindBool:
		return errors.New("use true or false")
	case telemetry.KindInt:
		return errors.New("use a whole number, such as -12 or 0xff")
	case telemetry.KindUint:
		return errors.New("use a whole number from 0 on, such as 12 or 0xff")
	}
	return errors.New("use a number, such as 1.5")
}

// plain reads one value.
func plain(text string, typ telemetry.DataType) (telemetry.Value, error) {
	switch typ.Kind() {
	case telemetry.KindBool:
		b, err := strconv.ParseBool(text)
		return telemetry.Bool(b), err
	case telemetry.KindInt:
		n, err := strconv.ParseInt(text, 0, 64)
		return telemetry.Int(n), err
	case telemetry.KindUint:
		n, err := strconv.ParseUint(text, 0, 64)
		return telemetry.Uint(n), err
	case telemetry.KindString:
		return telemetry.String(text), nil
	case telemetry.KindTime:
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			err = errors.New("use a time such as 2026-01-02T03:04:05Z, with Z or an offset such as +01:00")
		}
		return telemetry.Time(at), err
	}
	x, err := strconv.ParseFloat(text, 64)
	return telemetry.Float64(x), err
}

// parse reads one value, or an array as JSON has it, whose elements must be of the JSON type that theirs is.
func parse(text string, typ telemetry.DataType, array bool, one func(string, telemetry.DataType) (telemetry.Value, error)) (telemetry.Value, error) {
	if !array {
		return one(text, typ)
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var list []any
	err := d.Decode(&list)
	if _, end := d.Token(); err != nil || list == nil || end != io.EOF {
		return telemetry.Value{}, fmt.Errorf("%w: use an array such as [1, 2, 3]", ErrValue)
	}
	elems := make([]telemetry.Value, len(list))
	for i, e := range list {
		text, ok := elementText(e, typ.Kind())
		if !ok {
			return telemetry.Value{}, fmt.Errorf("%w: element %d is no %s", ErrValue, i, typ)
		}
		if elems[i], err = one(text, typ); err != nil {
			return telemetry.Value{}, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return telemetry.Array(elems), nil
}

func elementText(e any, kind telemetry.Kind) (string, bool) {
	switch e := e.(type) {
	case bool:
		return strconv.FormatBool(e), kind == telemetry.KindBool
	case string:
		return e, kind == telemetry.KindString || kind == telemetry.KindTime
	case json.Number:
		return e.String(), kind != telemetry.KindBool && kind != telemetry.KindString && kind != telemetry.KindTime
	}
	return "", false
}

// raw reads a value as a person writes it, checks its range, takes the scale off, and fits it to the type; in an array each element.
func (t *target) raw(text string, typ telemetry.DataType, array bool) (telemetry.Value, error) {
	if len(text) > longest {
		return telemetry.Value{}, fmt.Errorf("%w: it has %d bytes; use %d at most", ErrValue, len(text), longest)
	}
	return parse(text, typ, array, t.one)
}

func (t *target) one(text string, typ telemetry.DataType) (telemetry.Value, error) {
	switch typ.Kind() {
	case telemetry.KindBool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return telemetry.Value{}, fmt.Errorf("%w: use true or false", ErrValue)
		}
		return telemetry.Bool(b), nil
	case telemetry.KindString:
		return telemetry.String(text), nil
	case telemetry.KindTime, telemetry.KindArray:
		return telemetry.Value{}, fmt.Errorf("%w: type %s is read only", ErrValue, typ)
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
	if v, ok := t.large(text, typ); ok {
		return v, nil
	}
	return t.fit(x, typ)
}

// large reads a whole number for a type of 64 bits and without a scale, of which a float64 cannot tell the neighbours apart.
func (t *target) large(text string, typ telemetry.DataType) (telemetry.Value, bool) {
	n, ok := new(big.Int).SetString(text, 10)
	if !ok || t.Tag.Scaled() {
		return telemetry.Value{}, false
	}
	f := new(big.Float).SetInt(n)
	if f.Cmp(big.NewFloat(t.Rule.Min)) < 0 || f.Cmp(big.NewFloat(t.Rule.Max)) > 0 {
		return telemetry.Value{}, false
	}
	switch {
	case typ == telemetry.Int64Type && n.IsInt64():
		return telemetry.Int(n.Int64()), true
	case typ == telemetry.Uint64Type && n.IsUint64():
		return telemetry.Uint(n.Uint64()), true
	}
	return telemetry.Value{}, false
}

// fit makes a number in range one of the tag's type, unscaled. What a whole type cannot hold is refused: the equipment would get another value than was asked for.
func (t *target) fit(x float64, typ telemetry.DataType) (telemetry.Value, error) {
	scale, offset := 1.0, 0.0
	if t.Tag.Scaled() {
		offset = t.Tag.Offset
		if t.Tag.Scale != 0 {
			scale = t.Tag.Scale
		}
	}
	raw := (x - offset) / scale
	switch typ.Kind() {
	case telemetry.KindFloat32:
		short := float32(raw)
		if math.Abs(raw) > math.MaxFloat32 {
			return telemetry.Value{}, fmt.Errorf("%w: too large for a %s", ErrValue, typ)
		}
		if raw == math.Trunc(raw) && float64(short) != raw { // a fraction is written to be taken to its neighbour, a whole number is not
			next := math.Nextafter32(short, float32(math.Copysign(math.MaxFloat32, raw-float64(short))))
			return telemetry.Value{}, fmt.Errorf("%w: the device holds %.0f or %.0f", ErrValue, float64(min(short, next))*scale+offset, float64(max(short, next))*scale+offset)
		}
		return telemetry.Float32(float32(raw)), nil
	case telemetry.KindInt, telemetry.KindUint:
		if near := math.Round(raw); math.Abs(raw-near) > 1e-6*math.Max(1, math.Abs(raw)) {
			return telemetry.Value{}, fmt.Errorf("%w: the device holds %s or %s", ErrValue, digits(math.Floor(raw)*scale+offset), digits(math.Ceil(raw)*scale+offset))
		}
		return t.whole(math.Round(raw), scale, offset, typ)
	}
	if math.IsInf(raw, 0) {
		return telemetry.Value{}, fmt.Errorf("%w: too large without its scale", ErrValue)
	}
	return telemetry.Float64(raw), nil
}

// whole makes a whole number one of the tag's type. What it was rounded to must be in the rule's range, too.
func (t *target) whole(raw, scale, offset float64, typ telemetry.DataType) (telemetry.Value, error) {
	least, most := bounds(typ)
	switch {
	case (raw < least || raw > most) && !t.Tag.Scaled():
		return telemetry.Value{}, fmt.Errorf("%w: a %s holds %s to %s", ErrValue, typ, digits(least), digits(most))
	case raw < least || raw > most:
		return telemetry.Value{}, fmt.Errorf("%w: without its scale it is %s, and a %s holds %s to %s", ErrValue, digits(raw), typ, digits(least), digits(most))
	}
	back := raw*scale + offset
	if slip := 1e-9 * math.Abs(back); back < t.Rule.Min-slip || back > t.Rule.Max+slip {
		return telemetry.Value{}, fmt.Errorf("%w: the device rounds it to %s; use %v to %v", ErrValue, digits(back), t.Rule.Min, t.Rule.Max)
	}
	if typ.Kind() == telemetry.KindUint {
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
