package poller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// The waits between two attempts to connect, where a test does not say others.
const usualRetryMin, usualRetryMax = 500 * time.Millisecond, 30 * time.Second

// fake is a driver whose link, devices and speed a test turns by hand.
type fake struct {
	log       bytes.Buffer
	unchanged int               // times that a sink was told so
	beats     [][]time.Duration // see Options.Beats
	mu        sync.Mutex
	conn      *drivers.Connection
	connectIn time.Duration
	closeIn   time.Duration
	refuse    error        // Connect
	linkErr   error        // Read, once
	failAt    time.Time    // when linkErr may strike
	deadUnit  map[int]bool // device index: ErrDevice
	absent    bool         // ErrAbsent
	warning   string
	told      []telemetry.Details // what Options.Details was told last
	slow      map[int]time.Duration
	keeps     time.Duration // what a sink takes
	connects  int
	reads     int
	closes    int
	panics    bool
	enter     func() (func(), error)
	gaps      func(*Gap)
	since     func(int) (time.Time, string)

	before  func()        // each Read
	reading bool          // one runs
	idle    time.Duration // after which the device closes the connection; 0 = never
	used    time.Time
	hangUp  error       // each Read
	readsOf map[int]int // by device, where not nil
}

// fakes are fake and those that embed it.
type fakes interface {
	drivers.Driver
	base() *fake
}

func (f *fake) base() *fake { return f }

// change turns the device by hand while it is polled.
func (f *fake) change(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
}

func (f *fake) Connect(ctx context.Context) error {
	var in time.Duration
	var refuse error
	f.change(func() {
		f.connects++
		in, refuse = f.connectIn, f.refuse
		f.used = time.Now().Add(in)
	})
	select {
	case <-time.After(in):
	case <-ctx.Done():
		return ctx.Err()
	}
	return refuse
}

func (f *fake) Read(ctx context.Context, r drivers.Ref, dst []telemetry.Reading) ([]telemetry.Reading, error) {
	var err error
	var slow time.Duration
	f.change(func() { err, slow = f.begin(r), f.slow[r.Device] })
	defer func() { f.change(func() { f.reading, f.used = false, time.Now() }) }()
	if err != nil {
		return nil, err
	}
	time.Sleep(slow)
	f.change(func() { err = f.outcome(r) })
	if err != nil {
		return nil, err
	}
	for i := range f.conn.Devices[r.Device].Groups[r.Group].Tags {
		dst = append(dst, telemetry.Reading{Tag: uint32(i), Value: telemetry.Int(int64(f.reads)), Time: time.Now().UnixMicro()})
	}
	return dst, nil
}

// begin is what happens before the device answers.
func (f *fake) begin(r drivers.Ref) error {
	f.reads++
	f.reading = true
	if f.readsOf != nil {
		f.readsOf[r.Device]++
	}
	if f.before != nil {
		f.before()
	}
	if f.panics {
		panic("library bug")
	}
	if f.idle > 0 && time.Since(f.used) > f.idle {
		return fmt.Errorf("read: %w", io.EOF)
	}
	return f.hangUp
}

func (f *fake) outcome(r drivers.Ref) error {
	if err := f.linkErr; err != nil && time.Now().After(f.failAt) {
		f.linkErr = nil
		return err
	}
	if f.absent {
		return fmt.Errorf("unit: %w: %w", drivers.ErrDevice, drivers.ErrAbsent)
	}
	if f.deadUnit[r.Device] {
		return fmt.Errorf("unit: %w", drivers.ErrDevice)
	}
	return nil
}

func (f *fake) Warning() (text string) {
	f.change(func() { text, f.warning = f.warning, "" })
	return text
}

func (f *fake) Close() error {
	var in time.Duration
	f.change(func() { f.closes++; in = f.closeIn })
	time.Sleep(in)
	return nil
}

type tick struct {
	at     time.Duration
	device int
	good   bool
	reason string
	n      int
}

