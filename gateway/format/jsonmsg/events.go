package jsonmsg

import (
	"cmp"
	"slices"
	"strconv"

	"millrace/drivers/telemetry"
	"millrace/gateway/format"
)

// A record of events has a message of its own kind: what happened, in order, rather than the value of each tag.

const notAnEvent = "not an event"

// ofEvents reports whether all readings are of tags of events. The pipeline mixes them with no others; should there be such a record, its events are
// texts among the values.
func (s *stream) ofEvents(readings []telemetry.Reading) bool {
	if s.events == nil || len(readings) == 0 {
		return false
	}
	for i := range readings {
		if int64(readings[i].Tag) >= int64(len(s.events)) || !s.events[readings[i].Tag] {
			return false
		}
	}
	return true
}

// appendEvents appends the message of a record of events. A reading is in "bad" where it is bad and the last of its tag, else in "events".
func (s *stream) appendEvents(dst []byte, fr *format.Record) []byte {
	rs, x := fr.Record.Readings, s.scratch
	x.newest = slices.Grow(x.newest[:0], s.tags())[:s.tags()]
	size := 0
	for i := range rs {
		x.newest[rs[i].Tag] = i
		size += len(rs[i].Value.Text) + 64
	}
	isBad := func(i int) bool { return rs[i].Quality >= telemetry.Bad && x.newest[rs[i].Tag] == i }
	dst = append(s.appendHead(slices.Grow(dst, len(s.head)+size+192), fr), `,"kind":"event","values":{},"bad":`...)
	open := len(dst)
	x.times = x.times[:0]
	for i := range rs {
		if !isBad(i) {
			continue
		}
		key := s.key(rs[i].Tag)
		dst = appendText(append(dst, key...), cmp.Or(rs[i].Reason, "bad"))
		if apart(rs[i].Time, fr.Record.Time) {
			x.times = strconv.AppendInt(append(x.times, key...), floorMilli(rs[i].Time), 10)
		}
	}
	dst = enclose(dst, open, "{}")
	if len(x.times) > 0 {
		dst = appendObject(dst, `,"times":`, x.times)
	}
	dst = append(dst, `,"events":`...)
	open = len(dst)
	for i := range rs {
		if !isBad(i) {
			dst = s.appendEvent(dst, &rs[i])
		}
	}
	return append(enclose(dst, open, "[]"), '}')
}

// appendEvent appends one reading of a tag of events.
func (s *stream) appendEvent(dst []byte, rd *telemetry.Reading) []byte {
	key := s.key(rd.Tag)
	dst = append(append(dst, `,{"tag":`...), key[1:len(key)-1]...)
	dst = strconv.AppendInt(append(dst, `,"ts":`...), floorMilli(rd.Time), 10)
	switch {
	case rd.Quality >= telemetry.Bad:
		return append(appendField(dst, `,"bad":`, cmp.Or(rd.Reason, "bad")), '}')
	case rd.Value.Kind != telemetry.KindString:
		return append(appendField(dst, `,"bad":`, cmp.Or(rd.Reason, notAnEvent)), '}')
	}
	dst = appendHappened(dst, rd.Value.Text)
	if rd.Quality == telemetry.Uncertain {
		dst = appendField(dst, `,"uncertain":`, cmp.Or(rd.Reason, "uncertain"))
	}
	return append(dst, '}')
}

// appendHappened appends the event that a text is, or that events come from now on; a text that is no JSON object stays one.
func appendHappened(dst []byte, text string) []byte {
	if note, ok := telemetry.Subscribed(text); ok {
		if dst = append(dst, `,"subscribed":true`...); note != "" {
			dst = appendField(dst, `,"note":`, note)
		}
		return dst
	}
	if telemetry.IsEvent(text) {
		return append(append(dst, `,"event":`...), text...)
	}
	return appendField(dst, `,"text":`, text)
}
