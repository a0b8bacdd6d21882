package gateway

import (
	"testing"
	"time"

	"millrace/gateway/publisher"
)

// TestStuckSince: a record that is overdue is said after half a minute, and from when it is.
func TestStuckSince(t *testing.T) {
	since := time.Now()
	for after, stuck := range map[time.Duration]bool{0: false, stuckFor - time.Millisecond: false, stuckFor: true, time.Hour: true} {
		if got := stuckSince(&publisher.Stats{Overdue: 7, OverdueSince: since}, since.Add(after)); got.IsZero() == stuck || stuck && !got.Equal(since) {
			t.Errorf("after %v: stuck since %v", after, got)
		}
	}
	if got := stuckSince(&publisher.Stats{OverdueSince: since}, since.Add(time.Hour)); !got.IsZero() {
		t.Errorf("nothing is overdue, and it is stuck since %v", got)
	}
}
