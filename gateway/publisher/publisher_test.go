package publisher

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"millrace/gateway/link"
)

func TestDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		r.feed(10*time.Second, 100*time.Millisecond, "a", "b")
		r.settle(time.Second)
		if n := len(r.got()); n != 200 {
			t.Errorf("%d messages, want 200", n)
		}
		if most, _ := r.longest("a", "b"); most > 100*time.Millisecond {
			t.Errorf("the slowest took %v with a latency of 20 ms", most)
		}
		s := r.pub.Stats()
		if s.State != Connected || s.Acked != 200 || s.Resent != 0 || s.AckLatency != 20*time.Millisecond || s.InFlight != 0 {
			t.Errorf("stats %+v", s)
		}
		for _, g := range r.got() {
			if g.historical {
				t.Errorf("record %d is marked historical on a healthy link", g.seq)
			}
		}
		r.checkOrder()
		r.checkLedger()
		r.stop()
	})
}

// TestOutage: live first, the backlog beside it, throttled and marked.
func TestOutage(t *testing.T) {
	t.Parallel()
	for _, order := range []Order{LiveFirst, OldestFirst} {
		t.Run(string(order), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(o *Options) { o.Order, o.BacklogMessages = order, 200 })
				r.rec.refuse = errors.New("no route")
				r.start()
				r.feed(20*time.Minute, 100*time.Millisecond, "a")
				r.rec.set(func(r *receiver) { r.refuse = nil })
				back := time.Now()
				r.feed(30*time.Second, 100*time.Millisecond, "a")
				r.settle(5 * time.Minute)
				took := time.Since(back)
				live := 0
				for _, g := range r.got() {
					if g.made.After(back.Add(10*time.Second)) && !g.historical && g.at.Sub(g.made) < time.Second {
						live++
					}
				}
				if order == LiveFirst && live < 190 {
					t.Errorf("%d of 200 fresh records came at once beside the backlog", live)
				}
				if order == OldestFirst && live > 0 {
					t.Errorf("%d fresh records came before older ones", live)
				}
				if took < 55*time.Second || took > 90*time.Second {
					t.Errorf("12,000 records at 200 a second took %v", took)
				}
				log := r.log.String()
				for _, want := range []string{"no link", "still no link", "connected again", "after=20m", "everything that waited is sent"} {
					if !strings.Contains(log, want) {
						t.Errorf("the log does not say %q:\n%s", want, log)
					}
				}
				if n := strings.Count(log, "level=WARN"); n > 5 {
					t.Errorf("%d warnings for one outage:\n%s", n, log)
				}
				r.checkOrder()
				r.checkLedger()
				r.stop()
			})
		})
	}
}

// TestShortLoss: a link that comes back at once goes on live, in order, and what is sent again is what was sent.
func TestShortLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		for range patient { // with more of them the waits grow, and a loss is short no more
			r.feed(time.Second, 20*time.Millisecond, "a", "b")
			r.rec.cut()
		}
		r.settle(10 * time.Second)
		for _, g := range r.got() {
			if g.historical {
				t.Fatalf("record %d is marked historical after a short loss", g.seq)
			}
		}
		if s := r.pub.Stats(); s.Rejected != 0 || s.Sessions < patient || s.Resent == 0 {
			t.Errorf("stats %+v", s)
		}
		r.checkOrder()
		r.checkLedger()
		r.stop()
	})
}

// TestSilentReceiver: one that acknowledges nothing costs the session, and loses nothing.
func TestSilentReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.rec.silent = func(*got) bool { return true }
		r.start()
		r.feed(time.Minute, 100*time.Millisecond, "a", "b")
		if s := r.pub.Stats(); s.Sessions < 3 || s.Sessions > 8 || s.Acked != 0 || s.Rejected != 0 || !strings.Contains(s.LastError, "nothing is acknowledged") {
			t.Errorf("stats %+v", s)
		}
		r.rec.set(func(r *receiver) { r.silent = nil })
		r.settle(time.Minute)
		r.checkLedger()
		r.stop()
	})
}

func TestRefusedLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.rec.refuse = fmt.Errorf("%w: user name or password is wrong", link.ErrRefused)
		r.start()
		r.feed(10*time.Minute, time.Second, "a")
		if s := r.pub.Stats(); s.State != Refused || r.rec.dials > 25 {
			t.Errorf("%d dials in 10 minutes; %+v", r.rec.dials, s)
		}
		r.stop()
	})
}

func TestDrainAndStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.rec.latency = 300 * time.Millisecond
		r.start()
		r.feed(time.Second, 10*time.Millisecond, "a")
		if err := r.pub.Drain(t.Context()); err != nil || r.buf.Destination("cloud").Len() != 0 {
			t.Errorf("drain: %v, %d left", err, r.buf.Destination("cloud").Len())
		}
		r.rec.set(func(r *receiver) { r.silent = func(*got) bool { return true } })
		r.append("a", 0)
		start := time.Now()
		r.cancel()
		r.done.Wait()
		if d := time.Since(start); d > leaveWait+time.Second {
			t.Errorf("stopped after %v", d)
		}
		if err := r.buf.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestBatches: several records a unit, several messages, one acknowledgement.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		enc := plainFormat{batch: 7}
		r.pub.o.Open = openWith(enc)
		for range 100 {
			r.append("a", 0)
			r.append("b", 0)
		}
		for range 300 {
			r.append("a", 0)
		}
		r.start()
		r.settle(10 * time.Second)
		if n := len(r.got()); n != 500 || r.pub.Stats().Acked >= 300 {
			t.Errorf("%d messages in %d units", n, r.pub.Stats().Acked)
		}
		r.checkOrder()
		r.checkLedger()
		r.stop()
	})
}

// TestNothingHealthyIsLost tries random misfortune, none of it the fault of a message: everything arrives, nothing is given up.
func TestNothingHealthyIsLost(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	runs := 6
	if long() {
		runs = 12
	}
	for i := range runs {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			r := newRig(t, func(o *Options) {
				o.Window = 20 + rng.IntN(180)
				if rng.IntN(2) == 0 {
					o.Order = OldestFirst
				}
			})
			r.rec.latency = time.Duration(1+rng.IntN(400)) * time.Millisecond
			r.start()
			devices := []string{"a", "b", "c", "d", "e", "f"}[:1+rng.IntN(6)]
			mute := i%2 == 0
			for range 40 {
				n, length := rng.IntN(20), time.Duration(rng.IntN(20))*time.Second
				r.rec.listen()
				r.rec.set(func(r *receiver) {
					r.closes, r.refuse = nil, nil
					switch n % 8 {
					case 0:
						r.closes = func(*got, int) bool { return true }
					case 1:
						r.closes = func(_ *got, nth int) bool { return nth > n }
					case 2:
						odds := rand.New(rand.NewPCG(seed, rng.Uint64())) // the receiver's own: it asks in another goroutine
						r.closes = func(*got, int) bool { return odds.IntN(8) == 0 }
					case 3:
						r.refuse = errors.New("no route")
					case 4:
						if !mute {
							break
						}
						r.silent = func(*got) bool { return true }
					case 5:
						r.closes = func(g *got, _ int) bool { return g.topic == "a/g" }
					case 6:
						r.silent = func(g *got) bool {
							if !mute || g.topic != "a/g" {
								return false
							}
							r.swallowed = time.Now() // each counts: see listen
							return true
						}
					}
				})
				r.feed(length, 50*time.Millisecond, devices...)
			}
			r.rec.listen()
			r.rec.set(func(r *receiver) { r.closes, r.refuse = nil, nil })
			r.settle(20 * time.Minute)
			if s := r.pub.Stats(); s.Rejected != 0 {
				t.Errorf("seed %d, %d: %d records were given up", seed, i, s.Rejected)
			}
			if r.pub.passed == 0 { // see session.idle
				r.checkOrder()
			}
			r.checkLedger()
			r.stop()
		})
	}
}

// TestCountsOfALinkAreLive: what the receiver sends for nothing is counted while the session lasts, and once.
func TestCountsOfALinkAreLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		for session := uint64(1); session <= 2; session++ {
			r.append("a", 0)
			r.settle(10 * time.Second)
			time.Sleep(time.Second)
			if s := r.pub.Stats(); s.Sessions != session || s.Stray != 2*session || s.Discarded != 3*session {
				t.Errorf("in session %d (%d): %d stray answers and %d messages discarded, want %d and %d", session, s.Sessions, s.Stray, s.Discarded, 2*session, 3*session)
			}
			if session == 1 {
				r.rec.cut()
			}
			time.Sleep(5 * time.Second)
		}
	})
}

