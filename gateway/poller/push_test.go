package poller

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// pushing is a fake whose device 0 pushes what a test gives it; the others are polled.
type pushing struct {
	*fake
	pushes     chan drivers.Push
	subscribed int
	refuse     error
	polled     bool // it pushes nothing
	firsts     bool // each subscription begins with a value of each of three tags, as a server's does
}

func (f *pushing) Connect(ctx context.Context) error {
	f.change(func() { f.pushes = make(chan drivers.Push, 64) })
	return f.fake.Connect(ctx)
}

func (f *pushing) Subscribe(_ context.Context, g drivers.Ref) (pushes bool, err error) {
	f.subscribed++
	f.change(func() { pushes = g.Device == 0 && !f.polled })
	if pushes && f.firsts {
		f.current() <- drivers.Push{Group: g, Readings: []telemetry.Reading{{}, {Tag: 1}, {Tag: 2}}}
	}
	return pushes, f.refuse
}

func (f *pushing) Pushed() <-chan drivers.Push { return f.current() }

func (f *pushing) current() (c chan drivers.Push) {
	f.change(func() { c = f.pushes })
	return c
}

func (f *pushing) send(device, tag, lost int) {
	f.current() <- drivers.Push{Group: drivers.Ref{Device: device}, Lost: lost,
		Readings: []telemetry.Reading{{Tag: uint32(tag), Value: telemetry.Int(5)}}}
}

func count(ticks []tick, keep func(tick) bool) (n int) {
	for _, k := range ticks {
		if keep(k) {
			n++
		}
	}
	return n
}

// TestPushedGroupIsNotPolled: it yields what is pushed, when it is, and the other group is polled as ever.
func TestPushedGroupIsNotPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		var s Stats
		got := run(t, f, 30*time.Second, []time.Duration{time.Second, time.Second}, func(p *Poller) {
			for n := range 5 {
				time.Sleep(4 * time.Second)
				f.send(0, n%3, n)
			}
			synctest.Wait()
			s = p.Stats()
		})
		pushed := count(got, func(k tick) bool { return k.device == 0 })
		polled := count(got, func(k tick) bool { return k.device == 1 && k.good && k.n == 3 })
		if pushed != 5 || polled < 29 || len(got) != pushed+polled || f.subscribed != 2 {
			t.Errorf("%d pushed, %d polled of %d, %d subscribed", pushed, polled, len(got), f.subscribed)
		}
		for n, at := 0, 4*time.Second; n < len(got); n++ {
			if got[n].device == 0 {
				if got[n].at != at || !got[n].good || got[n].n != 1 {
					t.Errorf("push %+v, want one good reading at %v", got[n], at)
				}
				at += 4 * time.Second
			}
		}
		if g := s.Devices[0].Groups[0]; !g.Pushed || g.Pushes != 5 || g.Lost != 10 || g.Polls != 0 || s.Devices[0].Reason != "" {
			t.Errorf("stats %+v, reason %q", g, s.Devices[0].Reason)
		}
		if s.Devices[1].Groups[0].Pushed {
			t.Error("the polled group counts as pushed")
		}
	})
}

// TestLostSubscription: the end of the channel is a lost link; while it is down the pushed group yields bad readings at
// its interval, and afterwards the group is subscribed again. What was pushed before the end is kept.
func TestLostSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		var s Stats
		got := run(t, f, 40*time.Second, []time.Duration{time.Second}, func(p *Poller) {
			time.Sleep(10 * time.Second)
			if s := p.Stats().Devices[0]; s.Reason != "" {
				t.Errorf("a device that took the subscription and has no news is bad: %q", s.Reason)
			}
			f.change(func() { f.connectIn = 8 * time.Second }) // it takes long to come back
			for range 40 {
				f.send(0, 0, 0)
			}
			close(f.current())
			time.Sleep(20 * time.Second)
			f.send(0, 1, 0)
			s = p.Stats()
		})
		if g := s.Devices[0].Groups[0]; g.Overruns != 0 || g.MaxLate > 100*time.Millisecond {
			t.Errorf("ticks that were not due count as missed or late: %+v", g)
		}
		good := count(got, func(k tick) bool { return k.good })
		bad := count(got, func(k tick) bool { return !k.good && k.n == 3 && strings.Contains(k.reason, "lost") })
		if good != 41 || bad < 8 || bad > 10 || len(got) != good+bad {
			t.Errorf("%d good, %d bad of %d; want 41 and 8 to 10", good, bad, len(got))
		}
		if f.connects != 2 || f.subscribed != 2 || !got[len(got)-1].good {
			t.Errorf("%d connects, %d subscribed, last %+v", f.connects, f.subscribed, got[len(got)-1])
		}
	})
}

