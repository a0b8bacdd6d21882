package poller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// TestBehind: one slow poll of many makes no group late, some do, and it is over when eight in a row were in time.
func TestBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{slow: map[int]time.Duration{}}
		slow := func(d time.Duration, after time.Duration) {
			f.change(func() { f.slow[0] = d })
			time.Sleep(after)
		}
		const interval = 200 * time.Millisecond
		run(t, f, time.Minute, []time.Duration{interval}, func(p *Poller) {
			say := func(when string, want Cause) {
				t.Helper()
				if g := p.Stats().Devices[0].Groups[0]; g.Behind.Cause != want {
					t.Errorf("%s: behind by %q, want %q; %+v", when, g.Behind.Cause, want, g)
				}
			}
			slow(0, 10*time.Second)
			say("polls in time", OnTime)
			slow(500*time.Millisecond, 300*time.Millisecond)
			slow(0, 2*interval)
			if g := p.Stats().Devices[0].Groups[0]; g.Overruns != 2 {
				t.Errorf("%d ticks missed: this tests nothing", g.Overruns)
			}
			say("behind one slow poll", OnTime)
			slow(0, 10*time.Second)
			slow(300*time.Millisecond, 2*time.Second)
			say("each poll too long", SlowPoll)
			slow(0, 300*time.Millisecond)
			say("the first in time", SlowPoll)
			slow(0, 10*interval)
			say("ten in time", OnTime)
		})
	})
}

// TestBehindLine: a group that waits for another one of its line is told from one that is slow itself.
func TestBehindLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{slow: map[int]time.Duration{1: 900 * time.Millisecond}}
		run(t, f, time.Minute, []time.Duration{200 * time.Millisecond, time.Second}, func(p *Poller) {
			time.Sleep(20 * time.Second)
			s := p.Stats()
			if a, b := s.Devices[0].Groups[0].Behind.Cause, s.Devices[1].Groups[0].Behind.Cause; a != BusyLine || b != OnTime {
				t.Errorf("behind by %q and %q, want the first by %q", a, b, BusyLine)
			}
			if got := s.Devices[0].Groups[0].Behind; got.By != `900ms for group "g" of "d1"` || got.For < 600*time.Millisecond || got.For > 900*time.Millisecond {
				t.Errorf("behind by %+v", got)
			}
		})
	})
}

// TestBehindShorterHolds: what held the line last is named, also where what held it before that was longer.
func TestBehindShorterHolds(t *testing.T) {
	start := time.Now()
	at := func(n int) time.Time { return start.Add(time.Duration(n) * 100 * time.Millisecond) }
	p := new(Poller)
	g := func(name string) *group { return &group{name: name, device: new(device)} }
	for i, lasts := range []int{30, 20, 1, 15, 1} {
		p.held(hold{of: g(string(rune('a' + i))), end: at([]int{30, 50, 51, 66, 67}[i]), took: at(lasts).Sub(start), failed: true})
	}
	for due, want := range map[int]string{0: "a", 29: "a", 30: "b", 49: "b", 50: "d", 51: "d", 66: "e"} {
		if got := p.since(at(due)); got.of.name != want {
			t.Errorf("tick at %d: %v, want %q", due, &got, want)
		}
	}
	if got := p.since(at(67)); got.of != nil {
		t.Errorf("after all: %v", &got)
	}
	for i := range 10 * maxHolds {
		p.held(hold{of: g("x"), end: at(100 + 100*i), took: time.Duration(10*maxHolds-i) * time.Millisecond})
	}
	if len(p.holds) > maxHolds {
		t.Errorf("%d holds kept", len(p.holds))
	}
}

func TestCause(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		took
		want Cause
	}{{took{0, 0, 300 * ms}, SlowPoll}, {took{300 * ms, 0, ms}, BusyLine}, {took{ms, 300 * ms, ms}, BusyMachine}, {took{100 * ms, 90 * ms, 110 * ms}, SlowPoll}} {
		if got := new(Poller).delay(time.Now(), c.took); got.Cause != c.want {
			t.Errorf("%+v: %q, want %q", c.took, got, c.want)
		}
	}
}

// TestBehindNoConnect: ticks that are missed while there is no connection, or while the device pushes, make no group late.
func TestBehindNoConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{refuse: errors.New("refused"), closeIn: 700 * time.Millisecond}}
		run(t, f, time.Minute, []time.Duration{200 * time.Millisecond, 200 * time.Millisecond}, func(p *Poller) {
			say := func(when string) {
				t.Helper()
				for _, d := range p.Stats().Devices {
					if g := d.Groups[0]; g.Behind.Cause != OnTime || g.Overruns != 0 {
						t.Errorf("%s: behind by %q, %d ticks missed", when, g.Behind, g.Overruns)
					}
				}
			}
			time.Sleep(10 * time.Second)
			say("while it is refused")
			f.change(func() { f.fake.refuse, f.closeIn = nil, 0 })
			time.Sleep(35 * time.Second) // the next attempt may wait for 30 s
			say("connected")
			closes := 0
			f.change(func() { closes = f.closes })
			if s := p.Stats(); !s.Up || !s.Devices[0].Groups[0].Pushed || closes < 3 {
				t.Errorf("%d closes, %+v: this tests nothing", closes, s)
			}
		})
	})
}

