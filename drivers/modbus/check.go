package modbus

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"

	"millrace/drivers/telemetry"
)

// check is what is made of a value once it is decoded: "not available" values are bad, implausible ones uncertain, and
// numbers get their texts.
type check struct {
	invalid         []interval
	nan             bool // not-a-number is "not available"
	text            map[string]bool
	low, high       float64 // plausible, in engineering units
	lowText, hiText string
	scale, offset   float64
	enum            map[int64]string
	flags           []flag
	lastFlags       uint64
	lastFlagText    string
}

// flag is the text of one bit.
type flag struct {
	bit  int
	text string
}

// sunspec is the values for "not implemented" of SunSpec's types (SunSpec Device Information Model Specification).
var sunspec = map[kind]string{kindInt16: "0x8000", kindUint16: "0xffff", kindInt32: "0x80000000", kindUint32: "0xffffffff",
	kindInt64: "0x8000000000000000", kindUint64: "0xffffffffffffffff", kindFloat32: "nan", kindFloat64: "nan"}

// parseCheck reads invalid, min, max, enum and flags of a tag, and invalid of its device; nil where there is nothing to check.
func parseCheck(t *telemetry.Tag, f *field, dev *settings, r *reporter) *check {
	c := &check{scale: t.Scale, offset: t.Offset, low: math.Inf(-1), high: math.Inf(1)}
	if c.scale == 0 {
		c.scale = 1
	}
	used := c.device(f, dev, r)
	if text, ok := t.Options["invalid"]; ok {
		used = true
		r.check("invalid", text, c.parseInvalid(text, f.kind, limitsOf(f.kind, f)))
	}
	for _, name := range []string{"min", "max"} {
		text, ok := t.Options[name]
		if !ok {
			continue
		}
		if of := namesOf(t); of != "" {
			r.add(name, fmt.Sprintf("%s %q of a tag with %s: its values are texts", name, text, of), "delete it")
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(v) || !f.kind.number() {
			r.add(name, fmt.Sprintf("%s %q of the type %s", name, text, f.kind), "use a number in the tag's unit, for types that are numbers")
			continue
		}
		used = true
		if name == "min" {
			c.low, c.lowText = v, text
		} else {
			c.high, c.hiText = v, text
		}
	}
	if c.low > c.high {
		r.add("min", fmt.Sprintf("min %s is over max %s", c.lowText, c.hiText), "change one of them")
	}
	used = c.texts(t, f, r) || used
	if !used {
		return nil
	}
	return c
}

// namesOf returns which option makes texts of a tag's numbers, "" for none.
func namesOf(t *telemetry.Tag) string {
	for _, name := range []string{"enum", "flags"} {
		if _, ok := t.Options[name]; ok {
			return name
		}
	}
	return ""
}

// device takes what the device's invalid says of the tag's type.
func (c *check) device(f *field, dev *settings, r *reporter) bool {
	text := dev.invalid[f.kind]
	if text == "" {
		return false
	}
	r.check("invalid", text, c.parseInvalid(text, f.kind, limitsOf(f.kind, nil)))
	return true
}

// texts reads enum and flags.
func (c *check) texts(t *telemetry.Tag, f *field, r *reporter) bool {
	enum, isEnum := t.Options["enum"]
	flags, isFlags := t.Options["flags"]
	if !isEnum && !isFlags {
		return false
	}
	name, text := "enum", enum
	if isFlags {
		name, text = "flags", flags
	}
	if isEnum && isFlags || t.Scaled() || f.kind.float() || f.kind.long() || f.kind.time() {
		r.add(name, fmt.Sprintf("%s of a tag that is %s, scaled or has both enum and flags", name, f.kind), "use one of them, for whole numbers that are not scaled")
		return true
	}
	pairs, m := parsePairs(text)
	if !r.check(name, text, m) {
		return true
	}
	if isEnum {
		c.enum = map[int64]string{}
	}
	all := limitsOf(f.kind, f)
	for _, p := range pairs {
		if isEnum && !all.holds(telemetry.Int(p.number)) {
			r.add(name, fmt.Sprintf("enum: the type %s has no value %d", f.kind, p.number), "its values are "+all.String())
		} else if isEnum {
			c.enum[p.number] = p.text
		} else if last := f.width() - 1; p.number < 0 || p.number > int64(last) {
			r.add(name, fmt.Sprintf("flags: the type %s has no bit %d", f.kind, p.number), fmt.Sprintf("its bits are 0 to %d, 0 is the least significant", last))
		} else {
			c.flags = append(c.flags, flag{int(p.number), p.text})
		}
	}
	return true
}

type pair struct {
	number int64
	text   string
}

// parsePairs reads "0=off, 1=on".
func parsePairs(text string) ([]pair, *mistake) {
	var pairs []pair
	texts := map[int64]string{}
	for part := range strings.SplitSeq(text, ",") {
		number, word, ok := strings.Cut(part, "=")
		n, err := strconv.ParseInt(strings.TrimSpace(number), 0, 64)
		word = strings.TrimSpace(word)
		if !ok || err != nil || word == "" {
			return nil, &mistake{fmt.Sprintf("%q is not a number and its text", strings.TrimSpace(part)), "write it like 0=off, 1=on"}
		}
		if other, twice := texts[n]; twice {
			return nil, &mistake{fmt.Sprintf("%d has two texts, %q and %q", n, other, word), "delete one of them"}
		}
		texts[n] = word
		pairs = append(pairs, pair{n, word})
	}
	return pairs, nil
}

const notAvailable = "not available: the device says so by this value"

// apply judges a good reading.
func (c *check) apply(r *telemetry.Reading) {
	v := r.Value
	if c.unavailable(v) {
		*r = telemetry.Reading{Tag: r.Tag, Time: r.Time, Quality: telemetry.Bad, Reason: notAvailable}
		return
	}
	switch {
	case c.enum != nil:
		c.name(r)
		return
	case c.flags != nil:
		r.Value = telemetry.String(c.flagText(v.Bits))
		return
	}
	if f, ok := v.Float(); ok {
		f = f*c.scale + c.offset
		switch {
		case f < c.low:
			r.Quality, r.Reason = telemetry.Uncertain, "implausible: under min "+c.lowText
		case f > c.high:
			r.Quality, r.Reason = telemetry.Uncertain, "implausible: over max "+c.hiText
		}
	}
}

func (c *check) unavailable(v telemetry.Value) bool {
	if v.Kind == telemetry.KindString {
		return c.text[v.Text]
	}
	if f, ok := v.Float(); ok && c.nan && math.IsNaN(f) {
		return true
	}
	for _, i := range c.invalid {
		if i.holds(v) {
			return true
		}
	}
	return false
}

// compare orders two numbers, exactly also beyond 2^53. Not-a-number is before all others.
func compare(a, b telemetry.Value) int {
	switch {
	case a.Kind == telemetry.KindUint && b.Kind == telemetry.KindUint:
		return cmp.Compare(a.Bits, b.Bits)
	case a.Kind == telemetry.KindInt && b.Kind == telemetry.KindInt:
		return cmp.Compare(int64(a.Bits), int64(b.Bits))
	}
	x, _ := a.Float()
	y, _ := b.Float()
	return cmp.Compare(x, y)
}

// name gives a number its text.
func (c *check) name(r *telemetry.Reading) {
	n := int64(r.Value.Bits)
	if text, ok := c.enum[n]; ok {
		r.Value = telemetry.String(text)
		return
	}
	text := strconv.FormatInt(n, 10)
	if r.Value.Kind == telemetry.KindUint {
		text = strconv.FormatUint(r.Value.Bits, 10)
	}
	r.Value, r.Quality, r.Reason = telemetry.String(text), telemetry.Uncertain, "the value has no text in enum"
}

// flagText returns the texts of the bits that are set; one that did not change is not made again.
func (c *check) flagText(bits uint64) string {
	if bits == c.lastFlags {
		return c.lastFlagText
	}
	var set []string
	for _, f := range c.flags {
		if bits>>f.bit&1 == 1 {
			set = append(set, f.text)
		}
	}
	c.lastFlags, c.lastFlagText = bits, strings.Join(set, ", ")
	return c.lastFlagText
}
