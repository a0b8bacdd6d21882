package gateway

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
	"millrace/gateway/config"
	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/web"
)

// stuck is a driver that never comes back from a read, whatever is asked of it.
type stuck struct{ free chan struct{} }

func (s stuck) Connect(context.Context) error { return nil }
func (s stuck) Close() error                  { return nil }
func (s stuck) Read(context.Context, drivers.Ref, []telemetry.Reading) ([]telemetry.Reading, error) {
	<-s.free
	return nil, errors.New("freed")
}

// holding is a log that does not come back from one message: whoever writes it hangs there.
type holding struct {
	slog.Handler
	at   string
	free chan struct{}
}

func (h holding) WithAttrs(attrs []slog.Attr) slog.Handler {
	return holding{h.Handler.WithAttrs(attrs), h.at, h.free}
}

func (h holding) Handle(ctx context.Context, r slog.Record) error {
	if h.at != "" && strings.Contains(r.Message, h.at) {
		<-h.free
	}
	return h.Handler.Handle(ctx, r)
}

// TestNothingHangsTheStop: a driver that never returns, a session's step and a store's write that never end are said in words within
// seconds with one dump of goroutines, and the stop ends all the same.
func TestNothingHangsTheStop(t *testing.T) {
	for _, c := range []struct {
		name, driver, logAt, want string
		hang                      func(store string)
	}{
		{"driver", "stuck", "", `device "press-1": hung`, func(string) {}},
		// As a link would that does not come back from a step of its session.
		{"session", "fake", "connected", `destination "cloud": hung`, func(string) {}},
		// The store logs this with its files held, where a disk that does not answer would hold it, too.
		{"store", "fake", "lock file was removed", `store "`, func(dir string) { _ = os.Remove(filepath.Join(dir, "lock")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			free := make(chan struct{})
			protocols := append(newPlant().protocols(), drivers.Protocol{Name: "stuck", New: func(drivers.Connection) (drivers.Driver, error) { return stuck{free}, nil }})
			broker := brokersim.New(brokersim.Options{})
			if err := broker.Start(); err != nil {
				t.Fatal(err)
			}
			defer broker.Stop()
			dir := filepath.Join(t.TempDir(), "store")
			cfg := hanging(t, dir, broker.Addr(), c.driver, protocols)
			log := &safeBuffer{}
			g, err := New(t.Context(), cfg, Options{Version: "test", Log: slog.New(holding{slog.NewTextHandler(log, nil), c.logAt, free})})
			if err != nil {
				t.Fatal(err)
			}
			l := &g.watchdog.limits
			l.commit, l.poll, l.session, l.stop = time.Second, time.Second, time.Second, time.Second
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- g.Run(ctx, context.Background()) }()
			<-g.begun
			c.hang(dir)
			page := web.Handler(g, 0)
			health := ""
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && (!strings.Contains(health, c.want) || !strings.Contains(log.String(), "goroutines=")); time.Sleep(100 * time.Millisecond) {
				w := httptest.NewRecorder()
				page.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://localhost/healthz", nil))
				health = strings.ReplaceAll(w.Body.String(), `\"`, `"`)
				if w.Code == http.StatusOK && strings.Contains(health, c.want) {
					t.Fatalf("%d %s", w.Code, health)
				}
			}
			if !strings.Contains(health, c.want) || !strings.Contains(health, "hung") {
				t.Errorf("/healthz says %s, want %q", health, c.want)
			}
			cancel()
			select {
			case err = <-done:
			case <-time.After(30 * time.Second):
				t.Fatal("the stop hangs")
			}
			if !errors.Is(err, ErrHung) {
				t.Errorf("the stop ends with %v, want ErrHung", err)
			}
			if n := strings.Count(log.String(), "goroutines="); n != 1 {
				t.Errorf("%d dumps of goroutines in the log, want 1", n)
			}
			if !stopping() {
				t.Error("nothing hangs any more: the test shows nothing")
			}
			close(free)
			waitFor(t, "the end of what hung", func() bool { return !stopping() }) // it writes to the store
		})
	}
}

// hanging is a config of one device of a driver, whose gateway stops within a second.
func hanging(t *testing.T, dir, broker, driver string, protocols []drivers.Protocol) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	text := "gateway: shop\ngrace_time: 1s\nweb: {enabled: false}\nbuffer: {path: " + dir + ", commit_interval: 100ms}\n" +
		"destinations:\n  - {name: cloud, url: \"mqtt://" + broker + "\"}\ndevices:\n  - name: press-1\n    driver: " + driver +
		"\n    url: tcp://x\n    groups:\n      - {name: g, interval: 100ms, tags: [{name: n, address: a}]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, protocols, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// stopping reports whether a stop is under way, in time or given up.
func stopping() bool {
	stacks := make([]byte, 1<<20)
	return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("(*Gateway).bounded.func1("))
}

// TestReadersAndReloadsHang: a reload, and a reading of the store that makes no step, are said in /healthz, with one dump of
// goroutines, and no more once they go on or end.
func TestReadersAndReloadsHang(t *testing.T) {
	file, log := filepath.Join(t.TempDir(), "millrace.yaml"), &safeBuffer{}
	text := "gateway: shop\nweb: {enabled: false}\nbuffer: {path: data}\ndestinations:\n  - {name: cloud, url: \"mqtt://127.0.0.1:1\"}\ndevices:\n" + device("a") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, newPlant().protocols(), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	free, broken := make(chan struct{}), errors.New("broken")
	load := func() (*config.Config, error) { <-free; return nil, broken }
	g, err := New(t.Context(), cfg, Options{Version: "test", Log: slog.New(slog.NewTextHandler(log, nil)), Load: load})
	if err != nil {
		t.Fatal(err)
	}
	l := &g.watchdog.limits
	l.reload, l.read, l.commit = time.Second, time.Second, time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	done, reloaded := make(chan error, 1), make(chan error, 1)
	go func() { done <- g.Run(ctx, context.Background()) }()
	<-g.begun
	page := web.Handler(g, 0)
	reach := func(what string, ok func(problems string) bool) {
		t.Helper()
		var h web.Health
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			h = web.Health{}
			unpack(t, page, "/healthz", &h)
			if ok(strings.Join(h.Problems, "; ")) {
				return
			}
		}
		t.Errorf("%s: /healthz says %+v", what, h)
	}
	says := func(words ...string) func(string) bool {
		return func(problems string) bool {
			for _, w := range words {
				if !strings.Contains(problems, w) {
					return false
				}
			}
			return strings.Count(problems, "hung") == len(words)
		}
	}
	go func() {
		_, err := g.Reload(context.Background())
		reloaded <- err
	}()
	step, end := g.BeginReading("verify")
	const reload, verify = "a reload takes longer than 1s", "a step of verify takes longer than 1s"
	reach("both hang", func(problems string) bool {
		return says(reload, verify)(problems) && strings.Contains(log.String(), "goroutines=")
	})
	close(free)
	if err := <-reloaded; !errors.Is(err, broken) {
		t.Error(err)
	}
	reach("the reload has ended", says(verify))
	reach("the reading goes on", func(problems string) bool { step(); return says()(problems) })
	end()
	reach("the reading has ended", says())
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "goroutines="); n != 1 {
		t.Errorf("%d dumps of goroutines in the log, want 1", n)
	}
}
