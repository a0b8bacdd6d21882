package buffer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestHealthyWritesLittle compares what a link that acknowledges within a fifth of a second makes the store write with
// what its outage would, at 10,000 readings a second: it must be less than 2 %.
func TestHealthyWritesLittle(t *testing.T) {
	const length = 5 * time.Minute
	payloads := pool(1000)
	written := map[bool]uint64{}
	for _, healthy := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := testOptions()
			o.CommitInterval = time.Second
			b := mustOpen(t, t.TempDir()+"/store", o)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- b.Run(ctx) }()
			d, s := b.Destination("cloud"), mustStream(t, b, "press")
			before := b.Stats().BytesWritten
			r, window := d.Reader(0, 0), []uint64(nil)
			for i := range int(length / (100 * time.Millisecond)) {
				if _, err := b.Append(s, payloads[i%len(payloads)], 1000, int64(i)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
				if !healthy {
					continue
				}
				var rec Record
				if ok, err := take(r, &rec); !ok || err != nil {
					t.Fatal(ok, err)
				}
				if window = append(window, rec.Seq); len(window) > 1 {
					d.Ack(window[0])
					window = window[1:]
				}
			}
			written[healthy] = b.Stats().BytesWritten - before
			cancel()
			<-done
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
	ratio := float64(written[true]) / float64(written[false])
	t.Logf("in %v: %d bytes written with a healthy link, %d in an outage: %.2f %%", length, written[true], written[false], 100*ratio)
	if ratio >= 0.02 || written[false] == 0 {
		t.Errorf("%.2f %% is too much", 100*ratio)
	}
}
