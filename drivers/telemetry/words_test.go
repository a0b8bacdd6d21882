package telemetry

import (
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	for n, want := range map[int]string{0: "0 tags", 1: "1 tag", 2: "2 tags"} {
		if got := Count(n, "tag"); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", time.Minute: "1m", 90 * time.Second: "1m30s", 10 * time.Minute: "10m", time.Hour: "1h", 61 * time.Minute: "1h1m", 10*time.Hour + 30*time.Second: "10h0m30s"} {
		if got := Short(d); got != want {
			t.Errorf("%v: %q", d, got)
		}
	}
}
