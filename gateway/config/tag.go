package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
	"millrace/gateway/derive"
)

// tagDraft is a tag while its keys are read.
type tagDraft struct {
	telemetry.Tag
	reporting
	group *groupDraft
	expr  field // of a derived tag
	text  string

	linear, clamp field
	isLinear      bool
	from, to      Range // of linear; Low may be above High
	clamped       *Range
	aggregate     Aggregate
	aggregated    pos // where aggregate stands
}

func tagTable() *table[tagDraft] {
	scale := then(numberKind(func(t *tagDraft) *float64 { return &t.Scale }), func(l *loader, f field, t *tagDraft) {
		if t.Scale == 0 {
			l.errorf(l.at(f.v), "delete the key for values as the device has them", "scale 0 makes every value 0")
		}
	})
	return &table[tagDraft]{in: "a tag", flow: true, options: tagOptions, given: func(t *tagDraft) (*drivers.Protocol, map[string]string) { return t.group.device.protocol, t.Options },
		keys: append([]key[tagDraft]{
			{name: "name", show: "temperature", need: `"name: temperature"`, help: "the key in the message", kind: then(nameKind(func(t *tagDraft) *string { return &t.Name }, false),
				func(l *loader, f field, t *tagDraft) { l.uniqueTag(f, t) })},
			{name: "address", show: "holding:100", need: `"address:" with where the device keeps it`, or: "expr", help: "as the driver says", kind: textKind(func(t *tagDraft) *string { return &t.Address }, maxText)},
			{name: "expr", show: "current * voltage", help: "instead of address, type and scale: worked out from other tags of the device: + - * / % ** == < and or not ? : and abs ceil floor round min max int float string; $env[\"T 1\"] is the tag T 1", kind: kind[tagDraft]{
				set: func(l *loader, f field, t *tagDraft) bool { t.expr = f; return l.short(f, &t.text, maxText) },
				get: func(t *tagDraft) string { return given(t.text) }, form: form{schema: textSchema(maxText)}}},
			{name: "type", show: "float32", help: "as the driver says, with the driver's default", kind: wordKind(func(t *tagDraft) *string { return &t.Type }, maxName)},
			{name: "scale", def: "1", help: "published value = value * scale + offset; not 0", kind: scale},
			{name: "offset", def: "0", kind: numberKind(func(t *tagDraft) *float64 { return &t.Offset })},
			{name: "linear", show: "0..27648 -> 4..20", help: "instead of scale and offset: two values of the device and what they mean", kind: kind[tagDraft]{
				set: func(l *loader, f field, t *tagDraft) bool {
					t.linear, t.isLinear = f, l.linear(f, &t.from, &t.to)
					return t.isLinear
				},
				get: func(*tagDraft) string { return "" }, form: form{schema: textSchema(maxName)}}},
			{name: "clamp", show: "true", help: "a scaled value beyond this range becomes its end, and uncertain: 0..100, or true for that of linear", kind: kind[tagDraft]{
				set: func(l *loader, f field, t *tagDraft) bool { t.clamp = f; return l.clamp(f, t) },
				get: func(t *tagDraft) string {
					if t.clamped == nil {
						return ""
					}
					return number(t.clamped.Low) + ".." + number(t.clamped.High)
				}, form: form{schema: textSchema(maxName)}}},
			{name: "aggregate", show: "mean 1m", help: "of a number: record one value of each window rather than every reading, which `values` still shows: min, max, mean or rate (change in a second) and the window, from the interval to 1d",
				kind: kind[tagDraft]{
					set: func(l *loader, f field, t *tagDraft) bool { t.aggregated = l.at(f.v); return l.aggregate(f, t) },
					get: func(t *tagDraft) string {
						if t.aggregate == (Aggregate{}) {
							return ""
						}
						return t.aggregate.Kind + " " + formatDuration(t.aggregate.Over)
					}, form: form{schema: orExpanded(schema{"type": "string", "pattern": "^(min|max|mean|rate) [0-9]"})}}},
			{name: "unit", show: `"°C"`, help: "engineering unit, carried along", kind: wordKind(func(t *tagDraft) *string { return &t.Unit }, maxName)},
			{name: "description", show: "of the oil", help: "256 bytes at most", kind: textKind(func(t *tagDraft) *string { return &t.Description }, maxLabel)},
			{name: "labels", show: `{side: left}`, help: "as of a device", kind: labelsKind(func(t *tagDraft) *[]telemetry.Label { return &t.Labels })},
		}, reportKeys(func(t *tagDraft) *reporting { return &t.reporting })...)}
}

