package modbus

import (
	"testing"
	"time"
)

// TestPaceAgainstJitter holds that a lossy line teaches no pause by the jitter of clocks, nor a longer one than was enough once.
func TestPaceAgainstJitter(t *testing.T) {
	for _, c := range []struct{ between, easy, candidate, want time.Duration }{
		{0, 0, 100 * time.Microsecond, firstPause},
		{0, 80 * time.Millisecond, 100 * time.Microsecond, firstPause},
		{0, 1200, 1100, 0}, // ns: no device is so exact
		{240 * time.Millisecond, 240009 * time.Microsecond, 240005 * time.Microsecond, 240 * time.Millisecond},
		{50 * time.Millisecond, 80 * time.Millisecond, 50 * time.Millisecond, 80 * time.Millisecond},
	} {
		p := pace{between: c.between, easy: c.easy, candidate: c.candidate}
		p.recovered(&link{}, time.Now(), true)
		if p.between != c.want {
			t.Errorf("%+v: learned %v", c, p.between)
		}
	}
}
