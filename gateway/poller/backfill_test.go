package poller

import (
	"context"
	"errors"
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

// keeping is a fake that pushes, whose device keeps a value each second by its own clock.
type keeping struct {
	*pushing
	ahead   time.Duration
	unasked bool
	fail    error // once
	always  error
	asks    int
	bears   int     // asks with always, then none is made; 0 = any
	spans   []int64 // µs, that were asked for
	shared  *Refusals
	error   time.Duration // half as wide as the bounds that are found of ahead, which wander within them
	skew    time.Duration // of what values are stamped with, against the clock that is told
}

func (f *keeping) Backfill(context.Context) (bool, time.Duration, time.Duration, error) {
	least := f.ahead - time.Duration(f.asks%3)*f.error
	return !f.unasked, least, least + 2*f.error, nil
}

func (f *keeping) History(_ context.Context, g drivers.Ref, from, to int64, emit func([]telemetry.Reading) error) error {
	var always error
	f.change(func() {
		f.asks++
		if always = f.always; f.bears > 0 && f.asks > f.bears {
			always = drivers.ErrDevice
		}
		f.spans = append(f.spans, to-from)
	})
	from, to = from-f.skew.Microseconds(), to-f.skew.Microseconds()
	if always != nil {
		return always
	}
	if err := f.fail; err != nil {
		f.fail = nil
		return err
	}
	var all []telemetry.Reading
	for at := (from + 999_999) / 1e6 * 1e6; at < to; at += 1e6 {
		all = append(all, telemetry.Reading{Time: at, Value: telemetry.Int(at)})
	}
	if len(all) == 0 {
		return nil
	}
	return emit(all)
}

// filledBy runs a poller of a keeping device through what a test does, and returns the seconds since the start that were read of the past.
func filledBy(t *testing.T, f *keeping, since time.Duration, during func(p *Poller)) (seconds []int64) {
	t.Helper()
	return filledWith(t, f, f, since, during)
}

// filledWith is filledBy of a driver that is more than keeping, which it has in it.
func filledWith(t *testing.T, f *keeping, d drivers.Driver, since time.Duration, during func(p *Poller)) (seconds []int64) {
	t.Helper()
	start := time.Now()
	f.conn = &drivers.Connection{Devices: []drivers.Device{{Name: "a", Groups: []drivers.Group{{Name: "g", Interval: time.Second, Tags: make([]telemetry.Tag, 3)}}}}}
	o := Options{RetryMin: usualRetryMin, RetryMax: usualRetryMax, Refusals: f.shared, Log: slog.New(slog.NewTextHandler(&f.log, nil)), Sinks: [][]Sink{{func(time.Time, []telemetry.Reading) error { return nil }}},
		Pasts: [][]Sink{{func(_ time.Time, readings []telemetry.Reading) error {
			for i := range readings {
				seconds = append(seconds, (readings[i].Time-start.Add(f.ahead).UnixMicro())/1e6)
			}
			return nil
		}}}}
	if since != 0 {
		o.Since = func(int) (time.Time, string) { return start.Add(since), "" }
	}
	p := New(f.conn, d, o)
	done := make(chan error)
	go func() { done <- p.Run(t.Context()) }()
	time.Sleep(10 * time.Second)
	during(p)
	time.Sleep(45 * time.Second)
	p.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return seconds
}

// wantSeconds checks that each second of a time was read once, and at most slack seconds on each side besides.
func wantSeconds(t *testing.T, got []int64, from, to, slack int64) {
	t.Helper()
	for i := range got {
		if i > 0 && got[i] != got[i-1]+1 || got[i] < from-slack || got[i] > to+slack {
			t.Fatalf("second %d is read in %v; want %d to %d and at most %d more on each side", got[i], got, from, to, slack)
		}
	}
	if !slices.Contains(got, from) || !slices.Contains(got, to) {
		t.Fatalf("read %v, want %d to %d", got, from, to)
	}
}

// down loses the link for some time.
func (f *keeping) down(d time.Duration) {
	f.change(func() { f.pushing.fake.refuse = errors.New("refused") })
	f.current() <- drivers.Push{Err: errors.New("nothing was heard")}
	time.Sleep(d)
	f.change(func() { f.pushing.fake.refuse = nil })
}

// TestBackfill: after an outage the device is asked for what it kept meanwhile, by its own clock, and for nothing else, nothing twice.
func TestBackfill(t *testing.T) {
	for _, ahead := range []time.Duration{0, -90 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			f := &keeping{pushing: &pushing{fake: &fake{}}, ahead: ahead}
			got := filledBy(t, f, 0, func(*Poller) { f.down(300 * time.Second) })
			wantSeconds(t, got, 10, 309, 40) // the last attempt to connect may wait for 30 s
			if !strings.Contains(f.log.String(), "history of a time when it could not be heard was read") {
				t.Errorf("log: %s", &f.log)
			}
		})
	}
}