// readTag reads one entry of `tags:`.
func (l *loader) readTag(g *groupDraft, place *groupPlace, v value) {
	if l.tags++; l.tags > maxTags || len(g.Tags)+len(g.Derived) == maxGroupTags {
		l.errorf(l.at(v), fmt.Sprintf("use a second gateway; a config holds %d tags and a group %d", maxTags, maxGroupTags), "there are too many tags")
		l.stopped = true
		return
	}
	t := &tagDraft{group: g, reporting: g.reporting}
	t.written = [2]pos{}
	p := g.device.protocol
	var room [8]option
	values := room[:0]
	h := l.optionHooks(p, tagOptions(p), &values)
	here := place.addTag(l.at(v))
	h.note = func(f field, ok bool) { place.noteTag(l, f, ok) }
	before := l.mistakes.total
	seen := read(l, v, l.tables.tag, t, h)
	lack(l, v, l.tables.tag, seen|g.meant, called("tag", t.Name))
	l.settle(&t.reporting, g.Interval)
	l.settleLinear(t)
	if t.expr.v.n != nil {
		place.dropTag()
		l.addDerived(g, t, len(values) > 0)
		return
	}
	place.tags[here].faulty = l.mistakes.total > before || g.meant != 0
	for i := range values {
		values[i].text = l.intern(values[i].text)
	}
	t.Options = l.options(values)
	if t.TagReport != (TagReport{}) && g.Report == nil {
		g.Report = make([]TagReport, len(g.Tags), max(cap(g.Tags), len(g.Tags)+1))
	}
	if t.clamped != nil {
		if g.Clamps == nil {
			g.Clamps = map[int]Range{}
		}
		g.Clamps[len(g.Tags)] = *t.clamped
	}
	if t.aggregate != (Aggregate{}) {
		g.setAggregate(len(g.Tags), t.aggregate)
	}
	g.Tags = append(g.Tags, t.Tag)
	if g.Report != nil {
		g.Report = append(g.Report, t.TagReport)
	}
}

// linear reads two ranges such as 0..27648 -> 4..20. Either may run backwards.
func (l *loader) linear(f field, from, to *Range) bool {
	var s string
	if !l.short(f, &s, maxName) {
		return false
	}
	left, right, _ := strings.Cut(s, "->")
	a, ok := parseRange(left)
	b, ok2 := parseRange(right)
	if !ok || !ok2 || a.Low == a.High || b.Low == b.High {
		if ok && ok2 {
			l.errorf(l.at(f.v), "write two different values on both sides of the arrow, such as 0..27648 -> 4..20", "linear %s has an empty range", quote(f.v.n.Value))
			return false
		}
		l.errorf(l.at(f.v), "write two ranges, of the device's values and of what they mean, such as 0..27648 -> 4..20", "linear %s is not two ranges of two values each", quote(f.v.n.Value))
		return false
	}
	*from, *to = a, b
	return true
}

// clamp reads a range, or true for that of linear.
func (l *loader) clamp(f field, t *tagDraft) bool {
	var s string
	if !l.short(f, &s, maxName) {
		return false
	}
	if s == "true" {
		return true // settleLinear
	}
	r, ok := parseRange(s)
	if !ok || r.Low > r.High {
		l.errorf(l.at(f.v), "write the least and the greatest value, such as 0..100, or true for the range of linear", "clamp %s is not a range", quote(f.v.n.Value))
		return false
	}
	t.clamped = &r
	return true
}

