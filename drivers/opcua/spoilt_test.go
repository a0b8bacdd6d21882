package opcua

import (
	"strings"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// TestSpoiltNotifications, F23 on the encrypted channel behind the login: what a server with the right key pushes costs little memory and
// its own subscription at most; afterwards values come again, pushed or polled.
func TestSpoiltNotifications(t *testing.T) {
	for _, n := range opcuasim.Notifications() {
		t.Run(n.Name, func(t *testing.T) {
			p, j := watched(t, &outage{secured: true}, true)
			eventually(t, "values", time.Minute, func() bool { return j.values() > 3 })
			before := allocated()
			begin := time.Now()
			p.Spoil(&n)
			eventually(t, "a spoilt notification", time.Minute, func() bool { return p.Spoilt() > 0 })
			for gap := false; !gap && p.Spoilt() <= 20; { // it costs a reading, or nothing
				before := p.Spoilt() // 30,000 values take a slow machine a while
				eventually(t, "its outcome, or another one", time.Minute, func() bool {
					_, gap = j.since(begin, isGap)
					return gap || p.Spoilt() > before
				})
			}
			// The simulated server's own memory, and the test's, are included.
			if cost, most := allocated()-before, 64<<20+p.Spoilt()*mayAllocate(len(n.Body)); cost > most {
				t.Errorf("%d of them cost %d KB", p.Spoilt(), cost>>10)
			}
			l, _ := j.since(begin, isGap)
			if strings.Contains(l.gap, "BUG") {
				t.Error(l.gap)
			}
			t.Logf("%q", l.gap)
			p.Spoil(nil)
			healed := time.Now()
			eventually(t, "values again", time.Minute, func() bool { _, ok := j.since(healed, isValue); return ok })
		})
	}
}