// TestPortionsMeet: how far the device's clock is ahead is found a little differently each time, and no second falls between two portions or comes twice.
func TestPortionsMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &keeping{pushing: &pushing{fake: &fake{}}, ahead: -90 * time.Minute, error: 2 * time.Second}
		got := filledBy(t, f, 0, func(*Poller) { f.down(600 * time.Second) })
		if wantSeconds(t, got, 10, 609, 45); f.asks < 4 {
			t.Errorf("%d portions: this tests nothing", f.asks)
		}
	})
}

// TestBackfillMeetsTheFirstValue: what a device stamps its values with is another clock than the one that it tells. The history begins behind what was pushed before the outage, and ends
// at the first value that is pushed behind it, however late that comes.
func TestBackfillMeetsTheFirstValue(t *testing.T) {
	for skew, known := range map[time.Duration]bool{-time.Hour: true, 30 * time.Minute: true, 20 * time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			f := &keeping{pushing: &pushing{fake: &fake{}}, ahead: 2 * time.Hour, skew: skew}
			now := func() (all []telemetry.Reading) {
				for tag := range uint32(3) {
					all = append(all, telemetry.Reading{Tag: tag, Time: time.Now().Add(f.ahead + skew).UnixMicro()})
				}
				return all
			}
			got := filledBy(t, f, 0, func(*Poller) {
				f.current() <- drivers.Push{Readings: now()}
				if known {
					f.current() <- drivers.Push{Readings: now()}
				}
				f.down(300 * time.Second)
				for before := f.current(); f.current() == before; {
					time.Sleep(time.Second)
				}
				time.Sleep(5 * time.Second)
				f.current() <- drivers.Push{Readings: now()}
			})
			wantSeconds(t, got, 10, 309, 3700)
		})
	}
}

// TestBackfillOfLostReadings: what a device lost while it was not heard is asked for as that of an outage is, once; of one that always loses some, nothing.
func TestBackfillOfLostReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := filledBy(t, &keeping{pushing: &pushing{fake: &fake{}}}, 0, func(p *Poller) {
			pushes := p.driver.(*keeping).current()
			pushes <- drivers.Push{}
			time.Sleep(200 * time.Second)
			sent := time.Now().Add(-100 * time.Second)
			pushes <- drivers.Push{At: sent}
			pushes <- drivers.Push{Lost: 2, At: sent} // the first of two of one message
			pushes <- drivers.Push{Lost: 1}
		})
		wantSeconds(t, got, 110, 209, 3)
	})
	synctest.Test(t, func(t *testing.T) {
		got := filledBy(t, &keeping{pushing: &pushing{fake: &fake{}}}, 0, func(p *Poller) {
			for range 30 {
				time.Sleep(1500 * time.Millisecond)
				p.driver.(*keeping).current() <- drivers.Push{Lost: 1}
			}
		})
		if len(got) > 20 { // the first push came after 10 s
			t.Errorf("read %v", got)
		}
	})
}