// TestPushesSayMore: a push may carry what a person should know, or why it is the last; and one without readings says that
// all is as it was, at which heartbeats may be due.
func TestPushesSayMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		got := run(t, f, 20*time.Second, []time.Duration{time.Second}, func(p *Poller) {
			time.Sleep(2 * time.Second)
			for _, push := range []drivers.Push{
				{Note: "the server is slow"}, {Lost: 3, Note: "messages are lost"}, {Lost: 4, Note: "messages are lost"}, {}, {},
			} {
				f.current() <- push
				time.Sleep(600 * time.Millisecond)
			}
			synctest.Wait()
			if f.unchanged != 3 {
				t.Errorf("the sink was told %d times in 3 s that nothing has changed, want 3", f.unchanged)
			}
			f.change(func() { f.connectIn = 5 * time.Second })
			f.current() <- drivers.Push{Err: errors.New("nothing was heard")}
			time.Sleep(3 * time.Second)
			if s := p.Stats(); s.Up || s.Reason != "nothing was heard" || s.Devices[0].Groups[0].Lost != 7 {
				t.Errorf("%+v", s)
			}
		})
		log := f.log.String()
		for _, want := range []string{`level=INFO msg="the server is slow"`, `level=WARN msg="messages are lost" device=d0 group=g lost=3`} {
			if strings.Count(log, want) != 1 {
				t.Errorf("%q is not logged once:\n%s", want, log)
			}
		}
		bad := count(got, func(k tick) bool { return !k.good && k.reason == "nothing was heard" })
		if bad < 4 || bad != len(got) {
			t.Errorf("%d of %d ticks say what was wrong", bad, len(got))
		}
	})
}

// TestLossesKeepTheirCause: what is lost while it was just said is said later with its own cause.
func TestLossesKeepTheirCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		run(t, f, 5*time.Minute, []time.Duration{time.Second}, func(*Poller) {
			time.Sleep(2 * time.Second)
			for _, push := range []drivers.Push{{Lost: 1, Note: "a burst"}, {Lost: 2, Note: "a burst"}, {Note: "news"}, {}, {Lost: 4}, {}} {
				f.current() <- push
				time.Sleep(40 * time.Second)
			}
		})
		log := f.log.String()
		for _, want := range []string{`msg="a burst" device=d0 group=g lost=1`, `msg="a burst" device=d0 group=g lost=2`, `msg="the device pushes faster than its readings can be taken, and some are lost; sample slower or ask for a longer queue" device=d0 group=g lost=4`} {
			if strings.Count(log, want) != 1 {
				t.Errorf("%q is not logged once:\n%s", want, log)
			}
		}
	})
}

// TestRefusedSubscription is a link that is down.
func TestRefusedSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}, refuse: drivers.ErrClosed}
		got := run(t, f, 10*time.Second, []time.Duration{time.Second}, nil)
		if len(got) < 9 || got[5].good || !strings.Contains(got[5].reason, "subscribe: ") {
			t.Errorf("%d polls, the sixth %+v", len(got), got[min(5, len(got)-1)])
		}
	})
}

// TestFloodDoesNotStarvePolls: a device that never stops pushing costs the polled group no tick.
func TestFloodDoesNotStarvePolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		got := run(t, f, 20*time.Second, []time.Duration{time.Hour, time.Second}, func(p *Poller) {
			time.Sleep(2 * time.Second)
			flood := f.current()
			stop := time.After(15 * time.Second)
			for n := 0; ; n++ {
				select {
				case flood <- drivers.Push{Readings: []telemetry.Reading{{}}}:
					if n%1000 == 0 {
						time.Sleep(20 * time.Millisecond) // else synctest's clock would stand still
					}
				case <-stop:
					return
				}
			}
		})
		polled := count(got, func(k tick) bool { return k.device == 1 && k.good })
		if polled < 18 {
			t.Errorf("%d polls in 20 s beside a flood of %d pushes", polled, len(got)-polled)
		}
	})
}

