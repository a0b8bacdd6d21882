package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"millrace/buffer"
	"millrace/drivers"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
	"millrace/gateway/derive"
	"millrace/gateway/pipeline"
	"millrace/gateway/poller"
	"millrace/gateway/record"
	"millrace/gateway/values"
)

// groupSink is where the pipeline of one group puts its readings: the last values, and a stream of the buffer. The
// poller's goroutine calls it.
type groupSink struct {
	buf        *buffer.Buffer
	device     string
	ref        drivers.Ref
	schema     *record.Schema // of stream
	stream     *buffer.Stream
	schemas    *sync.Map // where publishers find the schema of a stream
	interval   time.Duration
	values     *values.Group
	bad        *badReadings // of the device
	skew       *skew        // of the device
	seen       int64        // the newest source time, for it
	clockUnset func() bool
	log        *slog.Logger
}

// newGroupSink opens the stream of a group. types are the data types before scaling that the driver knows, events the tags that it takes events with;
// nil = none.
func (g *Gateway) newGroupSink(gateway string, dev *config.Device, group *config.Group, types []telemetry.DataType, events []int) (*groupSink, error) {
	s := &groupSink{buf: g.buf, schemas: &g.schemas, device: dev.Name, interval: group.Interval, clockUnset: g.clock.unset.Load, log: g.log}
	read := len(group.Tags)
	schema := &record.Schema{Gateway: gateway, Device: dev.Name, Group: group.Name, Labels: dev.Labels,
		Tags: make([]record.Tag, read, read+len(group.Derived)), Data: slices.Clone(types)}
	for i := range group.Tags {
		t := &group.Tags[i]
		schema.Tags[i].Name = t.Name
		schema.Describe(i, record.Details{Unit: t.Unit, Type: t.Type, Description: t.Description, Labels: t.Labels})
		if types != nil && t.Scaled() {
			schema.Data[i] = types[i].Scaled()
		}
	}
	if len(events) > 0 && schema.Data == nil {
		schema.Data = make([]telemetry.DataType, read)
	}
	for _, i := range events {
		schema.Data[i] = telemetry.EventType
	}
	for i := range group.Derived {
		t := &group.Derived[i].Tag
		schema.Tags = append(schema.Tags, record.Tag{Name: t.Name})
		schema.Describe(read+i, record.Details{Unit: t.Unit, Description: t.Description, Labels: t.Labels})
	}
	if schema.Data != nil { // those of derived tags are learnt
		schema.Data = append(schema.Data, make([]telemetry.DataType, len(group.Derived))...)
	}
	for i := range group.Aggregates {
		if schema.Data != nil {
			schema.Data[i] = telemetry.Float64Type
		}
	}
	schema.Compact()
	return s, s.use(schema)
}

// pipeline returns the pipeline that ends here.
func (s *groupSink) pipeline(group *config.Group, device *pipeline.Device, formulas []*derive.Formula) *pipeline.Group {
	o := pipeline.Options{Schema: s.schema, Tags: group.Tags, Reports: reports(group.Report), Device: device, Sink: s, Values: s, ClockUnset: s.clockUnset}
	for i, r := range group.Clamps {
		if o.Clamps == nil {
			o.Clamps = map[int]pipeline.Range{}
		}
		o.Clamps[i] = pipeline.Range(r)
	}
	for i, a := range group.Aggregates {
		if o.Aggregates == nil {
			o.Aggregates = map[int]pipeline.Aggregate{}
		}
		o.Aggregates[i] = pipeline.Aggregate{Kind: pipeline.AggregateKind(a.Kind), Over: a.Over}
	}
	for i, f := range formulas {
		o.Derived = append(o.Derived, pipeline.Derived{Formula: f, Report: report(group.Derived[i].Report)})
	}
	return pipeline.New(o)
}

// compile returns the formulas of a device, by group.
func compile(dev *config.Device) ([][]*derive.Formula, error) {
	all := make([][]*derive.Formula, len(dev.Groups))
	for i := range dev.Groups {
		for _, t := range dev.Groups[i].Derived {
			f, err := derive.Compile(t.Expr, func(string) bool { return true }) // config.Load has looked
			if err != nil {
				return nil, fmt.Errorf("prepare device %q tag %q: %w", dev.Name, t.Name, err)
			}
			all[i] = append(all[i], f)
		}
	}
	return all, nil
}

func reports(rs []config.TagReport) []pipeline.Report {
	if rs == nil {
		return nil
	}
	out := make([]pipeline.Report, len(rs))
	for i, r := range rs {
		out[i] = report(r)
	}
	return out
}

func report(r config.TagReport) pipeline.Report {
	return pipeline.Report{OnChange: r.OnChange, Deadband: r.Deadband, Percent: r.DeadbandPercent, Heartbeat: r.Heartbeat}
}

// noRoom says that the store has no room for what a group's tags are: their names, units and descriptions.
type noRoom struct {
	device, group string
	tags          int
}

func (n *noRoom) Error() string {
	return fmt.Sprintf("the store has no room for the names, units and descriptions of its %s; split the group, or raise buffer.max_size", telemetry.Count(n.tags, "tag"))
}

// use takes another schema: one that knows more of its data types. One that the store has no room for (noRoom) leaves the stream as it is.
func (s *groupSink) use(schema *record.Schema) error {
	s.schema = schema
	stream, err := s.buf.Stream(s.device, record.AppendSchema(nil, schema))
	switch {
	case errors.Is(err, buffer.ErrTooLarge):
		return &noRoom{schema.Device, schema.Group, len(schema.Tags)}
	case err != nil:
		return err
	}
	s.stream = stream
	s.schemas.Store(s.stream, schema)
	return nil
}

// Put shows the readings of a poll.
func (s *groupSink) Put(at int64, readings []telemetry.Reading) {
	s.bad.count(readings)
	s.skew.measure(at, &s.seen, readings)
	s.values.Put(at, readings)
}

// missed counts the tags whose readings are missing, and has the buffer tell of it. A gap of the whole device is no group's own.
func (s *groupSink) missed(g *poller.Gap) {
	gap := buffer.Gap{From: g.From.UnixMicro(), To: g.To.UnixMicro(), Count: uint64(g.Lost), Cause: buffer.CauseLost, Reason: g.Reason}
	if g.Outage {
		gap.Cause = buffer.CauseOutage
	}
	s.values.Lose(g.Tags, gap.To)
	for _, tag := range g.Tags {
		if name := s.schema.Tags[tag].Name; !slices.Contains(gap.Tags, name) {
			gap.Tags = append(gap.Tags, name)
		}
	}
	s.buf.Missed(s.stream, gap)
}

// Count adds to the ledger's first half.
func (s *groupSink) Count(polled, suppressed int) { s.stream.Count(polled, suppressed) }

// Append gives one record to the buffer. A record that the buffer does not take, because it is full or the record too
// large, is counted by the buffer, and one whose fsync failed is kept in its memory: none of these ends the poller. Only
// a closed buffer does.
func (s *groupSink) Append(schema *record.Schema, payload []byte, readings int, at int64) error {
	if schema != s.schema {
		if err := s.use(schema); err != nil { // the records mean the same without it
			s.log.Warn("what a device says of a group's tags (types, units, descriptions) is not kept, because there is no room for it",
				"device", s.device, "group", schema.Group, "cause", err)
		}
	}
	_, err := s.buf.Append(s.stream, payload, readings, at)
	if errors.Is(err, buffer.ErrFull) || errors.Is(err, buffer.ErrTooLarge) || errors.Is(err, buffer.ErrNotDurable) {
		return nil
	}
	return err
}