func parseRange(s string) (r Range, ok bool) {
	low, high, ok := strings.Cut(strings.TrimSpace(s), "..")
	if !ok {
		return r, false
	}
	var err, err2 error
	r.Low, err = strconv.ParseFloat(low, 64)
	r.High, err2 = strconv.ParseFloat(high, 64)
	return r, err == nil && err2 == nil && !math.IsInf(r.High-r.Low, 0) && !math.IsNaN(r.High-r.Low)
}

// aggregate reads a kind and a window, such as mean 1m.
func (l *loader) aggregate(f field, t *tagDraft) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	kind, over, _ := strings.Cut(s, " ")
	d, err := parseDuration(over)
	switch {
	case !slices.Contains([]string{"min", "max", "mean", "rate"}, kind) || err != nil:
		l.errorf(l.at(f.v), "write min, max, mean or rate and a window, such as mean 1m", "aggregate %s is not a kind and a window", quote(f.v.n.Value))
	case d > maxInterval || d < t.group.Interval:
		l.errorf(l.at(f.v), fmt.Sprintf("use %s to %s", formatDuration(t.group.Interval), formatDuration(maxInterval)), "aggregate %s has a window that is too %s", quote(f.v.n.Value),
			map[bool]string{true: "large", false: "small"}[d > maxInterval])
	default:
		t.aggregate = Aggregate{kind, d}
		return true
	}
	return false
}

// settleLinear works out scale, offset and clamp once all keys are read.
func (l *loader) settleLinear(t *tagDraft) {
	whole := t.clamp.v.n != nil && t.clamp.v.n.Value == "true"
	switch {
	case t.isLinear && (t.Scale != 0 || t.Offset != 0):
		l.errorf(l.at(t.linear.k), "delete one of them", "linear stands beside scale or offset")
	case t.isLinear:
		t.Scale = (t.to.High - t.to.Low) / (t.from.High - t.from.Low)
		t.Offset = t.to.Low - t.from.Low*t.Scale
		if whole {
			t.clamped = &Range{Low: min(t.to.Low, t.to.High), High: max(t.to.Low, t.to.High)}
		}
	case whole && t.linear.v.n == nil:
		l.errorf(l.at(t.clamp.v), "write the range, such as 0..100", "clamp true needs linear")
	}
}

// addDerived adds a derived tag to its group. Its formula is checked when the whole device is read.
func (l *loader) addDerived(g *groupDraft, t *tagDraft, options bool) {
	if t.Address != "" || t.Type != "" || t.Scale != 0 || t.Offset != 0 || t.clamped != nil || options {
		l.errorf(l.at(t.expr.k), "delete expr, or what only a tag that is read can have: address, type, scale, offset, linear, clamp and the driver's keys",
			"tag %q is both read and derived", t.Name)
	}
	if t.aggregate != (Aggregate{}) {
		g.derivedAggregates = append(g.derivedAggregates, derivedAggregate{len(g.Derived), t.aggregate})
	}
	d := Derived{Tag: telemetry.Tag{Name: t.Name, Unit: t.Unit, Description: t.Description, Labels: t.Labels}, Expr: t.text, Report: t.TagReport}
	g.Derived = append(g.Derived, d)
	g.device.formulas = append(g.device.formulas, formula{t.Name, t.text, l.at(t.expr.v), t.aggregated, t.written[0]})
}

// formula is a derived tag's expression and where it stands, and what else wants a number of it.
type formula struct {
	tag, text               string
	at, aggregate, deadband pos // line 0 = not given
}

