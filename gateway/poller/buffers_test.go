package poller

import (
	"testing"

	"millrace/drivers/telemetry"
)

// TestBuffers: what is lent has room and is empty, what is given back is lent again, and what is kept is bounded.
func TestBuffers(t *testing.T) {
	var b Buffers
	for _, n := range []int{0, 1, 2, 3, 1000, 1024, 1025, 100000} {
		s := b.lend(n)
		if len(s) != 0 || cap(s) < n {
			t.Errorf("%d readings: a slice of %d with room for %d", n, len(s), cap(s))
		}
		s = append(s, telemetry.Reading{Tag: 7})
		b.giveBack(s)
		if again := b.lend(n); cap(s) <= maxKept && &again[:1][0] != &s[0] {
			t.Errorf("%d readings: another slice", n)
		}
	}
	odd := make([]telemetry.Reading, 0, 1500) // as a driver may return one
	b.giveBack(odd)
	if s := b.lend(1600); cap(s) < 1600 {
		t.Errorf("room for %d of 1600", cap(s))
	}
	for range 100 {
		b.giveBack(make([]telemetry.Reading, 1000))
	}
	if b.kept > maxKept {
		t.Errorf("%d readings are kept", b.kept)
	}
}
