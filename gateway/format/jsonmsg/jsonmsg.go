// Package jsonmsg turns a record into one MQTT message of format json: one flat object a poll.
//
// It owns the names and the exact text of everything in that object, and the topic it goes to; README.md
// describes both, message.schema.json is the contract that a test holds against real output. It promises
// that a reading is in "values" or in "bad", never in both and never missing, that a number loses no bit
// of precision, and that the same record gives the same bytes. Encoding allocates nothing but the buffer.
// The publisher calls it, once for each message.
package jsonmsg

import (
	"fmt"
	"slices"
	"strings"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// Options say what the messages of one destination look like.
type Options struct {
	Gateway string // name of the gateway, in every message
	Epoch   string // the buffer's epoch: a sequence number is unique within it

	// Topic is the template of the topic, with the placeholders {gateway}, {device} and {group}.
	// "" means DefaultTopic.
	Topic string

	// BigIntsAsText writes integers beyond ±2^53 as strings, for consumers that read every JSON
	// number as a float64 (JavaScript, most dashboards) and would round them.
	BigIntsAsText bool
}

// DefaultTopic is the topic template of a destination that names none.
const DefaultTopic = "telemetry/{gateway}/{device}/{group}"

// Format makes the messages of one destination. It is immutable and safe for concurrent use.
type Format struct {
	options Options
}

// New checks the topic template and returns the format.
func New(o Options) (*Format, error) {
	if o.Topic == "" {
		o.Topic = DefaultTopic
	}
	if err := CheckTopic(o.Topic); err != nil {
		return nil, err
	}
	return &Format{options: o}, nil
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

// Stream encodes the records of one schema. It holds everything that is the same from record to record.
// One goroutine uses it at a time.
type Stream struct {
	topic    string
	head     []byte   // from the opening brace to the sequence number
	keys     [][]byte // `,"tag":` for each tag of the schema
	keyBytes int
	bigText  bool
	newest   []int32 // scratch: see repeats
}

// Stream returns the encoder of the schema's records.
func (f *Format) Stream(s *record.Schema) (*Stream, error) {
	e := &Stream{bigText: f.options.BigIntsAsText}
	e.topic = placeholders(topicLevel(f.options.Gateway), topicLevel(s.Device), topicLevel(s.Group)).Replace(f.options.Topic)
	if len(e.topic) > maxTopic || e.topic == "" {
		return nil, fmt.Errorf("topic of device %q group %q has %d bytes; MQTT allows 1 to %d", s.Device, s.Group, len(e.topic), maxTopic)
	}
	e.head = appendField(e.head, `{"gateway":`, f.options.Gateway)
	e.head = appendField(e.head, `,"device":`, s.Device)
	e.head = appendField(e.head, `,"group":`, s.Group)
	e.head = appendField(e.head, `,"epoch":`, f.options.Epoch)
	e.head = append(e.head, `,"seq":`...)
	e.keys = make([][]byte, len(s.Tags))
	for i := range s.Tags {
		e.keys[i] = append(appendText([]byte{','}, s.Tags[i].Name), ':')
		e.keyBytes += len(e.keys[i])
	}
	return e, nil
}

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

// Gap says which readings of a device will never arrive.
type Gap struct {
	From, To          int64  // microseconds since 1970-01-01 UTC: the oldest and the newest of them
	FirstSeq, LastSeq uint64 // the sequence numbers of their records
	Count             uint64 // how many readings
	Cause             string // why, in words
}

// AppendGap appends the message of a gap record to dst. at is the record's time in microseconds since 1970.
func (s *Stream) AppendGap(dst []byte, seq uint64, historical bool, at int64, g *Gap) []byte {
	dst = s.appendHead(dst, seq, historical, at)
	dst = append(dst, `,"values":{},"bad":{},"gap":{"from":`...)
	dst = appendInt(dst, floorMilli(g.From))
	dst = appendInt(append(dst, `,"to":`...), floorMilli(g.To))
	dst = appendUint(append(dst, `,"count":`...), g.Count)
	dst = appendField(dst, `,"cause":`, g.Cause)
	dst = appendUint(append(dst, `,"first_seq":`...), g.FirstSeq)
	dst = appendUint(append(dst, `,"last_seq":`...), g.LastSeq)
	return append(dst, '}', '}')
}

// Topic returns the topic of the stream's messages.
func (s *Stream) Topic() string { return s.topic }

// AppendRecord appends the message of the record to dst. historical says that the record waited on disk
// while the link was down. It returns an error, and dst unchanged, when a reading names a tag that the
// schema does not have.
func (s *Stream) AppendRecord(dst []byte, seq uint64, historical bool, r *record.Record) ([]byte, error) {
	start := len(dst)
	dst = slices.Grow(dst, len(s.head)+s.keyBytes+24*len(r.Readings)+128)
	dst = s.appendHead(dst, seq, historical, r.Time)
	ts := floorMilli(r.Time)
	dst = append(dst, `,"values":`...)
	c := s.survey(r, ts)
	if c.foreign {
		return dst[:start], fmt.Errorf("encode record %d: a reading has a tag beyond the %d of its schema", seq, len(s.keys))
	}
	open := len(dst)
	for i := range r.Readings {
		rd := &r.Readings[i]
		if rd.Quality >= telemetry.Bad || (c.repeated && s.newest[rd.Tag] != int32(i)) {
			continue
		}
		before := len(dst)
		var ok bool
		if dst, ok = s.appendValue(append(dst, s.keys[rd.Tag]...), &rd.Value); !ok {
			dst = dst[:before]
			c.bad++
		}
	}
	dst = closeObject(dst, open)
	dst = s.appendBad(dst, r, &c)
	if c.uncertain > 0 {
		dst = s.appendUncertain(dst, r, &c)
	}
	if c.times > 0 {
		dst = s.appendTimes(dst, r, &c, ts)
	}
	if c.repeated {
		dst = s.appendEarlier(dst, r)
	}
	return append(dst, '}'), nil
}

func (s *Stream) appendHead(dst []byte, seq uint64, historical bool, at int64) []byte {
	dst = appendUint(append(dst, s.head...), seq)
	dst = append(dst, `,"ts":`...)
	dst = appendInt(dst, floorMilli(at))
	if historical {
		dst = append(dst, `,"historical":true`...)
	}
	return dst
}

// census is what one pass over a record tells about the members its message needs.
type census struct {
	bad, uncertain, times int
	repeated              bool // a tag occurs more than once
	foreign               bool // a tag beyond the schema
}

func (s *Stream) survey(r *record.Record, ts int64) census {
	var c census
	last, ascending := int64(-1), true
	for i := range r.Readings {
		rd := &r.Readings[i]
		tag := int64(rd.Tag)
		if tag <= last {
			ascending = false
		}
		if tag >= int64(len(s.keys)) {
			c.foreign = true
			return c
		}
		last = tag
		if rd.Quality != telemetry.Good {
			if rd.Quality == telemetry.Uncertain {
				c.uncertain++
			} else {
				c.bad++
			}
		}
		if rd.Time != r.Time && floorMilli(rd.Time) != ts {
			c.times++
		}
	}
	if !ascending {
		c.repeated = s.repeats(r)
	}
	return c
}

// repeats notes the newest reading of each tag and says whether any tag has several, as an OPC UA
// notification may.
func (s *Stream) repeats(r *record.Record) bool {
	if s.newest == nil {
		s.newest = make([]int32, len(s.keys))
	}
	for i := range s.newest {
		s.newest[i] = -1
	}
	repeated := false
	for i := range r.Readings {
		at := &s.newest[r.Readings[i].Tag]
		repeated = repeated || *at >= 0
		*at = int32(i)
	}
	return repeated
}

// shown reports whether the reading stands under its tag; one that a later reading of the same record
// replaces stands in "earlier".
func (s *Stream) shown(r *record.Record, i int, c *census) bool {
	return !c.repeated || s.newest[r.Readings[i].Tag] == int32(i)
}

func (s *Stream) appendBad(dst []byte, r *record.Record, c *census) []byte {
	dst = append(dst, `,"bad":`...)
	open := len(dst)
	if c.bad == 0 {
		return closeObject(dst, open)
	}
	for i := range r.Readings {
		rd := &r.Readings[i]
		if reason := whyBad(rd); reason != "" && s.shown(r, i, c) {
			dst = appendText(append(dst, s.keys[rd.Tag]...), reason)
		}
	}
	return closeObject(dst, open)
}

// whyBad returns why a reading has no value in the message, or "" if it has one.
func whyBad(rd *telemetry.Reading) string {
	if rd.Quality < telemetry.Bad {
		if rd.Value.Kind != telemetry.KindNone {
			return unfit(&rd.Value)
		}
		if rd.Reason == "" {
			return "no value"
		}
	}
	if rd.Reason == "" {
		return "bad"
	}
	return rd.Reason
}

func (s *Stream) appendUncertain(dst []byte, r *record.Record, c *census) []byte {
	start := len(dst)
	dst = append(dst, `,"uncertain":`...)
	open := len(dst)
	for i := range r.Readings {
		rd := &r.Readings[i]
		if rd.Quality != telemetry.Uncertain || !s.shown(r, i, c) || whyBad(rd) != "" {
			continue
		}
		dst = appendText(append(dst, s.keys[rd.Tag]...), whyUncertain(rd))
	}
	if len(dst) == open {
		return dst[:start]
	}
	return closeObject(dst, open)
}

func whyUncertain(rd *telemetry.Reading) string {
	if rd.Reason == "" {
		return "uncertain"
	}
	return rd.Reason
}

func (s *Stream) appendTimes(dst []byte, r *record.Record, c *census, ts int64) []byte {
	start := len(dst)
	dst = append(dst, `,"times":`...)
	open := len(dst)
	for i := range r.Readings {
		rd := &r.Readings[i]
		if at := floorMilli(rd.Time); at != ts && s.shown(r, i, c) {
			dst = appendInt(append(dst, s.keys[rd.Tag]...), at)
		}
	}
	if len(dst) == open {
		return dst[:start]
	}
	return closeObject(dst, open)
}

// appendEarlier appends the readings that a later one of the same tag in the same record hides.
func (s *Stream) appendEarlier(dst []byte, r *record.Record) []byte {
	dst = append(dst, `,"earlier":[`...)
	first := true
	for i := range r.Readings {
		rd := &r.Readings[i]
		if s.newest[rd.Tag] == int32(i) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		key := s.keys[rd.Tag]
		dst = append(append(dst, `{"tag":`...), key[1:len(key)-1]...)
		dst = appendInt(append(dst, `,"ts":`...), floorMilli(rd.Time))
		if reason := whyBad(rd); reason != "" {
			dst = appendField(dst, `,"bad":`, reason)
		} else {
			dst, _ = s.appendValue(append(dst, `,"value":`...), &rd.Value)
			if rd.Quality == telemetry.Uncertain {
				dst = appendField(dst, `,"uncertain":`, whyUncertain(rd))
			}
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
func floorMilli(us int64) int64 {
	ms := us / 1000
	if us < ms*1000 {
		ms--
	}
	return ms
}