// checkFormulas compiles the formulas of a device, now that all of its tags are known.
func (l *loader) checkFormulas(d *deviceDraft) {
	if len(d.formulas) == 0 {
		return
	}
	read := map[string]bool{} // false: derived or aggregated
	var texts []string
	for i := range d.Groups {
		for _, t := range d.Groups[i].Derived {
			read[t.Name] = false
		}
	}
	for i := range d.Groups {
		for j := range d.Groups[i].Tags {
			_, aggregated := d.Groups[i].Aggregates[j]
			t := &d.Groups[i].Tags[j]
			if read[t.Name] = !aggregated; declaredType(t) == telemetry.StringType {
				texts = append(texts, t.Name)
			}
		}
	}
	for _, f := range d.formulas {
		if f.text == "" || d.unread {
			continue // reported
		}
		compiled, err := derive.Compile(f.text, func(name string) bool { return read[name] }, texts...)
		var unknown *derive.UnknownTagError
		switch {
		case err == nil:
			if what := notNumbers(compiled.DataType()); what != "" {
				l.checkResult(d, &f, what)
			}
		case l.full():
			l.errorf(f.at, "", "")
		case errors.As(err, &unknown):
			readable := maps.Clone(read)
			maps.DeleteFunc(readable, func(_ string, is bool) bool { return !is })
			mend := didYouMean(unknown.Name, slices.Sorted(maps.Keys(readable)), "those that it can read are")
			if len(readable) == 0 {
				mend = "read an address in a tag of its own"
			}
			if _, derived := read[unknown.Name]; derived {
				mend = "a formula sees readings, not what is derived or aggregated: write the formula in place of its name, or read the address in a tag of its own"
			}
			l.errorf(f.at, mend, "expr of tag %q: the device has no tag %s to read", f.tag, quote(unknown.Name))
		default:
			l.errorf(f.at, derive.Help, "expr of tag %q: %s", f.tag, l.scrub(err.Error()))
		}
	}
}

// checkResult refuses what wants a number of a formula that gives none. The group's deadband is not for it.
func (l *loader) checkResult(d *deviceDraft, f *formula, what string) {
	for i := range d.Groups {
		for j := range d.Groups[i].Derived {
			if t := &d.Groups[i].Derived[j]; t.Name == f.tag && !t.Report.dropDeadband() {
				f.deadband = pos{}
			}
		}
	}
	for _, key := range [...]struct {
		name string
		at   pos
	}{{"aggregate", f.aggregate}, {"deadband", f.deadband}} {
		if key.at.line > 0 {
			l.errorf(key.at, "let the formula give a number, as with ? 1 : 0, or delete it", "tag %q: %s is of numbers, and its values are %s", f.tag, key.name, what)
		}
	}
}

func (l *loader) uniqueTag(f field, t *tagDraft) {
	at := l.at(f.v)
	if line, ok := t.group.names[t.Name]; ok {
		l.errorf(at, "give it another name", "tag %q is already defined in this group at line %d", t.Name, line)
		return
	}
	t.group.names[t.Name] = at.line
}

// reporting is how tags are reported: what a group says and a tag may say otherwise.
type reporting struct {
	TagReport // what holds, settled once all keys are read
	onChange  bool
	deadband  float64
	percent   bool
	heartbeat time.Duration
	beatGiven bool
	always    bool   // where it is printed, it must be said
	written   [2]pos // keys deadband and heartbeat at this level; line 0 = not here
}

