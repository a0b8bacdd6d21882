package config

import (
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"millrace/drivers"
)

// deviceDraft is a device while its keys are read, in whatever order they stand.
type deviceDraft struct {
	Device
	protocol *drivers.Protocol // nil while the driver is unknown: its keys are then not checked
	groups   field
	places   *devicePlace
}

func deviceTable() *table[deviceDraft] {
	return &table[deviceDraft]{in: "a device", keys: []key[deviceDraft]{
		{name: "name", need: `"name: press-1"`, set: func(l *loader, f field, d *deviceDraft) {
			if l.name(f, &d.Name, true) {
				l.unique(f, "device", d.Name)
			}
		}},
		{name: "driver", need: `"driver: modbus"`, set: func(l *loader, f field, d *deviceDraft) { l.driver(f, &d.Driver) }},
		{name: "url", need: `"url: tcp://192.168.1.10:502"`, set: func(l *loader, f field, d *deviceDraft) { l.deviceURL(f, &d.URL) }},
		{name: "timeout", set: func(l *loader, f field, d *deviceDraft) {
			l.duration(f, &d.Timeout, false, minTimeout, maxTimeout)
		}},
		{name: "description", set: func(l *loader, f field, d *deviceDraft) { l.short(f, &d.Description, maxLabel) }},
		{name: "labels", set: func(l *loader, f field, d *deviceDraft) { l.labels(f, &d.Labels) }},
		{name: "retry", set: func(l *loader, f field, d *deviceDraft) { l.retry(f, &d.Retry) }},
		{name: "groups", need: `"groups:" with a list of poll groups`, set: func(_ *loader, f field, d *deviceDraft) { d.groups = f }},
	}}
}

// groupDraft is a group while its keys are read.
type groupDraft struct {
	Group
	reporting
	device *deviceDraft
	tags   field
	names  map[string]int32 // tags by name: the line of each
}

func groupTable() *table[groupDraft] {
	return &table[groupDraft]{in: "a group", keys: append([]key[groupDraft]{
		{name: "name", need: `"name: fast"`, set: func(l *loader, f field, g *groupDraft) {
			if l.name(f, &g.Name, true) {
				l.uniqueGroup(f, g)
			}
		}},
		{name: "interval", need: `"interval: 1s"`, set: func(l *loader, f field, g *groupDraft) {
			l.duration(f, &g.Interval, false, minInterval, maxInterval)
		}},
		{name: "tags", need: `"tags:" with a list of tags`, set: func(_ *loader, f field, g *groupDraft) { g.tags = f }},
	}, reportKeys(func(g *groupDraft) *reporting { return &g.reporting })...)}
}

// deviceURL reads the url of a device, which its driver checks; a user and password in it stay hidden.
func (l *loader) deviceURL(f field, dst *string) {
	if !l.short(f, dst, maxText) {
		return
	}
	_, rest, _ := strings.Cut(*dst, "://")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		_, password, _ := strings.Cut(rest[:at], ":")
		l.hide(password)
	}
	*dst = l.intern(*dst)
}

// driver reads the word after `driver:`.
func (l *loader) driver(f field, dst *string) {
	s, ok := l.text(f)
	if !ok {
		return
	}
	names := make([]string, len(l.protocols))
	for i, p := range l.protocols {
		names[i] = p.Name
	}
	if !slices.Contains(names, s) {
		l.errorf(l.at(f.v), didYouMean(s, names, "use"), "unknown driver %s", quote(f.v.n.Value))
		return
	}
	*dst = l.intern(s)
}

// driverOf looks for the driver before the keys are read, because they depend on it. It reports nothing.
func (l *loader) driverOf(v value) *drivers.Protocol {
	if v.n.Kind != yaml.MappingNode {
		return nil
	}
	pairs := l.pairs(v)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i].Value == "driver" {
			return l.cfg.protocol(l.resolve(value{pairs[i+1], v.file, v.lines}).n.Value)
		}
	}
	return nil
}

