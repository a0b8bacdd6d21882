package config

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"millrace/configs/templates"
	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// templateDraft is one entry of a device's `template:`.
type templateDraft struct {
	at       pos
	name     string
	prefix   string
	interval time.Duration
	base     int
	reporting
}

func templateTable() *table[templateDraft] {
	return &table[templateDraft]{in: "a template", keys: append([]key[templateDraft]{
		{name: "name", show: "eastron-sdm630", need: `"name: eastron-sdm630"`, help: "one of millrace template, or the path of a file of your own ending in .yaml",
			kind: textKind(func(t *templateDraft) *string { return &t.name }, maxText)},
		{name: "prefix", show: "l1_", help: "before the name of each group and tag, so that several templates fit in one device",
			kind: prefixKind(func(t *templateDraft) *string { return &t.prefix })},
		{name: "interval", show: "5s", help: "of the fastest groups; slower ones follow only where they would be faster",
			kind: durationKind(func(t *templateDraft) *time.Duration { return &t.interval }, false, minInterval, maxInterval)},
		{name: "base", show: "40069", help: "register that offsets count from, for SunSpec models", kind: intKind(func(t *templateDraft) *int { return &t.base }, 0, 65535)},
	}, reportKeys(func(t *templateDraft) *reporting { return &t.reporting })...)}
}

// prefixKind is the beginning of names that stand in topics.
func prefixKind[T any](at func(*T) *string) kind[T] {
	k := textKind(at, maxName)
	k.set = func(l *loader, f field, v *T) bool {
		var s string
		if !l.short(f, &s, maxName) {
			return false
		}
		*at(v) = s // also one with a mistake: without it, names would seem to be twice
		return l.inTopic(f, s)
	}
	return k
}

// templateKind is a template's name, its keys, or a list of those. It is printed as the groups that it expands to.
func templateKind() kind[deviceDraft] {
	t := templateTable()
	one := []schema{textSchema(maxText), t.section().schema(nil)}
	return kind[deviceDraft]{
		set: func(l *loader, f field, d *deviceDraft) bool {
			before := l.mistakes.total
			if f.v.n.Kind == yaml.SequenceNode {
				l.list(f, func(v value) { l.readTemplate(t, d, f, v) })
			} else {
				l.readTemplate(t, d, f, f.v)
			}
			return l.mistakes.total == before
		},
		get:  func(*deviceDraft) string { return "" },
		form: form{schema: schema{"anyOf": append(one, schema{"type": "array", "items": schema{"anyOf": one}})}},
	}
}

func (l *loader) readTemplate(t *table[templateDraft], d *deviceDraft, f field, v value) {
	draft := templateDraft{at: l.at(v)}
	if v.n.Kind == yaml.ScalarNode {
		l.short(field{name: f.name, in: f.in, k: f.k, v: v}, &draft.name, maxText)
	} else {
		lack(l, v, t, read(l, v, t, &draft, hooks{}), "the template")
	}
	if draft.name != "" {
		d.templates = append(d.templates, draft)
	}
}

// expandTemplates adds the groups of a device's templates, and what they say of the device where the config does not.
func (l *loader) expandTemplates(d *deviceDraft) {
	d.given = maps.Clone(d.Options)
	for i := range d.templates {
		t := &d.templates[i]
		if d.protocol == nil {
			return // reported
		}
		if d.protocol.Name != "modbus" {
			l.errorf(t.at, "use driver: modbus", "template %s is of Modbus equipment", quote(t.name))
			return
		}
		list, err := l.loadTemplate(t)
		if err != nil {
			l.errorf(t.at, "see millrace template; one of your own has the form that millrace template NAME -o template prints", "%s", l.scrub(strings.ReplaceAll(err.Error(), "\n", "; ")))
			continue
		}
		groups, err := list.Expand(templates.Params{Prefix: t.prefix, Interval: t.interval, Base: t.base})
		if err != nil {
			l.errorf(t.at, "see what millrace template NAME -o template prints", "%s", err)
			continue
		}
		order := l.templateOptions(d, list, i == 0)
		for j := range groups {
			if !l.addTemplateGroup(d, t, &groups[j], order) {
				break
			}
		}
	}
}

