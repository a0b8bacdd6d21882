package pipeline

import (
	"fmt"
	"slices"
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
	over  []telemetry.Reading // values of the windows that ended with the last call
	all   []telemetry.Reading // what the last call returned
}

// window is what the readings of one tag come to so far.
type window struct {
	Aggregate
	index       int64 // of the window among those since the first poll
	all, good   int
	min, max    float64
	sum         float64
	from, to    point             // of Rate
	last        telemetry.Reading // of this window or of one before
	told        bool              // there is a last one
	bad         string            // why the last bad one is
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

// filter takes the readings of aggregated tags out, in place, and puts the value of a window in when it is over. Of a device
// that pushes what changes, a tag that it leaves out is as it was: then that is the value of its window.
func (a *aggregates) filter(at time.Time, readings []telemetry.Reading) []telemetry.Reading {
	if a.start.IsZero() {
		a.start = at
	}
	after := at.Sub(a.start) + pollJitter // a poll that comes a millisecond too soon is of the next window
	a.over = a.over[:0]
	for _, w := range a.of {
		if index := int64(after / w.Over); index != w.index {
			if w.all == 0 && w.told {
				w.last.Time = at.UnixMicro()
				w.add(&w.last)
			}
			if w.all > 0 {
				a.over = append(a.over, w.value())
			}
			w.next(index)
		}
	}
	kept := readings[:0]
	for i := range readings {
		if w := a.of[int(readings[i].Tag)]; w != nil {
			w.add(&readings[i])
		} else {
			kept = append(kept, readings[i])
		}
	}
	if len(a.over) == 0 {
		return kept
	}
	slices.SortFunc(a.over, func(x, y telemetry.Reading) int { return int(x.Tag) - int(y.Tag) })
	a.all = append(append(a.all[:0], a.over...), kept...)
	return a.all
}

// cut ends every window before its time.
func (a *aggregates) cut() []telemetry.Reading {
	a.over = a.over[:0]
	for _, w := range a.of {
		if w.all == 0 {
			continue
		}
		r := w.value()
		if r.Quality == telemetry.Good {
			r.Quality, r.Reason = telemetry.Uncertain, "the window was cut short by a stop"
		}
		a.over = append(a.over, r)
		w.next(w.index)
	}
	slices.SortFunc(a.over, func(x, y telemetry.Reading) int { return int(x.Tag) - int(y.Tag) })
	return a.over
}

// next begins a window. A rate goes on from the last good reading, however long ago.
func (w *window) next(index int64) {
	from := w.to
	if !from.once {
		from = w.from
	}
	*w = window{Aggregate: w.Aggregate, index: index, from: from, last: w.last, told: w.told}
}

func (w *window) add(r *telemetry.Reading) {
	w.all++
	w.last, w.told = *r, true
	x, ok := r.Value.Float()
	switch {
	case r.Quality == telemetry.Bad:
		w.bad = r.Reason
		return
	case !ok || x != x:
		w.bad = fmt.Sprintf("no number to take the %s of", w.Kind)
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
		return telemetry.BadReading(int(r.Tag), r.Time, w.bad)
	case w.Kind == Rate && span <= 0:
		return telemetry.BadReading(int(r.Tag), r.Time, "two readings are needed for a rate")
	case w.good < w.all && r.Quality == telemetry.Good:
		r.Quality, r.Reason = telemetry.Uncertain, fmt.Sprintf("%d of %d readings were bad: %s", w.all-w.good, w.all, w.bad)
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
