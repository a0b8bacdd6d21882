package opcua

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// hostile starts a server with a trick, and makes a driver for three of its nodes.
func hostile(t testing.TB, trick opcuasim.Trick, timeout time.Duration) (*opcuasim.Hostile, *driver) {
	t.Helper()
	h, err := opcuasim.NewHostile(trick)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	d, err := newDriver(connection(h.Endpoint(), timeout, variables(3)...))
	if err != nil {
		t.Fatal(err)
	}
	d.(*driver).failures = maxFailures // no census: what follows is told by the number of reads
	t.Cleanup(func() { d.Close() })
	return h, d.(*driver)
}

// outcome connects and polls once, and says in words what came of it.
func outcome(d *driver) string {
	if err := d.Connect(context.Background()); err != nil {
		return "connect: " + strings.ReplaceAll(err.Error(), d.set.host, "HOST")
	}
	readings, err := d.Read(context.Background(), drivers.Ref{}, nil)
	if err != nil {
		return "read: " + err.Error()
	}
	var bad []string
	for i, r := range readings {
		if r.Quality != telemetry.Good {
			bad = append(bad, fmt.Sprintf("tag %d: %s", i, r.Reason))
		}
	}
	switch {
	case len(bad) == 0:
		return "good"
	case len(bad) == len(readings) && strings.TrimPrefix(bad[0], "tag 0: ") == readings[2].Reason:
		return "all tags: " + readings[0].Reason
	}
	return strings.Join(bad, "; ")
}

// outcomes returns what testcases/hostile/outcomes.txt says of each trick.
func outcomes(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("testcases/hostile/outcomes.txt")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, outcome, ok := strings.Cut(strings.TrimSpace(line), " => "); ok && !strings.HasPrefix(line, "#") {
			all[name] = outcome
		}
	}
	return all
}

// TestHostile holds for each trick the exact words of its outcome, what it may cost, and that the driver is none the
// worse for it: it leaves no goroutine, and reads well once the server behaves.
func TestHostile(t *testing.T) {
	want := outcomes(t)
	for _, trick := range opcuasim.Tricks() {
		if trick.Slow {
			continue
		}
		t.Run(trick.Name, func(t *testing.T) {
			goroutines := runtime.NumGoroutine()
			h, d := hostile(t, trick, 10*time.Second)
			before := allocated()
			got := outcome(d)
			cost := allocated() - before
			if got != want[trick.Name] {
				t.Errorf("\ngot  %s => %s\nwant %s", trick.Name, got, want[trick.Name])
			}
			if cost > 32<<20 { // the simulated server's own memory included
				t.Errorf("it cost %d KB", cost>>10)
			}
			h.Behave()
			if got := outcome(d); got != "good" {
				t.Errorf("once the server behaves: %s", got)
			}
			d.Close()
			h.Close()
			for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
				}
			}
		})
	}
}

// TestSilence has servers that leave us waiting, at each step, in each way. All that ends it is our own timeout.
func TestSilence(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	for _, trick := range opcuasim.Tricks() {
		if !trick.Slow {
			continue
		}
		h, d := hostile(t, trick, brief)
		all.Go(func() {
			begin := time.Now()
			got := outcome(d)
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("%s: it held us for %v", trick.Name, took)
			}
			want := "no answer within 2s"
			if trick.Step == opcuasim.StepCreate || trick.Step == opcuasim.StepActivate {
				want = "no answer within 10s; raise the device's timeout if the server needs longer to log in"
			}
			if !strings.HasSuffix(got, want) {
				t.Errorf("%s: got %q, want a timeout", trick.Name, got)
			}
			d.set.timeout = patience
			h.Behave()
			if got := outcome(d); got != "good" {
				t.Errorf("%s: once the server behaves: %s", trick.Name, got)
			}
		})
	}
	all.Wait()
}

// TestSilenceWithoutWatchdog is the control of TestSilence: with the timeout as good as off, nothing ends the
// wait for a silent server but the caller's context.
func TestSilenceWithoutWatchdog(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var ended atomic.Int32
	for _, step := range opcuasim.Steps() {
		_, d := hostile(t, opcuasim.Trick{Name: "silence", Step: step, Play: silent}, time.Hour)
		all.Go(func() {
			err := d.Connect(ctx)
			if err == nil {
				_, err = d.Read(ctx, drivers.Ref{}, nil)
			}
			if ended.Add(1); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v, want the context's error", step, err)
			}
		})
	}
	time.Sleep(3 * brief / 2) // TestSilence has the timeout brief
	if n := ended.Load(); n != 0 {
		t.Errorf("%d of the waits ended by themselves", n)
	}
	cancel()
	all.Wait() // not even the context ends it, if this hangs
}

// TestOthersPollOn polls a healthy server while others play their tricks.
func TestOthersPollOn(t *testing.T) {
	s := start(t, opcuasim.Options{}, 100)
	healthy := connect(t, connection(s.Endpoint(), 10*time.Second, variables(100)...))
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		polls := 0
		defer func() { done <- polls }()
		for ; ; polls++ {
			select {
			case <-stop:
				return
			default:
			}
			readings, err := healthy.Read(context.Background(), drivers.Ref{}, nil)
			if err != nil || readings[99].Value != telemetry.Float64(99) {
				t.Errorf("the healthy server's poll %d: %v", polls, err)
				return
			}
		}
	}()
	for _, trick := range opcuasim.Tricks() {
		if !trick.Slow {
			_, d := hostile(t, trick, 10*time.Second)
			outcome(d)
		}
	}
	close(stop)
	if polls := <-done; polls < 50 {
		t.Errorf("%d polls of the healthy server only", polls)
	}
}

// TestAtEachByte has servers that hang up at each byte of what they say, or have one byte wrong.
func TestAtEachByte(t *testing.T) {
	honest := honestWords(2)
	for at := range honest {
		if err := scripted(t, honest[:at]); err == nil {
			t.Errorf("%d of %d bytes will do", at, len(honest))
		}
		for bit := range 8 {
			spoilt := bytes.Clone(honest)
			spoilt[at] ^= 1 << bit
			if err := scripted(t, spoilt); err != nil && strings.Contains(err.Error(), "BUG") {
				t.Errorf("bit %d of byte %d: %v", bit, at, err)
			}
		}
	}
}

// TestCutShort has answers that end early in chunks of the right size.
func TestCutShort(t *testing.T) {
	answers := honestAnswers(2)
	for i, a := range answers {
		for at := range a.Body {
			short := append([]opcuasim.Answer(nil), answers...)
			short[i].Body = a.Body[:at]
			err := scripted(t, spoken(short))
			if err != nil && strings.Contains(err.Error(), "BUG") {
				t.Errorf("answer %d cut at %d: %v", i, at, err)
			}
			if i < len(unused) && at < len(a.Body)-unused[i] && err == nil {
				t.Errorf("answer %d cut at %d of %d will do", i, at, len(a.Body))
			}
		}
	}
}

// unused is how many bytes at the end of each honest answer to a connect are of no use to us: a nonce; what
// follows the first endpoint for anonymous users; the nonce and results of an activation.
var unused = []int{0, 4, 0, 4, 0}

// silent says nothing and keeps the connection.
func silent(io.Writer, opcuasim.Answer) bool { return true }

// faulty refuses the request.
func faulty(w io.Writer, a opcuasim.Answer) bool {
	a.Body = opcuasim.ResponseHead(397, 0x80060000)
	w.Write(a.Bytes())
	return true
}
