// Package jsonmsg is the format json: one flat object a record, one message with QoS 1.
//
// It owns the names and the exact text of everything in that object, and the topic it goes to; README.md
// describes both, message.schema.json is the contract that a test holds against real output. It promises
// that a reading is in "values" or in "bad", never in both and never missing, that a number loses no bit
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
	if err := CheckTopic(o.Topic); err != nil {
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
	split   splitter
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
		e.buf = nil
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
	st, err := newStream(&e.options, s, &e.split)
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

// CheckTopic returns what is wrong with a topic template, or nil. It is exported so that the config can
// say it with file and line.
func CheckTopic(template string) error {
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
	epoch   string   // that head has
	whose   int      // bytes of head before the epoch
	head    []byte   // from the opening brace to the sequence number
	keys    []byte   // `,"tag":` for each tag of the schema
	ends    []uint32 // of each tag's key in keys, after a leading 0
	bigText bool
	split   *splitter // of the encoder
}

func newStream(o *Options, s *record.Schema, split *splitter) (*stream, error) {
	e := &stream{bigText: o.BigIntsAsText, split: split}
	gateway := s.Gateway
	if gateway == "" { // of a store that an older version wrote
		gateway = o.Gateway
	}
	e.topic = placeholders(topicLevel(gateway), topicLevel(s.Device), topicLevel(s.Group)).Replace(o.Topic)
	if len(e.topic) > maxTopic || e.topic == "" {
		return nil, fmt.Errorf("topic of device %q group %q has %d bytes; MQTT allows 1 to %d", s.Device, s.Group, len(e.topic), maxTopic)
	}
	e.head = appendField(e.head, `{"gateway":`, gateway)
	e.head = appendField(e.head, `,"device":`, s.Device)
	e.head = appendField(e.head, `,"group":`, s.Group)
	e.whose = len(e.head)
	e.ends = make([]uint32, 1, len(s.Tags)+1)
	for i := range s.Tags {
		e.keys = append(appendText(append(e.keys, ','), s.Tags[i].Name), ':')
		e.ends = append(e.ends, uint32(len(e.keys)))
	}
	e.keys = slices.Clip(e.keys)
	return e, nil
}

// key returns what stands before the value of a tag.
func (s *stream) key(tag uint32) []byte { return s.keys[s.ends[tag]:s.ends[tag+1]] }

// tags is how many the schema has.
func (s *stream) tags() int { return len(s.ends) - 1 }

// maxTopic is the longest topic that MQTT can carry, in bytes (MQTT 3.1.1 section 1.5.3).
const maxTopic = 65535

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
	dst = append(dst, `,"values":{},"bad":{},"gap":{"from":`...)
	dst = strconv.AppendInt(dst, floorMilli(g.From), 10)
	dst = strconv.AppendInt(append(dst, `,"to":`...), floorMilli(g.To), 10)
	dst = strconv.AppendUint(append(dst, `,"count":`...), g.Count, 10)
	if g.Unknown {
		dst = append(dst, `,"unknown":true`...)
	}
	dst = appendField(dst, `,"cause":`, g.Cause)
	if g.Reason != "" {
		dst = appendField(dst, `,"reason":`, g.Reason)
	}
	for i, name := range g.Tags {
		if i == 0 {
			dst = append(dst, `,"tags":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = appendText(dst, name)
	}
	if len(g.Tags) > 0 {
		dst = append(dst, ']')
	}
	dst = strconv.AppendUint(append(dst, `,"first_seq":`...), g.FirstSeq, 10)
	dst = strconv.AppendUint(append(dst, `,"last_seq":`...), g.LastSeq, 10)
	return append(dst, '}', '}')
}

// appendRecord appends the message of the record to dst. It returns an error, and dst unchanged, when a reading names a
// tag that the schema does not have.
func (s *stream) appendRecord(dst []byte, fr *format.Record) ([]byte, error) {
	r := fr.Record
	shown, earlier, ok := s.split.split(r.Readings, s.tags())
	if !ok {
		return dst, fmt.Errorf("encode record %d: a reading has a tag beyond the %d of its schema", fr.Seq, s.tags())
	}
	dst = slices.Grow(dst, len(s.head)+len(s.keys)+24*len(r.Readings)+128)
	dst = append(s.appendHead(dst, fr), `,"values":`...)
	open := len(dst)
	bad, uncertain := 0, 0
	for i := range shown {
		rd := &shown[i]
		if rd.Quality >= telemetry.Bad {
			bad++
			continue
		}
		before, unfit := len(dst), ""
		if dst, unfit = s.appendValue(append(dst, s.key(rd.Tag)...), &rd.Value); unfit != "" {
			dst = dst[:before]
			bad++
		} else if rd.Quality == telemetry.Uncertain {
			uncertain++
		}
	}
	dst = s.appendReasons(closeObject(dst, open), `,"bad":`, bad, shown, s.whyBad)
	if uncertain > 0 {
		dst = s.appendReasons(dst, `,"uncertain":`, uncertain, shown, s.whyUncertain)
	}
	dst = s.appendTimes(dst, r.Time, shown)
	if len(earlier) > 0 {
		dst = s.appendEarlier(dst, earlier)
	}
	return append(dst, '}'), nil
}

func (s *stream) appendHead(dst []byte, r *format.Record) []byte {
	if s.epoch != r.Epoch || len(s.head) == s.whose {
		s.epoch = r.Epoch
		s.head = append(appendField(s.head[:s.whose], `,"epoch":`, r.Epoch), `,"seq":`...)
	}
	dst = strconv.AppendUint(append(dst, s.head...), r.Seq, 10)
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

// splitter sorts readings; it keeps what it needs for that from record to record.
type splitter struct {
	newest         []int // reading of each tag
	shown, earlier []telemetry.Reading
}

// split returns the readings that stand under their tags, and those that a later one of the same tag replaces, as an OPC UA
// notification may have. ok is false when one has a tag beyond so many.
func (s *splitter) split(all []telemetry.Reading, tags int) (shown, earlier []telemetry.Reading, ok bool) {
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

// appendReasons appends a member with the n readings that have a reason.
func (s *stream) appendReasons(dst []byte, name string, n int, shown []telemetry.Reading, why func([]byte, *telemetry.Reading) string) []byte {
	dst = append(dst, name...)
	open := len(dst)
	for i := 0; n > 0 && i < len(shown); i++ {
		if reason := why(dst, &shown[i]); reason != "" {
			dst = appendText(append(dst, s.key(shown[i].Tag)...), reason)
			n--
		}
	}
	return closeObject(dst, open)
}

// whyBad returns why a reading has no value in the message, or "" if it has one. It writes behind dst.
func (s *stream) whyBad(dst []byte, rd *telemetry.Reading) string {
	if rd.Quality < telemetry.Bad && (rd.Value.Kind != telemetry.KindNone || rd.Reason == "") {
		_, why := s.appendValue(dst, &rd.Value)
		return why
	}
	return cmp.Or(rd.Reason, "bad")
}

// whyUncertain returns why a reading's value is not wholly to be trusted, "" if it is or there is none.
func (s *stream) whyUncertain(dst []byte, rd *telemetry.Reading) string {
	if rd.Quality != telemetry.Uncertain || s.whyBad(dst, rd) != "" {
		return ""
	}
	return cmp.Or(rd.Reason, "uncertain")
}

// apart reports whether a source time is a millisecond or more from that of the poll. A Modbus poll of several requests
// mostly takes less, and a time for each of its tags would double the message.
func apart(a, b int64) bool { return a-b >= 1000 || b-a >= 1000 }

// appendTimes appends the source times that are not the poll's.
func (s *stream) appendTimes(dst []byte, poll int64, shown []telemetry.Reading) []byte {
	start := len(dst)
	dst = append(dst, `,"times":`...)
	open := len(dst)
	for i := range shown {
		if rd := &shown[i]; apart(rd.Time, poll) {
			dst = strconv.AppendInt(append(dst, s.key(rd.Tag)...), floorMilli(rd.Time), 10)
		}
	}
	if len(dst) == open {
		return dst[:start]
	}
	return closeObject(dst, open)
}

// appendEarlier appends the readings that a later one of the same tag replaces.
func (s *stream) appendEarlier(dst []byte, earlier []telemetry.Reading) []byte {
	dst = append(dst, `,"earlier":[`...)
	for i := range earlier {
		rd := &earlier[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		key := s.key(rd.Tag)
		dst = append(append(dst, `{"tag":`...), key[1:len(key)-1]...)
		dst = strconv.AppendInt(append(dst, `,"ts":`...), floorMilli(rd.Time), 10)
		if reason := s.whyBad(dst, rd); reason != "" {
			dst = appendField(dst, `,"bad":`, reason)
		} else {
			dst, _ = s.appendValue(append(dst, `,"value":`...), &rd.Value)
		}
		if reason := s.whyUncertain(dst, rd); reason != "" {
			dst = appendField(dst, `,"uncertain":`, reason)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

// closeObject ends an object whose members begin at open, each with a comma before it: the first of
// these becomes the opening brace.
func closeObject(dst []byte, open int) []byte {
	if len(dst) == open {
		return append(dst, '{', '}')
	}
	dst[open] = '{'
	return append(dst, '}')
}

// floorMilli turns microseconds into milliseconds, towards the past also before 1970.
func floorMilli(us int64) int64 { return time.UnixMicro(us).UnixMilli() }
