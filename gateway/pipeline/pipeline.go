// Package pipeline turns the readings of one poll into one record: it scales, reports by exception,
// encodes, and keeps the first half of the ledger (polled = suppressed + accepted).
//
// The poller calls Take in its own goroutine; a record is in the buffer when Take returns.
package pipeline

import (
	"fmt"
	"math"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// Sink is where records go: one stream of the buffer.
type Sink interface {
	// Count adds to the ledger's first half.
	Count(polled, suppressed int)
	// Append accepts one encoded record that holds so many readings; at is its time in µs since 1970.
	Append(payload []byte, readings int, at int64) error
}

// Report says when a reading of one tag is worth a place in a record. The zero value reports always.
type Report struct {
	OnChange bool          // only when value, quality or reason differ from the last one reported
	Deadband float64       // numeric change that does not count: absolute, or % of the last reported value
	Percent  bool          // Deadband is in percent
	Silence  time.Duration // report at least this often by source time even if unchanged; 0 = never
}

// Group is the pipeline of one poll group. It is not safe for concurrent use.
type Group struct {
	sink    Sink
	scales  []scale
	reports []Report
	last    []telemetry.Reading // last reported reading of each tag, for report by exception
	record  record.Record
	buf     []byte
}

// New returns the pipeline of a group with these tags. reports is either nil (always) or one for each tag.
func New(tags []telemetry.Tag, reports []Report, sink Sink) *Group {
	g := &Group{sink: sink}
	for i := range tags {
		if tags[i].Scaled() {
			if g.scales == nil {
				g.scales = make([]scale, len(tags))
			}
			g.scales[i] = newScale(&tags[i])
		}
	}
	for i := range reports {
		if reports[i].OnChange {
			g.reports = reports
			g.last = make([]telemetry.Reading, len(tags))
			for j := range g.last {
				g.last[j].Time = math.MinInt64 // nothing reported yet
			}
			break
		}
	}
	return g
}

// Take counts, scales and filters the readings of one poll in place, and appends those worth reporting
// to the sink as one record. The record's time is that of its first reading.
func (g *Group) Take(readings []telemetry.Reading) error {
	if len(readings) == 0 {
		return nil
	}
	polled := len(readings)
	if g.scales != nil {
		g.scale(readings)
	}
	if g.reports != nil {
		readings = g.filter(readings)
	}
	g.sink.Count(polled, polled-len(readings))
	if len(readings) == 0 {
		return nil
	}
	g.record.Time, g.record.Readings = readings[0].Time, readings
	g.buf = record.Append(g.buf[:0], &g.record)
	if err := g.sink.Append(g.buf, len(readings), g.record.Time); err != nil {
		return fmt.Errorf("append record: %w", err)
	}
	return nil
}

func (g *Group) scale(readings []telemetry.Reading) {
	for i := range readings {
		r := &readings[i]
		if s := &g.scales[r.Tag]; s.mul != 0 {
			r.Value = s.apply(r.Value)
		}
	}
}

// scale is value = raw*mul/div + offset. A scale such as 0.1 is kept as a division by 10, because
// 3/10 is the double nearest to 0.3 while 3*0.1 is not. mul 0 = not scaled.
type scale struct{ mul, div, offset float64 }

func newScale(t *telemetry.Tag) scale {
	s := scale{mul: t.Scale, div: 1, offset: t.Offset}
	if s.mul == 0 {
		s.mul = 1
	}
	if inv := math.Round(1 / s.mul); math.Abs(inv) > 1 && 1/inv == s.mul {
		s.mul, s.div = 1, inv
	}
	return s
}

// apply scales a number; other kinds pass unchanged. A float32 stays one: its 24 bits of precision
// are all that the device gave. Everything else becomes a float64.
func (s *scale) apply(v telemetry.Value) telemetry.Value {
	if v.Kind == telemetry.KindBool {
		return v
	}
	raw, ok := v.Float()
	if !ok {
		return v
	}
	x := raw*s.mul/s.div + s.offset
	if v.Kind == telemetry.KindFloat32 {
		return telemetry.Float32(float32(x))
	}
	return telemetry.Float64(x)
}

// filter keeps the readings worth reporting, in place and in order, and remembers them.
func (g *Group) filter(readings []telemetry.Reading) []telemetry.Reading {
	kept := readings[:0]
	for i := range readings {
		r := &readings[i]
		rep, last := &g.reports[r.Tag], &g.last[r.Tag]
		if rep.OnChange && !rep.worth(last, r) {
			continue
		}
		if rep.OnChange {
			*last = *r
		}
		kept = append(kept, *r)
	}
	return kept
}

func (p *Report) worth(last, now *telemetry.Reading) bool {
	if last.Time == math.MinInt64 || last.Quality != now.Quality || last.Reason != now.Reason {
		return true
	}
	// A device clock that jumps back must not silence a tag: both directions count.
	if age := now.Time - last.Time; p.Silence > 0 && (age >= p.Silence.Microseconds() || -age >= p.Silence.Microseconds()) {
		return true
	}
	if last.Value == now.Value {
		return false
	}
	if p.Deadband == 0 {
		return true
	}
	a, ok1 := last.Value.Float()
	b, ok2 := now.Value.Float()
	if !ok1 || !ok2 || last.Value.Kind == telemetry.KindBool {
		return true
	}
	band := p.Deadband
	if p.Percent {
		band = math.Abs(a) * p.Deadband / 100
	}
	return !(math.Abs(b-a) <= band) // NaN is always worth it
}
