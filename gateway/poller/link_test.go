package poller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
)

// TestIdleCloseCostsATry: a device that closes after 4 s of silence, polled each 6 s (FOUND O2).
func TestIdleCloseCostsATry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{idle: 4 * time.Second}
		var s Stats
		got := run(t, f, 66*time.Second, []time.Duration{6 * time.Second}, func(p *Poller) {
			time.Sleep(65 * time.Second)
			s = p.Stats()
		})
		if bad := count(got, func(k tick) bool { return !k.good }); bad != 0 || len(got) < 11 {
			t.Errorf("%d of %d polls bad, want none", bad, len(got))
		}
		if f.connects > len(got)+1 || f.reads > 2*len(got) || s.IdleCloses < 9 || !s.Up || s.ConnectErrors != 0 {
			t.Errorf("%d connects and %d reads for %d polls; %+v", f.connects, f.reads, len(got), s)
		}
	})
}

// TestOnlyIdleClosesAreTriedAgain: a device that hangs up on each request, or is gone, sees one try a poll more at most.
func TestOnlyIdleClosesAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{hangUp: drivers.ErrClosed}
		got := run(t, f, time.Minute, []time.Duration{500 * time.Millisecond}, nil)
		if good := count(got, func(k tick) bool { return k.good }); good != 0 || f.reads > f.connects || f.connects > 1+60 {
			t.Errorf("%d good, %d reads, %d connects", good, f.reads, f.connects)
		}
		f = &fake{hangUp: io.EOF}
		got = run(t, f, time.Minute, []time.Duration{10 * time.Second}, nil)
		if good := count(got, func(k tick) bool { return k.good }); good != 0 || f.reads > 2*len(got) {
			t.Errorf("%d good, %d reads for %d polls", good, f.reads, len(got))
		}
		f = &fake{hangUp: fmt.Errorf("unit 1: %w: %w", drivers.ErrDevice, io.EOF)}
		got = run(t, f, time.Minute, []time.Duration{10 * time.Second}, nil)
		if f.connects != 1 || f.reads > len(got) {
			t.Errorf("%d connects, %d reads for %d polls of a dead unit on a good line", f.connects, f.reads, len(got))
		}
		f = &fake{hangUp: errors.New("no answer within 1s")}
		got = run(t, f, time.Minute, []time.Duration{10 * time.Second}, nil)
		if f.reads > len(got) {
			t.Errorf("%d reads for %d polls that timed out", f.reads, len(got))
		}
	})
}

// TestIdleCloseByADeviceThatIsGone: the try that failed is the reason, and the link is down.
func TestIdleCloseByADeviceThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{idle: 4 * time.Second}
		got := run(t, f, 30*time.Second, []time.Duration{6 * time.Second}, func(p *Poller) {
			time.Sleep(7 * time.Second)
			f.change(func() { f.refuse = errors.New("connection refused") })
		})
		last := got[len(got)-1]
		if last.good || last.reason != "connection refused" {
			t.Errorf("last poll %+v", last)
		}
	})
}

// timeout is an error as net makes them.
type timeout struct{}

func (timeout) Error() string { return "i/o timeout" }
func (timeout) Timeout() bool { return true }

