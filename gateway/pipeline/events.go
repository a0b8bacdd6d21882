package pipeline

import (
	"slices"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// events are the tags of a group whose readings are events: what happens, not how something is. Each is reported, and in a record apart from values.
type events struct {
	of    []bool // by tag
	apart []telemetry.Reading
}

// newEvents returns nil when no tag of the schema is of events.
func newEvents(s *record.Schema) *events {
	of := s.Events()
	if of == nil {
		return nil
	}
	return &events{of: of}
}

// reports returns the reports with those of events marked, nil = always.
func (e *events) reports(all []Report) []Report {
	if e == nil || all == nil {
		return all
	}
	all = slices.Clone(all)
	for i := range all {
		all[i].Event = e.of[i]
	}
	return all
}

// split parts the readings of events from the others, each in their order. The slice that it gets is changed.
func (e *events) split(readings []telemetry.Reading) (values, apart []telemetry.Reading) {
	values, e.apart = readings[:0], e.apart[:0]
	for i := range readings {
		if e.of[readings[i].Tag] {
			e.apart = append(e.apart, readings[i])
		} else {
			values = append(values, readings[i])
		}
	}
	return values, e.apart
}
