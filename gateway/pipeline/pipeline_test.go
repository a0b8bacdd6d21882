package pipeline

import (
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

type sink struct {
	polled, suppressed, appended int
	records                      []record.Record
	schemas                      []*record.Schema // of each record
	err                          error
}

func (s *sink) Count(p, q int) { s.polled += p; s.suppressed += q }

func (s *sink) Append(sc *record.Schema, payload []byte, readings int, at int64) error {
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
	s.schemas = append(s.schemas, sc)
	return nil
}

// newGroup returns the pipeline of these tags with nothing beside.
func newGroup(tags []telemetry.Tag, reports []Report, s Sink) *Group {
	return New(Options{Schema: schemaOf(tags), Tags: tags, Reports: reports, Sink: s})
}

func schemaOf(tags []telemetry.Tag) *record.Schema {
	s := &record.Schema{Device: "d", Group: "g"}
	for i := range tags {
		s.Tags = append(s.Tags, record.Tag{Name: tags[i].Name})
	}
	return s
}

// poll is the time of the first poll in these tests, with its monotonic part.
var poll = time.Now()

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
		g := newGroup([]telemetry.Tag{{Name: "t", Scale: c.scale, Offset: c.offset}}, nil, s)
		if err := g.Take(poll, []telemetry.Reading{good(0, 5, c.raw)}); err != nil {
			t.Fatal(err)
		}
		if got := s.records[0].Readings[0].Value; got != c.want {
			t.Errorf("%+v * %v + %v = %+v, want %+v", c.raw, c.scale, c.offset, got, c.want)
		}
	}
}