// TestBackAfterAFreeze: however a freeze of a given length looks from here, the device is read again within 2 s of its end
// (FOUND O6), half a second for the poll beside.
func TestBackAfterAFreeze(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Err: err} }
	for name, c := range map[string]struct {
		length  time.Duration
		freeze  func(f *fake)
		devices int
		slow    bool // back-off may grow: the peer is not there, or answers with a refusal
	}{
		"takes connections, answers no request": {10 * time.Minute, func(f *fake) { f.hangUp = errors.New("no answer") }, 1, false},
		"hangs up on each request":              {10 * time.Minute, func(f *fake) { f.hangUp = io.EOF }, 1, false},
		"takes connections, no handshake":       {10 * time.Minute, func(f *fake) { f.hangUp, f.refuse = io.EOF, os.ErrDeadlineExceeded }, 1, false},
		"hangs up in the handshake":             {10 * time.Minute, func(f *fake) { f.hangUp, f.refuse = io.EOF, fmt.Errorf("hello: %w", io.EOF) }, 1, false},
		"refuses for 40 s":                      {40 * time.Second, func(f *fake) { f.hangUp, f.refuse = io.EOF, dial(syscall.ECONNREFUSED) }, 1, false},
		"no answer to a dial for 40 s":          {40 * time.Second, func(f *fake) { f.hangUp, f.refuse = io.EOF, dial(timeout{}) }, 1, false},
		"dead unit, alone":                      {10 * time.Minute, func(f *fake) { f.deadUnit[0] = true }, 1, false},
		"dead units, the whole line":            {10 * time.Minute, func(f *fake) { f.deadUnit[0], f.deadUnit[1], f.deadUnit[2] = true, true, true }, 3, true},
		"refuses for 10 min":                    {10 * time.Minute, func(f *fake) { f.hangUp, f.refuse = io.EOF, dial(syscall.ECONNREFUSED) }, 1, true},
		"switched off for 10 min":               {10 * time.Minute, func(f *fake) { f.hangUp, f.refuse = io.EOF, dial(timeout{}) }, 1, true},
		"wrong password for 10 min":             {10 * time.Minute, func(f *fake) { f.hangUp, f.refuse = io.EOF, errors.New("user access denied") }, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{deadUnit: map[int]bool{}}
				var thaw time.Duration
				tries := 0
				intervals := make([]time.Duration, c.devices)
				for i := range intervals {
					intervals[i] = 500 * time.Millisecond
				}
				got := run(t, f, c.length+2*time.Minute, intervals, func(p *Poller) {
					start := time.Now()
					time.Sleep(5 * time.Second)
					f.change(func() { c.freeze(f) })
					time.Sleep(c.length)
					f.change(func() {
						tries, thaw = f.connects, time.Since(start)
						f.hangUp, f.refuse, f.deadUnit = nil, nil, nil
					})
				})
				back := make([]time.Duration, c.devices)
				for _, k := range got {
					if k.good && k.at >= thaw && back[k.device] == 0 {
						back[k.device] = k.at - thaw
					}
				}
				for i, after := range back {
					limit := 2500 * time.Millisecond
					if c.slow {
						limit = 30500 * time.Millisecond
					}
					if after == 0 || after > limit || after-back[0] > 1100*time.Millisecond || back[0]-after > 1100*time.Millisecond {
						t.Errorf("device %d was back %v after the freeze, the first %v", i, after, back[0])
					}
				}
				if c.slow && c.devices == 1 && (tries < 20 || tries > 110) { // a minute of 1 to 2 s, then 15 to 30 s
					t.Errorf("%d tries in %v", tries, c.length)
				}
			})
		})
	}
}

// TestRetryOptions bound every wait.
func TestRetryOptions(t *testing.T) {
	for _, c := range []struct{ least, most, wantLeast, wantMost, wantThere time.Duration }{
		{500 * time.Millisecond, 30 * time.Second, 500 * time.Millisecond, 30 * time.Second, 2 * time.Second},
		{time.Second, 5 * time.Second, time.Second, 5 * time.Second, 2 * time.Second},
		{100 * time.Millisecond, time.Second, 100 * time.Millisecond, time.Second, time.Second},
		{10 * time.Second, time.Minute, 10 * time.Second, time.Minute, 10 * time.Second},
		{time.Minute, time.Second, time.Minute, time.Minute, time.Minute},
	} {
		l := newLimits(c.least, c.most)
		if l != (limits{c.wantLeast, c.wantMost, c.wantThere}) {
			t.Errorf("%v, %v: %+v", c.least, c.most, l)
		}
		for _, there := range []bool{false, true} {
			var b backoff
			least, most := time.Hour, time.Duration(0)
			for range 2000 {
				wait := b.fail(time.Now(), l.after(there))
				least, most = min(least, wait), max(most, wait)
			}
			limit := c.wantMost
			if there {
				limit = c.wantThere
			}
			if least < c.wantLeast/2 || most > limit || most < limit*9/10 {
				t.Errorf("%v, %v, there %v: waits from %v to %v", c.least, c.most, there, least, most)
			}
		}
	}
}

