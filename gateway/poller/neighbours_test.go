package poller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// TestFortyNineBesideADeadOne has 50 devices with a connection each, which share what connections share: the 99th part of the healthy polls
// starts within 5 % of its interval, however the fiftieth is dead. The clock is the test's own, so what is measured is who waits for
// whom, not the machine. gateway/faults measures the rest (F20).
func TestFortyNineBesideADeadOne(t *testing.T) {
	const interval = 200 * time.Millisecond
	for name, dead := range map[string]*fake{
		"nobody answers a dial": {connectIn: 5 * time.Second, refuse: os.ErrDeadlineExceeded},
		"refuses":               {refuse: errors.New("connection refused")},
		"answers no request":    {deadUnit: map[int]bool{0: true}, slow: map[int]time.Duration{0: 2 * time.Second}},
		"hangs up":              {hangUp: io.EOF},
	} {
		synctest.Test(t, func(t *testing.T) {
			slots := make(chan struct{}, 4) // as few file descriptors make attempts to connect share them
			enter := func() (func(), error) {
				slots <- struct{}{}
				return func() { <-slots }, nil
			}
			shared := new(Buffers)
			var late late
			var wg sync.WaitGroup
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			for i := range 50 {
				f := &fake{slow: map[int]time.Duration{0: time.Duration(i) * time.Millisecond}}
				if i == 49 {
					f = dead
				}
				f.conn = &drivers.Connection{Devices: []drivers.Device{{Name: fmt.Sprint("d", i),
					Groups: []drivers.Group{{Name: "g", Interval: interval, Tags: make([]telemetry.Tag, 3)}}}}}
				if i < 49 {
					f.before = late.of(interval)
				}
				p := New(f.conn, f, Options{RetryMin: usualRetryMin, RetryMax: usualRetryMax, Sinks: [][]Sink{{func(time.Time, []telemetry.Reading) error { return nil }}}, Buffers: shared, Enter: enter, Log: slog.New(slog.DiscardHandler)})
				wg.Go(func() {
					if err := p.Run(ctx); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			slices.Sort(late.all)
			if n := len(late.all); n < 49*590 {
				t.Errorf("%s: %d polls of the others in two minutes", name, n)
			} else if p99 := late.all[n*99/100]; p99 > interval/20 {
				t.Errorf("%s: 99 of 100 polls of the others start within %v, want 5 %% of %v", name, p99, interval)
			}
		})
	}
}

// late gathers by how much the starts of polls are off.
type late struct {
	mu  sync.Mutex
	all []time.Duration
}

// of returns what to call before each Read of a device.
func (l *late) of(interval time.Duration) func() {
	var last time.Time
	return func() {
		now := time.Now()
		if !last.IsZero() {
			l.mu.Lock()
			l.all = append(l.all, (now.Sub(last) - interval).Abs())
			l.mu.Unlock()
		}
		last = now
	}
}