// TestBackfillOfTheGatewaysOwnOutage: what was missed since the last run is asked for at the first connection, a week of it at most.
func TestBackfillOfTheGatewaysOwnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := filledBy(t, &keeping{pushing: &pushing{fake: &fake{}, firsts: true}}, -2*time.Hour, func(*Poller) {})
		wantSeconds(t, got, -7200, -1, 2)
	})
	synctest.Test(t, func(t *testing.T) {
		got := filledBy(t, &keeping{pushing: &pushing{fake: &fake{}, firsts: true}}, -20*24*time.Hour, func(*Poller) {})
		if len(got) == 0 || got[0] < -7*24*3600-1 {
			t.Errorf("%d seconds are read, from %d on", len(got), got[0])
		}
	})
	synctest.Test(t, func(t *testing.T) { // by a clock that was wrong: nobody knows since when
		got := filledBy(t, &keeping{pushing: &pushing{fake: &fake{}, firsts: true}}, time.Hour, func(*Poller) {})
		if len(got) == 0 || got[0] > -6*24*3600 {
			t.Errorf("%d seconds are read", len(got))
		}
	})
}

// TestBackfillGoesOn: a link that is lost under it is no end of it, and what the device refuses is told once.
func TestBackfillGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &keeping{pushing: &pushing{fake: &fake{}, firsts: true}}
		got := filledBy(t, f, 0, func(*Poller) {
			f.fail = errors.New("the connection was reset")
			f.down(300 * time.Second)
		})
		wantSeconds(t, got[:slices.Index(got, 309)+1], 10, 309, 15)
	})
	synctest.Test(t, func(t *testing.T) {
		f := &keeping{pushing: &pushing{fake: &fake{}, firsts: true}}
		got := filledBy(t, f, 0, func(*Poller) {
			f.fail = fmt.Errorf("%w: no history", drivers.ErrDevice)
			f.down(300 * time.Second)
		})
		if len(got) == 0 || got[0] < 50 || strings.Count(f.log.String(), fillPartly) != 1 || strings.Contains(f.log.String(), fillFailed) {
			t.Errorf("read %v; log: %s", got, &f.log)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := &keeping{pushing: &pushing{fake: &fake{}, firsts: true}, unasked: true}
		if got := filledBy(t, f, -time.Hour, func(*Poller) { f.down(300 * time.Second) }); len(got) > 0 {
			t.Errorf("what nobody wants was read: %v", got)
		}
	})
}

// TestUnbearableHistory: a device that drops the link whenever it is asked for its history is asked for ever less, and stays connected when its driver gives that up.
func TestUnbearableHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &keeping{pushing: &pushing{fake: &fake{}, firsts: true}, always: errors.New("the connection was reset"), bears: 3}
		got := filledBy(t, f, 0, func(p *Poller) {
			f.down(300 * time.Second)
			time.Sleep(time.Hour)
			if !p.Stats().Up {
				t.Error("the link is down")
			}
		})
		if len(f.spans) < 4 || f.spans[0] != 60e6 || f.spans[2] != 1e6 || len(got) > 0 || strings.Count(f.log.String(), fillFailed) != 1 {
			t.Errorf("asked for %v; %v; log: %s", f.spans, got, &f.log)
		}
	})
}

