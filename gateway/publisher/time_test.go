package publisher

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/gateway/link/mqtt/brokersim"
)

// The tests of this file run in virtual time: the broker sits at the other end of a pipe.

// inBubble runs the test with a rig whose link the test controls.
func inBubble(t *testing.T, o rigOptions, test func(r *rig, l *link)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, got: newAccount()}
		o.broker.OnPublish = r.got.take
		r.broker = brokersim.New(o.broker)
		o.publisher.URL = "mqtt://broker"
		o.dir = t.TempDir()
		o.buffer.CommitInterval = 10 * time.Second
		r.open(o)
		l := &link{broker: r.broker}
		r.p.dial = l.dial
		l.restart = func() {
			r.stop()
			r.streams = nil
			r.open(o)
			r.p.dial = l.dial
			r.run()
		}
		r.run()
		test(r, l)
		r.stop()
		r.broker.Kill()
		time.Sleep(time.Minute) // whatever still runs must end by itself
	})
}

// link is the way to the broker.
type link struct {
	broker  *brokersim.Broker
	restart func() // of the gateway's half

	mu    sync.Mutex
	err   error // of every attempt
	calls []time.Time
	rate  float64 // bytes a second towards the broker; 0 = no limit
	mute  bool    // nothing gets through any more, either way, and nobody is told
}

func (l *link) set(change func(*link)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

func (l *link) dial(context.Context) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, time.Now())
	if l.err != nil {
		return nil, l.err
	}
	near, far := net.Pipe()
	go l.broker.Serve(far)
	return &slowConn{Conn: near, l: l}, nil
}

// slowConn writes at the link's rate, as through a socket with a small send buffer.
type slowConn struct {
	net.Conn
	l *link
}

func (s *slowConn) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n := min(len(p)-done, 1024)
		s.l.mu.Lock()
		wait := time.Duration(0)
		if s.l.rate > 0 {
			wait = time.Duration(float64(n) / s.l.rate * 1e9)
		}
		mute := s.l.mute
		s.l.mu.Unlock()
		time.Sleep(wait)
		if !mute { // a dead line swallows what the send buffer holds
			if _, err := s.Conn.Write(p[done : done+n]); err != nil {
				return done, err
			}
		}
		done += n
	}
	return len(p), nil
}

func TestBackoffInTime(t *testing.T) {
	inBubble(t, rigOptions{}, func(r *rig, l *link) {
		time.Sleep(time.Minute)
		l.set(func(l *link) { l.err, l.calls = errors.New("no route"), nil })
		r.broker.CutAll()
		time.Sleep(10 * time.Minute)
		if s := r.p.Stats(); s.State == Connected || time.Since(s.Since) < 9*time.Minute {
			t.Errorf("ten minutes without a link: %v for %v", s.State, time.Since(s.Since))
		}
		l.set(func(l *link) {
			if n := len(l.calls); n < 75 || n > 160 {
				t.Errorf("%d attempts in ten minutes", n)
			}
			for i := 1; i < len(l.calls); i++ {
				if d := l.calls[i].Sub(l.calls[i-1]); d < 100*time.Millisecond || d > 8*time.Second {
					t.Errorf("attempt %d came after %v", i, d)
				}
			}
			l.err = nil
		})
		r.append(0, 3)
		time.Sleep(9 * time.Second)
		if s := r.p.Stats(); s.State != Connected || s.Unacked != 0 || time.Since(s.Since) > 9*time.Second {
			t.Errorf("after the outage: %+v", s)
		}
	})
}

func TestRefusalsAreSlow(t *testing.T) {
	inBubble(t, rigOptions{}, func(r *rig, l *link) {
		r.broker.SetFaults(brokersim.Faults{Refuse: 5})
		r.broker.CutAll() // the first login may have come before the refusals
		time.Sleep(10 * time.Minute)
		if s := r.p.Stats(); s.State != Refused || len(l.calls) > 25 || len(l.calls) < 10 {
			t.Errorf("%d logins in ten minutes of refusals, state %v", len(l.calls), s.State)
		}
	})
}

// TestDeadLine: nothing comes through any more and nobody says so. With something in flight the missing PUBACK
// tells it, on an idle line the ping.
func TestDeadLine(t *testing.T) {
	for name, c := range map[string]struct {
		send bool
		most time.Duration
	}{"busy": {true, 11 * time.Second}, "idle": {false, 40 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, rigOptions{}, func(r *rig, l *link) {
				r.append(0, 3)
				time.Sleep(time.Second)
				l.set(func(l *link) { l.mute = true })
				start := time.Now()
				if c.send {
					r.append(0, 3)
				}
				for r.p.Stats().State == Connected && time.Since(start) < time.Hour {
					time.Sleep(100 * time.Millisecond)
				}
				if took := time.Since(start); took > c.most {
					t.Errorf("noticed after %v", took)
				}
				l.set(func(l *link) { l.mute = false })
				time.Sleep(time.Minute)
				r.delivered()
			})
		})
	}
}

