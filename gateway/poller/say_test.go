package poller

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestFlapsAreDamped: a device that comes and goes is told in full at first, then once a minute with how many lines were left out; the log
// ends with how it stands, and after a calm it is told in full again.
func TestFlapsAreDamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		lines := func() int { return strings.Count(f.log.String(), "\n") }
		run(t, f, 30*time.Minute, []time.Duration{time.Second}, func(*Poller) {
			flap := func(minutes int) {
				for range 15 * minutes {
					time.Sleep(2500 * time.Millisecond)
					f.change(func() { f.linkErr, f.refuse = errors.New("reset"), errors.New("refused") })
					time.Sleep(1500 * time.Millisecond)
					f.change(func() { f.linkErr, f.refuse = nil, nil })
				}
			}
			time.Sleep(time.Minute)
			flap(10)
			if n := lines(); n < firstLines+8 || n > firstLines+12 || !strings.Contains(f.log.String(), "left_out=") {
				t.Errorf("%d lines in ten minutes of flaps:\n%s", n, f.log.String())
			}
			f.change(func() { f.refuse, f.linkErr = errors.New("cable cut"), errors.New("cut") })
			time.Sleep(2 * time.Minute)
			if log := strings.TrimSpace(f.log.String()); !strings.Contains(log[strings.LastIndexByte(log, '\n')+1:], "cable cut") {
				t.Errorf("the log does not end with how it stands:\n%s", log)
			}
			time.Sleep(6 * time.Minute)
			before := lines()
			f.change(func() { f.refuse = nil })
			time.Sleep(time.Minute)
			flap(1)
			if n := lines() - before; n < firstLines || n > firstLines+1 {
				t.Errorf("%d lines after a calm:\n%s", n, f.log.String())
			}
		})
	})
}
