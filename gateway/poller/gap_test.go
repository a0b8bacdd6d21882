package poller

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
)

// noteGaps returns what takes the gaps told since it was called last.
func noteGaps(f *fake) func() []Gap {
	var list []Gap
	f.gaps = func(g *Gap) {
		f.change(func() {
			kept := *g
			kept.Tags = slices.Clone(g.Tags)
			list = append(list, kept)
		})
	}
	return func() (all []Gap) {
		synctest.Wait()
		f.change(func() { all, list = list, nil })
		return all
	}
}

func wantGaps(t *testing.T, what string, got []Gap, want ...Gap) {
	t.Helper()
	for i := range want { // times are compared without the monotonic part
		want[i].From, want[i].To = want[i].From.Round(0), want[i].To.Round(0)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s:\ngot  %+v\nwant %+v", what, got, want)
	}
}

// TestOutageIsTold: what a device pushes has a gap from the last sign of life, with a margin, until it is subscribed again. It
// is told at both ends, once each, however often a connect is tried in between. What is polled has none.
func TestOutageIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}, firsts: true}
		gaps := noteGaps(f.fake)
		var open Gap
		run(t, f, 100*time.Second, []time.Duration{2 * time.Second, time.Second}, func(p *Poller) {
			time.Sleep(10 * time.Second)
			f.send(0, 0, 0)
			last := time.Now()
			time.Sleep(5 * time.Second)
			wantGaps(t, "while all is well", gaps())
			f.change(func() { f.fake.refuse = errors.New("refused") })
			f.current() <- drivers.Push{Err: errors.New("nothing was heard")}
			synctest.Wait()
			open = Gap{Device: 0, Group: -1, From: last.Add(-3 * time.Second), To: time.Now(), Outage: true, Reason: "nothing was heard"}
			wantGaps(t, "at the beginning", gaps(), open)
			time.Sleep(12 * time.Second)
			wantGaps(t, "while it is down", gaps())
			f.change(func() { f.fake.refuse = nil })
			for synctest.Wait(); !p.Stats().Up; synctest.Wait() {
				time.Sleep(time.Millisecond)
			}
			got := gaps()
			if len(got) != 1 || time.Since(got[0].To) > time.Millisecond {
				t.Fatalf("at the end: %+v", got)
			}
			open.To = got[0].To
			wantGaps(t, "at the end", got, open)
			f.current() <- drivers.Push{Err: errors.New("again"), Since: time.Now().Add(-time.Minute)}
			synctest.Wait()
			open = Gap{Device: 0, Group: -1, From: time.Now().Add(-time.Minute), To: time.Now(), Outage: true, Reason: "again"}
			wantGaps(t, "where the driver knows better since when", gaps(), open)
		})
	})
}

// TestOutageEndsWithTheFirstValues: a server samples the first values of a subscription when it likes, and what changes before is not pushed. So an outage ends when there
// is one of each tag, or after ten seconds; a link that is lost before then does not end it.
func TestOutageEndsWithTheFirstValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		gaps := noteGaps(f.fake)
		run(t, f, 200*time.Second, []time.Duration{time.Second}, func(p *Poller) {
			var from time.Time
			lose := func(reason string) {
				f.current() <- drivers.Push{Err: errors.New(reason)}
				for synctest.Wait(); p.Stats().Up; synctest.Wait() {
					time.Sleep(time.Millisecond)
				}
				gaps()
				for synctest.Wait(); !p.Stats().Up; synctest.Wait() {
					time.Sleep(time.Millisecond)
				}
			}
			want := func(what, reason string) {
				t.Helper()
				got := gaps()
				if len(got) != 1 || time.Since(got[0].To) > time.Millisecond {
					t.Fatalf("%s: %+v", what, got)
				}
				wantGaps(t, what, got, Gap{Group: -1, From: from, To: got[0].To, Outage: true, Reason: reason})
			}
			sendAll := func(tags ...int) {
				for _, tag := range tags {
					f.send(0, tag, 0)
				}
				synctest.Wait()
			}
			time.Sleep(20 * time.Second)
			sendAll(0, 1, 2)
			from = time.Now().Add(-2 * time.Second)
			lose("reset")
			wantGaps(t, "before a first value", gaps())
			time.Sleep(3 * time.Second)
			sendAll(0, 1)
			wantGaps(t, "before the last first value", gaps())
			time.Sleep(time.Second)
			sendAll(2)
			want("with it", "reset")

			from = time.Now().Add(-2 * time.Second)
			lose("again")
			up := time.Now()
			sendAll(0, 1)
			time.Sleep(settling - time.Since(up))
			synctest.Wait()
			want("when one has not come for ten seconds", "again")

			from = time.Now().Add(-2 * time.Second) // the subscription, and two values, are older
			sendAll(0)
			lose("first")
			lose("second") // while the outage lasts
			wantGaps(t, "connected for the second time", gaps())
			sendAll(0, 1, 2)
			want("after two losses of the link", "first")
		})
	})
}

