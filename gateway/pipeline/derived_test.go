package pipeline

import (
	"math"
	"slices"
	"testing"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/derive"
	"millrace/gateway/record"
)

// shown keeps what a group shows of its last poll.
type shown struct{ last []telemetry.Reading }

func (s *shown) Put(_ int64, readings []telemetry.Reading) {
	s.last = append([]telemetry.Reading(nil), readings...)
}

func formula(t *testing.T, text string) *derive.Formula {
	f, err := derive.Compile(text, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestDerived: a formula of one group sees its group as it is now and another as it was read last, both scaled; its readings
// are counted and reported like others.
func TestDerived(t *testing.T) {
	fast, slow := formula(t, "power + base"), formula(t, "base * 2")
	device := NewDevice([]*derive.Formula{fast, slow})
	see := &shown{}
	sink := &sink{}
	group := func(tag telemetry.Tag, d ...Derived) *Group {
		return New(Options{Schema: &record.Schema{Tags: make([]record.Tag, 1+len(d))}, Tags: []telemetry.Tag{tag}, Derived: d, Device: device, Sink: sink, Values: see})
	}
	a := group(telemetry.Tag{Name: "power", Scale: 10}, Derived{Formula: fast, Report: Report{OnChange: true}})
	b := group(telemetry.Tag{Name: "base"}, Derived{Formula: slow})
	at := time.UnixMicro(1000)
	poll := func(g *Group, r telemetry.Reading, want telemetry.Reading) {
		t.Helper()
		if err := g.Take(at, []telemetry.Reading{r}); err != nil {
			t.Fatal(err)
		}
		if len(see.last) != 2 || see.last[1] != want {
			t.Errorf("shown %+v, want %+v second", see.last, want)
		}
	}
	poll(a, telemetry.Reading{Value: telemetry.Int(5)}, telemetry.Reading{Tag: 1, Time: 1000, Quality: telemetry.Bad, Reason: "base has not been read yet"})
	poll(b, telemetry.Reading{Value: telemetry.Int(7), Time: 900}, telemetry.Reading{Tag: 1, Time: 900, Value: telemetry.Float64(14)})
	poll(a, telemetry.Reading{Value: telemetry.Int(5)}, telemetry.Reading{Tag: 1, Time: 1000, Value: telemetry.Float64(57)})
	poll(a, telemetry.Reading{Value: telemetry.Int(5)}, telemetry.Reading{Tag: 1, Time: 1000, Value: telemetry.Float64(57)})
	poll(b, telemetry.BadReading(0, 0, "no answer"), telemetry.Reading{Tag: 1, Time: 1000, Quality: telemetry.Bad, Reason: "base: no answer"})
	poll(a, telemetry.Reading{Value: telemetry.Int(5)}, telemetry.Reading{Tag: 1, Time: 1000, Quality: telemetry.Bad, Reason: "base: no answer"})
	if sink.polled != 12 || sink.suppressed != 1 {
		t.Errorf("%d polled, %d suppressed", sink.polled, sink.suppressed)
	}
}

// TestClamp: after scaling, good becomes uncertain and worse stays; what is in the range, and what is no number, is not clamped.
func TestClamp(t *testing.T) {
	see := &shown{}
	tags := []telemetry.Tag{{Name: "a", Scale: 2}, {Name: "b"}, {Name: "c"}, {Name: "d"}, {Name: "e"}, {Name: "f"}}
	r := Range{-1, 10}
	g := New(Options{Schema: schemaOf(tags), Tags: tags, Clamps: map[int]Range{0: r, 1: r, 2: r, 3: r, 4: r}, Sink: &sink{}, Values: see})
	in := []telemetry.Reading{
		good(0, 1, telemetry.Int(6)), good(1, 1, telemetry.Float32(-3)), good(2, 1, telemetry.String("x")), good(3, 1, telemetry.Float64(math.NaN())),
		{Tag: 4, Time: 1, Value: telemetry.Int(99), Quality: telemetry.Uncertain, Reason: "held"}, good(5, 1, telemetry.Int(99)),
	}
	want := slices.Clone(in)
	want[0] = telemetry.Reading{Tag: 0, Time: 1, Value: telemetry.Float64(10), Quality: telemetry.Uncertain, Reason: clamped}
	want[1] = telemetry.Reading{Tag: 1, Time: 1, Value: telemetry.Float32(-1), Quality: telemetry.Uncertain, Reason: clamped}
	want[3].Quality, want[3].Reason = telemetry.Bad, "not a number"
	want[4].Value = telemetry.Float64(10)
	if err := g.Take(poll, in); err != nil || !slices.Equal(see.last, want) {
		t.Errorf("%v\n%+v\nwant\n%+v", err, see.last, want)
	}
}