// reportKeys are the keys of report by exception, the same for groups and tags. What is printed is what holds.
func reportKeys[T any](of func(*T) *reporting) []key[T] {
	shown := func(get func(*TagReport) string) func(*T) string {
		return func(t *T) string {
			if r := of(t); r.OnChange {
				return get(&r.TagReport)
			}
			return ""
		}
	}
	report := func(t *T) string {
		if r := of(t); r.always && !r.OnChange {
			return "always"
		}
		return shown(func(*TagReport) string { return "on-change" })(t)
	}
	return []key[T]{
		{name: "report", def: "always", help: "a tag may say otherwise than its group, as with the next two", kind: kind[T]{
			set: func(l *loader, f field, t *T) bool {
				var word string
				ok := choice(l, f, &word, "always", "on-change")
				of(t).onChange = word == "on-change"
				return ok
			},
			get:  report,
			form: form{words: "always or on-change: only when value, quality or reason changed", schema: orExpanded(schema{"enum": []string{"always", "on-change"}})}}},
		{name: "deadband", show: "0.5", help: "with report: on-change. A change of a number that does not count: a number, or percent of the last reported value as 1%", kind: kind[T]{
			set:  func(l *loader, f field, t *T) bool { return l.deadband(f, of(t)) },
			get:  shown((*TagReport).deadband),
			form: form{schema: schema{"type": []string{"number", "string"}}}}},
		// The default is long enough to save nearly all of the traffic, short enough that a reader tells "unchanged" from "dead" within minutes.
		{name: "heartbeat", show: "10m", help: "with report: on-change. Report at least this often, 0 = never; " + formatDuration(defaultHeartbeat) + " by default", kind: kind[T]{
			set: func(l *loader, f field, t *T) bool {
				r := of(t)
				if !l.duration(f, &r.heartbeat, true, minInterval, maxHeartbeat) {
					return false
				}
				r.written[1], r.beatGiven = l.at(f.k), true
				return true
			},
			get:  shown(func(r *TagReport) string { return formatDuration(r.Heartbeat) }),
			form: form{words: span(true, formatDuration(minInterval), formatDuration(maxHeartbeat)), schema: quantitySchema("duration", true)}}},
	}
}

// defaultHeartbeat is the heartbeat of a tag reported on change.
const defaultHeartbeat = 10 * time.Minute

// deadband returns the deadband as a config has it.
func (r *TagReport) deadband() string {
	if r.DeadbandPercent {
		return number(r.Deadband) + "%"
	}
	return number(r.Deadband)
}

// dropDeadband takes the deadband out, and reports whether there was one.
func (r *TagReport) dropDeadband() bool {
	had := r.Deadband > 0
	r.Deadband, r.DeadbandPercent = 0, false
	return had
}

// deadband reads a number, or a percentage such as 1%.
func (l *loader) deadband(f field, r *reporting) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	r.written[0] = l.at(f.k)
	digits, percent := strings.CutSuffix(s, "%")
	x, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(x >= 0) || math.IsInf(x, 0) {
		l.errorf(l.at(f.v), "write a number that is not negative, such as 0.5, or a percentage such as 1%", "deadband %s is neither a number nor a percentage", quote(f.v.n.Value))
		return false
	}
	if percent && x > 100 {
		l.errorf(l.at(f.v), "use 0% to 100%", "deadband %s is out of range", quote(f.v.n.Value))
		return false
	}
	r.deadband, r.percent = x, percent
	return true
}

// settle works out what holds for a group or tag and refuses keys that have no effect.
func (l *loader) settle(r *reporting, interval time.Duration) {
	const mend = "add report: on-change, or delete it"
	if !r.onChange {
		if at := r.written[0]; at.line > 0 {
			l.errorf(at, mend, "deadband has no effect while every reading is reported")
		}
		if at := r.written[1]; at.line > 0 {
			l.errorf(at, mend, "heartbeat has no effect while every reading is reported")
		}
		r.TagReport = TagReport{}
		return
	}
	beat := r.heartbeat
	if !r.beatGiven {
		beat = max(defaultHeartbeat, interval)
	}
	if at := r.written[1]; at.line > 0 && beat > 0 && beat < interval {
		l.errorf(at, fmt.Sprintf("use at least %s, or 0 for none", formatDuration(interval)),
			"heartbeat %s is shorter than the group's interval, so every reading would be reported", formatDuration(beat))
	}
	r.TagReport = TagReport{OnChange: true, Deadband: r.deadband, DeadbandPercent: r.percent, Heartbeat: beat}
}