// run polls for so long under synctest's clock and returns the polls that reached the sinks.
func run(t *testing.T, d fakes, length time.Duration, intervals []time.Duration, during func(p *Poller)) []tick {
	t.Helper()
	var got []tick
	start := time.Now()
	c, f := &drivers.Connection{}, d.base()
	var sinks [][]Sink
	for i, iv := range intervals {
		c.Devices = append(c.Devices, drivers.Device{Name: fmt.Sprintf("d%d", i),
			Groups: []drivers.Group{{Name: "g", Interval: iv, Tags: make([]telemetry.Tag, 3)}}})
		sinks = append(sinks, []Sink{func(_ time.Time, rs []telemetry.Reading) error {
			if len(rs) == 0 {
				f.unchanged++
				return nil
			}
			time.Sleep(f.keeps)
			got = append(got, tick{time.Since(start), i, rs[0].Quality == telemetry.Good, rs[0].Reason, len(rs)})
			return nil
		}})
	}
	f.conn = c
	p := New(c, d, Options{RetryMin: usualRetryMin, RetryMax: usualRetryMax, Sinks: sinks, Beats: f.beats, Enter: f.enter, Gaps: f.gaps, Since: f.since, Details: func(_ drivers.Ref, all []telemetry.Details) { f.told = all },
		Log: slog.New(slog.NewTextHandler(&f.log, nil))})
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	if during != nil {
		during(p)
	}
	if err := <-done; err != nil {
		t.Fatalf("Run: %v", err)
	}
	if f.closes == 0 {
		t.Error("Run returned without closing the driver")
	}
	return got
}

func TestPollsOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		got := run(t, f, 60*time.Second, []time.Duration{time.Second}, nil)
		if len(got) < 60 || len(got) > 61 {
			t.Fatalf("%d polls in 60 s at an interval of 1 s", len(got))
		}
		for i := 2; i < len(got); i++ {
			if d := got[i].at - got[i-1].at; d != time.Second {
				t.Fatalf("poll %d came %v after the one before", i, d)
			}
		}
		if !got[0].good || got[0].at > time.Second {
			t.Errorf("first poll: %+v, want a good one within a second", got[0])
		}
	})
}

func TestSlowReadSkipsTicksAndCountsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{slow: map[int]time.Duration{0: 2500 * time.Millisecond}}
		var s Stats
		got := run(t, f, 31*time.Second, []time.Duration{time.Second}, func(p *Poller) {
			time.Sleep(30 * time.Second)
			s = p.Stats()
		})
		g := s.Devices[0].Groups[0]
		if len(got) < 9 || len(got) > 11 || g.Overruns < 17 || g.Overruns > 21 {
			t.Errorf("%d polls, %d overruns; want about 10 and 20", len(got), g.Overruns)
		}
	})
}

func TestDownDeviceYieldsBadReadingsOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{refuse: errors.New("connection refused"), connectIn: 4 * time.Second}
		var s Stats
		got := run(t, f, 60*time.Second, []time.Duration{time.Second}, func(p *Poller) {
			time.Sleep(59 * time.Second)
			s = p.Stats()
		})
		if len(got) < 58 {
			t.Fatalf("%d polls of a device that is down, want about 59", len(got))
		}
		for _, k := range got {
			if k.good || k.n != 3 {
				t.Fatalf("a good or short poll from a device that is down: %+v", k)
			}
		}
		if last := got[len(got)-1].reason; last != "connection refused" {
			t.Errorf("reason %q", last)
		}
		if f.connects < 3 || f.connects > 12 {
			t.Errorf("%d connects in a minute, want a few: back-off", f.connects)
		}
		if s.Up || s.ConnectErrors == 0 {
			t.Errorf("stats say %+v", s)
		}
	})
}

func TestReconnectsAfterLinkError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{linkErr: errors.New("reset by peer"), failAt: time.Now().Add(10 * time.Second)}
		got := run(t, f, 30*time.Second, []time.Duration{time.Second}, nil)
		var bad []tick
		for _, k := range got {
			if !k.good {
				bad = append(bad, k)
			}
		}
		if len(bad) != 1 || bad[0].reason != "reset by peer" {
			t.Errorf("bad polls %+v, want one that says why", bad)
		}
		if f.connects != 2 {
			t.Errorf("%d connects, want 2", f.connects)
		}
	})
}

func TestDeadUnitDoesNotDelayItsLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{deadUnit: map[int]bool{1: true}, slow: map[int]time.Duration{1: 900 * time.Millisecond}}
		got := run(t, f, 120*time.Second, []time.Duration{time.Second, time.Second}, nil)
		good, bad := 0, 0
		for _, k := range got {
			if k.device == 0 && k.good {
				good++
			}
			if k.device == 1 && !k.good && strings.Contains(k.reason, "no usable answer") {
				bad++
			}
		}
		if good < 115 {
			t.Errorf("the good unit got %d of 120 polls beside a dead one", good)
		}
		if bad < 110 {
			t.Errorf("the dead unit yielded %d bad polls of 120", bad)
		}
		if f.connects != 1 {
			t.Errorf("%d connects: a dead unit took the line down", f.connects)
		}
	})
}

func TestPanicOfALibraryIsABadReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{panics: true}
		got := run(t, f, 5*time.Second, []time.Duration{time.Second}, nil)
		if len(got) < 4 || !strings.Contains(got[0].reason, "library bug") {
			t.Errorf("polls %+v", got)
		}
	})
}

// TestStopKeepsThePollInFlight: what a device has answered by then is handed on; an end of the context gives it up.
func TestStopKeepsThePollInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{slow: map[int]time.Duration{0: 3 * time.Second}}
		start := time.Now()
		got := run(t, f, time.Hour, []time.Duration{10 * time.Second}, func(p *Poller) {
			time.Sleep(2500 * time.Millisecond)
			p.Stop()
		})
		if f.reads != 1 || len(got) != 1 || !got[0].good || time.Since(start) > 4*time.Second {
			t.Errorf("stopped in its first poll: %d reads, %d handed on, ended after %v", f.reads, len(got), time.Since(start))
		}
		f = &fake{slow: f.slow}
		if got := run(t, f, 2500*time.Millisecond, []time.Duration{10 * time.Second}, nil); f.reads != 1 || len(got) != 0 {
			t.Errorf("when the context ended in its first poll: %d reads, %d handed on", f.reads, len(got))
		}
	})
}

// TestStopEndsAnIdlePollerAtOnce, also one that waits for a connection, and one that Stop reaches before Run.
func TestStopEndsAnIdlePollerAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, f := range []*fake{{}, {connectIn: time.Hour}} {
			start := time.Now()
			run(t, f, time.Hour, []time.Duration{time.Minute}, func(p *Poller) {
				time.Sleep(30 * time.Second)
				p.Stop()
				p.Stop()
			})
			if d := time.Since(start); d != 30*time.Second {
				t.Errorf("ended %v after Stop", d-30*time.Second)
			}
		}
		start := time.Now()
		run(t, &fake{connectIn: time.Hour}, time.Hour, []time.Duration{time.Minute}, (*Poller).Stop)
		if d := time.Since(start); d != 0 {
			t.Errorf("stopped before it ran, it ended after %v", d)
		}
	})
}

// TestEnterRefuses: a connection that may not be made is a device that is down, with that reason, and tried again.
func TestEnterRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, inside := time.Now(), 0
		f := &fake{}
		f.enter = func() (func(), error) {
			if time.Since(start) < 20*time.Second {
				return nil, errors.New("no room")
			}
			inside++
			return func() { inside-- }, nil
		}
		got := run(t, f, time.Minute, []time.Duration{time.Second}, nil)
		if len(got) < 58 || got[5].reason != "no room" || got[5].good {
			t.Errorf("%d polls while there was no room, the sixth %+v", len(got), got[min(5, len(got)-1)])
		}
		if last := got[len(got)-1]; !last.good || f.connects != 1 || inside != 0 {
			t.Errorf("afterwards %+v, %d connects, %d still inside", last, f.connects, inside)
		}
	})
}

func TestStartsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ivs := make([]time.Duration, 200)
		for i := range ivs {
			ivs[i] = time.Second
		}
		got := run(t, &fake{}, 3*time.Second, ivs, nil)
		per := map[time.Duration]int{}
		for _, k := range got {
			if k.at >= time.Second && k.at < 2*time.Second {
				per[k.at.Truncate(20*time.Millisecond)]++
			}
		}
		for at, n := range per {
			if n > 40 { // ten ticks a second, and chance
				t.Errorf("%d of 200 groups start within 20 ms at %v", n, at)
			}
		}
	})
}
