package templates

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	minInterval  = 10 * time.Millisecond
	maxInterval  = 24 * time.Hour
	maxNameBytes = 255
)

// Params are what a config may say beside `template:`.
type Params struct {
	Unit     int           // unit id, 0 to 255; used by Options
	Prefix   string        // before the name of each group and tag, so that several templates fit in one device
	Interval time.Duration // of the fastest groups, 10ms to 24h; slower groups follow only where they would be faster. 0 = the template's
	Base     int           // register that offsets count from; 0 = the template's
}

// Expand returns the groups and tags of the template. The caller owns what it returns.
func (t *Template) Expand(p Params) ([]Group, error) {
	if p.Interval != 0 && (p.Interval < minInterval || p.Interval > maxInterval) {
		return nil, fmt.Errorf("expand template %q: interval %v is out of range; use 10ms to 24h", t.Name, p.Interval)
	}
	if p.Base < 0 || p.Base > lastRegister {
		return nil, fmt.Errorf("expand template %q: base %d is out of range; use 0 to %d", t.Name, p.Base, lastRegister)
	}
	fastest := t.fastest()
	groups := make([]Group, len(t.groups))
	for i, g := range t.groups {
		out := Group{Name: p.Prefix + g.name, Interval: max(g.interval, p.Interval), Tags: make([]Tag, len(g.tags))}
		if p.Interval != 0 && g.interval == fastest {
			out.Interval = p.Interval
		}
		for j := range g.tags {
			var err error
			if out.Tags[j], err = t.expandTag(&g.tags[j], p); err != nil {
				return nil, err
			}
			if g.tags[j].power != "" {
				out.Derived = append(out.Derived, g.tags[j].derived(p.Prefix))
			}
		}
		groups[i] = out
	}
	return groups, nil
}

func (t *Template) fastest() time.Duration {
	d := maxInterval
	for _, g := range t.groups {
		d = min(d, g.interval)
	}
	return d
}

func (t *Template) expandTag(in *tag, p Params) (Tag, error) {
	out := in.Tag
	out.Name = p.Prefix + in.Name
	if len(out.Name) > maxNameBytes {
		return Tag{}, fmt.Errorf("expand template %q: %q has over %d bytes; shorten the prefix", t.Name, out.Name, maxNameBytes)
	}
	if in.Options != nil {
		out.Options = make(map[string]string, len(in.Options))
		for k, v := range in.Options {
			out.Options[k] = v
		}
	}
	if in.offset < 0 {
		return out, nil
	}
	base := p.Base
	if base == 0 {
		base = t.Base
	}
	if base+in.offset+max(in.words, 1)-1 > lastRegister {
		return Tag{}, fmt.Errorf("expand template %q: tag %q at base %d lies behind register %d; check the base", t.Name, out.Name, base, lastRegister)
	}
	out.Address = "holding:" + strconv.Itoa(base+in.offset)
	return out, nil
}

// derived is the value of a tag that counts in a power of ten, which the device may change. It divides where the exponent is negative,
// because 0.1 is no binary number: 2301 / 10 is 230.1.
func (t *tag) derived(prefix string) Derived {
	raw, power := word(prefix+t.Name), word(prefix+t.power)
	return Derived{Name: prefix + strings.TrimSuffix(t.Name, rawSuffix), Raw: prefix + t.Name, Unit: t.scaled, Description: t.Description,
		Expr: fmt.Sprintf("%[2]s < 0 ? %[1]s / 10 ** -%[2]s : %[1]s * 10 ** %[2]s", raw, power)}
}

var plainWord = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// word is a tag's name in a formula.
func word(name string) string {
	if plainWord.MatchString(name) {
		return name
	}
	return fmt.Sprintf("$env[%q]", name)
}

// Options returns the options of the device for the driver: unit, and order, max_registers and max_gap where the
// template has them.
func (t *Template) Options(p Params) map[string]string {
	o := map[string]string{"unit": strconv.Itoa(p.Unit)}
	if t.Order != "" {
		o["order"] = t.Order
	}
	if t.MaxRegisters > 0 {
		o["max_registers"] = strconv.Itoa(t.MaxRegisters)
	}
	if t.MaxGap >= 0 {
		o["max_gap"] = strconv.Itoa(t.MaxGap)
	}
	return o
}
