package poller

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// silentLine is a line of several units, of which each request to a dead one costs a timeout, and to another one what it takes.
type silentLine struct {
	fake
	timeout, healthy time.Duration
	less             time.Duration // by which each timeout is shorter than the one before
}

func (l *silentLine) Read(ctx context.Context, r drivers.Ref, dst []telemetry.Reading) ([]telemetry.Reading, error) {
	took := l.healthy
	l.change(func() {
		if l.deadUnit[r.Device] {
			took = l.timeout
			l.timeout -= l.less
		}
	})
	time.Sleep(took)
	return l.fake.Read(ctx, r, dst)
}

// goodPolls polls every second for so long, a unit for each number of groups, and returns when the one unit was read.
func (l *silentLine) goodPolls(t *testing.T, unit int, groups []int, answered []bool, length time.Duration) (good []time.Duration) {
	t.Helper()
	start, o := time.Now(), Options{RetryMin: usualRetryMin, RetryMax: usualRetryMax, Answered: answered, Log: slog.New(slog.DiscardHandler)}
	l.conn = &drivers.Connection{}
	for i, n := range groups {
		l.conn.Devices = append(l.conn.Devices, drivers.Device{Name: fmt.Sprint("unit-", i), Groups: make([]drivers.Group, n)})
		o.Sinks = append(o.Sinks, make([]Sink, n))
		for j := range n {
			l.conn.Devices[i].Groups[j] = drivers.Group{Name: fmt.Sprint("g", j), Interval: time.Second, Tags: make([]telemetry.Tag, 3)}
			o.Sinks[i][j] = func(_ time.Time, rs []telemetry.Reading) error {
				if i == unit && rs[0].Quality == telemetry.Good {
					good = append(good, time.Since(start))
				}
				return nil
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	if err := New(l.conn, l, o).Run(ctx); err != nil {
		t.Error(err)
	}
	return good
}

// TestSilentUnitsAtAStart has a line begin with one unit that answers and others that never do, of several groups each: at a start, wherever the
// good one stands in the config, and when a reload adds the silent ones, so that the good one is known. Its first reading waits for one timeout of
// each that stands before it and of one more, or for two where it is known, and from then on for one timeout at most between two of its polls.
func TestSilentUnitsAtAStart(t *testing.T) {
	const timeout, interval = 2 * time.Second, time.Second
	for _, silent := range []int{1, 3, 8} {
		for _, groups := range []int{1, 2, 3} {
			for _, at := range []int{0, silent} {
				for _, reload := range []bool{false, true} {
					synctest.Test(t, func(t *testing.T) {
						l := &silentLine{fake: fake{deadUnit: map[int]bool{}}, timeout: timeout, healthy: 20 * time.Millisecond}
						all, answered := make([]int, silent+1), make([]bool, silent+1)
						for i := range all {
							all[i], l.deadUnit[i] = groups, i != at
						}
						all[at] = 1
						if answered[at] = true; !reload {
							answered = nil
						}
						most := 2 * timeout
						if !reload {
							most += time.Duration(at) * timeout
						}
						good := l.goodPolls(t, at, all, answered, 3*time.Minute)
						name := fmt.Sprintf("%d silent, %d groups, good at %d, reload %t", silent, groups, at, reload)
						if len(good) == 0 || good[0] > most {
							t.Fatalf("%s: first reading of %d after %v, want it within %v", name, len(good), good[:min(len(good), 1)], most)
						}
						for i := range good[1:] {
							if pause := good[i+1] - good[i]; pause > interval+timeout+interval {
								t.Errorf("%s: pause of %v after %v", name, pause, good[i])
							}
						}
					})
				}
			}
		}
	}
}

// TestSilentUnitsMakeLate: the unit that answers is late meanwhile, and it is told what held its line.
func TestSilentUnitsMakeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &silentLine{fake: fake{deadUnit: map[int]bool{1: true, 2: true, 3: true}}, timeout: 2 * time.Second, healthy: 20 * time.Millisecond, less: time.Millisecond}
		run(t, l, 20*time.Second, slices.Repeat([]time.Duration{time.Second}, 4), func(p *Poller) {
			time.Sleep(9 * time.Second)
			got := p.Stats().Devices[0].Groups[0].Behind
			if got.Cause != BusyLine || !strings.HasPrefix(got.By, "1.99") || !strings.HasSuffix(got.By, ", which gives no answer") {
				t.Errorf("behind by %+v", got)
			}
		})
	})
}

// TestProbesOnAFullLine: where the others' polls take more time than there is, a silent unit is still probed, and read again when it is back.
func TestProbesOnAFullLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &silentLine{fake: fake{deadUnit: map[int]bool{2: true}}, timeout: 2 * time.Second, healthy: 1200 * time.Millisecond}
		back := 5 * time.Minute
		time.AfterFunc(back, func() { l.change(func() { l.deadUnit = nil }) })
		good := l.goodPolls(t, 2, []int{1, 1, 2}, nil, back+2*time.Minute)
		if len(good) == 0 || good[0] > back+time.Minute+5*time.Second {
			t.Errorf("back after %v; first read at %v", back, good[:min(len(good), 1)])
		}
	})
}