// TestOneTurnOfAFlood: with a full channel, jobs that wait and a poll due, one turn takes some pushes, one job and the poll.
func TestOneTurnOfAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		pushes, polls, jobs := 0, 0, 0
		c := &drivers.Connection{Devices: []drivers.Device{
			{Name: "pushes", Groups: []drivers.Group{{Interval: time.Second, Tags: make([]telemetry.Tag, 1)}}},
			{Name: "polled", Groups: []drivers.Group{{Interval: time.Second, Tags: make([]telemetry.Tag, 1)}}}}}
		f.conn = c
		p := New(c, f, Options{RetryMin: usualRetryMin, RetryMax: usualRetryMax, Log: slog.New(slog.DiscardHandler), Sinks: [][]Sink{
			{func(_ time.Time, rs []telemetry.Reading) error { pushes += len(rs); return nil }},
			{func(time.Time, []telemetry.Reading) error { polls++; return nil }}}})
		p.connected(p.dial(t.Context()))
		p.start(time.Now())
		for len(f.pushes) < cap(f.pushes) {
			f.send(0, 0, 0)
		}
		for range 2 {
			p.jobs <- &job{ctx: t.Context(), f: func(drivers.Driver) error { jobs++; return nil }, done: make(chan error, 1)}
		}
		timer := time.NewTimer(time.Hour)
		time.Sleep(2 * time.Second)
		for n := range 2 {
			if err := p.turn(t.Context(), timer); err != nil {
				t.Fatal(err)
			}
			if polls != n+1 || jobs != n+1 || pushes != (n+1)*maxPushes {
				t.Errorf("turn %d: %d polls, %d jobs, %d pushes", n, polls, jobs, pushes)
			}
			time.Sleep(2 * time.Second)
		}
	})
}

// TestForeignPushIsRefused: a tag or group that is not there never reaches a sink.
func TestForeignPushIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		got := run(t, f, 30*time.Second, []time.Duration{time.Hour}, func(p *Poller) {
			for n, c := range []struct{ device, tag int }{{0, 3}, {7, 0}} {
				time.Sleep(5 * time.Second)
				f.send(c.device, c.tag, 0)
				synctest.Wait()
				if s := p.Stats(); s.Up || !strings.Contains(s.Reason, "BUG") {
					t.Errorf("push %d: %+v", n, s)
				}
			}
		})
		if n := count(got, func(k tick) bool { return k.good }); n != 0 || f.connects != 3 {
			t.Errorf("%d good, %d connects", n, f.connects)
		}
	})
}

// TestStopTakesWhatWasPushed: nothing that the device has sent is lost.
func TestStopTakesWhatWasPushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{slow: map[int]time.Duration{1: 3 * time.Second}}}
		got := run(t, f, time.Hour, []time.Duration{time.Hour, 10 * time.Second}, func(p *Poller) {
			time.Sleep(2500 * time.Millisecond) // into the first read
			for range 50 {
				f.send(0, 0, 0)
			}
			p.Stop()
		})
		if n := count(got, func(k tick) bool { return k.device == 0 }); n != 50 {
			t.Errorf("%d of 50 pushes were taken", n)
		}
	})
}

// describing is a fake that says what its first device's tags are, once it was read or has pushed.
type describing struct{ *pushing }

func (f *describing) Details(g drivers.Ref) []telemetry.Details {
	if g.Device != 0 {
		return nil
	}
	return []telemetry.Details{{Unit: "mm"}}
}

// TestDetails: what a device says of its tags is handed on behind a push, and of a device that does not answer nothing is.
func TestDetails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &describing{&pushing{fake: &fake{}}}
		run(t, f, 10*time.Second, []time.Duration{time.Second, time.Second}, func(*Poller) {
			time.Sleep(4 * time.Second)
			if f.told != nil {
				t.Errorf("told %+v before anything came", f.told)
			}
			f.send(0, 0, 0)
		})
		if len(f.told) != 1 || f.told[0].Unit != "mm" {
			t.Errorf("told %+v", f.told)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := &describing{&pushing{fake: &fake{}}}
		f.fake.refuse = errors.New("connection refused")
		if run(t, f, 10*time.Second, []time.Duration{time.Second}, nil); f.told != nil {
			t.Errorf("told %+v by a device that is down", f.told)
		}
	})
}

// TestBeats: the sink of a group that is pushed is told that nothing has changed on time though nothing comes, from the first push on and while the link is up.
func TestBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{beats: [][]time.Duration{{2 * time.Second}}}}
		run(t, f, 40*time.Second, []time.Duration{time.Second}, func(p *Poller) {
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if f.unchanged != 0 {
				t.Errorf("the sink was told %d times before anything came", f.unchanged)
			}
			f.send(0, 1, 0)
			time.Sleep(20*time.Second + time.Millisecond)
			synctest.Wait()
			if f.unchanged != 11 {
				t.Errorf("the sink was told %d times in 20 s of silence, want 11", f.unchanged)
			}
			f.change(func() { f.connectIn = time.Minute })
			f.current() <- drivers.Push{Err: errors.New("nothing was heard")}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if f.unchanged != 11 {
				t.Errorf("the sink was told %d times after the link was lost", f.unchanged-11)
			}
		})
	})
}