// TestSlowLink: 64 kbit/s, and messages that take longer than the ack time-out.
// The session must hold, the rate must be the line's, and fresh readings must not wait behind the backlog.
func TestSlowLink(t *testing.T) {
	inBubble(t, rigOptions{tags: 5000}, func(r *rig, l *link) {
		l.set(func(l *link) { l.rate = 8 << 10 })
		for range 20 {
			r.append(0, 5000) // about 100 KB each: 12 s
		}
		for range 600 {
			r.append(1, 3)
		}
		time.Sleep(2 * time.Minute)
		before := r.p.Stats()
		if before.Sessions != 1 {
			t.Errorf("%d sessions: %s", before.Sessions, before.LastError)
		}
		if rate := float64(before.Bytes-uint64(before.InFlightBytes)) / 120; rate < 6<<10 {
			t.Errorf("%.0f bytes a second on a line of 8192", rate)
		}
		start := time.Now()
		seq := r.append(2, 3)
		for fresh := false; !fresh; time.Sleep(100 * time.Millisecond) {
			r.got.mu.Lock()
			fresh = r.got.payloads[seq] != ""
			r.got.mu.Unlock()
		}
		if took := time.Since(start); took > 45*time.Second { // three of the large ones
			t.Errorf("a fresh reading took %v", took)
		}
		time.Sleep(10 * time.Minute)
		r.delivered()
		if s := r.p.Stats(); s.Sessions != 1 || s.Resent != 0 {
			t.Errorf("%d sessions, %d sent again: %s", s.Sessions, s.Resent, s.LastError)
		}
	})
}

// TestFlapping: the line is up for a second and down for a second, for four minutes.
func TestFlapping(t *testing.T) {
	inBubble(t, rigOptions{}, func(r *rig, l *link) {
		last := uint64(0)
		for range 120 {
			l.set(func(l *link) { l.err = nil })
			for range 10 {
				r.append(0, 3)
				time.Sleep(100 * time.Millisecond)
			}
			l.set(func(l *link) { l.err = errors.New("down") })
			r.broker.CutAll()
			time.Sleep(time.Second)
			if acked := r.p.Stats().Acked; acked < last {
				t.Fatal("progress is not monotone")
			} else {
				last = acked
			}
		}
		if s := r.p.Stats(); s.Unacked > 200 || s.Rejected != 0 {
			t.Errorf("%d of 1,200 records not through, %d rejected", s.Unacked, s.Rejected)
		}
		l.set(func(l *link) { l.err = nil })
		time.Sleep(20 * time.Second)
		r.delivered()
	})
}

func TestIdleSessionStays(t *testing.T) {
	inBubble(t, rigOptions{}, func(r *rig, l *link) {
		time.Sleep(24 * time.Hour)
		if s := r.p.Stats(); s.State != Connected || s.Sessions != 1 {
			t.Errorf("after an idle day: %+v", s)
		}
	})
}

// TestOwedGoesBeforeLive: sessions were lost with live records in flight, and in between the outages left
// far more historical records than a window. In each class the order must hold, across a restart too. Fresh
// records come all the time.
func TestOwedGoesBeforeLive(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			inBubble(t, rigOptions{publisher: Options{Window: 8}}, func(r *rig, l *link) {
				time.Sleep(time.Second)
				for range 3 {
					// Live, but nothing of it is acknowledged.
					r.broker.SetFaults(brokersim.Faults{Freeze: true})
					for range 8 {
						r.append(0, 3)
					}
					time.Sleep(100 * time.Millisecond)
					l.set(func(l *link) { l.err = errors.New("down") })
					r.broker.CutAll()
					for range 700 {
						time.Sleep(50 * time.Millisecond)
						r.append(0, 3)
					}
					if restart {
						l.restart()
					}
					// Up again for so long that live begins, but not to the end of the backlog.
					r.broker.SetFaults(brokersim.Faults{AckDelay: 10 * time.Millisecond})
					l.set(func(l *link) { l.err = nil })
					for sessions := r.p.Stats().Sessions; r.p.Stats().Sessions == sessions; time.Sleep(5 * time.Millisecond) {
						r.append(0, 3)
					}
					for range 200 {
						time.Sleep(10 * time.Millisecond)
						r.append(0, 3)
					}
				}
				time.Sleep(10 * time.Minute)
				r.delivered()
				if r.got.historical < 1500 || r.got.count()-r.got.historical < 400 {
					t.Errorf("%d historical of %d: the test tests nothing", r.got.historical, r.got.count())
				}
			})
		})
	}
}