// loadTemplate returns a built-in template, or that of a file beside the config.
func (l *loader) loadTemplate(t *templateDraft) (*templates.Template, error) {
	if ext := filepath.Ext(t.name); ext != ".yaml" && ext != ".yml" {
		list := templates.List()
		if !slices.Contains(list, t.name) {
			return nil, fmt.Errorf("there is no template %s (%s)", quote(t.name), didYouMean(t.name, list, "there are"))
		}
		return templates.Load(t.name)
	}
	data, err := readRegular(beside(l.files[t.at.file], t.name), maxTotal)
	if err != nil {
		return nil, fmt.Errorf("read template %s: %s", quote(t.name), reason(err))
	}
	return templates.Parse(data)
}

// addTemplateGroup adds one group of a template. Mistakes that a driver finds in it stand where the template is named. order is
// the byte order of its numbers, "" = that of the device.
func (l *loader) addTemplateGroup(d *deviceDraft, t *templateDraft, from *templates.Group, order string) bool {
	if slices.ContainsFunc(d.Groups, func(g Group) bool { return g.Name == from.Name }) {
		l.errorf(t.at, "give the template a prefix, or the other group another name", "the device has two groups %q, one of template %s", from.Name, quote(t.name))
		return false
	}
	if l.tags += len(from.Tags) + len(from.Derived); l.tags > maxTags {
		l.errorf(t.at, "use a second gateway", "there are more than %d tags", maxTags)
		l.stopped = true
		return false
	}
	g := Group{Group: drivers.Group{Name: from.Name, Interval: from.Interval}}
	place := groupPlace{}
	place.at = t.at
	report := t.reporting
	l.settle(&report, from.Interval)
	for i := range from.Tags {
		x := &from.Tags[i]
		place.addTag(t.at)
		var options []option
		for name, text := range x.Options {
			options = append(options, option{l.intern(name), l.intern(text)})
		}
		if _, own := x.Options["order"]; !own && order != "" && wide(x.Type) {
			options = append(options, option{"order", order})
		}
		g.Tags = append(g.Tags, telemetry.Tag{Name: x.Name, Address: x.Address, Type: l.intern(x.Type), Unit: l.intern(x.Unit), Description: x.Description,
			Scale: x.Scale, Offset: x.Offset, Options: l.options(options)})
		if report.TagReport != (TagReport{}) {
			g.Report = append(g.Report, report.TagReport)
		}
	}
	for _, x := range from.Derived {
		tag := telemetry.Tag{Name: x.Name, Unit: l.intern(x.Unit), Description: x.Description}
		g.Derived = append(g.Derived, Derived{Tag: tag, Expr: x.Expr, Report: report.TagReport})
		d.formulas = append(d.formulas, formula{tag: x.Name, text: x.Expr, at: t.at})
	}
	d.Groups = append(d.Groups, g)
	d.places.groups = append(d.places.groups, place)
	return true
}

// wide reports whether a type takes several registers, so that it has an order.
func wide(kind string) bool {
	return slices.Contains([]string{"int32", "uint32", "float32", "int64", "uint64", "float64"}, kind)
}

// templateOptions sets the options of the device that its template knows and the config does not give: of several templates the
// order of the first and the least of the bounds. It returns the order that the tags of this one must say themselves, "" for none.
func (l *loader) templateOptions(d *deviceDraft, t *templates.Template, first bool) (order string) {
	options := map[string]string{}
	maps.Copy(options, d.Options)
	for name, text := range t.Options(templates.Params{}) {
		_, given := d.given[name]
		before, had := options[name]
		switch {
		case name == "unit", given:
		case name == "order" && !first:
		case !had || name == "order" || atLeast(before, text):
			options[name] = text
		}
	}
	var values []option
	for name, text := range options {
		values = append(values, option{name, text})
	}
	d.Options = l.options(values)
	if own := cmp.Or(t.Order, "ABCD"); d.given["order"] == "" && own != cmp.Or(options["order"], "ABCD") {
		return own
	}
	return ""
}

// atLeast compares two whole numbers.
func atLeast(a, b string) bool {
	x, _ := strconv.Atoi(a)
	y, _ := strconv.Atoi(b)
	return x >= y
}
