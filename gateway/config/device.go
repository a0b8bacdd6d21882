package config

import (
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// deviceDraft is a device while its keys are read, in whatever order they stand.
type deviceDraft struct {
	Device
	protocol *drivers.Protocol // nil while the driver is unknown: its keys are then not checked
	groups   field
	places   *devicePlace
	formulas []formula
	unread   bool // not all of its tags could be read

	templates []templateDraft
	given     map[string]string // options that the config itself gives
}

func deviceTable(group *table[groupDraft]) *table[deviceDraft] {
	driver := wordKind(func(d *deviceDraft) *string { return &d.Driver }, maxName)
	driver.set = func(l *loader, f field, d *deviceDraft) bool { return l.driver(f, &d.Driver) }
	groups := listKind(group, func(d *deviceDraft) iter.Seq[*groupDraft] {
		return drafts(d.Groups, func(g *Group) *groupDraft {
			return &groupDraft{Group: *g, device: d, reporting: reporting{TagReport: g.Selected}}
		})
	}, func(_ *loader, f field, d *deviceDraft) { d.groups = f })
	return &table[deviceDraft]{in: "a device", options: deviceOptions, given: func(d *deviceDraft) (*drivers.Protocol, map[string]string) { return d.protocol, d.Options },
		keys: []key[deviceDraft]{
			{name: "name", show: "press-1", need: `"name: press-1"`, kind: then(nameKind(func(d *deviceDraft) *string { return &d.Name }, true),
				func(l *loader, f field, d *deviceDraft) { l.unique(f, "device", d.Name) })},
			{name: "driver", show: "modbus", need: `"driver: modbus"`, kind: driver},
			{name: "url", or: "urls", show: "tcp://192.168.1.10:502", need: `"url: tcp://192.168.1.10:502"`, help: "as the driver says; Modbus devices with the same url share one connection", kind: deviceURLKind()},
			{name: "urls", show: "[tcp://10.0.0.10, tcp://10.1.0.10]", help: "in place of url, where several paths lead to a Modbus device: the first is used until it fails, then the next", kind: deviceURLsKind()},
			// Slow serial gateways answer within a second, and a dead device must not hold its line for longer than a few polls.
			{name: "timeout", def: "2s", help: "of one request; a Modbus device that falls silent is bad after two of them", kind: durationKind(func(d *deviceDraft) *time.Duration { return &d.Timeout }, false, minTimeout, maxTimeout)},
			// A serial gateway needs about half a second to free its only session; a device that was switched on is read within half a minute.
			{name: "retry", help: "wait between two connects, growing from min to max", kind: retryKind("500ms", "30s", func(d *deviceDraft) *Retry { return &d.Retry })},
			{name: "description", show: "the big press", help: "256 bytes at most", kind: textKind(func(d *deviceDraft) *string { return &d.Description }, maxLabel)},
			{name: "labels", show: `{line: "4"}`, help: "names with texts; 64 at most", kind: labelsKind(func(d *deviceDraft) *[]telemetry.Label { return &d.Labels })},
			{name: "template", show: "eastron-sdm630", help: "instead of groups or beside them: the groups of a device template, by name or with name, prefix, interval, base, report, deadband and heartbeat, one or a list; millrace template lists them, and NAME -o template prints one to make your own of",
				kind: templateKind()},
			{name: "groups", or: "template", need: `"groups:" with a list of poll groups, or "template:"`, help: "poll groups", kind: groups},
		}}
}

func deviceURLKind() kind[deviceDraft] {
	k := textKind(func(d *deviceDraft) *string { return &d.URL }, maxText)
	k.set = func(l *loader, f field, d *deviceDraft) bool { return l.deviceURL(f, &d.URL) }
	k.get = func(d *deviceDraft) string {
		if d.Spares != nil {
			return "" // urls has it
		}
		return text(redact(d.URL))
	}
	return k
}

// maxURLs bounds the paths to a device: more are a mistake rather than a plant.
const maxURLs = 8

func deviceURLsKind() kind[deviceDraft] {
	return kind[deviceDraft]{
		set: func(l *loader, f field, d *deviceDraft) bool { return l.deviceURLs(f, d) },
		get: func(d *deviceDraft) string {
			if d.Spares == nil {
				return ""
			}
			list := text(redact(d.URL))
			for _, url := range d.Spares {
				list += ", " + text(redact(url))
			}
			return "[" + list + "]"
		},
		form: form{words: fmt.Sprintf("2 to %d", maxURLs), schema: schema{"type": "array", "minItems": 2, "maxItems": maxURLs, "items": textSchema(maxText)}},
	}
}

// groupDraft is a group while its keys are read.
type groupDraft struct {
	Group
	reporting
	device *deviceDraft
	tags   field
	names  map[string]int32 // tags by name: the line of each

	meant uint64 // keys of a tag that a column with a wrong name may hold

	derivedAggregates []derivedAggregate
}

// derivedAggregate is kept until it is known how many tags are read.
type derivedAggregate struct {
	derived   int
	aggregate Aggregate
}

func (g *groupDraft) setAggregate(tag int, a Aggregate) {
	if g.Aggregates == nil {
		g.Aggregates = map[int]Aggregate{}
	}
	g.Aggregates[tag] = a
}

func groupTable(tag *table[tagDraft]) *table[groupDraft] {
	tags := listKind(tag, tagDrafts, func(_ *loader, f field, g *groupDraft) { g.tags = f })
	tags.form.also = schema{"type": "object", "required": []string{"csv"}, "properties": schema{"csv": textSchema(maxText)}, "additionalProperties": false}
	keys := []key[groupDraft]{
		{name: "name", show: "fast", need: `"name: fast"`, kind: then(nameKind(func(g *groupDraft) *string { return &g.Name }, true),
			func(l *loader, f field, g *groupDraft) { l.uniqueGroup(f, g) })},
		{name: "interval", show: "1s", need: `"interval: 1s"`, kind: durationKind(func(g *groupDraft) *time.Duration { return &g.Interval }, false, minInterval, maxInterval)},
	}
	// Printed with the tags: each says what holds for it.
	keys = append(keys, reportKeys(func(g *groupDraft) *reporting { return &g.reporting })...)
	keys = append(keys, key[groupDraft]{name: "tags", need: `"tags:" with a list of tags`, help: "131,072 at most; or {csv: FILE}, a table whose first line names these keys, labels excepted", kind: tags})
	return &table[groupDraft]{in: "a group", options: groupOptions, given: func(g *groupDraft) (*drivers.Protocol, map[string]string) { return g.device.protocol, g.Options }, keys: keys}
}

// tagDrafts yields the tags of a group with their reports.
func tagDrafts(g *groupDraft) iter.Seq[*tagDraft] {
	return func(yield func(*tagDraft) bool) {
		for i := range g.Tags {
			t := &tagDraft{Tag: g.Tags[i], group: g, aggregate: g.Aggregates[i]}
			if g.Report != nil {
				t.TagReport = g.Report[i]
			}
			t.always = g.Selected.OnChange
			if r, ok := g.Clamps[i]; ok {
				t.clamped = &r
			}
			if !yield(t) {
				return
			}
		}
		for i := range g.Derived {
			t := &g.Derived[i]
			if !yield(&tagDraft{Tag: t.Tag, text: t.Expr, group: g, aggregate: g.Aggregates[len(g.Tags)+i], reporting: reporting{TagReport: t.Report, always: g.Selected.OnChange}}) {
				return
			}
		}
	}
}

// deviceURL reads the url of a device, which its driver checks; a user and password in it stay hidden.
func (l *loader) deviceURL(f field, dst *string) bool {
	if !l.short(f, dst, maxText) {
		return false
	}
	_, rest, _ := strings.Cut(*dst, "://")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		_, password, _ := strings.Cut(rest[:at], ":")
		l.hide(password)
	}
	*dst = l.intern(*dst)
	return true
}