func TestReportOnChange(t *testing.T) {
	rep := []Report{{}, {OnChange: true}, {OnChange: true, Deadband: 0.5, Heartbeat: 10 * time.Second}, {OnChange: true, Deadband: 10, Percent: true}}
	s := &sink{}
	g := newGroup(make([]telemetry.Tag, 4), rep, s)
	take := func(at time.Duration, v1 int64, v2, v3 float64) []uint32 {
		t.Helper()
		n := len(s.records)
		// The device's clock stands still, as that of a value's last change does (FOUND T1).
		rs := []telemetry.Reading{good(0, 5, telemetry.Int(1)), good(1, 5, telemetry.Int(v1)), good(2, 5, telemetry.Float64(v2)), good(3, 5, telemetry.Float64(v3))}
		if err := g.Take(poll.Add(at), rs); err != nil {
			t.Fatal(err)
		}
		var tags []uint32
		for _, r := range s.records[n].Readings {
			tags = append(tags, r.Tag)
		}
		return tags
	}
	for i, c := range []struct {
		at   time.Duration
		v1   int64
		v2   float64
		v3   float64
		want []uint32
	}{
		{0, 5, 1, 100, []uint32{0, 1, 2, 3}},                   // first: all
		{1 * time.Second, 5, 1, 100, []uint32{0}},              // nothing changed
		{2 * time.Second, 6, 1.4, 109, []uint32{0, 1}},         // inside both deadbands
		{3 * time.Second, 6, 1.6, 111, []uint32{0, 2, 3}},      // outside
		{4 * time.Second, 6, 1.2, 101, []uint32{0}},            // against the last reported, not the last polled
		{13 * time.Second, 6, 1.2, 101, []uint32{0, 2}},        // the heartbeat of tag 2
		{14 * time.Second, 6, math.NaN(), 101, []uint32{0, 2}}, // NaN is news
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

// TestPollTime: the record has the time of the poll, and so has a reading whose device said none (FOUND T2).
func TestPollTime(t *testing.T) {
	s := &sink{}
	g := newGroup(make([]telemetry.Tag, 3), nil, s)
	if err := g.Take(poll, []telemetry.Reading{good(0, 7, telemetry.Int(1)), good(1, 0, telemetry.Int(2)), telemetry.BadReading(2, 0, "no answer")}); err != nil {
		t.Fatal(err)
	}
	r, at := s.records[0], poll.UnixMicro()
	if r.Time != at || r.Readings[0].Time != 7 || r.Readings[1].Time != at || r.Readings[2].Time != at {
		t.Errorf("got %+v, want the poll's time %d but for the first reading", r, at)
	}
}

// TestHeartbeatIgnoresSourceTime: a device's clock, running backwards here, neither silences a tag nor makes it chatter.
func TestHeartbeatIgnoresSourceTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		g := newGroup(make([]telemetry.Tag, 1), []Report{{OnChange: true, Heartbeat: 3 * time.Second}}, s)
		for n := range int64(10) {
			if err := g.Take(time.Now(), []telemetry.Reading{good(0, 1e15*(5-n), telemetry.Int(1))}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if len(s.records) != 4 || s.suppressed != 6 {
			t.Errorf("%d records and %d suppressed in ten seconds, want 4 and 6", len(s.records), s.suppressed)
		}
	})
}

type seen struct {
	at       int64
	readings []telemetry.Reading
}

func (s *seen) Put(at int64, rs []telemetry.Reading) {
	s.at, s.readings = at, append(s.readings, rs...)
}

// TestValuesSeeEveryReading, scaled and with its time, also those that report by exception keeps back.
// TestHeartbeatOfPushes: a device that pushes what changes says now and then that nothing has. Each tag is then reported at its heartbeat, as it
// was seen last, with the time that it had.
func TestHeartbeatOfPushes(t *testing.T) {
	s := &sink{}
	g := newGroup(make([]telemetry.Tag, 4), []Report{{OnChange: true, Heartbeat: 10 * time.Second}, {OnChange: true}, {},
		{OnChange: true, Heartbeat: 10 * time.Second, Deadband: 5}}, s)
	take := func(after time.Duration, rs ...telemetry.Reading) {
		if err := g.Take(poll.Add(after), rs); err != nil {
			t.Fatal(err)
		}
	}
	take(0)
	take(time.Second, good(0, 5, telemetry.Int(1)), good(1, 6, telemetry.Int(2)), good(2, 7, telemetry.Int(3)))
	take(2*time.Second, telemetry.BadReading(3, 8, "gone"))
	take(3*time.Second, good(3, 9, telemetry.Int(40)))
	take(4*time.Second, good(3, 10, telemetry.Int(42))) // within the deadband
	take(9 * time.Second)
	if len(s.records) != 3 {
		t.Fatalf("%d records before a heartbeat was due, want 3", len(s.records))
	}
	take(11 * time.Second)
	take(12 * time.Second)
	take(13 * time.Second)
	want := [][]telemetry.Reading{{good(0, 5, telemetry.Int(1))}, {good(3, 10, telemetry.Int(42))}}
	for i, w := range want {
		if r := s.records[3+i]; !slices.Equal(r.Readings, w) {
			t.Errorf("heartbeat %d: %+v, want %+v", i, r.Readings, w)
		}
	}
	if len(s.records) != 5 || s.polled != 8 || s.suppressed != 1 || s.appended != 7 {
		t.Errorf("%d records, %d polled, %d suppressed, %d appended", len(s.records), s.polled, s.suppressed, s.appended)
	}
}

func TestValuesSeeEveryReading(t *testing.T) {
	s, v := &sink{}, &seen{}
	tags := []telemetry.Tag{{Scale: 0.1}}
	g := New(Options{Schema: schemaOf(tags), Tags: tags, Reports: []Report{{OnChange: true}}, Sink: s, Values: v})
	for range 2 {
		if err := g.Take(poll, []telemetry.Reading{good(0, 0, telemetry.Uint(3))}); err != nil {
			t.Fatal(err)
		}
	}
	want := good(0, poll.UnixMicro(), telemetry.Float64(0.3))
	if v.at != poll.UnixMicro() || len(v.readings) != 2 || v.readings[0] != want || v.readings[1] != want || s.appended != 1 {
		t.Errorf("seen %+v, %d appended; want %+v twice and 1", v, s.appended, want)
	}
}

func TestQualityIsNews(t *testing.T) {
	s := &sink{}
	g := newGroup(make([]telemetry.Tag, 1), []Report{{OnChange: true}}, s)
	for _, r := range []telemetry.Reading{
		good(0, 1, telemetry.Int(1)), telemetry.BadReading(0, 2, "timeout"), telemetry.BadReading(0, 3, "timeout"),
		telemetry.BadReading(0, 4, "refused"), good(0, 5, telemetry.Int(1)),
	} {
		if err := g.Take(poll, []telemetry.Reading{r}); err != nil {
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
	g := New(Options{Schema: schemaOf(tags), Tags: tags, Reports: slices.Repeat([]Report{{OnChange: true}}, len(tags)), Sink: s, Values: s})
	rs := make([]telemetry.Reading, 1000)
	value := uint64(0)
	fill := func() {
		for i := range rs {
			value++
			rs[i] = good(i, 0, telemetry.Uint(value))
		}
	}
	fill()
	if err := g.Take(poll, rs); err != nil { // grows the scratch once
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { fill(); _ = g.Take(poll, rs) }); n > 0 {
		t.Errorf("%v allocations a record of 1000 readings, want 0", n)
	}
}

type discard struct{}

func (discard) Count(int, int)                                  {}
func (discard) Append(*record.Schema, []byte, int, int64) error { return nil }
func (discard) Put(int64, []telemetry.Reading)                  {}

func BenchmarkTake1000(b *testing.B) {
	tags := make([]telemetry.Tag, 1000)
	for name, o := range map[string]Options{
		"plain":        {},
		"one unknown":  {}, // a tag that never answers, so that types are looked for at each poll
		"by exception": {Reports: slices.Repeat([]Report{{OnChange: true}}, len(tags))},
	} {
		b.Run(name, func(b *testing.B) {
			o.Schema, o.Tags, o.Sink = schemaOf(tags), tags, discard{}
			g := New(o)
			rs := make([]telemetry.Reading, len(tags))
			for n := 0; b.Loop(); n++ {
				for i := range rs {
					rs[i] = good(i, 0, telemetry.Uint(uint64(i*37+n)))
				}
				if name == "one unknown" {
					rs[999] = telemetry.BadReading(999, 0, "no answer")
				}
				_ = g.Take(poll, rs)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/reading")
		})
	}
}

// TestNotFinite: what is no number is bad, whether the device sent it or a scale made it, also in what the device kept.
func TestNotFinite(t *testing.T) {
	for _, c := range []struct {
		value telemetry.Value
		want  string
	}{
		{telemetry.Float64(math.NaN()), "not a number"},
		{telemetry.Float32(float32(math.NaN())), "not a number"},
		{telemetry.Float64(math.Inf(1)), "+infinity"},
		{telemetry.Float32(float32(math.Inf(-1))), "-infinity"},
		{telemetry.Float64(math.MaxFloat64), "+infinity"}, // times the scale
		{telemetry.Float32(12.5), ""},
		{telemetry.String("NaN"), ""},
	} {
		s := &sink{}
		g := newGroup([]telemetry.Tag{{Name: "t", Scale: 1000}}, make([]Report, 1), s)
		if err := errors.Join(g.Take(poll, []telemetry.Reading{good(0, 0, c.value)}), g.Past(poll, []telemetry.Reading{good(0, 1, c.value)})); err != nil {
			t.Fatal(err)
		}
		for i, r := range s.records {
			if rd := r.Readings[0]; rd.Reason != c.want || (rd.Quality == telemetry.Bad) != (c.want != "") {
				t.Errorf("%v in record %d: %s %q, want %q", c.value, i, rd.Quality, rd.Reason, c.want)
			}
		}
	}
}
