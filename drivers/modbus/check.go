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

// interval is values from low to high, as the tag's numbers.
type interval struct{ low, high telemetry.Value }

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
		r.check("invalid", text, c.parseInvalid(text, f.kind))
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
	r.check("invalid", text, c.parseInvalid(text, f.kind))
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
	for _, p := range pairs {
		if isEnum {
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

// parseInvalid reads "0x8000, 9999, 100..200, nan": hex digits are the bits of the value, other numbers its value.
func (c *check) parseInvalid(text string, k kind) *mistake {
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		switch {
		case part == "":
			return &mistake{"an entry is empty", "write it like 0x8000, 9999, 100..200, nan"}
		case k.long():
			if c.text == nil {
				c.text = map[string]bool{}
			}
			c.text[part] = true
			continue
		case strings.EqualFold(part, "nan") && k.float():
			c.nan = true
			continue
		}
		low, high, ranged := strings.Cut(part, "..")
		if !ranged {
			high = low
		}
		a, ok := parseRaw(low, k)
		b, ok2 := parseRaw(high, k)
		if !ok || !ok2 || !k.number() {
			return &mistake{fmt.Sprintf("%q is not a value of the type %s", part, k), "write it like 0x8000, 9999, 100..200, nan"}
		}
		c.invalid = append(c.invalid, interval{a, b})
	}
	return nil
}

// parseRaw reads a number as a value of the kind.
func parseRaw(text string, k kind) (telemetry.Value, bool) {
	text = strings.TrimSpace(text)
	width := 16 * max(k.registers(), 1)
	if k == kindInt8 || k == kindUint8 {
		width = 8
	}
	if hex, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		bits, err := strconv.ParseUint(hex, 16, width)
		return fromBits(bits, k), err == nil
	}
	switch kinds[k].data.Kind() {
	case telemetry.KindFloat32, telemetry.KindFloat64:
		v, err := strconv.ParseFloat(text, 64)
		return telemetry.Float64(v), err == nil && !math.IsNaN(v)
	case telemetry.KindInt:
		v, err := strconv.ParseInt(text, 10, width)
		return telemetry.Int(v), err == nil
	}
	v, err := strconv.ParseUint(text, 10, 64)
	return telemetry.Uint(v), err == nil
}

// fromBits makes a value of a bit pattern.
func fromBits(bits uint64, k kind) telemetry.Value {
	switch k {
	case kindInt8:
		return telemetry.Int(int64(int8(bits)))
	case kindInt16:
		return telemetry.Int(int64(int16(bits)))
	case kindInt32:
		return telemetry.Int(int64(int32(bits)))
	case kindInt48:
		return telemetry.Int(int64(bits<<16) >> 16)
	case kindInt64:
		return telemetry.Int(int64(bits))
	case kindFloat16:
		return telemetry.Float64(float64(float16(uint16(bits))))
	case kindFloat32:
		return telemetry.Float64(float64(math.Float32frombits(uint32(bits))))
	case kindFloat64:
		return telemetry.Float64(math.Float64frombits(bits))
	}
	return telemetry.Uint(bits)
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
		if compare(v, i.low) >= 0 && compare(v, i.high) <= 0 {
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
