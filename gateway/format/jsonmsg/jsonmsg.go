// Package jsonmsg is the format json: one flat object a record, one message with QoS 1.
//
// It owns the names and the exact text of everything in that object, and the topic it goes to; README.md
// describes both, message.schema.json is the contract that a test holds against real output. It promises
// that a reading is in "values" or in "bad" (an event: in "events" or in "bad"), never in both and never missing, that a number loses no bit
// of precision, and that the same record gives the same bytes but for the historical mark, which tells of the
// sending. Encoding allocates nothing but the buffer. The publisher calls it.
package jsonmsg

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/format"
	"millrace/gateway/link"
	"millrace/gateway/record"
	"millrace/gateway/values"
)

// Options say what the messages of one destination look like.
type Options struct {
	Gateway string // name of the gateway, for records that do not know theirs

	// Topic is the template of the topic, with the placeholders {gateway}, {device} and {group}.
	Topic string

	// BigIntsAsText writes integers beyond ±2^53 as strings, for consumers that read every JSON
	// number as a float64 (JavaScript, most dashboards) and would round them.
	BigIntsAsText bool
}

// New checks the topic template and returns the format.
func New(o Options) (format.Format, error) {
	if err := checkTopic(o.Topic); err != nil {
		return nil, err
	}
	return jsonFormat{o}, nil
}

type jsonFormat struct{ options Options }

// Will returns nothing: a consumer learns of an outage from the messages that follow.
func (jsonFormat) Will() *link.Message { return nil }

// Subscriptions returns nothing.
func (jsonFormat) Subscriptions() []string { return nil }

// Open returns the encoder of one session.
func (f jsonFormat) Open(*values.Table, []*record.Schema) format.Encoder {
	return &encoder{options: f.options, streams: map[*record.Schema]*stream{}}
}

// encoder makes the messages of one session.
type encoder struct {
	options Options
	streams map[*record.Schema]*stream
	buf     []byte
	scratch scratch
}

// Bounds of what an encoder keeps.
const (
	maxStreams = 1 << 16
	keepBuffer = 256 << 10 // a larger payload buffer is not kept, in bytes
)

// Hello returns nothing: the format has no births.
func (e *encoder) Hello(dst []link.Message) []link.Message { return dst }

// Batch is 1: one record is one message.
func (e *encoder) Batch() int { return 1 }

// Take asks for nothing: the format hears nothing.
func (e *encoder) Take(link.Message) (format.Event, bool) { return format.Event{}, false }

// Topic returns where the records of a schema go, "" when the topic would be longer than MQTT allows.
func (e *encoder) Topic(s *record.Schema) string {
	st, err := e.stream(s)
	if err != nil {
		return ""
	}
	return st.topic
}

// Encode appends the message of a record: see format.Encoder.
func (e *encoder) Encode(dst []link.Message, recs []format.Record) ([]link.Message, error) {
	r := &recs[0]
	st, err := e.stream(r.Schema)
	if err != nil {
		return dst, err
	}
	if cap(e.buf) > keepBuffer {
		e.buf, e.scratch = nil, scratch{}
	}
	if r.Gap != nil {
		e.buf = st.appendGap(e.buf[:0], r)
	} else if e.buf, err = st.appendRecord(e.buf[:0], r); err != nil {
		return dst, err
	}
	return append(dst, link.Message{Topic: st.topic, Payload: e.buf, QoS: 1}), nil
}

func (e *encoder) stream(s *record.Schema) (*stream, error) {
	if st := e.streams[s]; st != nil {
		return st, nil
	}
	st, err := newStream(&e.options, s, &e.scratch)
	if err != nil {
		return nil, err
	}
	if len(e.streams) >= maxStreams {
		clear(e.streams)
	}
	e.streams[s] = st
	return st, nil
}

// maxTemplate bounds a topic template, in bytes.
const maxTemplate = 1024

// checkTopic returns what is wrong with a topic template, or nil.
func checkTopic(template string) error {
	rest := placeholders("", "", "").Replace(template)
	switch {
	case len(template) > maxTemplate:
		return fmt.Errorf("topic template has %d bytes; use at most %d", len(template), maxTemplate)
	case strings.ContainsAny(rest, "{}"):
		return fmt.Errorf("topic template %q has an unknown placeholder; use {gateway}, {device} and {group}", template)
	case strings.ContainsAny(rest, "+#\x00"):
		return fmt.Errorf("topic template %q has a wildcard; a topic to publish to may not contain + or #", template)
	}
	return nil
}

func placeholders(gateway, device, group string) *strings.Replacer {
	return strings.NewReplacer("{gateway}", gateway, "{device}", device, "{group}", group)
}

// stream encodes the records of one schema. It holds everything that is the same from record to record.
type stream struct {
	topic   string
	head    []byte   // from the opening brace to the group
	keys    []byte   // `,"tag":` for each tag of the schema
	ends    []uint32 // of each tag's key in keys, after a leading 0
	events  []bool   // tags of events, nil = none
	bigText bool
	scratch *scratch // of the encoder
}

