package pipeline

import (
	"cmp"
	"slices"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// types fills in those data types that the schema does not have, from the first value that each tag has. Each further schema is stored with its segment, so a new one comes only when the number of
// polls has doubled since the last: n polls make at most 1 + log2(n) of them, and a tag that first answers late is not
// kept waiting once that time is over.
type types struct {
	schema  *record.Schema
	known   []telemetry.DataType // by tag, ahead of the schema
	unknown int                  // tags without a type
	ahead   bool                 // known has what the schema has not
	polls   uint64
	next    uint64 // the poll from which the schema may be replaced
}

func newTypes(s *record.Schema) *types {
	t := &types{schema: s, next: 1}
	for i := range s.Tags {
		if !s.DataType(i).Known() {
			t.unknown++
		}
	}
	if t.unknown > 0 {
		t.known = make([]telemetry.DataType, len(s.Tags))
		copy(t.known, s.Data)
	}
	return t
}

// see looks at the readings of one poll, after scaling.
func (t *types) see(readings []telemetry.Reading) {
	if t.unknown == 0 && !t.ahead {
		return
	}
	t.polls++
	if t.unknown > 0 {
		t.learn(readings)
	}
	if t.ahead && t.polls >= t.next {
		t.publish()
		t.next = 2 * t.polls
	}
}

func (t *types) learn(readings []telemetry.Reading) {
	for i := range readings {
		r := &readings[i]
		if t.known[r.Tag].Known() {
			continue
		}
		if d := telemetry.DataTypeOf(r.Value.Kind); d.Known() {
			t.known[r.Tag], t.ahead = d, true
			t.unknown--
		}
	}
}

// describe fills in what the device says of the tags and the schema does not. reported makes of a range as the device has it that of what is reported.
func (t *types) describe(details []telemetry.Details, reported func(tag int, r telemetry.Range) telemetry.Range) {
	s := *t.schema
	s.Tags = slices.Clone(s.Tags)
	for i, d := range details[:min(len(details), len(s.Tags))] {
		more := s.Tags[i].Details()
		more.Unit = cmp.Or(more.Unit, d.Unit)
		more.Description = cmp.Or(more.Description, d.Description)
		if d.Range.Known() {
			more.Range = reported(i, d.Range)
		}
		s.Describe(i, more)
	}
	t.schema = &s
}

// publish replaces the schema by one with all types that are known. The two share their tags.
func (t *types) publish() {
	s := *t.schema
	s.Data = slices.Clone(t.known)
	t.schema, t.ahead = &s, false
}
