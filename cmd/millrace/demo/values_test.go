package demo

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"millrace/gateway/web"
)

// ages notes how old the values of a running gateway get.
type ages struct {
	t      *testing.T
	client *web.Client
	asked  time.Time
	stall  time.Duration // the longest that this test itself was kept from running, or waiting for an answer
}

// pause is the time between two looks.
const pause = 50 * time.Millisecond

// look returns the values of one device, "" of all, a moment after the last look.
func (a *ages) look(device string) []web.Value {
	a.t.Helper()
	time.Sleep(pause)
	list, err := a.client.Values(a.t.Context(), device, "", false)
	if err != nil {
		a.t.Fatal(err)
	}
	if !a.asked.IsZero() {
		a.stall = max(a.stall, time.Since(a.asked)-pause)
	}
	a.asked = time.Now()
	return list
}

// watched is what a watcher saw, by tag.
type watched map[string]*watchedTag

type watchedTag struct {
	readings int
	last     int64   // time of the poll, ms since 1970
	pause    float64 // the longest between two polls, in intervals of the tag
	every    float64
}

func (seen watched) take(v *web.Value) error {
	name := v.Device + "/" + v.Tag
	w := seen[name]
	if w == nil {
		w = &watchedTag{last: v.At, every: v.Every}
		seen[name] = w
	}
	w.readings++
	w.pause, w.last = max(w.pause, float64(v.At-w.last)/1e3/v.Every), v.At
	return nil
}

// runPlant runs the demo's plant and gateway until the test ends, and returns a client of the gateway's socket.
func runPlant(t *testing.T) (*demo, *web.Client) {
	t.Helper()
	o := short(t, &bytes.Buffer{})
	d := &demo{options: o, log: o.Log, started: time.Now()}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait(); d.release() })
	if err := d.prepare(ctx); err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { d.plant.run(ctx) })
	wg.Go(func() { d.uplink.run(ctx) })
	wg.Go(func() { d.gateway.Run(ctx, ctx) })
	var client *web.Client
	until(patience, func() (ok bool) {
		c, err := web.Dial(ctx, filepath.Join(d.dir, "data"))
		client = c
		return err == nil
	})
	if client == nil {
		t.Fatal("nobody answers at the gateway's socket")
	}
	t.Cleanup(func() { client.Close() })
	return d, client
}

// TestValuesOfTheDemo: every tag has a live value that is never older than two intervals, a watcher sees each of them, and
// a device that is switched off shows bad with the reason within its time-out.
func TestValuesOfTheDemo(t *testing.T) {
	d, client := runPlant(t)
	seen := watched{}
	watching, unwatch := context.WithTimeout(t.Context(), 4*time.Second)
	defer unwatch()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		client.Watch(watching, "", "", false, seen.take)
		unwatch()
	}()
	a := ages{t: t, client: client}
	const want = 26               // values
	until(patience, func() bool { // each group has been read once
		list := a.look("")
		return len(list) == want && !slices.ContainsFunc(list, func(v web.Value) bool { return v.At == 0 })
	})
	oldest := map[string]float64{} // age by tag, in its intervals
	count := 0
	for watching.Err() == nil {
		list := a.look("")
		count = len(list)
		for _, v := range list {
			slack := a.stall.Seconds() / v.Every
			oldest[v.Device+"/"+v.Tag] = max(oldest[v.Device+"/"+v.Tag], v.Age/v.Every-slack)
			if v.Age/v.Every-slack > 2 || v.Quality != "good" {
				t.Fatalf("after a stall of this test of at most %v: %+v", a.stall, v)
			}
		}
	}
	<-ended
	for name, age := range oldest {
		w := seen[name]
		if w == nil || w.pause-a.stall.Seconds()/w.every > 2 {
			t.Fatalf("a watcher of 4 s saw %+v of %s, after a stall of this test of at most %v", w, name, a.stall)
		}
		t.Logf("%s: at most %.2f intervals old, %d readings watched, at most %.2f intervals apart", name, age, w.readings, w.pause)
	}
	if count != want || len(oldest) != want {
		t.Errorf("%d values, want %d", count, want)
	}

	d.plant.press.Down()
	off := time.Now()
	until(patience+5*time.Second, func() bool {
		list := a.look("press-1")
		return len(list) > 0 && !slices.ContainsFunc(list, func(v web.Value) bool { return v.Quality != "bad" || v.Reason == "" })
	})
	dark := time.Since(off)
	t.Logf("press-1 shows bad %v after it was switched off, the longest stall of this test %v", dark, a.stall)
	if timeout := 5 * time.Second; dark > timeout+a.stall {
		t.Errorf("press-1 shows bad %v after it was switched off, its time-out is %v", dark, timeout)
	}
}
