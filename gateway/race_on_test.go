//go:build race

package gateway

import (
	"runtime"
	"testing"
	"time"
)

// hoursLast and hoursSeeds are less under the race detector, which makes it ten times as slow; .ci/run plays it whole without it.
const (
	hoursLast  = 15 * time.Minute
	hoursSeeds = 1
)

// alone gives a long bubble one processor until the test ends. On several the race detector itself fails once in five times ("CHECK failed:
// tsan_rtl.cpp:346", or SIGSEGV): two threads fire timers of one bubble at once (golang/go#78156).
func alone(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}