func newStream(o *Options, s *record.Schema, scratch *scratch) (*stream, error) {
	e := &stream{bigText: o.BigIntsAsText, scratch: scratch}
	gateway := cmp.Or(s.Gateway, o.Gateway) // in a store that an older version wrote the schema has none
	e.topic = placeholders(topicLevel(gateway), topicLevel(s.Device), topicLevel(cmp.Or(s.Group, gapLevel))).Replace(o.Topic)
	if len(e.topic) > maxTopic || e.topic == "" {
		return nil, fmt.Errorf("topic of device %q group %q has %d bytes; MQTT allows 1 to %d", s.Device, s.Group, len(e.topic), maxTopic)
	}
	e.head = appendField(e.head, `{"gateway":`, gateway)
	e.head = appendField(e.head, `,"device":`, s.Device)
	e.head = appendField(e.head, `,"group":`, s.Group)
	e.ends = make([]uint32, 1, len(s.Tags)+1)
	for i := range s.Tags {
		e.keys = append(appendText(append(e.keys, ','), s.Tags[i].Name), ':')
		e.ends = append(e.ends, uint32(len(e.keys)))
	}
	e.keys = slices.Clip(e.keys)
	e.events = s.Events()
	return e, nil
}

// key returns what stands before the value of a tag.
func (s *stream) key(tag uint32) []byte { return s.keys[s.ends[tag]:s.ends[tag+1]] }

// tags is how many the schema has.
func (s *stream) tags() int { return len(s.ends) - 1 }

// maxTopic is the longest topic that MQTT can carry, in bytes (MQTT 3.1.1 section 1.5.3).
const maxTopic = 65535

// gapLevel stands for the group in the topic of a gap message, which concerns a device and no group of it: brokers and
// cloud services refuse an empty level, or do not match it. A group has a name, so the underscore keeps them apart.
const gapLevel = "_gap"

// topicLevel makes a name fit for a topic: what MQTT forbids there becomes "_". A slash stays and so
// makes levels.
func topicLevel(name string) string {
	return strings.NewReplacer("+", "_", "#", "_", "\x00", "_").Replace(strings.ToValidUTF8(name, "_"))
}

func appendField(dst []byte, key, text string) []byte {
	return appendText(append(dst, key...), text)
}

// appendGap appends the message of a gap record.
func (s *stream) appendGap(dst []byte, r *format.Record) []byte {
	g := r.Gap
	dst = s.appendHead(dst, r)
	dst = append(dst, `,"values":{},"bad":{},"gap":{`...)
	if g.From != 0 {
		dst = append(strconv.AppendInt(append(dst, `"from":`...), floorMilli(g.From), 10), ',')
	}
	if g.To != 0 {
		dst = append(strconv.AppendInt(append(dst, `"to":`...), floorMilli(g.To), 10), ',')
	}
	dst = strconv.AppendUint(append(dst, `"count":`...), g.Count, 10)
	if g.Unknown {
		dst = append(dst, `,"unknown":true`...)
	}
	dst = appendField(dst, `,"cause":`, g.Cause)
	if g.Reason != "" {
		dst = appendField(dst, `,"reason":`, g.Reason)
	}
	if len(g.Tags) > 0 {
		dst = append(dst, `,"tags":`...)
		open := len(dst)
		for _, name := range g.Tags {
			dst = appendText(append(dst, ','), name)
		}
		dst = enclose(dst, open, "[]")
	}
	dst = strconv.AppendUint(append(dst, `,"first_seq":`...), g.FirstSeq, 10)
	dst = strconv.AppendUint(append(dst, `,"last_seq":`...), g.LastSeq, 10)
	return append(dst, '}', '}')
}

// appendRecord appends the message of the record to dst. It returns an error, and dst unchanged, when a reading names a
// tag that the schema does not have.
func (s *stream) appendRecord(dst []byte, fr *format.Record) ([]byte, error) {
	r := fr.Record
	if s.ofEvents(r.Readings) {
		return s.appendEvents(dst, fr), nil
	}
	x := s.scratch
	shown, earlier, ok := x.split(r.Readings, s.tags())
	if !ok {
		return dst, fmt.Errorf("encode record %d: a reading has a tag beyond the %d of its schema", fr.Seq, s.tags())
	}
	dst = slices.Grow(dst, len(s.head)+len(s.keys)+24*len(r.Readings)+128)
	dst = append(s.appendHead(dst, fr), `,"values":`...)
	open := len(dst)
	x.bad, x.uncertain, x.times = x.bad[:0], x.uncertain[:0], x.times[:0]
	for i := range shown {
		rd := &shown[i]
		key, before, why := s.key(rd.Tag), len(dst), ""
		if dst, why = s.appendGood(append(dst, key...), rd); why != "" {
			dst = dst[:before]
			x.bad = appendText(append(x.bad, key...), why)
		} else if rd.Quality == telemetry.Uncertain {
			x.uncertain = appendText(append(x.uncertain, key...), cmp.Or(rd.Reason, "uncertain"))
		}
		if apart(rd.Time, r.Time) {
			x.times = strconv.AppendInt(append(x.times, key...), floorMilli(rd.Time), 10)
		}
	}
	dst = appendObject(enclose(dst, open, "{}"), `,"bad":`, x.bad)
	if len(x.uncertain) > 0 {
		dst = appendObject(dst, `,"uncertain":`, x.uncertain)
	}
	if len(x.times) > 0 {
		dst = appendObject(dst, `,"times":`, x.times)
	}
	if len(earlier) > 0 {
		dst = s.appendEarlier(dst, earlier)
	}
	return append(dst, '}'), nil
}

