package publisher

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestDownSince: a receiver that lets the gateway log in and closes on the first message is down since the link was lost, however often it is
// logged into; one that takes a message is up from the login on.
func TestDownSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.start()
		r.feed(10*time.Second, 100*time.Millisecond, "press")
		lost := time.Now()
		r.rec.set(func(r *receiver) { r.closes = func(*got, int) bool { return true } })
		r.feed(2*time.Minute, 100*time.Millisecond, "press")
		for end := time.Now().Add(time.Minute); r.pub.Stats().State == Connected && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		}
		if s := r.pub.Stats(); s.Sessions < 5 || s.State == Connected || s.Since.Sub(lost) > time.Second || s.Since.Before(lost) {
			t.Errorf("down since %v after the link was lost, %d sessions", s.Since.Sub(lost), s.Sessions)
		}
		back := time.Now()
		r.rec.set(func(r *receiver) { r.closes = nil })
		r.settle(10 * time.Minute)
		if s := r.pub.Stats(); s.State != Connected || s.Since.Before(back) {
			t.Errorf("%s since %v after the receiver takes messages", s.State, s.Since.Sub(back))
		}
		r.rec.cut()
		time.Sleep(time.Millisecond)
		if s := r.pub.Stats(); s.State == Connected || time.Since(s.Since) > time.Second {
			t.Errorf("%s since %v after a session that got messages through was lost", s.State, time.Since(s.Since))
		}
		r.stop()
	})
}

// TestUnanswered: a receiver that lets the gateway log in and acknowledges nothing is not connected, however many sessions it grants.
func TestUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.rec.mute = true
		r.start()
		began := time.Now()
		r.feed(2*time.Minute, 100*time.Millisecond, "press")
		connected := 0
		for range 1000 {
			if r.pub.Stats().State == Connected {
				connected++
			}
			r.feed(100*time.Millisecond, 100*time.Millisecond, "press")
		}
		if s := r.pub.Stats(); connected > 0 || s.Sessions < 5 || s.Since.Sub(began) > time.Second {
			t.Errorf("connected at %d of 1000 looks, %s since %v, %d sessions", connected, s.State, s.Since.Sub(began), s.Sessions)
		}
		r.rec.set(func(r *receiver) { r.mute = false })
		r.rec.cut()
		r.settle(time.Minute)
		if s := r.pub.Stats(); s.State != Connected || s.Acked == 0 {
			t.Errorf("%s after %d acknowledgements", s.State, s.Acked)
		}
		r.stop()
	})
}
