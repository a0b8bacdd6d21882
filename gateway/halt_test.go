package gateway

import (
	"testing"
	"time"
)

// TestHalt: a destination is stuck when the record that should go out is the same for half a minute, whatever comes beside it.
func TestHalt(t *testing.T) {
	for _, c := range []struct {
		name  string
		seq   func(second int) uint64
		well  func(second int) bool
		stuck func(second int) bool
	}{
		{"the same", func(int) uint64 { return 7 }, nil, func(s int) bool { return s >= 30 }},
		{"each second another", func(s int) uint64 { return uint64(s + 1) }, nil, func(int) bool { return false }},
		{"each 20 seconds another", func(s int) uint64 { return uint64(s/20 + 1) }, nil, func(int) bool { return false }},
		{"now and then with a reason", func(s int) uint64 { return uint64(s % 25) }, nil, func(int) bool { return false }},
		{"none", func(int) uint64 { return 0 }, nil, func(int) bool { return false }},
		{"it goes out", func(s int) uint64 { return uint64(1 + s/100) }, nil, func(s int) bool { return s%100 >= 30 }},
		{"the store fails first", func(int) uint64 { return 7 }, func(s int) bool { return s >= 100 }, func(s int) bool { return s >= 129 }},
	} {
		start := time.Now()
		var x halt
		for s := range 300 {
			since := x.see(start.Add(time.Duration(s)*time.Second), c.seq(s), c.well == nil || c.well(s))
			if since.IsZero() == c.stuck(s) {
				t.Errorf("%s, second %d: stuck since %v", c.name, s, since.Sub(start))
			}
		}
	}
}
