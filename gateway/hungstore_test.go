package gateway

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/web"
)

// TestHungStoreIsLogged: the log says of a store that hangs since when it does, while it does, also when there is something to be written to it for the
// gateway itself; and a look that had to wait says no earlier time.
func TestHungStoreIsLogged(t *testing.T) {
	broker := brokersim.New(brokersim.Options{})
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	defer broker.Stop()
	dir, free, log := filepath.Join(t.TempDir(), "store"), make(chan struct{}), &safeBuffer{}
	cfg := hanging(t, dir, broker.Addr(), "fake", newPlant().protocols())
	g, err := New(t.Context(), cfg, Options{Version: "test", Log: slog.New(holding{slog.NewTextHandler(log, nil), "lock file was removed", free})})
	if err != nil {
		t.Fatal(err)
	}
	g.watchdog.limits.commit = firstLook + 2*time.Second // the first look comes before
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx, context.Background()) }()
	<-g.begun
	_ = os.Remove(filepath.Join(dir, "lock"))
	waitFor(t, "the store to hang", func() bool { return g.buf.Busy() > time.Second })
	since := time.Now().Add(-g.buf.Busy())
	g.losses.mu.Lock()
	g.losses.dirty, g.losses.urgent = true, true
	g.losses.mu.Unlock()
	waitFor(t, "the log to say so", func() bool {
		said := strings.ReplaceAll(log.String(), `\"`, `"`)
		return strings.Contains(said, `store "`+dir+`": hung since`)
	})

	g.mu.Lock()
	looked := make(chan *web.Snapshot)
	go func() { looked <- g.state() }()
	time.Sleep(3 * time.Second)
	g.mu.Unlock()
	if s := <-looked; len(s.Stalls) == 0 || since.Sub(s.Stalls[0].Since) > 1500*time.Millisecond {
		t.Errorf("it hangs since %v, and it is said: %+v", since, s.Stalls)
	}
	close(free)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWatchdogTells: while no state can be taken the watchdog itself logs what hangs, once.
func TestWatchdogTells(t *testing.T) {
	log, w := &safeBuffer{}, &watchdog{}
	list := []web.Stall{{Kind: "store", Name: "/data", What: "writing its files", Since: judged, Limit: time.Second}, {Kind: "process", Name: "shop", What: "taking its state", Since: judged, Limit: time.Second}}
	for _, step := range []struct {
		list []web.Stall
		want int
	}{{list[:1], 0}, {list, 2}, {list, 2}, {list[:1], 2}, {list, 4}} {
		w.tell(slog.New(slog.NewTextHandler(log, nil)), step.list)
		if n := strings.Count(log.String(), "hung since 2026-03-01T12:30:00Z"); n != step.want {
			t.Errorf("%d lines, want %d: %s", n, step.want, log)
		}
	}
	if !strings.Contains(log.String(), `store \"/data\"`) || !strings.Contains(log.String(), `process \"shop\"`) {
		t.Error(log)
	}
}

func (f *shown) Stalled() (string, []web.Stall) { return f.snap.Gateway, f.snap.Stalls }