func (s *stream) appendHead(dst []byte, r *format.Record) []byte {
	dst = appendField(append(dst, s.head...), `,"epoch":`, r.Epoch)
	dst = strconv.AppendUint(append(dst, `,"seq":`...), r.Seq, 10)
	dst = append(dst, `,"ts":`...)
	dst = strconv.AppendInt(dst, floorMilli(r.Time), 10)
	backfill := r.Record != nil && r.Record.Backfill
	if r.Historical || backfill {
		dst = append(dst, `,"historical":true`...)
	}
	if backfill {
		dst = append(dst, `,"backfill":true`...)
	}
	if r.Record != nil && r.Record.ClockUnset {
		dst = append(dst, `,"clock":"not set"`...)
	}
	return dst
}

// scratch is what an encoder needs for one record, kept for the next.
type scratch struct {
	newest                []int // reading of each tag
	shown, earlier        []telemetry.Reading
	bad, uncertain, times []byte // members of these objects, a comma before each
}

// split returns the readings that stand under their tags, and those that a later one of the same tag replaces, as an OPC UA
// notification may have. ok is false when one has a tag beyond so many.
func (s *scratch) split(all []telemetry.Reading, tags int) (shown, earlier []telemetry.Reading, ok bool) {
	last, ascending := int64(-1), true
	for i := range all {
		tag := int64(all[i].Tag)
		if tag >= int64(tags) {
			return nil, nil, false
		}
		ascending = ascending && tag > last
		last = tag
	}
	if ascending { // so none is repeated
		return all, nil, true
	}
	s.newest = slices.Grow(s.newest[:0], tags)[:tags]
	for i := range all {
		s.newest[all[i].Tag] = i
	}
	s.shown, s.earlier = s.shown[:0], s.earlier[:0]
	for i := range all {
		if s.newest[all[i].Tag] == i {
			s.shown = append(s.shown, all[i])
		} else {
			s.earlier = append(s.earlier, all[i])
		}
	}
	return s.shown, s.earlier, true
}

// appendGood appends the value of a reading and returns "", or why it has none in the message; dst then ends in garbage.
func (s *stream) appendGood(dst []byte, rd *telemetry.Reading) ([]byte, string) {
	if rd.Quality >= telemetry.Bad {
		return dst, cmp.Or(rd.Reason, "bad")
	}
	dst, why := s.appendValue(dst, &rd.Value)
	if rd.Value.Kind == telemetry.KindNone {
		why = cmp.Or(rd.Reason, why)
	}
	return dst, why
}

// apart reports whether a source time is a millisecond or more from that of the poll. A Modbus poll of several requests
// mostly takes less, and a time for each of its tags would double the message.
func apart(a, b int64) bool { return a-b >= 1000 || b-a >= 1000 }

// appendEarlier appends the readings that a later one of the same tag replaces.
func (s *stream) appendEarlier(dst []byte, earlier []telemetry.Reading) []byte {
	dst = append(dst, `,"earlier":`...)
	open := len(dst)
	for i := range earlier {
		rd := &earlier[i]
		key := s.key(rd.Tag)
		dst = append(append(dst, `,{"tag":`...), key[1:len(key)-1]...)
		dst = strconv.AppendInt(append(dst, `,"ts":`...), floorMilli(rd.Time), 10)
		before, why := len(dst), ""
		if dst, why = s.appendGood(append(dst, `,"value":`...), rd); why != "" {
			dst = appendField(dst[:before], `,"bad":`, why)
		} else if rd.Quality == telemetry.Uncertain {
			dst = appendField(dst, `,"uncertain":`, cmp.Or(rd.Reason, "uncertain"))
		}
		dst = append(dst, '}')
	}
	return enclose(dst, open, "[]")
}

// appendObject appends an object of members that have a comma before each.
func appendObject(dst []byte, name string, members []byte) []byte {
	dst = append(dst, name...)
	return enclose(append(dst, members...), len(dst), "{}")
}

// enclose ends an object or array whose members begin at open, each with a comma before it: the first of these becomes the
// opening brace.
func enclose(dst []byte, open int, braces string) []byte {
	if len(dst) == open {
		return append(dst, braces...)
	}
	dst[open] = braces[0]
	return append(dst, braces[1])
}

// floorMilli turns microseconds into milliseconds, towards the past also before 1970.
func floorMilli(us int64) int64 { return time.UnixMicro(us).UnixMilli() }