// TestRepeatedCauseIsDamped: sessions that end again and again for one cause are told once a minute, with how often.
func TestRepeatedCauseIsDamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.RetryMax = time.Second })
		r.start()
		for range 60 {
			r.append("a", 0)
			r.settle(10 * time.Second)
			time.Sleep(3 * time.Second)
			r.rec.cut()
			time.Sleep(2 * time.Second)
		}
		if n := strings.Count(r.log.String(), "msg=\"no link\""); n < 3 || n > 8 || !strings.Contains(r.log.String(), "left_out=1") {
			t.Errorf("%d lines in five minutes of one cause:\n%s", n, r.log)
		}
	})
}

// TestTurningCausesAreDamped: causes that take turns, as of a broker that accepts and resets, are told once an outage, and in outages that follow each
// other once a minute, few of them, and none with our own port, which is another one each time.
func TestTurningCausesAreDamped(t *testing.T) {
	for name, c := range map[string]struct {
		cause func(n int) error // of the nth attempt
		up    bool              // every third attempt gives a session, which is cut
		most  int               // lines in ten minutes
	}{
		"two in turn": {func(n int) error {
			if n%2 == 0 {
				return fmt.Errorf("%w (EOF)", link.ErrPeerClosed)
			}
			return fmt.Errorf("%w (%w)", link.ErrPeerClosed, &net.OpError{Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv6loopback, Port: 40000 + n}, Addr: &net.TCPAddr{IP: net.IPv6loopback, Port: 1883}, Err: syscall.ECONNRESET})
		}, false, 5},
		"two in turn, with sessions between": {func(n int) error { return []error{errors.New("no route"), errors.New("refused")}[n%2] }, true, 32},
		"another one each time": {func(n int) error {
			return errors.New("no answer from " + strings.Repeat("x", n))
		}, false, 65},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, func(o *Options) { o.RetryMax = time.Second })
				r.rec.attempt = func(n int) error {
					if c.up && n%3 == 0 {
						time.AfterFunc(time.Second, r.rec.cut)
						return nil
					}
					return c.cause(n)
				}
				r.start()
				time.Sleep(10 * time.Minute)
				log := r.log.String()
				if n := strings.Count(log, "no link\""); n < 3 || n > c.most || strings.Contains(log, "->") {
					t.Errorf("%d lines, want %d at most:\n%.5000s", n, c.most, log)
				}
			})
		})
	}
}

// stuckDialer does not come back, whatever ends.
type stuckDialer chan struct{}

func (d stuckDialer) Dial(context.Context, *link.Message) (link.Link, error) {
	<-d
	return nil, errors.New("freed")
}

// TestBusyWhileDialling: the watchdog sees a dial that does not end.
func TestBusyWhileDialling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(stuckDialer)
		r := newRig(t, func(o *Options) { o.Dialer = free })
		r.start()
		time.Sleep(time.Minute)
		if busy := r.pub.Busy(); busy < time.Minute {
			t.Errorf("busy for %v after a minute of dialling", busy)
		}
		close(free)
		time.Sleep(time.Millisecond)
		if busy := r.pub.Busy(); busy != 0 {
			t.Errorf("busy for %v between two attempts", busy)
		}
	})
}

// TestRetried: a record out of the quarantine is marked historical, because newer ones of its stream have gone before it.
func TestRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		refuse := true
		r.rec.answerNo = func(*got) bool { return refuse }
		r.start()
		r.feed(100*time.Millisecond, 100*time.Millisecond, "a")
		r.settle(10 * time.Second)
		list, err := r.buf.Quarantine()
		if err != nil || len(list) == 0 {
			t.Fatal(list, err)
		}
		r.rec.set(func(*receiver) { refuse = false })
		r.feed(time.Second, 100*time.Millisecond, "a")
		r.settle(10 * time.Second)
		seq, err := r.buf.Retry(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		r.settle(10 * time.Second)
		last := r.got()[len(r.got())-1]
		if last.seq != seq || !last.historical || r.got()[1].historical {
			t.Errorf("the record tried again came as %+v, after %+v", last, r.got()[1])
		}
		r.stop()
	})
}