// TestLongDeadUnitsStayDemoted although the only unit that answers on their line comes and goes.
func TestLongDeadUnitsStayDemoted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{deadUnit: map[int]bool{1: true, 2: true}, readsOf: map[int]int{}, slow: map[int]time.Duration{1: time.Second, 2: time.Second}}
		run(t, f, 20*time.Minute, []time.Duration{time.Second, time.Second, time.Second}, func(p *Poller) {
			time.Sleep(5 * time.Minute)
			f.change(func() { clear(f.readsOf) })
			for range 60 {
				f.change(func() { f.deadUnit[0] = !f.deadUnit[0] })
				time.Sleep(10 * time.Second)
			}
		})
		if n := f.readsOf[1]; n > 70 { // one each 15 to 30 s in 15 minutes
			t.Errorf("a dead unit was tried %d times in 15 minutes", n)
		}
	})
}

// TestAbsentDevicesAreWaitedFor: Connect is called again soon however long the device has not made the connection, unlike that of one that refuses.
func TestAbsentDevicesAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		absent := &fake{refuse: fmt.Errorf("has not called: %w", drivers.ErrAbsent)}
		run(t, absent, 10*time.Minute, []time.Duration{10 * time.Second}, nil)
		gone := &fake{refuse: errors.New("connection refused")}
		run(t, gone, 10*time.Minute, []time.Duration{10 * time.Second}, nil)
		if least := int(10 * time.Minute / thereRetry); absent.connects < least || gone.connects > 60 {
			t.Errorf("%d attempts, want %d at least; %d of one that refuses", absent.connects, least, gone.connects)
		}
	})
}

// TestAbsentDevicesAreAskedAtEachTick: what costs nothing needs no back-off, and its line stays up. What the driver learns
// beside readings is logged once.
func TestAbsentDevicesAreAskedAtEachTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{absent: true, readsOf: map[int]int{}}
		got := run(t, f, 10*time.Minute, []time.Duration{time.Second, time.Second}, func(p *Poller) {
			time.Sleep(5 * time.Minute)
			f.change(func() { f.absent, f.warning = false, "callers refused" })
		})
		if n := f.readsOf[1]; n < 590 || f.closes != 1 {
			t.Errorf("%d reads in 600 s, %d closes; want one each second, and one close", n, f.closes)
		}
		late := 0
		for _, k := range got {
			if k.at > 5*time.Minute+time.Second && !k.good {
				late++
			}
		}
		if late > 0 {
			t.Errorf("%d bad readings a second and more after the device came", late)
		}
		if n := strings.Count(f.log.String(), `msg="callers refused"`); n != 1 {
			t.Errorf("the warning was logged %d times\n%s", n, &f.log)
		}
	})
}

// TestStopIsNoFault: a stop ends an attempt to connect, and nothing is said of the device by that, also where the attempt's end is seen first.
func TestStopIsNoFault(t *testing.T) {
	f := &fake{connectIn: time.Hour, conn: &drivers.Connection{Devices: []drivers.Device{{Name: "d"}}}}
	p := New(f.conn, f, Options{RetryMin: usualRetryMin, RetryMax: usualRetryMax, Sinks: [][]Sink{{}}, Log: slog.New(slog.NewTextHandler(&f.log, nil))})
	ctx, stop := context.WithCancel(t.Context())
	p.connect(ctx)
	stop()
	p.connected(<-p.link.connecting)
	if s := p.Stats(); f.log.Len() > 0 || s.Reason != NotYet || s.ConnectErrors > 0 {
		t.Errorf("%+v; the log says %s", s, f.log.String())
	}
}
