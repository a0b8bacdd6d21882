package values

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

func schema(device, group string, tags int) *record.Schema {
	s := &record.Schema{Device: device, Group: group, Tags: make([]record.Tag, tags)}
	for i := range s.Tags {
		s.Tags[i].Name = fmt.Sprintf("tag-%d", i)
	}
	return s
}

func readings(n int, quality telemetry.Quality, reason string) []telemetry.Reading {
	rs := make([]telemetry.Reading, n)
	for i := range rs {
		rs[i] = telemetry.Reading{Tag: uint32(i), Time: 5, Value: telemetry.Float64(float64(i)), Quality: quality, Reason: reason}
	}
	return rs
}

func TestTable(t *testing.T) {
	table := New()
	b := table.Group(schema("b", "g", 2), time.Second)
	a := table.Group(schema("a", "g", 1), time.Second)
	b.Put(10, readings(2, telemetry.Bad, "no answer"))
	b.Put(20, []telemetry.Reading{{Tag: 1, Time: 19, Value: telemetry.String("on")}, {Tag: 7}})
	var got []string
	table.Each("", "", func(e *Entry) bool {
		got = append(got, fmt.Sprintf("%s/%s %d %d %v %q %q", e.Device, e.Tag.Name, e.At, e.Reading.Time, e.Reading.Quality, e.Reading.Reason, e.Reading.Value.Text))
		return true
	})
	want := `[a/tag-0 0 0 good "" "" b/tag-0 20 5 bad "no answer" "" b/tag-1 20 19 good "" "on"]`
	if fmt.Sprint(got) != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
	c := table.Count()["b"]
	if want := (Counts{Tags: 2, Good: 1, Bad: 1, At: 20, BadBy: c.BadBy, BadTag: "tag-0", BadReason: "no answer", reason: c.reason, class: c.class}); *c != want || c.BadBy[telemetry.ClassOf("no answer")] != 1 {
		t.Errorf("counts %+v", c)
	}
	b.Put(30, []telemetry.Reading{{Tag: 1, Value: telemetry.Int(3)}})
	again := table.Group(schema("b", "g", 3), time.Second)
	table.Remove(b) // was replaced: nothing happens
	table.Remove(a)
	n := 0
	table.Each("b", "tag-2", func(*Entry) bool { n++; return true })
	if n != 1 || len(table.groups) != 1 || table.groups[0] != again {
		t.Errorf("%d entries, groups %v", n, table.groups)
	}
}

// TestLose: what never came is counted by tag, with when, whatever comes; what comes later than LostFor is counted anew.
func TestLose(t *testing.T) {
	table := New()
	g := table.Group(schema("a", "g", 3), time.Second)
	g.Lose(nil, 5)
	g.Lose([]uint32{1, 2, 1, 9}, 5)
	g.Put(10, readings(3, telemetry.Good, ""))
	said := func(want string) {
		t.Helper()
		var got []int64
		table.Each("", "", func(e *Entry) bool { got = append(got, int64(e.Lost), e.LostAt); return true })
		if fmt.Sprint(got) != want {
			t.Errorf("lost %v, want %s", got, want)
		}
	}
	said("[0 0 2 5 1 5]")
	g.Lose([]uint32{1}, 5+LostFor.Microseconds()-1)
	g.Lose([]uint32{2}, 5+LostFor.Microseconds())
	said("[0 0 3 600000004 1 600000005]")
}

// TestWatch: a watcher that does not keep up holds up nobody and gets the newest of each tag.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New()
		g := table.Group(schema("a", "g", 3), time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		changes := table.Watch(ctx, Want{Device: "a"})
		bad := table.Watch(ctx, Want{Bad: true, Tag: "tag-1"})
		for i := range 100 {
			g.Put(int64(i+1), readings(3, telemetry.Good, ""))
		}
		g.Put(200, readings(3, telemetry.Bad, "gone"))
		synctest.Wait()
		seen := map[string]int64{}
		for range 2 { // one change may have been taken before the others came
			select {
			case c := <-changes:
				for _, e := range c.Entries {
					seen[e.Tag.Name] = e.At
				}
			case <-time.After(time.Second):
			}
		}
		if fmt.Sprint(seen) != "map[tag-0:200 tag-1:200 tag-2:200]" {
			t.Errorf("seen %v", seen)
		}
		if c := <-bad; len(c.Entries) != 1 || c.Entries[0].Reading.Reason != "gone" {
			t.Errorf("bad ones: %+v", c)
		}
		cancel()
		synctest.Wait()
		if _, open := <-changes; open || table.watch.any.Load() != 0 {
			t.Error("the watch did not end")
		}
	})
}

func TestPutAllocatesNothing(t *testing.T) {
	g := New().Group(schema("a", "g", 10), time.Second)
	rs := readings(10, telemetry.Bad, "no answer")
	g.Put(1, rs)
	if n := testing.AllocsPerRun(100, func() { g.Put(2, rs) }); n > 0 {
		t.Errorf("%v allocations a poll", n)
	}
}

// TestMemory: 50,000 tags, each read and bad for a reason, cost at most 8 MB beyond their schemas.
func TestMemory(t *testing.T) {
	schemas := make([]*record.Schema, 500)
	for i := range schemas {
		schemas[i] = schema(fmt.Sprint(i), "g", 100)
	}
	rs := readings(100, telemetry.Bad, "no answer within 2s")
	before := heap()
	table := New()
	for _, s := range schemas {
		table.Group(s, time.Second).Put(1, rs)
	}
	used := heap() - before
	t.Logf("%d bytes for 50,000 tags", used)
	if used > 8<<20 {
		t.Errorf("%d bytes", used)
	}
	runtime.KeepAlive(table)
	runtime.KeepAlive(schemas)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkPut(b *testing.B) {
	g := New().Group(schema("a", "g", 1000), time.Second)
	rs := readings(1000, telemetry.Good, "")
	for b.Loop() {
		g.Put(1, rs)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/reading")
}

// TestWatchBadShowsNoGood: a reading that turned good before the watcher took it is none that a watcher of bad ones wants.
func TestWatchBadShowsNoGood(t *testing.T) {
	g := New().Group(schema("a", "g", 1), time.Second)
	w := &watcher{want: Want{Bad: true}, ready: make(chan struct{}, 1), pending: map[place]struct{}{}}
	g.table.watch.add(w)
	g.Put(1, readings(1, telemetry.Bad, "gone"))
	g.Put(2, readings(1, telemetry.Good, ""))
	if c := w.take(); len(c.Entries) != 0 || c.Missed != 1 {
		t.Errorf("got %+v", c)
	}
}

// TestDescribe: an entry has what the device says of its tag.
func TestDescribe(t *testing.T) {
	table := New()
	g := table.Group(schema("a", "g", 1), time.Second)
	unit := func() (unit string) {
		table.Each("", "", func(e *Entry) bool { unit = e.Tag.Details().Unit; return true })
		return unit
	}
	before := unit()
	g.Describe([]record.Tag{{Name: "tag-0", More: &record.Details{Unit: "mm"}}})
	g.Describe([]record.Tag{{More: &record.Details{Unit: "of too many"}}, {}})
	if after := unit(); before != "" || after != "mm" {
		t.Errorf("unit %q, then %q", before, after)
	}
}
