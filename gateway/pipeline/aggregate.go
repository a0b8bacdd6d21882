package pipeline

import (
	"fmt"
	"time"

	"millrace/drivers/telemetry"
)

// Aggregate says that what is recorded of a tag is one value of each window rather than every reading.
type Aggregate struct {
	Kind AggregateKind
	Over time.Duration // a window; > 0. Windows follow each other from the first poll on
}

// AggregateKind says which value stands for a window.
type AggregateKind string

// The kinds of aggregate. Rate is the change in a second, from the last good reading before the window to the last in it,
// by source times.
const (
	Min  AggregateKind = "min"
	Max  AggregateKind = "max"
	Mean AggregateKind = "mean"
	Rate AggregateKind = "rate"
)

// aggregates are the windows of a group's tags.
type aggregates struct {
	of    map[int]*window
	start time.Time
}

// window is what the readings of one tag come to so far.
type window struct {
	Aggregate
	index       int64 // of the window among those since the first poll
	all, good   int
	min, max    float64
	sum         float64
	from, to    point             // of Rate
	last        telemetry.Reading // with the time of the window's last reading, and the reason of its last bad one
	quality     telemetry.Quality // worst of those that are not bad
	uncertainBy string
}

// point is a value at a source time in µs.
type point struct {
	x    float64
	at   int64
	once bool
}

func newAggregates(of map[int]Aggregate) *aggregates {
	if len(of) == 0 {
		return nil
	}
	a := &aggregates{of: map[int]*window{}}
	for i, x := range of {
		a.of[i] = &window{Aggregate: x}
	}
	return a
}

// filter takes the readings of aggregated tags out, in place, and puts the value of a window in when it is over.
func (a *aggregates) filter(at time.Time, readings []telemetry.Reading) []telemetry.Reading {
	if a.start.IsZero() {
		a.start = at
	}
	after := at.Sub(a.start) + pollJitter // a poll that comes a millisecond too soon is of the next window
	kept := readings[:0]
	for i := range readings {
		r := readings[i]
		w := a.of[int(r.Tag)]
		if w == nil {
			kept = append(kept, r)
			continue
		}
		if index := int64(after / w.Over); index != w.index {
			if w.all > 0 {
				kept = append(kept, w.value())
			}
			w.next(index)
		}
		w.add(&r)
	}
	return kept
}

// next begins a window. A rate goes on from the last good reading, however long ago.
func (w *window) next(index int64) {
	from := w.to
	if !from.once {
		from = w.from
	}
	*w = window{Aggregate: w.Aggregate, index: index, from: from}
}

func (w *window) add(r *telemetry.Reading) {
	w.all++
	w.last.Tag, w.last.Time = r.Tag, r.Time
	x, ok := r.Value.Float()
	switch {
	case r.Quality == telemetry.Bad:
		w.last.Reason = r.Reason
		return
	case !ok || x != x:
		w.last.Reason = fmt.Sprintf("no number to take the %s of", w.Kind)
		return
	}
	if r.Quality > w.quality {
		w.quality, w.uncertainBy = r.Quality, r.Reason
	}
	if w.good++; w.good == 1 {
		w.min, w.max = x, x
	}
	w.min, w.max, w.sum = min(w.min, x), max(w.max, x), w.sum+x
	w.to = point{x, r.Time, true}
	if !w.from.once {
		w.from = w.to
	}
}

// value returns what stands for the window: bad when none of its readings was a number.
func (w *window) value() telemetry.Reading {
	r := telemetry.Reading{Tag: w.last.Tag, Time: w.last.Time, Quality: w.quality, Reason: w.uncertainBy}
	span := float64(w.to.at-w.from.at) / 1e6
	switch {
	case w.good == 0:
		return telemetry.BadReading(int(r.Tag), r.Time, w.last.Reason)
	case w.Kind == Rate && span <= 0:
		return telemetry.BadReading(int(r.Tag), r.Time, "two readings are needed for a rate")
	case w.good < w.all && r.Quality == telemetry.Good:
		r.Quality, r.Reason = telemetry.Uncertain, fmt.Sprintf("%d of %d readings were bad: %s", w.all-w.good, w.all, w.last.Reason)
	}
	switch w.Kind {
	case Min:
		r.Value = telemetry.Float64(w.min)
	case Max:
		r.Value = telemetry.Float64(w.max)
	case Mean:
		r.Value = telemetry.Float64(w.sum / float64(w.good))
	case Rate:
		r.Value = telemetry.Float64((w.to.x - w.from.x) / span)
	}
	return r
}