// readDevice reads one entry of `devices:`.
func (l *loader) readDevice(v value) {
	d := &deviceDraft{protocol: l.driverOf(v), places: &devicePlace{places: places{at: l.at(v)}}}
	d.Timeout, d.Retry = DefaultTimeout, DefaultDeviceRetry()
	var values []option
	h := l.optionHooks(d.protocol, deviceOptions(d.protocol), &values)
	h.note = func(f field, ok bool) { d.places.note(l, f, ok) }
	before := l.mistakes.total
	seen := read(l, v, l.tables.device, d, h)
	lack(l, v, l.tables.device, seen, called("device", d.Name))
	d.places.faulty = l.mistakes.total > before
	d.Options = l.options(values)
	if d.groups.v.n != nil {
		l.list(d.groups, func(v value) { l.readGroup(d, v) })
	}
	l.cfg.Devices = append(l.cfg.Devices, d.Device)
	l.places = append(l.places, *d.places)
}

func (l *loader) readGroup(d *deviceDraft, v value) {
	g := &groupDraft{device: d, names: map[string]int32{}}
	place := groupPlace{}
	place.at = l.at(v)
	before := l.mistakes.total
	seen := read(l, v, l.tables.group, g, hooks{note: func(f field, ok bool) { place.note(l, f, ok) }})
	lack(l, v, l.tables.group, seen, called("group", g.Name))
	place.faulty = l.mistakes.total > before
	if g.Interval == 0 {
		g.Interval = time.Second // a mistake is reported: this lets the driver check the rest
	}
	l.settle(&g.reporting, g.Interval)
	if g.tags.v.n != nil {
		l.list(g.tags, func(v value) { l.readTag(g, &place, v) })
	}
	g.Tags, g.Report = slices.Clip(g.Tags), slices.Clip(g.Report)
	d.Groups = append(d.Groups, g.Group)
	d.places.groups = append(d.places.groups, place)
}

func (l *loader) uniqueGroup(f field, g *groupDraft) {
	for i := range g.device.Groups {
		if g.device.Groups[i].Name == g.Name {
			l.errorf(l.at(f.v), "give it another name", "group %q is already defined in this device at line %d",
				g.Name, g.device.places.groups[i].at.line)
			return
		}
	}
}

// option is one driver's key as it is read.
type option struct{ name, text string }

// optionHooks returns hooks that take a driver's own keys into values. A driver that is not known may have
// any keys: its name is the mistake to mend first.
func (l *loader) optionHooks(p *drivers.Protocol, known []drivers.Option, values *[]option) hooks {
	return hooks{extra: known, other: func(f field) bool {
		if p == nil {
			return true
		}
		for i := range known {
			if known[i].Name != f.name {
				continue
			}
			if s, ok := l.text(f); ok && len(s) > maxText {
				l.errorf(l.at(f.v), "shorten it", "%s has %d bytes, more than %d", f.name, len(s), maxText)
			} else if ok {
				*values = append(*values, option{known[i].Name, s})
			}
			return true
		}
		return false
	}}
}

// options returns the map of a driver's keys. Tags with the same keys share one map: in a plant, nearly all do.
func (l *loader) options(values []option) map[string]string {
	if len(values) == 0 {
		return nil
	}
	slices.SortFunc(values, func(a, b option) int { return strings.Compare(a.name, b.name) })
	b := l.optionKey[:0]
	for _, o := range values {
		b = append(append(append(append(b, o.name...), 0), o.text...), 0)
	}
	l.optionKey = b
	if m, ok := l.optionSets[string(b)]; ok {
		return m
	}
	m := make(map[string]string, len(values))
	for _, o := range values {
		m[o.name] = o.text
	}
	if len(l.optionSets) < 4096 {
		l.optionSets[string(b)] = m
	}
	return m
}
