package importer

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/web"
)

// placeholder is an address of RFC 5737: it is valid, and nobody answers there.
const placeholder = "tcp://192.0.2.1:502"

// builder collects devices, groups and tags, and keeps their names as the config wants them.
type builder struct {
	result  *Result
	options Options
	devices map[string]*Device
	tallies []tally
	full    bool
}

// tally is a remark that many tags share, which is made once.
type tally struct {
	what string
	tags int
}

func newBuilder(o Options) *builder {
	o.Device = cmp.Or(o.Device, "imported")
	return &builder{result: &Result{}, options: o, devices: map[string]*Device{}}
}

func (b *builder) problem(where, format string, args ...any) {
	if len(b.result.Problems) == maxProblems {
		b.result.Unnamed++
		return
	}
	b.result.Problems = append(b.result.Problems, Problem{clip(where, maxRemark), clip(fmt.Sprintf(format, args...), maxRemark)})
}

// count adds a tag to those that share a remark.
func (b *builder) count(what string) {
	for i := range b.tallies {
		if b.tallies[i].what == what {
			b.tallies[i].tags++
			return
		}
	}
	b.tallies = append(b.tallies, tally{what, 1})
}

// sayTallies makes the remarks that tags share.
func (b *builder) sayTallies() {
	for _, t := range b.tallies {
		b.problem(web.Count(uint64(t.tags), "tag"), "%s", t.what)
	}
}

// writable is what tags share that others can write.
const writable = "writable there and only read here; name under writes of the config what a command may write"

// unit is the unit id of a device whose file has none.
func (b *builder) unit(where string) int {
	if b.options.Unit != nil {
		return *b.options.Unit
	}
	b.problem(where, "the file does not say the unit id of the device, so 1 was taken; give --unit where it is another")
	return 1
}

// clip bounds what a foreign file can make us print.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len("…")], "") + "…"
}

// device returns the device of that name and unit id, and makes it when it is new.
func (b *builder) device(where, name, url string, unit int) *Device {
	key := fmt.Sprintf("%s\x00%s\x00%d", name, url, unit)
	if d := b.devices[key]; d != nil {
		return d
	}
	if url == "" {
		if url = b.options.URL; url == "" {
			url = placeholder
			b.problem(where, "the file does not say where the device is; put its url in place of %s", placeholder)
		}
	}
	d := &Device{Name: b.clean(where, cmp.Or(name, b.options.Device)), URL: url, Unit: unit}
	for n := 2; b.taken(d.Name); n++ {
		d.Name = fmt.Sprintf("%s-%d", b.clean(where, cmp.Or(name, b.options.Device)), n)
	}
	b.devices[key] = d
	b.result.Devices = append(b.result.Devices, d)
	return d
}

func (b *builder) taken(name string) bool {
	for _, d := range b.result.Devices {
		if d.Name == name {
			return true
		}
	}
	return false
}

// clean makes a name that may stand in a topic.
func (b *builder) clean(where, name string) string {
	out := strings.Map(func(r rune) rune {
		if strings.ContainsRune("/+#{}", r) || r < ' ' || r == 0xfffd {
			return '-'
		}
		return r
	}, name)
	if len(out) > 200 {
		out = strings.ToValidUTF8(out[:200], "")
	}
	if out = strings.TrimSpace(out); out == "" {
		out = "imported"
	}
	if out != name {
		b.problem(where, "the name %q became %q, because names stand in topics", name, out)
	}
	return out
}

// group returns the group of the device with that name and interval.
func (b *builder) group(where string, d *Device, name string, interval time.Duration) *Group {
	if interval == 0 {
		if interval = b.options.Interval; interval == 0 {
			interval = time.Second
			b.count("no interval in the file, so 1s was taken; --interval sets another")
		}
	}
	if bounded := min(max(interval, 10*time.Millisecond), 24*time.Hour); bounded != interval {
		b.count(fmt.Sprintf("the interval of %s became %s; an interval is 10ms to 24h", interval, telemetry.Short(bounded)))
		interval = bounded
	}
	if name == "" {
		name = "every-" + telemetry.Short(interval)
	}
	for _, g := range d.Groups {
		if g.Name == name && g.Interval == interval {
			return g
		}
	}
	g := &Group{Name: b.clean(where, name), Interval: interval, names: map[string]int{}}
	for _, other := range d.Groups {
		if other.Name == g.Name {
			g.Name = b.clean(where, name+"-"+telemetry.Short(interval))
		}
	}
	for _, other := range d.Groups { // the same name again, cleaned
		if other.Name == g.Name {
			return other
		}
	}
	d.Groups = append(d.Groups, g)
	return g
}

// add puts a tag into a group, under another name where its own is taken.
func (b *builder) add(where string, g *Group, t Tag) {
	if b.result.Tags == maxTags {
		if !b.full {
			b.problem(where, "%d tags are the most that is read, and the file has more; split it", maxTags)
		}
		b.full = true
		return
	}
	if !finite(t.Scale) || !finite(t.Offset) {
		b.problem(where, "its scaling is not a number; set scale and offset by hand")
		t.Scale, t.Offset = 0, 0
	}
	if t.unscaled {
		b.problem(where, "its scaling was left out, because a bit or a text has none; remove it there or choose another type by hand")
	}
	name := strings.ToValidUTF8(strings.TrimSpace(t.Name), "-")
	if name == "" || len(name) > 255 {
		b.problem(where, "left out: a tag needs a name of 1 to 255 bytes; name it by hand")
		return
	}
	t.Name = name
	for g.names[t.Name] > 0 {
		g.names[name]++ // so that a name that stands there often is not searched from the beginning
		t.Name = fmt.Sprintf("%s_%d", name, g.names[name])
	}
	if len(t.Name) > 255 {
		b.problem(where, "left out: its name is taken, and too long for a number behind it; name it by hand")
		return
	}
	if t.Name != name {
		b.problem(where, "its name is taken in group %q; it became %q", g.Name, t.Name)
	}
	g.names[t.Name] = 1
	g.Tags = append(g.Tags, t)
	b.result.Tags++
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
