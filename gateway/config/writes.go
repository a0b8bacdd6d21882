package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Write is one tag that may be written from outside; a tag without one is never written.
type Write struct {
	Device, Tag string
	Min, Max    float64       // the range of a number, after scaling; Min <= Max
	Ranged      bool          // Min and Max are given; without them no number may be written
	Count       int           // so many writes in each Per; 1 to 1000
	Per         time.Duration // a second, a minute or an hour
}

const maxWrites = 4096

// writeDraft is an entry of `writes:` while its keys are read.
type writeDraft struct {
	Write
	min, max bool
}

func writeTable() *table[writeDraft] {
	end := func(at func(*writeDraft) *float64, given func(*writeDraft) *bool) kind[writeDraft] {
		k := numberKind(at)
		k.set = func(l *loader, f field, w *writeDraft) bool { *given(w) = l.number(f, at(w)); return *given(w) }
		k.get = func(w *writeDraft) string {
			if !w.Ranged {
				return ""
			}
			return number(*at(w))
		}
		return k
	}
	return &table[writeDraft]{in: "an entry of writes", flow: true, keys: []key[writeDraft]{
		{name: "device", show: "press-1", need: `"device:" with the name of a device`, kind: textKind(func(w *writeDraft) *string { return &w.Device }, maxName)},
		{name: "tag", show: "setpoint", need: `"tag:" with the name of a tag`, kind: textKind(func(w *writeDraft) *string { return &w.Tag }, maxName)},
		{name: "min", show: "0", help: "of a number after scaling; both or neither. Without them no number may be written",
			kind: end(func(w *writeDraft) *float64 { return &w.Min }, func(w *writeDraft) *bool { return &w.min })},
		{name: "max", show: "100", kind: end(func(w *writeDraft) *float64 { return &w.Max }, func(w *writeDraft) *bool { return &w.max })},
		{name: "rate", show: "10/m", need: `"rate: 1/s"`, kind: kind[writeDraft]{
			set:  func(l *loader, f field, w *writeDraft) bool { return l.rate(f, &w.Write) },
			get:  func(w *writeDraft) string { return w.rate() },
			form: form{words: "1 to 1000 in a second (s), minute (m) or hour (h)", schema: orExpanded(schema{"type": "string", "pattern": "^[0-9]{1,4}/[smh]$"})}}},
	}}
}

// readWrite reads one entry of `writes:`; its tag is looked for when all files are read.
func (l *loader) readWrite(v value) {
	if len(l.cfg.Writes) >= maxWrites {
		l.errorf(l.at(v), "delete some", "there are more than %d writes", maxWrites)
		l.stopped = true
		return
	}
	var w writeDraft
	before := l.mistakes.total
	at := places{at: l.at(v)}
	seen := read(l, v, l.tables.write, &w, hooks{note: func(f field, ok bool) { at.note(l, f, ok) }})
	lack(l, v, l.tables.write, seen, called("write of tag", w.Tag))
	w.Ranged = w.min && w.max
	if l.mistakes.total == before && (w.min != w.max || w.Min > w.Max) {
		l.errorf(l.at(v), "give both, min at most max; neither for a text or a bool", "min and max of tag %q are no range", w.Tag)
	}
	l.cfg.Writes = append(l.cfg.Writes, w.Write)
	at.faulty = l.mistakes.total > before
	l.writes = append(l.writes, at)
}

// rate reads a number of writes a time, such as 1/s or 10/m.
func (l *loader) rate(f field, w *Write) bool {
	s, ok := l.text(f)
	if !ok {
		return false
	}
	digits, unit, _ := strings.Cut(s, "/")
	per := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > 1000 || per == 0 {
		l.errorf(l.at(f.v), "write 1 to 1000 writes in a second, minute or hour, such as 1/s, 10/m or 5/h", "rate %s is not a rate", quote(s))
		return false
	}
	w.Count, w.Per = n, per
	return true
}

// checkWrites refuses a write of a tag that is not there or that stands in writes already.
func (l *loader) checkWrites() {
	if len(l.cfg.Writes) == 0 || l.unread {
		return
	}
	tags, seen := map[writeID]bool{}, map[writeID]bool{}
	for i := range l.cfg.Devices {
		d := &l.cfg.Devices[i]
		for j := range d.Groups {
			for k := range d.Groups[j].Tags {
				tags[writeID{d.Name, d.Groups[j].Tags[k].Name}] = true
			}
		}
	}
	l.rules = map[writeID]int{}
	for i, w := range l.cfg.Writes {
		id, at := writeID{w.Device, w.Tag}, l.writes[i].at
		switch {
		case w.Device != "" && w.Tag != "" && !tags[id]:
			l.errorf(at, "name a device and one of its tags", "device %q has no tag %q to write", w.Device, w.Tag)
		case seen[id]:
			l.errorf(at, "delete one of them", "device %q tag %q stands twice in writes", w.Device, w.Tag)
		case !l.writes[i].faulty:
			l.rules[id] = i
		}
		seen[id] = true
	}
}

// writeID is what a write is for.
type writeID struct{ device, tag string }

// rate returns the rate as a config has it.
func (w *Write) rate() string {
	per := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h"}[w.Per]
	return fmt.Sprintf("%d/%s", w.Count, per)
}