// mute is a device that at times gives no answer, whatever comes while it is asked.
type mute struct {
	fake
	silent atomic.Bool
}

func (m *mute) Read(ctx context.Context, r drivers.Ref, dst []telemetry.Reading) ([]telemetry.Reading, error) {
	if m.silent.Load() {
		time.Sleep(2 * time.Second)
		return nil, fmt.Errorf("%w: no answer within 2s", drivers.ErrDevice)
	}
	time.Sleep(20 * time.Millisecond)
	return m.fake.Read(ctx, r, dst)
}

// TestBehindSilence: how long polls take that get no answer makes no group of their device late when it answers again, though they are counted as missed.
func TestBehindSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(mute)
		f.conn = &drivers.Connection{Devices: []drivers.Device{{Name: "d"}}}
		o := Options{RetryMin: usualRetryMin, RetryMax: usualRetryMax, Sinks: make([][]Sink, 1), Log: slog.New(slog.DiscardHandler)}
		for _, name := range []string{"a", "b", "c"} {
			f.conn.Devices[0].Groups = append(f.conn.Devices[0].Groups, drivers.Group{Name: name, Interval: 500 * time.Millisecond, Tags: make([]telemetry.Tag, 1)})
			o.Sinks[0] = append(o.Sinks[0], func(time.Time, []telemetry.Reading) error { return nil })
		}
		p := New(f.conn, f, o)
		done := make(chan error)
		go func() { done <- p.Run(t.Context()) }()
		defer func() {
			if p.Stop(); <-done != nil {
				t.Error("it did not end well")
			}
		}()
		for range 30 {
			time.Sleep(1700 * time.Millisecond)
			f.silent.Store(!f.silent.Load())
			for range 100 {
				time.Sleep(10 * time.Millisecond)
				for _, g := range p.Stats().Devices[0].Groups {
					if g.Behind.Cause != OnTime {
						t.Fatalf("group %q behind by %+v", g.Name, g.Behind)
					}
				}
			}
		}
		if got := p.Stats().Devices[0].Groups[0]; got.Overruns == 0 || got.Failed == 0 || got.Failed == got.Polls {
			t.Errorf("%+v: this tests nothing", got)
		}
	})
}

// TestBehindThenPushed: a group that was late and is pushed now is late no more.
func TestBehindThenPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{slow: map[int]time.Duration{0: 500 * time.Millisecond}}, polled: true}
		run(t, f, time.Minute, []time.Duration{200 * time.Millisecond}, func(p *Poller) {
			time.Sleep(10 * time.Second)
			if g := p.Stats().Devices[0].Groups[0]; g.Behind.Cause != SlowPoll || g.Pushed {
				t.Errorf("%+v: this tests nothing", g)
			}
			f.change(func() { f.linkErr, f.polled = errors.New("cut"), false })
			time.Sleep(10 * time.Second)
			if g := p.Stats().Devices[0].Groups[0]; g.Behind.Cause != OnTime || !g.Pushed {
				t.Errorf("pushed, and behind by %q: %+v", g.Behind, g)
			}
			overruns := p.Stats().Devices[0].Groups[0].Overruns
			f.change(func() { f.polled = true })
			close(f.current())
			time.Sleep(400 * time.Millisecond) // it does not push again, and is polled
			if g := p.Stats().Devices[0].Groups[0]; g.Overruns > overruns+2 {
				t.Errorf("%d ticks missed while it was pushed", g.Overruns-overruns)
			}
		})
	})
}

// TestBehindStore: a group that waits until its own readings, or those of another one, are taken is not blamed on the machine or the line.
func TestBehindStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{slow: map[int]time.Duration{0: time.Millisecond, 1: time.Millisecond}, keeps: 900 * time.Millisecond}
		run(t, f, 30*time.Second, []time.Duration{200 * time.Millisecond, time.Second}, func(p *Poller) {
			time.Sleep(20 * time.Second)
			if got := p.Stats().Devices[0].Groups[0].Behind; got != (Delay{BusyStore, 900 * time.Millisecond, ""}) {
				t.Errorf("behind by %+v", got)
			}
		})
	})
}

// TestBehindJob: what a write or another job takes is told as that, and one that does not end is told while it lasts.
func TestBehindJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run(t, &fake{}, time.Minute, []time.Duration{200 * time.Millisecond}, func(p *Poller) {
			time.Sleep(5 * time.Second)
			for range 4 {
				done := make(chan error)
				go func() {
					done <- p.Do(soon(t, time.Minute), func(drivers.Driver) error { time.Sleep(3 * time.Second); return nil })
				}()
				time.Sleep(2500 * time.Millisecond)
				if s := p.Stats(); s.At.String() != "a job" || s.Lasts != 2500*time.Millisecond {
					t.Errorf("at %q for %v", s.At, s.Lasts)
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
				time.Sleep(250 * time.Millisecond)
			}
			if got := p.Stats().Devices[0].Groups[0].Behind; got.Cause != BusyLine || got.By != "3s for a write, or another job by hand" {
				t.Errorf("behind by %+v", got)
			}
		})
	})
}