// TestOutageEndsWithAPoll: of a device that was pushed and is polled when the link is back, the outage is over with the first poll that succeeds, and that comes at once.
func TestOutageEndsWithAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took = 300 * time.Millisecond
		f := &pushing{fake: &fake{slow: map[int]time.Duration{0: took}}}
		gaps := noteGaps(f.fake)
		run(t, f, 100*time.Second, []time.Duration{20 * time.Second}, func(p *Poller) {
			time.Sleep(10 * time.Second)
			f.send(0, 0, 0)
			last := time.Now()
			synctest.Wait()
			f.change(func() { f.polled = true })
			f.current() <- drivers.Push{Err: errors.New("polled from now on")}
			synctest.Wait()
			open := Gap{Group: -1, From: last.Add(-6 * time.Second), To: time.Now(), Outage: true, Reason: "polled from now on"}
			wantGaps(t, "at the beginning", gaps(), open)
			for synctest.Wait(); !p.Stats().Up; synctest.Wait() {
				time.Sleep(time.Millisecond)
			}
			wantGaps(t, "before the first poll", gaps())
			open.To = time.Now().Add(took)
			time.Sleep(time.Second)
			got := gaps()
			if len(got) != 1 || open.To.Sub(got[0].To).Abs() > time.Millisecond {
				t.Fatalf("after the first poll: %+v, want one until %v", got, open.To)
			}
			open.To = got[0].To
			wantGaps(t, "after the first poll", got, open)
			time.Sleep(60 * time.Second)
		})
		wantGaps(t, "later", gaps())
	})
}

// TestOutageBehindLatePushes: pushes that all come at once, after a path stood still, leave an outage that begins when the last of them was sent.
func TestOutageBehindLatePushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		gaps := noteGaps(f.fake)
		run(t, f, 100*time.Second, []time.Duration{time.Second}, func(*Poller) {
			time.Sleep(50 * time.Second)
			now := time.Now()
			for _, ago := range []time.Duration{40, 39, 38} {
				f.current() <- drivers.Push{At: now.Add(-ago * time.Second)}
			}
			f.current() <- drivers.Push{Lost: 3, At: now.Add(-38 * time.Second)} // the first of two of one message
			f.current() <- drivers.Push{Lost: 1, At: now.Add(-37 * time.Second)}
			f.current() <- drivers.Push{Err: errors.New("reset")}
			from := now.Add(-40 * time.Second)
			wantGaps(t, "late pushes", gaps(), Gap{From: from, To: now, Lost: 3, Reason: "a queue of the device overflowed"},
				Gap{From: from, To: now, Lost: 1, Reason: "a queue of the device overflowed"},
				Gap{Group: -1, From: from.Add(time.Second), To: now, Outage: true, Reason: "reset"})
		})
	})
}

