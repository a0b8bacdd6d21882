package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// saturate halves the interval until the gateway no longer keeps it, and returns the last run that did.
func saturate(ctx context.Context, o options) (best *result, err error) {
	o.Scenario = "steady"
	for ; o.Interval >= time.Millisecond; o.Interval = o.Interval * 2 / 3 {
		r, err := runScenario(ctx, o)
		if err != nil {
			return best, err
		}
		offered := float64(o.Devices*o.Tags) / o.Interval.Seconds()
		fmt.Fprintf(os.Stderr, "interval %v: offered %.0f/s, delivered %.0f/s, p99 %.1f ms, lost %d\n", o.Interval, offered, r.Rate, r.P99, r.Lost)
		if r.Rate < 0.97*offered || r.Lost > 0 {
			break
		}
		best = r
	}
	if best == nil {
		return nil, fmt.Errorf("the gateway does not keep even the first interval, %v", o.Interval)
	}
	best.Settings.Scenario = "saturate"
	return best, nil
}