// deviceURLs reads the urls of a device that is reached over several paths. The first counts as its url.
func (l *loader) deviceURLs(f field, d *deviceDraft) bool {
	if p := d.protocol; p != nil && !p.Redundant {
		l.errorf(l.at(f.k), "write url: with one of them", "a device of the driver %q has one url", p.Name)
		return false
	}
	before := l.mistakes.total
	var urls []string
	l.list(f, func(v value) {
		var url string
		if l.deviceURL(field{name: f.name, in: f.in, k: f.k, v: v}, &url) {
			urls = append(urls, url)
		}
	})
	switch {
	case l.mistakes.total > before:
		return false
	case len(urls) < 2 || len(urls) > maxURLs:
		l.errorf(l.at(f.v), "write url: where there is one path", "%s has %d of them, not 2 to %d", f.name, len(urls), maxURLs)
		return false
	}
	d.URL, d.Spares = urls[0], urls[1:]
	return true
}

// driver reads the word after `driver:`.
func (l *loader) driver(f field, dst *string) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	names := make([]string, len(l.protocols))
	for i, p := range l.protocols {
		names[i] = p.Name
	}
	if !slices.Contains(names, s) {
		l.errorf(l.at(f.v), didYouMean(s, names, "use"), "unknown driver %s", quote(f.v.n.Value))
		return false
	}
	*dst = l.intern(s)
	return true
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
	l.tables.device.reset(l, d)
	var values []option
	h := l.optionHooks(d.protocol, deviceOptions(d.protocol), &values)
	h.note = func(f field, ok bool) { d.places.note(l, f, ok) }
	before := l.mistakes.total
	clear(l.pems)
	seen := read(l, v, l.tables.device, d, h)
	lack(l, v, l.tables.device, seen, called("device", d.Name))
	if both := l.tables.device.bit("url") | l.tables.device.bit("urls"); seen&both == both {
		l.errorf(l.at(v), "keep urls, whose first takes the place of url", "%s has both url and urls", called("device", d.Name))
	}
	d.places.faulty = l.mistakes.total > before
	d.Options = l.options(values)
	l.judgeOptions(deviceOptions(d.protocol))
	if d.groups.v.n != nil {
		l.list(d.groups, func(v value) { l.readGroup(d, v) })
	}
	l.expandTemplates(d)
	l.checkFormulas(d)
	l.cfg.Devices = append(l.cfg.Devices, d.Device)
	l.places = append(l.places, *d.places)
}