// TestOutageEndsWithTheStop: one that is not over at the stop is told until then.
func TestOutageEndsWithTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		gaps := noteGaps(f.fake)
		begin := time.Now()
		run(t, f, 60*time.Second, []time.Duration{time.Second}, func(*Poller) {
			time.Sleep(10 * time.Second)
			f.change(func() { f.fake.refuse = errors.New("refused") })
			close(f.current())
		})
		open := Gap{Device: 0, Group: -1, From: begin.Add(-2 * time.Second), To: begin.Add(10 * time.Second), Outage: true, Reason: errPushesEnded.Error()}
		over := open
		over.To = begin.Add(60 * time.Second)
		wantGaps(t, "at both ends", gaps(), open, over)
	})
}

// TestLostIsTold: what the driver says is missing is told from the push before on, whose time may be earlier than when it was
// taken.
func TestLostIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		gaps := noteGaps(f.fake)
		run(t, f, 60*time.Second, []time.Duration{10 * time.Second}, func(*Poller) {
			time.Sleep(30 * time.Second)
			now := time.Now()
			at := now.Add(-3 * time.Second)
			f.current() <- drivers.Push{At: at}
			f.current() <- drivers.Push{At: at.Add(-time.Second)} // one that was asked for again
			f.current() <- drivers.Push{Lost: 2, Tags: []uint32{1, 1}, At: at.Add(2 * time.Second)}
			f.current() <- drivers.Push{Lost: 1, Note: "messages are lost"}
			wantGaps(t, "lost", gaps(),
				Gap{From: at.Add(-6 * time.Second), To: now, Tags: []uint32{1, 1}, Lost: 2, Reason: "a queue of the device overflowed"},
				Gap{From: at.Add(-4 * time.Second), To: now, Lost: 1, Reason: "messages are lost"})
		})
	})
}

// TestOutageBeforeTheStart: what nobody heard before the first subscription is told when Run begins, and once more, to its end, when the device is
// subscribed; of a device that is new, or polled, it is not.
func TestOutageBeforeTheStart(t *testing.T) {
	const reason = "the gateway did not run"
	for name, c := range map[string]struct {
		ago     time.Duration
		reason  string
		polled  bool
		told    int // devices whose gap is told when Run begins
		resumed int // when it has connected
	}{
		"known":                           {time.Hour, reason, false, 2, 1}, // of two devices that are to be pushed, the other is polled in the end
		"for a year":                      {365 * 24 * time.Hour, reason, false, 2, 1},
		"new":                             {time.Minute, "", false, 0, 0},
		"polled in the end":               {time.Hour, reason, true, 2, 0},
		"by a clock that is not set yet":  {-time.Hour, reason, false, 2, 1},
		"nobody knows since when":         {946684800 * time.Second, reason, false, 2, 1}, // a bubble begins in 2000
		"nobody knows of anything missed": {0, "", false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &pushing{fake: &fake{refuse: errors.New("refused")}, polled: c.polled, firsts: true}
				gaps := noteGaps(f.fake)
				begin := time.Now()
				from := begin.Add(-c.ago)
				f.since = func(int) (time.Time, string) {
					if c.ago == 0 {
						return time.Time{}, ""
					}
					return from, c.reason
				}
				want := func(device int, to time.Time) Gap {
					from := from
					if to.Before(from) {
						from = NotKnown()
					}
					return Gap{Device: device, Group: -1, From: from, To: to, Outage: true, Reason: c.reason}
				}
				run(t, f, 100*time.Second, []time.Duration{time.Second, time.Second}, func(p *Poller) {
					var all []Gap
					for i := range c.told {
						all = append(all, want(i, begin))
					}
					wantGaps(t, "when it begins", gaps(), all...)
					time.Sleep(10 * time.Second)
					f.change(func() { f.fake.refuse = nil })
					for synctest.Wait(); !p.Stats().Up; synctest.Wait() {
						time.Sleep(time.Millisecond)
					}
					got := gaps()
					all = nil
					for i := range min(c.resumed, len(got)) {
						if to := got[i].To; time.Since(to) > time.Millisecond {
							t.Errorf("it ends %v ago", time.Since(to))
						}
						all = append(all, want(i, got[i].To))
					}
					if wantGaps(t, "when it is connected", got, all...); len(got) != c.resumed {
						t.Errorf("%d gaps, want %d", len(got), c.resumed)
					}
				})
				wantGaps(t, "later", gaps())
			})
		})
	}
}

