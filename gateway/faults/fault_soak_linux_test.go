package faults

import (
	"fmt"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// faultSoak, F26: an hour (half a minute in the short form) of ordinary trouble, again and again the same: the uplink goes, a device
// is silent, the config is reloaded, pages are read and left open. What the process holds must not grow, and each hour of the
// log must be as long as the one before.
func faultSoak(t *testing.T) {
	b := newBed(t, 10, Setup{Words: 8})
	b.excused[b.devices[3].Name] = true // the one that is silent now and then
	duration, cycle := pick(30*time.Second, time.Hour), pick(5*time.Second, time.Minute)
	b.start()
	b.await(100, 20*time.Second)
	done := make(chan struct{})
	t.Cleanup(func() { <-done })
	begin := time.Now()
	go func() {
		defer close(done)
		for time.Since(begin) < duration {
			b.trouble(cycle)
		}
	}()
	var samples []soakSample
	for time.Since(begin) < duration {
		time.Sleep(cycle / 5)
		if s, err := b.gateway.Snapshot(); err == nil {
			samples = append(samples, soakSample{at: time.Since(begin), rss: float64(s.Process.RSSBytes) / (1 << 20), files: float64(s.Process.OpenFiles),
				goroutines: float64(s.Process.Goroutines), lines: float64(b.gateway.log.Lines())})
		}
	}
	<-done
	settled := samples[len(samples)/4:] // caches and pools fill first
	hours := (settled[len(settled)-1].at - settled[0].at).Hours()
	rss, files, goroutines := slope(settled, func(s soakSample) float64 { return s.rss }), slope(settled, func(s soakSample) float64 { return s.files }),
		slope(settled, func(s soakSample) float64 { return s.goroutines })
	middle, last := settled[len(settled)/2], settled[len(settled)-1]
	early, late := middle.lines-settled[0].lines, last.lines-middle.lines
	t.Logf("FIGURES %s: %s, %d samples; an hour adds %.2f MiB RSS, %.2f descriptors, %.2f goroutines (last: %.1f MiB, %.0f, %.0f); log lines %.0f, then %.0f in the same time",
		t.Name(), duration, len(samples), rss, files, goroutines, last.rss, last.files, last.goroutines, early, late)
	if grown := rss * hours; grown > pick(16.0, 2.0) {
		t.Errorf("RSS grew by %.1f MiB in %.2f hours", grown, hours)
	}
	if files*hours > 3 || goroutines*hours > 3 {
		t.Errorf("%.1f descriptors and %.1f goroutines more in %.2f hours", files*hours, goroutines*hours, hours)
	}
	if late > early*1.25+30 {
		t.Errorf("the log has %.0f lines in the second half, %.0f in the first", late, early)
	}
	b.judge()
}

// trouble is one round of it; it takes as long as cycle. It runs beside the test's own goroutine and fails nothing itself.
func (b *bed) trouble(cycle time.Duration) {
	client := http.Client{Timeout: cycle / 2, Transport: &http.Transport{DisableKeepAlives: true}}
	part := cycle / 6
	b.net.Refuse()
	b.net.Cut()
	time.Sleep(part)
	_ = b.net.Accept()
	time.Sleep(part)
	b.devices[3].Freeze(true)
	time.Sleep(part)
	b.devices[3].Freeze(false)
	b.gateway.Signal(syscall.SIGHUP)
	time.Sleep(part)
	for _, page := range []string{"/", "/metrics", "/readyz", "/api/v1/snapshot", "/api/v1/values?watch=1"} { // the last one stays open until the client's time-out
		if resp, err := client.Get(fmt.Sprintf("http://%s%s", b.gateway.Web, page)); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	time.Sleep(part)
}

// soakSample is what the process held at one time.
type soakSample struct {
	at                            time.Duration
	rss, files, goroutines, lines float64
}

// slope returns by how much of f an hour adds to the samples: the line of least squares.
func slope(samples []soakSample, f func(soakSample) float64) float64 {
	var x, y, xx, xy float64
	for _, s := range samples {
		h := s.at.Hours()
		x, y, xx, xy = x+h, y+f(s), xx+h*h, xy+h*f(s)
	}
	n := float64(len(samples))
	return (n*xy - x*y) / (n*xx - x*x)
}
