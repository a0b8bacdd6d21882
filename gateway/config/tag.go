package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// tagDraft is a tag while its keys are read.
type tagDraft struct {
	telemetry.Tag
	reporting
	group *groupDraft
}

func tagTable() *table[tagDraft] {
	return &table[tagDraft]{in: "a tag", keys: append([]key[tagDraft]{
		{name: "name", need: `"name: temperature"`, set: func(l *loader, f field, t *tagDraft) {
			if l.name(f, &t.Name, false) {
				l.uniqueTag(f, t)
			}
		}},
		{name: "address", need: `"address:" with where the device keeps it`, set: func(l *loader, f field, t *tagDraft) { l.short(f, &t.Address, maxText) }},
		{name: "type", set: func(l *loader, f field, t *tagDraft) {
			if l.short(f, &t.Type, maxName) {
				t.Type = l.intern(t.Type)
			}
		}},
		{name: "scale", set: func(l *loader, f field, t *tagDraft) {
			if l.number(f, &t.Scale) && t.Scale == 0 {
				l.errorf(l.at(f.v), "delete the key for values as the device has them", "scale 0 makes every value 0")
			}
		}},
		{name: "offset", set: func(l *loader, f field, t *tagDraft) { l.number(f, &t.Offset) }},
		{name: "unit", set: func(l *loader, f field, t *tagDraft) {
			if l.short(f, &t.Unit, maxName) {
				t.Unit = l.intern(t.Unit)
			}
		}},
		{name: "description", set: func(l *loader, f field, t *tagDraft) { l.short(f, &t.Description, maxLabel) }},
		{name: "labels", set: func(l *loader, f field, t *tagDraft) { l.labels(f, &t.Labels) }},
	}, reportKeys(func(t *tagDraft) *reporting { return &t.reporting })...)}
}

// readTag reads one entry of `tags:`.
func (l *loader) readTag(g *groupDraft, place *groupPlace, v value) {
	if l.tags++; l.tags > maxTags || len(g.Tags) == maxGroupTags {
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
	lack(l, v, l.tables.tag, seen, called("tag", t.Name))
	l.settle(&t.reporting, g.Interval)
	place.tags[here].faulty = l.mistakes.total > before
	for i := range values {
		values[i].text = l.intern(values[i].text)
	}
	t.Options = l.options(values)
	if t.TagReport != (TagReport{}) && g.Report == nil {
		g.Report = make([]TagReport, len(g.Tags), max(cap(g.Tags), len(g.Tags)+1))
	}
	g.Tags = append(g.Tags, t.Tag)
	if g.Report != nil {
		g.Report = append(g.Report, t.TagReport)
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

func deviceOptions(p *drivers.Protocol) []drivers.Option {
	if p == nil {
		return nil
	}
	return p.DeviceOptions
}

func tagOptions(p *drivers.Protocol) []drivers.Option {
	if p == nil {
		return nil
	}
	return p.TagOptions
}

// reporting is how tags are reported: what a group says and a tag may say otherwise.
type reporting struct {
	TagReport // what holds, settled once all keys are read
	onChange  bool
	deadband  float64
	percent   bool
	heartbeat time.Duration
	beatGiven bool
	written   [2]pos // keys deadband and heartbeat at this level; line 0 = not here
}

// reportKeys are the keys of report by exception, the same for groups and tags.
func reportKeys[T any](of func(*T) *reporting) []key[T] {
	return []key[T]{
		{name: "report", set: func(l *loader, f field, t *T) {
			var word string
			choice(l, f, &word, "always", "on-change")
			of(t).onChange = word == "on-change"
		}},
		{name: "deadband", set: func(l *loader, f field, t *T) {
			l.deadband(f, of(t))
		}},
		{name: "heartbeat", set: func(l *loader, f field, t *T) {
			if r := of(t); l.duration(f, &r.heartbeat, true, minInterval, maxHeartbeat) {
				r.written[1], r.beatGiven = l.at(f.k), true
			}
		}},
	}
}

// deadband reads a number, or a percentage such as 1%.
func (l *loader) deadband(f field, r *reporting) {
	s, ok := l.text(f)
	if !ok {
		return
	}
	r.written[0] = l.at(f.k)
	digits, percent := strings.CutSuffix(s, "%")
	x, err := strconv.ParseFloat(digits, 64)
	if err != nil || !(x >= 0) || math.IsInf(x, 0) {
		l.errorf(l.at(f.v), "write a number that is not negative, such as 0.5, or a percentage such as 1%", "deadband %s is neither a number nor a percentage", quote(f.v.n.Value))
		return
	}
	if percent && x > 100 {
		l.errorf(l.at(f.v), "use 0% to 100%", "deadband %s is out of range", quote(f.v.n.Value))
		return
	}
	r.deadband, r.percent = x, percent
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
		beat = max(DefaultHeartbeat, interval)
	}
	if at := r.written[1]; at.line > 0 && beat > 0 && beat < interval {
		l.errorf(at, fmt.Sprintf("use at least %s, or 0 for none", formatDuration(interval)),
			"heartbeat %s is shorter than the group's interval, so every reading would be reported", formatDuration(beat))
	}
	r.TagReport = TagReport{OnChange: true, Deadband: r.deadband, DeadbandPercent: r.percent, Heartbeat: beat}
}
