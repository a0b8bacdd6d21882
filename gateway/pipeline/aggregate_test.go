package pipeline

import (
	"slices"
	"testing"
	"time"

	"millrace/drivers/telemetry"
)

// TestAggregates polls once a second with a jitter of some milliseconds, and looks at what is recorded for windows of 4 s.
func TestAggregates(t *testing.T) {
	tags := []telemetry.Tag{{Name: "min"}, {Name: "max"}, {Name: "mean"}, {Name: "rate"}, {Name: "as it is"}}
	s, see := &sink{}, &shown{}
	g := New(Options{Schema: schemaOf(tags), Tags: tags, Sink: s, Values: see, Aggregates: map[int]Aggregate{
		0: {Min, 4 * time.Second}, 1: {Max, 4 * time.Second}, 2: {Mean, 4 * time.Second}, 3: {Rate, 4 * time.Second}}})
	const missing = -99
	values := []float64{3, 1, 4, 1, 5, 9, missing, 6, missing, missing, missing, missing, 8, 8, 8, 8, 0}
	for i, x := range values {
		at := poll.Add(time.Duration(i)*time.Second + time.Duration(i*7%5-2)*time.Millisecond)
		var in []telemetry.Reading
		for tag := range tags {
			r := good(tag, poll.UnixMicro()+int64(i)*1e6, telemetry.Int(int64(x)))
			if x == missing {
				r = telemetry.BadReading(tag, r.Time, "no answer")
			}
			in = append(in, r)
		}
		if err := g.Take(at, in); err != nil {
			t.Fatal(err)
		}
		if len(see.last) != len(tags) || x != missing && see.last[2].Value != telemetry.Int(int64(x)) {
			t.Errorf("poll %d shows %+v, not what is live", i, see.last)
		}
	}
	type window struct {
		min, max, mean, rate float64
		quality              telemetry.Quality
		reason               string
	}
	want := []window{
		{1, 4, 2.25, (1. - 3) / 3, telemetry.Good, ""},
		{5, 9, 20. / 3, (6. - 1) / 4, telemetry.Uncertain, "1 of 4 readings were bad: no answer"},
		{0, 0, 0, 0, telemetry.Bad, "no answer"},
		{8, 8, 8, (8. - 6) / 8, telemetry.Good, ""},
	}
	var got []window
	for _, r := range s.records {
		if len(r.Readings) == 1 {
			continue
		}
		if len(r.Readings) != 5 {
			t.Fatalf("a record of %d readings", len(r.Readings))
		}
		w := window{quality: r.Readings[2].Quality, reason: r.Readings[2].Reason}
		for i, x := range []*float64{&w.min, &w.max, &w.mean, &w.rate} {
			*x, _ = r.Readings[i].Value.Float()
			if r.Readings[i].Tag != uint32(i) || r.Readings[i].Quality != w.quality || (r.Readings[i].Time-poll.UnixMicro())/1e6 != int64(4*len(got)+3) {
				t.Errorf("window %d: %+v", len(got), r.Readings[i])
			}
		}
		got = append(got, w)
	}
	if len(got) != len(want) {
		t.Fatalf("%d windows, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("window %d: %+v, want %+v", i, got[i], want[i])
		}
	}
	if n := len(values)*len(tags) + 4*len(want); s.polled != n || s.suppressed != n-s.appended {
		t.Errorf("%d polled, %d suppressed, %d appended", s.polled, s.suppressed, s.appended)
	}
}

// TestAggregatesOfPushes: a tag that is left out is as it was, and its windows end with whatever comes, and with nothing.
func TestAggregatesOfPushes(t *testing.T) {
	tags := []telemetry.Tag{{Name: "mean"}, {Name: "other"}}
	s := &sink{}
	g := New(Options{Schema: schemaOf(tags), Tags: tags, Sink: s, Aggregates: map[int]Aggregate{0: {Mean, 4 * time.Second}}})
	push := func(second int, readings ...telemetry.Reading) {
		t.Helper()
		if err := g.Take(poll.Add(time.Duration(second)*time.Second), readings); err != nil {
			t.Fatal(err)
		}
	}
	push(0, good(0, 1, telemetry.Int(6)))
	push(1, good(0, 1, telemetry.Int(8)))
	push(5, good(1, 1, telemetry.Int(1)))
	push(9)
	push(13)
	var got []float64
	for _, r := range s.records {
		for _, reading := range r.Readings {
			if x, _ := reading.Value.Float(); reading.Tag == 0 {
				got = append(got, x)
			}
		}
	}
	if !slices.Equal(got, []float64{7, 8, 8}) {
		t.Errorf("means %v, want 7, and 8 twice as nothing changed", got)
	}
	push(14, good(0, 1, telemetry.Int(2)))
	if err := g.Close(poll.Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if r := s.records[len(s.records)-1].Readings[0]; r.Value != telemetry.Float64(2) || r.Quality != telemetry.Uncertain {
		t.Errorf("the window at the stop: %+v", r)
	}
	if s.polled != s.suppressed+s.appended || s.polled != 8 {
		t.Errorf("%d polled, %d suppressed, %d appended", s.polled, s.suppressed, s.appended)
	}
}