// TestMissing: what a poller that ends leaves to the next: since before the last push, since the begin of an outage, since what it was told when it was
// never connected, and nothing when all is polled. While it runs it says the same of what is over or lasts.
func TestMissing(t *testing.T) {
	for name, c := range map[string]struct {
		during        func(f *keeping)
		before, after time.Duration // the end of the run
		whole         bool          // nothing is unfilled
	}{
		"pushed": {func(f *keeping) {
			time.Sleep(time.Minute)
			f.current() <- drivers.Push{}
			time.Sleep(time.Second)
		}, 3 * time.Second, 2 * time.Second, true},
		"outage": {func(f *keeping) {
			f.change(func() { f.pushing.fake.refuse = errors.New("refused") })
			f.current() <- drivers.Push{Err: errors.New("nothing was heard")}
			time.Sleep(time.Minute)
		}, 75 * time.Second, 60 * time.Second, false},
		"never connected": {nil, 2*time.Hour + time.Minute, 2 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &keeping{pushing: &pushing{fake: &fake{}, firsts: true}}
				if c.during == nil {
					f.pushing.fake.refuse = errors.New("refused")
				}
				f.conn = &drivers.Connection{Devices: []drivers.Device{{Name: "a", Groups: []drivers.Group{{Name: "g", Interval: time.Second, Tags: make([]telemetry.Tag, 3)}}}}}
				sink := func(time.Time, []telemetry.Reading) error { return nil }
				start := time.Now()
				p := New(f.conn, f, Options{RetryMin: usualRetryMin, RetryMax: usualRetryMax, Log: slog.New(slog.NewTextHandler(&f.log, nil)), Sinks: [][]Sink{{sink}}, Pasts: [][]Sink{{sink}},
					Since: func(int) (time.Time, string) { return start.Add(-2 * time.Hour), "" }})
				done := make(chan error)
				go func() { done <- p.Run(t.Context()) }()
				time.Sleep(10 * time.Second)
				if c.during != nil {
					c.during(f)
				}
				synctest.Wait()
				unfilled := p.Unfilled(0)
				p.Stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if want := p.Missing(0); c.whole && !unfilled.IsZero() || !c.whole && !unfilled.Equal(want) {
					t.Errorf("while it ran it was unfilled since %v; missing since %v", unfilled, want)
				}
				if ago := time.Since(p.Missing(0)); ago < c.after || ago > c.before {
					t.Errorf("missing since %v before the end, want %v to %v", ago, c.after, c.before)
				}
			})
		})
	}
}

// TestUnfilledIsNoTimeToCome: what is left of a history that is read nearly to its end may be ahead of now by the gateway's clock, which is no outage of which nobody
// knows since when; an outage that begins in the future is one.
func TestUnfilledIsNoTimeToCome(t *testing.T) {
	f := &keeping{pushing: &pushing{fake: &fake{}}}
	c := &drivers.Connection{Devices: []drivers.Device{{Name: "a", Groups: []drivers.Group{{Name: "g", Interval: time.Second, Tags: make([]telemetry.Tag, 3)}}}}}
	p := New(c, f, Options{Sinks: [][]Sink{{nil}}})
	now := time.Now()
	p.fills.list = []fill{{group: p.groups[0], left: now.Add(time.Second).UnixMicro(), end: now.Add(2 * time.Second).UnixMicro()}}
	if got := p.unfilled(0, now); !got.Equal(now) {
		t.Errorf("a second that is left: since %v, want now, %v", got, now)
	}
	p.devices[0].outage.from = now.Add(time.Hour)
	if got := p.unfilled(0, now); !got.Equal(NotKnown()) {
		t.Errorf("an outage that begins in an hour: since %v, want %v", got, NotKnown())
	}
}