// TestOutageBeforeTheStartGoesOn: a device that cannot be reached in a whole run leaves it to the next.
func TestOutageBeforeTheStartGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{refuse: errors.New("refused")}}
		gaps := noteGaps(f.fake)
		begin := time.Now()
		f.since = func(int) (time.Time, string) { return begin.Add(-time.Hour), "why" }
		var ran *Poller
		run(t, f, 60*time.Second, []time.Duration{time.Second}, func(p *Poller) {
			ran = p
			time.Sleep(time.Second)
			gaps()
		})
		if from := ran.Missing(0); !from.Equal(begin.Add(-time.Hour)) {
			t.Errorf("missing from %v on", from)
		}
		wantGaps(t, "at the stop", gaps(), Gap{Group: -1, From: begin.Add(-time.Hour), To: begin.Add(60 * time.Second), Outage: true, Reason: "why"})
	})
}

// TestOutageOfAFirstConnection: that of a new device nothing is missing does not silence a link that is lost before its first values have all come.
func TestOutageOfAFirstConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{connectIn: 5 * time.Second}}
		f.since = func(int) (time.Time, string) { return time.Now(), "" }
		gaps := noteGaps(f.fake)
		run(t, f, 60*time.Second, []time.Duration{time.Second}, func(p *Poller) {
			begin := time.Now()
			time.Sleep(7 * time.Second)
			f.send(0, 0, 0)
			synctest.Wait()
			wantGaps(t, "before", gaps())
			f.current() <- drivers.Push{Err: errors.New("reset")}
			synctest.Wait()
			wantGaps(t, "lost", gaps(), Gap{Group: -1, From: begin, To: time.Now(), Outage: true, Reason: "reset"})
			f.change(func() { f.polled = true })
			time.Sleep(30 * time.Second)
			if got := gaps(); len(got) != 1 || got[0].Reason != "reset" || !got[0].From.Equal(begin.Round(0)) {
				t.Errorf("polled again: %+v", got)
			}
		})
	})
}

// TestOutageEndsWithEachTag: one that is pushed often does not stand for the others.
func TestOutageEndsWithEachTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &pushing{fake: &fake{}}
		gaps := noteGaps(f.fake)
		run(t, f, 60*time.Second, []time.Duration{time.Second}, func(p *Poller) {
			time.Sleep(20 * time.Second)
			f.current() <- drivers.Push{Err: errors.New("reset")}
			for synctest.Wait(); p.Stats().Up; synctest.Wait() {
				time.Sleep(time.Millisecond)
			}
			for synctest.Wait(); !p.Stats().Up; synctest.Wait() {
				time.Sleep(time.Millisecond)
			}
			gaps()
			for range 3 {
				f.send(0, 1, 0)
			}
			wantGaps(t, "three values of one tag", gaps())
			f.send(0, 0, 0)
			f.send(0, 2, 0)
			if got := gaps(); len(got) != 1 {
				t.Errorf("all tags: %+v", got)
			}
		})
	})
}

// TestOutageEndsInTime: also while something is polled all the time, and what follows outages is told at once when nothing else happens.
func TestOutageEndsInTime(t *testing.T) {
	for name, intervals := range map[string][]time.Duration{"quiet": {time.Hour}, "busy": {time.Hour, time.Second, time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &pushing{fake: &fake{slow: map[int]time.Duration{1: 2 * time.Second, 2: 2 * time.Second}}}
				gaps := noteGaps(f.fake)
				run(t, f, 120*time.Second, intervals, func(p *Poller) {
					time.Sleep(20 * time.Second)
					f.current() <- drivers.Push{Err: errors.New("reset")}
					time.Sleep(5 * time.Second)
					if gaps(); p.Unfilled(0).IsZero() {
						t.Error("no outage")
					}
					time.Sleep(settling + 5*time.Second)
					if got := gaps(); len(got) != 1 || !p.Unfilled(0).IsZero() {
						t.Errorf("told %+v, missing since %v", got, p.Unfilled(0))
					}
				})
			})
		})
	}
}
