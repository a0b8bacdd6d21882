package pipeline

import (
	"errors"
	"math"
	"testing"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

type sink struct {
	polled, suppressed, appended int
	records                      []record.Record
	err                          error
}

func (s *sink) Count(p, q int) { s.polled += p; s.suppressed += q }

func (s *sink) Append(payload []byte, readings int, at int64) error {
	if s.err != nil {
		return s.err
	}
	var r record.Record
	if err := record.Decode(append([]byte(nil), payload...), &r); err != nil {
		return err
	}
	if len(r.Readings) != readings || r.Time != at {
		return errors.New("count or time beside the record differ from the record's own")
	}
	s.appended += readings
	s.records = append(s.records, r)
	return nil
}

func good(tag int, at int64, v telemetry.Value) telemetry.Reading {
	return telemetry.Reading{Tag: uint32(tag), Time: at, Value: v}
}

func TestScale(t *testing.T) {
	for _, c := range []struct {
		raw           telemetry.Value
		scale, offset float64
		want          telemetry.Value
	}{
		{telemetry.Uint(3), 0.1, 0, telemetry.Float64(0.3)}, // 3*0.1 would be 0.30000000000000004
		{telemetry.Int(-215), 0.01, 0, telemetry.Float64(-2.15)},
		{telemetry.Uint(100), 0, 273.15, telemetry.Float64(373.15)},
		{telemetry.Uint(7), 2.5, -1, telemetry.Float64(16.5)},
		{telemetry.Float32(215), 0.1, 0, telemetry.Float32(21.5)},
		{telemetry.Float64(math.Inf(1)), 10, 0, telemetry.Float64(math.Inf(1))},
		{telemetry.Bool(true), 10, 0, telemetry.Bool(true)},
		{telemetry.String("x"), 10, 0, telemetry.String("x")},
		{telemetry.Uint(42), 1, 0, telemetry.Uint(42)},
		{telemetry.Value{}, 0.1, 0, telemetry.Value{}},
	} {
		s := &sink{}
		g := New([]telemetry.Tag{{Name: "t", Scale: c.scale, Offset: c.offset}}, nil, s)
		if err := g.Take([]telemetry.Reading{good(0, 5, c.raw)}); err != nil {
			t.Fatal(err)
		}
		if got := s.records[0].Readings[0].Value; got != c.want {
			t.Errorf("%+v * %v + %v = %+v, want %+v", c.raw, c.scale, c.offset, got, c.want)
		}
	}
}

func TestReportOnChange(t *testing.T) {
	const sec = int64(1e6)
	rep := []Report{{}, {OnChange: true}, {OnChange: true, Deadband: 0.5, Silence: 10 * time.Second}, {OnChange: true, Deadband: 10, Percent: true}}
	s := &sink{}
	g := New(make([]telemetry.Tag, 4), rep, s)
	take := func(at int64, v1 int64, v2, v3 float64) []uint32 {
		t.Helper()
		n := len(s.records)
		rs := []telemetry.Reading{good(0, at, telemetry.Int(1)), good(1, at, telemetry.Int(v1)), good(2, at, telemetry.Float64(v2)), good(3, at, telemetry.Float64(v3))}
		if err := g.Take(rs); err != nil {
			t.Fatal(err)
		}
		var tags []uint32
		for _, r := range s.records[n].Readings {
			tags = append(tags, r.Tag)
		}
		return tags
	}
	for i, c := range []struct {
		at   int64
		v1   int64
		v2   float64
		v3   float64
		want []uint32
	}{
		{0, 5, 1, 100, []uint32{0, 1, 2, 3}},            // first: all
		{1 * sec, 5, 1, 100, []uint32{0}},               // nothing changed
		{2 * sec, 6, 1.4, 109, []uint32{0, 1}},          // inside both deadbands
		{3 * sec, 6, 1.6, 111, []uint32{0, 2, 3}},       // outside
		{4 * sec, 6, 1.2, 101, []uint32{0}},             // against the last reported, not the last polled
		{13 * sec, 6, 1.2, 101, []uint32{0, 2}},         // the silence of tag 2 is over
		{14 * sec, 6, math.NaN(), 101, []uint32{0, 2}},  // NaN is news
		{-90 * sec, 6, math.NaN(), 101, []uint32{0, 2}}, // a clock that jumps back does not silence
	} {
		got := take(c.at, c.v1, c.v2, c.v3)
		if len(got) != len(c.want) {
			t.Fatalf("step %d: reported %v, want %v", i, got, c.want)
		}
		for j := range got {
			if got[j] != c.want[j] {
				t.Fatalf("step %d: reported %v, want %v", i, got, c.want)
			}
		}
	}
	if s.polled != s.suppressed+s.appended {
		t.Errorf("ledger: polled %d != suppressed %d + accepted %d", s.polled, s.suppressed, s.appended)
	}
}

func TestQualityIsNews(t *testing.T) {
	s := &sink{}
	g := New(make([]telemetry.Tag, 1), []Report{{OnChange: true}}, s)
	for _, r := range []telemetry.Reading{
		good(0, 1, telemetry.Int(1)), telemetry.BadReading(0, 2, "timeout"), telemetry.BadReading(0, 3, "timeout"),
		telemetry.BadReading(0, 4, "refused"), good(0, 5, telemetry.Int(1)),
	} {
		if err := g.Take([]telemetry.Reading{r}); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.records) != 4 || s.suppressed != 1 {
		t.Errorf("%d records, %d suppressed; want 4 and 1", len(s.records), s.suppressed)
	}
}

func TestTakeAllocatesNothing(t *testing.T) {
	s := discard{}
	tags := make([]telemetry.Tag, 1000)
	for i := range tags {
		tags[i].Scale = 0.1
	}
	g := New(tags, nil, s)
	rs := make([]telemetry.Reading, 1000)
	fill := func() {
		for i := range rs {
			rs[i] = good(i, 1, telemetry.Uint(uint64(i)))
		}
	}
	fill()
	if err := g.Take(rs); err != nil { // grows the scratch once
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { fill(); _ = g.Take(rs) }); n > 0 {
		t.Errorf("%v allocations a record of 1000 readings, want 0", n)
	}
}

type discard struct{}

func (discard) Count(int, int)                  {}
func (discard) Append([]byte, int, int64) error { return nil }

func BenchmarkTake1000(b *testing.B) {
	g := New(make([]telemetry.Tag, 1000), nil, discard{})
	rs := make([]telemetry.Reading, 1000)
	for i := range rs {
		rs[i] = good(i, 1, telemetry.Uint(uint64(i*37)))
	}
	for b.Loop() {
		_ = g.Take(rs)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/reading")
}
