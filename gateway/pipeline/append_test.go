package pipeline

import (
	"slices"
	"strings"
	"testing"

	"millrace/drivers/telemetry"
)

// sizes returns how many readings each record has, and checks that they are those that were taken, in order, at one time.
func sizes(t *testing.T, s *sink, taken []telemetry.Reading) (all []int) {
	t.Helper()
	var got []telemetry.Reading
	for _, r := range s.records {
		if r.Time != poll.UnixMicro() {
			t.Errorf("a record of another time: %d", r.Time)
		}
		got, all = append(got, r.Readings...), append(all, len(r.Readings))
	}
	if !slices.Equal(got, taken) {
		t.Errorf("%d readings in the records, want the %d that were taken, in order", len(got), len(taken))
	}
	if s.polled != len(taken) || s.appended != len(taken) || s.suppressed != 0 {
		t.Errorf("ledger: polled %d, suppressed %d, accepted %d", s.polled, s.suppressed, s.appended)
	}
	return all
}

// TestBurstsAreSplit: no burst of events makes a record that no broker takes, or no store; nor do long texts and arrays.
func TestBurstsAreSplit(t *testing.T) {
	text := func(n int) telemetry.Value { return telemetry.String(strings.Repeat("x", n)) }
	floats := telemetry.Array(slices.Repeat([]telemetry.Value{telemetry.Float64(1.5)}, 800))
	for what, c := range map[string]struct {
		tag  int // 1 takes events
		n    int
		v    telemetry.Value
		want []int
	}{
		"few events":         {1, 100, text(200), []int{100}},
		"many events":        {1, 250, text(20), []int{100, 100, 50}},
		"long events":        {1, 7, text(10 << 10), []int{2, 2, 2, 1}},
		"very long events":   {1, 3, text(60 << 10), []int{1, 1, 1}},
		"few texts":          {0, 90, text(255), []int{90}},
		"many short texts":   {0, 2000, text(60), []int{2000}},
		"long texts":         {0, 40, text(60 << 10), slices.Repeat([]int{1}, 40)},
		"texts of some size": {0, 9, text(8 << 10), []int{3, 3, 3}},
		"arrays":             {0, 5, floats, []int{3, 2}},
		"numbers":            {0, 20000, telemetry.Float64(1.5), []int{20000}},
	} {
		s := &sink{}
		var push []telemetry.Reading
		for i := range c.n {
			push = append(push, good(c.tag, int64(i+1), c.v))
		}
		if err := eventGroup(Options{Sink: s}).Take(poll, slices.Clone(push)); err != nil {
			t.Fatal(err)
		}
		if got := sizes(t, s, push); !slices.Equal(got, c.want) {
			t.Errorf("%s: records of %v readings, want %v", what, got, c.want)
		}
	}
}

// TestPastIsSplit: what a device kept has the same bounds, and its mark on each record.
func TestPastIsSplit(t *testing.T) {
	s := &sink{}
	push := slices.Repeat([]telemetry.Reading{good(0, 5, telemetry.String(strings.Repeat("x", 10<<10)))}, 5)
	if err := newGroup([]telemetry.Tag{{Name: "t"}}, nil, s).Past(poll, push); err != nil {
		t.Fatal(err)
	}
	if got := sizes(t, s, push); !slices.Equal(got, []int{2, 2, 1}) {
		t.Errorf("records of %v readings", got)
	}
	for _, r := range s.records {
		if !r.Backfill {
			t.Error("a record has lost its mark")
		}
	}
}
