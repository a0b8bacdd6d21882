package opcua

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// silence takes the quality of tags of which nothing was heard for too long: neither a push nor a read that found the same value. A
// server that reports all tags but one looks well, and so does the last value of that one.
type silence struct {
	group *group
	due   time.Time // to look for silent tags
	heard []time.Time
	told  []bool
	last  []telemetry.Reading // nil = the value goes, too
}

func newSilence(g *group, now time.Time) *silence {
	if g.silence == 0 {
		return nil
	}
	s := &silence{group: g, due: now.Add(g.silence), heard: make([]time.Time, len(g.tags)), told: make([]bool, len(g.tags))}
	for _, tag := range g.ask.tags {
		s.heard[tag] = now
		for _, other := range g.also[tag] {
			s.heard[other] = now
		}
	}
	if g.keeps {
		s.last = make([]telemetry.Reading, len(g.tags))
	}
	return s
}

// note takes a reading that was pushed.
func (s *silence) note(r *telemetry.Reading, now time.Time) {
	if s == nil {
		return
	}
	s.heard[r.Tag], s.told[r.Tag] = now, false
	if s.last != nil {
		s.last[r.Tag] = *r
		s.last[r.Tag].Value.Text = strings.Clone(r.Value.Text)
		if r.Time == 0 {
			s.last[r.Tag].Time = now.UnixMicro()
		}
	}
}

// holds takes a value that a read has found unchanged, and pushes it when it had counted as silent.
func (f *feed) holds(m *member, tag int, value *wire.DataValue, now time.Time) {
	if m.silence == nil {
		return
	}
	told := m.silence.told[tag]
	all := f.readings(f.ctx, m.group, tag, value, nil)
	for i := range all {
		m.silence.note(&all[i], now)
	}
	if told {
		f.pushOf(m, all)
	}
}

// pushOf pushes readings that are no sign of life of the subscription.
func (f *feed) pushOf(m *member, readings []telemetry.Reading) {
	f.at = m.came
	f.push(m, drivers.Push{Readings: readings})
}

// hush pushes the tags that have become silent. Those that the server does not monitor are bad with its reason.
func (f *feed) hush(m *member, now time.Time) {
	q := m.silence
	if late := now.Sub(q.due); late > time.Second { // it was us who slept, or who could not hand on
		q.due = now.Add(grace)
		return
	}
	q.due = now.Add(q.group.silence / 8)
	var silent []telemetry.Reading
	for tag, heard := range q.heard {
		if _, refused := m.reasons[m.group.nodeOf(tag)]; refused || heard.IsZero() || q.told[tag] || now.Sub(heard) < q.group.silence {
			continue
		}
		q.told[tag] = true
		silent = append(silent, q.reading(tag))
	}
	for part := range slices.Chunk(silent, maxPush) {
		f.pushOf(m, part)
	}
}

// reading is what a silent tag is. One that was bad, or of which nothing ever came, has nothing to keep.
func (q *silence) reading(tag int) telemetry.Reading {
	reason := fmt.Sprintf("the server has said nothing of it for %v", q.group.silence)
	if q.last == nil || q.last[tag].Quality == telemetry.Bad || q.last[tag].Time == 0 {
		return telemetry.BadReading(tag, 0, reason)
	}
	r := q.last[tag]
	r.Quality, r.Reason = telemetry.Uncertain, reason
	return r
}
