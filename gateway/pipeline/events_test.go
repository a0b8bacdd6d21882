package pipeline

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/derive"
)

// eventGroup has tags 0 and 2 of values and 1 and 3 of events.
func eventGroup(o Options) *Group {
	o.Tags = make([]telemetry.Tag, 4)
	for i := range o.Tags {
		o.Tags[i].Name = "t" + strconv.Itoa(i)
	}
	o.Schema = schemaOf(o.Tags)
	for i := range o.Derived {
		o.Schema.Tags = append(o.Schema.Tags, o.Schema.Tags[i])
	}
	o.Schema.Data = make([]telemetry.DataType, len(o.Schema.Tags))
	o.Schema.Data[1], o.Schema.Data[3] = telemetry.EventType, telemetry.EventType
	return New(o)
}

// said returns the tags and values of a record, and nothing of one that is not there.
func said(s *sink, record int) (all []string) {
	if record >= len(s.records) {
		return nil
	}
	for _, r := range s.records[record].Readings {
		all = append(all, strconv.Itoa(int(r.Tag))+" "+r.Value.Text+r.Reason)
	}
	return all
}

// TestEventsApart: a push of values and events makes a record of each, in order, and every reading is in one of them.
func TestEventsApart(t *testing.T) {
	s := &sink{}
	g := eventGroup(Options{Sink: s})
	push := []telemetry.Reading{good(3, 5, telemetry.String("a")), good(0, 5, telemetry.String("v")), good(1, 6, telemetry.String("b")), good(3, 0, telemetry.String("c")),
		telemetry.BadReading(2, 5, "gone"), good(3, 5, telemetry.String("a")), telemetry.BadReading(1, 0, "mute")}
	if err := g.Take(poll, push); err != nil {
		t.Fatal(err)
	}
	if got, want := said(s, 0), []string{"0 v", "2 gone"}; !slices.Equal(got, want) {
		t.Errorf("values %q, want %q", got, want)
	}
	if got, want := said(s, 1), []string{"3 a", "1 b", "3 c", "3 a", "1 mute"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if len(s.records) != 2 || s.polled != 7 || s.suppressed+s.appended != 7 {
		t.Errorf("%d records, polled %d, suppressed %d, accepted %d", len(s.records), s.polled, s.suppressed, s.appended)
	}
	if r := s.records[1].Readings; r[0].Time != 5 || r[2].Time != poll.UnixMicro() {
		t.Errorf("times %d and %d", r[0].Time, r[2].Time)
	}
	for range 2 {
		if err := g.Take(poll, []telemetry.Reading{good(1, 6, telemetry.String("alone"))}); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.records) != 4 || !slices.Equal(said(s, 3), []string{"1 alone"}) {
		t.Errorf("%d records, the last %q", len(s.records), said(s, 3))
	}
}

// TestEventsAreNoState: an event like the one before is another event, and no heartbeat repeats it; that the tag is bad is a state like any other.
func TestEventsAreNoState(t *testing.T) {
	report := slices.Repeat([]Report{{OnChange: true, Heartbeat: time.Minute}}, 4)
	s := &sink{}
	g := eventGroup(Options{Sink: s, Reports: report})
	for i, c := range []struct {
		at   time.Duration
		push []telemetry.Reading
		want []string // of all records that it makes
	}{
		{0, []telemetry.Reading{good(0, 5, telemetry.String("v")), good(1, 5, telemetry.String("e"))}, []string{"0 v", "1 e"}},
		{1, []telemetry.Reading{good(0, 5, telemetry.String("v")), good(1, 5, telemetry.String("e"))}, []string{"1 e"}},
		{90, nil, []string{"0 v"}}, // its heartbeat, and none of the event
		{91, []telemetry.Reading{telemetry.BadReading(1, 0, "down")}, []string{"1 down"}},
		{92, []telemetry.Reading{telemetry.BadReading(1, 0, "down")}, nil},
		{152, nil, []string{"0 v", "1 down"}},
		{153, []telemetry.Reading{good(1, 5, telemetry.String("e"))}, []string{"1 e"}},
		{154, []telemetry.Reading{good(1, 5, telemetry.String("e"))}, []string{"1 e"}},
		{230, nil, []string{"0 v"}},
	} {
		n, got := len(s.records), []string(nil)
		if err := g.Take(poll.Add(c.at*time.Second), c.push); err != nil {
			t.Fatal(err)
		}
		for ; n < len(s.records); n++ {
			got = append(got, said(s, n)...)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("step %d: %q, want %q", i, got, c.want)
		}
	}
	if s.polled != s.suppressed+s.appended {
		t.Errorf("ledger: polled %d != suppressed %d + accepted %d", s.polled, s.suppressed, s.appended)
	}
	if report[1].Event {
		t.Error("the reports that were given have been changed")
	}
}

// TestEventsBesideDerived: what a formula makes of an event is a value; windows of others go on.
func TestEventsBesideDerived(t *testing.T) {
	f, err := derive.Compile(`t1 contains "hot" ? 1 : 0`, func(string) bool { return true }, "t1")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{}
	g := eventGroup(Options{Sink: s, Device: NewDevice([]*derive.Formula{f}), Derived: []Derived{{Formula: f}}, Aggregates: map[int]Aggregate{0: {Kind: Max, Over: time.Second}}})
	if err := g.Take(poll, []telemetry.Reading{good(1, 5, telemetry.String(`{"message":"hot"}`)), good(0, 5, telemetry.Int(4))}); err != nil {
		t.Fatal(err)
	}
	if len(s.records) != 2 || len(s.records[0].Readings) != 1 || s.records[0].Readings[0].Tag != 4 || !slices.Equal(said(s, 1), []string{`1 {"message":"hot"}`}) {
		t.Fatalf("%+v", s.records)
	}
	if v, _ := s.records[0].Readings[0].Value.Float(); v != 1 {
		t.Errorf("derived %+v", s.records[0].Readings[0])
	}
	if err := g.Take(poll.Add(2*time.Second), []telemetry.Reading{good(3, 5, telemetry.String("e"))}); err != nil {
		t.Fatal(err)
	}
	if got := s.records[2].Readings; len(s.records) != 4 || got[0].Tag != 0 || !slices.Equal(said(s, 3), []string{"3 e"}) {
		t.Errorf("%+v", s.records[2:])
	}
}

// TestEventsOfAClosedBuffer: an error of either record is returned.
func TestEventsOfAClosedBuffer(t *testing.T) {
	for _, tag := range []int{0, 1} {
		g := eventGroup(Options{Sink: &sink{err: errors.New("closed")}})
		if err := g.Take(poll, []telemetry.Reading{good(tag, 5, telemetry.String("x"))}); err == nil {
			t.Errorf("tag %d: no error", tag)
		}
	}
}
