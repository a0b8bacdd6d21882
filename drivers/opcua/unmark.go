package opcua

import (
	"slices"
	"time"

	"millrace/drivers/telemetry"
)

// A pushed value that stands still keeps the mark that it may be another node's (see moved.go) after that was accepted: nothing pushes it again. Such values are read.

const (
	unmarkEvery = time.Second     // to look whether marks are not true any more
	unmarkAfter = 2 * time.Second // and two publishing intervals: what changes is pushed meanwhile, so that no read comes before a push that is older
)

// marks are the tags of a group that were pushed with a mark last.
type marks struct {
	tags map[int]bool // nil = none
	due  time.Time    // when to look at them
	free bool         // some were found without a reason, and are read when due
}

// note takes whether the value of a tag that was pushed is marked.
func (m *marks) note(tag int, marked bool) {
	switch {
	case !marked:
		delete(m.tags, tag)
		return
	case m.tags == nil:
		m.tags = map[int]bool{}
	}
	if len(m.tags) == 0 {
		m.free, m.due = false, time.Now().Add(unmarkEvery)
	}
	m.tags[tag] = true
}

// doubted reports whether the value of a tag may be another node's.
func (g *group) doubted(tag int) bool { return g.doubtOf(tag) != "" }

// doubtOf says why what is read of a tag may be another node's; "" = it is not.
func (g *group) doubtOf(tag int) string {
	if doubts := g.doubts.Load(); doubts != nil {
		return (*doubts)[tag]
	}
	return ""
}

// unmark reads values whose mark is not true any more and that were not pushed since, so many at a time.
func (f *feed) unmark(m *member, now time.Time) error {
	m.marks.due = now.Add(unmarkEvery)
	var tags []int
	for tag := range m.marks.tags {
		if !m.group.doubted(tag) {
			tags = append(tags, tag)
		}
	}
	switch {
	case len(tags) == 0:
		m.marks.free = false
		return nil
	case !m.marks.free:
		m.marks.free, m.marks.due = true, now.Add(unmarkAfter+2*m.publish)
		return nil
	}
	slices.Sort(tags)
	before := f.reads
	r, n, err := f.some(m, tags)
	if err != nil {
		return err
	}
	if n == 0 && f.reads == before { // the server refuses, or a value spoils it: they are marked until they change
		m.marks.tags = nil
	}
	var unmarked []telemetry.Reading
	for _, tag := range tags[:n] {
		v := r.DataValue(0)
		if delete(m.marks.tags, tag); r.Err != nil {
			continue
		}
		from := len(unmarked)
		unmarked = f.readings(f.ctx, m.group, tag, &v, unmarked)
		for i := from; i < len(unmarked); i++ {
			m.silence.note(&unmarked[i], now)
		}
	}
	for part := range slices.Chunk(unmarked, maxPush) {
		f.pushOf(m, part)
	}
	return nil
}