func (l *loader) readGroup(d *deviceDraft, v value) {
	g := &groupDraft{device: d, names: map[string]int32{}}
	place := groupPlace{}
	place.at = l.at(v)
	before := l.mistakes.total
	var values []option
	h := l.optionHooks(d.protocol, groupOptions(d.protocol), &values)
	ruled := h.ruled(d.protocol)
	h.note = func(f field, ok bool) { place.note(l, f, ok) }
	seen := read(l, v, l.tables.group, g, h)
	if *ruled {
		seen |= l.tables.group.bit("tags")
	}
	g.Selects = selects(d.protocol, values)
	lack(l, v, l.tables.group, seen, called("group", g.Name))
	place.faulty = l.mistakes.total > before
	if g.Interval == 0 {
		g.Interval = time.Second // a mistake is reported: this lets the driver check the rest
	}
	g.Options = l.options(values)
	if l.settle(&g.reporting, g.Interval); g.Selects {
		g.Selected = g.TagReport
	}
	if g.tags.v.n != nil {
		l.readTags(g, &place)
	}
	if len(g.Derived) > 0 && len(g.Tags) == 0 && !d.unread {
		l.errorf(place.at, "put them into the group of the tags that they are worked out from", "group %q has only derived tags, and nothing to read", g.Name)
	}
	for _, a := range g.derivedAggregates {
		g.setAggregate(len(g.Tags)+a.derived, a.aggregate)
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

func hasOption(options []drivers.Option, name string) bool {
	return slices.ContainsFunc(options, func(o drivers.Option) bool { return o.Name == name })
}

// deviceOptions are the driver's keys of a device and of the connection to it.
func deviceOptions(p *drivers.Protocol) []drivers.Option {
	if p == nil {
		return nil
	}
	return slices.Concat(p.DeviceOptions, p.ConnectionOptions)
}

func groupOptions(p *drivers.Protocol) []drivers.Option {
	if p == nil {
		return nil
	}
	return p.GroupOptions
}

func tagOptions(p *drivers.Protocol) []drivers.Option {
	if p == nil {
		return nil
	}
	return p.TagOptions
}

// option is one driver's key as it is read.
type option struct{ name, text string }

// entriesOf returns the entries of a list as one text with commas between, those that are texts, as far as they are short.
func entriesOf(list *yaml.Node) string {
	const most = 200
	var all []string
	size := 0
	for _, n := range list.Content {
		if size += len(n.Value); n.Kind == yaml.ScalarNode && size <= most {
			all = append(all, n.Value)
		}
	}
	return strings.Join(all, ", ")
}

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
			if n := f.v.n; known[i].List && n.Kind == yaml.SequenceNode {
				l.errorf(l.at(f.v), fmt.Sprintf("write one text, with commas between several: %s: %q", f.name, entriesOf(n)), "%s must be a single value, not %s", f.name, kindOf(n))
			} else if s, ok := l.text(f); ok && len(s) > maxText {
				l.errorf(l.at(f.v), "shorten it", "%s has %d bytes, more than %d", f.name, len(s), maxText)
			} else if ok {
				if known[i].Path && s != "" {
					s = absolute(beside(l.files[f.v.file], s))
				}
				if known[i].File {
					l.pems[f.name] = l.pem(f, s)
				}
				*values = append(*values, option{known[i].Name, s})
			}
			return true
		}
		return false
	}}
}

// givePKI gives pki.path to the devices that have certificates and no folder of their own. It may stand behind them, or in another file.
func (l *loader) givePKI() {
	const name = "pki"
	for i := range l.cfg.Devices {
		d := &l.cfg.Devices[i]
		if d.Options[name] != "" || !hasOption(deviceOptions(l.cfg.protocol(d.Driver)), name) {
			continue
		}
		values := []option{{name, absolute(l.cfg.PKI.Path)}}
		for k, v := range d.Options {
			if k != name {
				values = append(values, option{k, v})
			}
		}
		d.Options = l.options(values)
	}
}

func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path // the working directory is gone
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
