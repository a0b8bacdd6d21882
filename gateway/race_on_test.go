//go:build race

package gateway

import "time"

// hoursLast is shorter under the race detector, which makes it ten times as slow, and fails by itself where goroutines meet
// without end ("ThreadSanitizer: CHECK failed: tsan_rtl.cpp:346"); .ci/run plays it whole without it.
const hoursLast = 15 * time.Minute
