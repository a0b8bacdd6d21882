package config

import (
	"cmp"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"millrace/drivers"
)

// Write is one tag that may be written from outside, or one method that may be called; what has none is never touched.
type Write struct {
	Device, Tag string
	Limits               // of a number, after scaling; without it no number may be written
	Method      string   // in place of Tag: what people call it by
	Object      string   // what has the method, as the driver says
	Node        string   // the method, as the driver says; "" = it is called Method there, too
	Arguments   []Limits // of the method, in its order
	Count       int      // so many commands in each Per; 1 to 1000
	Per         time.Duration
}

// Limits are what a number may be.
type Limits struct {
	Min, Max float64 // Min <= Max
	Ranged   bool    // they are given
}

// CallOf returns what a rule with a method names, for the driver of the device with this index.
func (w *Write) CallOf(device int) drivers.Method {
	return drivers.Method{Device: device, Object: w.Object, Node: cmp.Or(w.Node, w.Method)}
}

const (
	maxWrites    = 4096
	maxArguments = 64 // of a method
)

// writeDraft is an entry of `writes:` while its keys are read.
type writeDraft struct {
	Write
	limitsDraft
}

// limitsDraft is a range while its keys are read.
type limitsDraft struct {
	Limits
	min, max bool
}

// done returns the range, and whether it is one, or none.
func (r *limitsDraft) done() (Limits, bool) {
	r.Ranged = r.min && r.max
	return r.Limits, r.min == r.max && r.Min <= r.Max
}

// endKind is one end of a range; it is left out where there is none.
func endKind[T any](draft func(*T) *limitsDraft, at func(*limitsDraft) *float64, given func(*limitsDraft) *bool) kind[T] {
	k := numberKind(func(v *T) *float64 { return at(draft(v)) })
	k.set = func(l *loader, f field, v *T) bool {
		r := draft(v)
		*given(r) = l.number(f, at(r))
		return *given(r)
	}
	k.get = func(v *T) string {
		r := draft(v)
		if !r.Ranged {
			return ""
		}
		return number(*at(r))
	}
	return k
}

func minKind[T any](draft func(*T) *limitsDraft) kind[T] {
	return endKind(draft, func(r *limitsDraft) *float64 { return &r.Min }, func(r *limitsDraft) *bool { return &r.min })
}

func maxKind[T any](draft func(*T) *limitsDraft) kind[T] {
	return endKind(draft, func(r *limitsDraft) *float64 { return &r.Max }, func(r *limitsDraft) *bool { return &r.max })
}

// argumentTable has the keys of an argument of a method.
func argumentTable() *table[limitsDraft] {
	itself := func(r *limitsDraft) *limitsDraft { return r }
	return &table[limitsDraft]{in: "an argument of a method", flow: true, keys: []key[limitsDraft]{
		{name: "min", show: "0", help: "of a number; both or neither: {} for a text or a bool", kind: minKind(itself)},
		{name: "max", show: "100", kind: maxKind(itself)},
	}}
}

func writeTable() *table[writeDraft] {
	draft := func(w *writeDraft) *limitsDraft { return &w.limitsDraft }
	return &table[writeDraft]{in: "an entry of writes", flow: true, keys: []key[writeDraft]{
		{name: "device", show: "press-1", need: `"device:" with the name of a device`, kind: textKind(func(w *writeDraft) *string { return &w.Device }, maxName)},
		{name: "tag", show: "setpoint", need: `"tag:" with the name of a tag, or "method:"`, or: "method", help: "or method, for one that may be called", kind: textKind(func(w *writeDraft) *string { return &w.Tag }, maxName)},
		{name: "min", show: "0", help: "of a number after scaling; both or neither. Without them no number may be written", kind: minKind(draft)},
		{name: "max", show: "100", kind: maxKind(draft)},
		{name: "rate", show: "10/m", need: `"rate: 1/s"`, kind: kind[writeDraft]{
			set:  func(l *loader, f field, w *writeDraft) bool { return l.rate(f, &w.Write) },
			get:  func(w *writeDraft) string { return w.rate() },
			form: form{words: "1 to 1000 in a second (s), minute (m) or hour (h)", schema: orExpanded(schema{"type": "string", "pattern": "^[0-9]{1,4}/[smh]$"})}}},
		{name: "method", show: "start", help: "in place of tag, min and max: a name for a method that may be called",
			kind: textKind(func(w *writeDraft) *string { return &w.Method }, maxName)},
		{name: "object", show: `"nsu=urn:press;s=Press"`, help: "what has the method, as the driver says; OPC UA: its node id", kind: textKind(func(w *writeDraft) *string { return &w.Object }, maxText)},
		{name: "node", show: `"nsu=urn:press;s=Press.Start"`, help: "the method itself, by default what method says; OPC UA: its node id, or its name below the object",
			kind: textKind(func(w *writeDraft) *string { return &w.Node }, maxText)},
		{name: "arguments", help: "what each argument of the method may be, in its order. Without min and max no number may be given", kind: argumentsKind(argumentTable())},
	}}
}