// TestRefusedHistoryIsWarnedOfOnce: the same refusal is no warning a second time, also over a reload; another one is, and a moment without
// anything in it is told to nobody.
func TestRefusedHistoryIsWarnedOfOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var shared Refusals
		told := func(since time.Duration, causes ...string) (warned, informed int) {
			f := &keeping{pushing: &pushing{fake: &fake{}, firsts: true}, shared: &shared}
			filledBy(t, f, since, func(*Poller) {
				for _, c := range causes {
					f.change(func() { f.always = fmt.Errorf("%w: %s", drivers.ErrDevice, c) })
					f.down(300 * time.Second)
					time.Sleep(time.Minute)
				}
			})
			text := f.log.String()
			return strings.Count(text, `level=WARN msg="`+fillFailed), strings.Count(text, `level=INFO msg="`+fillFailed)
		}
		if w, i := told(-100*time.Millisecond, "no history of 2", "no history of 2", "no history of 3", "no history of 3"); w != 2 || i != 2 {
			t.Errorf("%d warnings and %d notes of two refusals, each told twice", w, i)
		}
		if w, i := told(0, "no history of 3"); w != 0 || i != 1 {
			t.Errorf("after a reload: %d warnings and %d notes", w, i)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := &keeping{pushing: &pushing{fake: &fake{}, firsts: true}, always: fmt.Errorf("%w: no history", drivers.ErrDevice)}
		filledBy(t, f, -100*time.Millisecond, func(*Poller) {})
		if strings.Contains(f.log.String(), fillFailed) {
			t.Errorf("asked %d times; log: %s", f.asks, &f.log)
		}
		if f.asks == 0 {
			t.Error("nothing was asked for: this tests nothing")
		}
	})
}

// TestBackfillBehindWhatWasRead: an outage behind one whose history has been read, but not yet been done with, is read, too.
func TestBackfillBehindWhatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &keeping{pushing: &pushing{fake: &fake{}}}
		f.conn = &drivers.Connection{Devices: []drivers.Device{{Name: "a", Groups: []drivers.Group{{Name: "g", Interval: time.Second, Tags: make([]telemetry.Tag, 3)}}}}}
		sinks := [][]Sink{{func(time.Time, []telemetry.Reading) error { return nil }}}
		p := New(f.conn, f, Options{RetryMin: time.Second, RetryMax: time.Second, Log: slog.New(slog.DiscardHandler), Sinks: sinks, Pasts: sinks})
		g, now := p.groups[0], time.Now()
		g.stat.Pushed = true
		p.fillGroup(g, now.Add(-time.Minute), now)
		p.fills.list[0].left, p.fills.list[0].end = 2, 2 // it has been read
		p.fillGroup(g, now.Add(-time.Second), now.Add(time.Minute))
		if last := p.fills.list[len(p.fills.list)-1]; last.read() || !last.to.Equal(now.Add(time.Minute).Round(0)) {
			t.Errorf("it will not be read: %+v", p.fills.list)
		}
	})
}

// eventful is a keeping device whose first tags take events.
type eventful struct {
	*keeping
	events int
}

func (f *eventful) Events(drivers.Ref) (tags []int) {
	for i := range f.events {
		tags = append(tags, i)
	}
	return tags
}

// TestEventsHaveNoHistory: that is said once, as information, and a group of events alone is not asked for any.
func TestEventsHaveNoHistory(t *testing.T) {
	const said = "level=INFO msg=\"events are not in the history that is asked for; those of a time when the device could not be heard are lost\" device=a group=g"
	for _, c := range []struct {
		events, said int
		unasked      bool
	}{{0, 0, false}, {2, 1, false}, {3, 1, false}, {3, 0, true}} {
		synctest.Test(t, func(t *testing.T) {
			shared, total, asks := &Refusals{}, 0, 0
			for range 2 { // a reload
				f := &eventful{&keeping{pushing: &pushing{fake: &fake{}}, shared: shared, unasked: c.unasked}, c.events}
				if c.events == 3 {
					f.always = drivers.ErrDevice
				}
				filledWith(t, f.keeping, f, -10*time.Second, func(*Poller) { f.down(30 * time.Second) })
				total, asks = total+strings.Count(f.log.String(), said), asks+f.asks
				if strings.Contains(f.log.String(), "a device gave") {
					t.Errorf("%d events: %s", c.events, f.log.String())
				}
			}
			if total != c.said || (asks > 0) == (c.events == 3 || c.unasked) {
				t.Errorf("%d events, unasked %v: said %d times, asked %d times", c.events, c.unasked, total, asks)
			}
		})
	}
}
