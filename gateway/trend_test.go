package gateway

import (
	"testing"
	"time"
)

// TestTrend: a destination is behind while what waits grows, not while a backlog goes out or messages in flight go up and down.
func TestTrend(t *testing.T) {
	for _, c := range []struct {
		name    string
		waiting func(second int) int
		behind  func(second int) bool // as far as it is certain
		certain func(second int) bool
	}{
		{"more than it takes", func(s int) int { return 4 * s }, func(s int) bool { return s > 90 }, func(s int) bool { return s < 60 || s > 90 }},
		{"one more a minute", func(s int) int { return 100 + s/60 }, func(int) bool { return false }, func(int) bool { return true }},
		{"a backlog goes out", func(s int) int { return 100_000 - 100*s }, func(int) bool { return false }, func(int) bool { return true }},
		{"in flight, up and down", func(s int) int { return 20 + s*s*7919%50 }, func(int) bool { return false }, func(int) bool { return true }},
		{"it catches up again", func(s int) int { return max(4*s-20*max(s-200, 0), 0) }, func(s int) bool { return s > 90 && s < 230 },
			func(s int) bool { return s < 60 || s > 90 && s < 200 || s > 320 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			var x trend
			for s := range 600 {
				since := x.see(start.Add(time.Duration(s)*time.Second), true, uint64(c.waiting(s)))
				if c.certain(s) && since.IsZero() == c.behind(s) {
					t.Fatalf("second %d, %d wait: behind since %v", s, c.waiting(s), since.Sub(start))
				}
				if !since.IsZero() && since.Sub(start) > 30*time.Second {
					t.Fatalf("second %d: behind since %v, want from the first minute", s, since.Sub(start))
				}
			}
			if since := x.see(start.Add(time.Hour), false, 1<<20); !since.IsZero() {
				t.Error("behind while it takes nothing")
			}
		})
	}
}