// argumentsKind is the list of a method's arguments, in one line.
func argumentsKind(t *table[limitsDraft]) kind[writeDraft] {
	k := listKind(t, func(*writeDraft) iter.Seq[*limitsDraft] { return nil }, func(l *loader, f field, w *writeDraft) {
		l.list(f, func(v value) { l.readArgument(v, t, &w.Write) })
	})
	k.block = nil
	k.get = func(w *writeDraft) string {
		if len(w.Arguments) == 0 {
			return ""
		}
		items := make([]string, len(w.Arguments))
		for i, a := range w.Arguments {
			items[i] = cmp.Or(t.inFlow(&limitsDraft{Limits: a}), "{}")
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return k
}

func (l *loader) readArgument(v value, t *table[limitsDraft], w *Write) {
	if len(w.Arguments) >= maxArguments {
		if len(w.Arguments) == maxArguments {
			l.errorf(l.at(v), "delete some", "a method has more than %d arguments", maxArguments)
		}
		return
	}
	var r limitsDraft
	before := l.mistakes.total
	read(l, v, t, &r, hooks{})
	may, ok := r.done()
	if l.mistakes.total == before && !ok {
		l.errorf(l.at(v), "give both, min at most max; {} for a text or a bool", "min and max of argument %d are no range", len(w.Arguments)+1)
	}
	w.Arguments = append(w.Arguments, may)
}

// readWrite reads one entry of `writes:`; its tag or device is looked for when all files are read.
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
	what := called("write of tag", w.Tag)
	if w.Method != "" {
		what = called("call of method", w.Method)
	}
	lack(l, v, l.tables.write, seen, what)
	l.wrongKeys(&at, &w)
	var ok bool
	if w.Write.Limits, ok = w.done(); l.mistakes.total == before && !ok {
		l.errorf(l.at(v), "give both, min at most max; neither for a text or a bool", "min and max of tag %q are no range", w.Tag)
	}
	l.cfg.Writes = append(l.cfg.Writes, w.Write)
	at.faulty = l.mistakes.total > before
	l.writes = append(l.writes, at)
}

// wrongKeys refuses keys of a tag in the entry of a method, and the other way round.
func (l *loader) wrongKeys(at *places, w *writeDraft) {
	of, wrong := "tag", []string{"object", "node", "arguments"}
	mend := `delete it, or write "method:" in place of "tag:"`
	if w.Method != "" {
		of, wrong, mend = "method", []string{"tag", "min", "max"}, "delete it; ranges of a method stand in its arguments, and what writes a tag is an entry of its own"
	}
	for _, name := range wrong {
		if pos, given, reported := at.key(l, name); given && !reported {
			l.errorf(pos, mend, "%q does not go with %q", name, of)
		}
	}
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

// checkWrites refuses a write of a tag that is not there, a call of a device that is not there, and what stands in writes already.
func (l *loader) checkWrites() {
	if len(l.cfg.Writes) == 0 || l.unread {
		return
	}
	there, seen := map[writeID]bool{}, map[writeID]bool{} // a device is its name alone
	for i := range l.cfg.Devices {
		d := &l.cfg.Devices[i]
		there[writeID{device: d.Name}] = true
		for j := range d.Groups {
			for k := range d.Groups[j].Tags {
				there[writeID{device: d.Name, tag: d.Groups[j].Tags[k].Name}] = true
			}
		}
	}
	l.rules, l.calls = map[writeID]int{}, map[string][]int{}
	for i := range l.cfg.Writes {
		w := &l.cfg.Writes[i]
		id, at := writeID{w.Device, w.Tag, w.Method}, l.writes[i].at
		switch {
		case w.Device != "" && w.Method != "" && !there[writeID{device: w.Device}]:
			l.errorf(at, "name a device", "there is no device %q to call method %q of", w.Device, w.Method)
		case w.Device != "" && w.Tag != "" && w.Method == "" && !there[id]:
			l.errorf(at, "name a device and one of its tags", "device %q has no tag %q to write", w.Device, w.Tag)
		case seen[id] && w.Method != "":
			l.errorf(at, "delete one of them", "device %q method %q stands twice in writes", w.Device, w.Method)
		case seen[id]:
			l.errorf(at, "delete one of them", "device %q tag %q stands twice in writes", w.Device, w.Tag)
		case l.writes[i].faulty:
		case w.Method != "":
			l.calls[w.Device] = append(l.calls[w.Device], i)
		default:
			l.rules[id] = i
		}
		seen[id] = true
	}
}

// writeID is what a write or a call is for.
type writeID struct{ device, tag, method string }

// rate returns the rate as a config has it.
func (w *Write) rate() string {
	per := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h"}[w.Per]
	return fmt.Sprintf("%d/%s", w.Count, per)
}
