package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/config"
)

// startOn builds a gateway with polled devices a and new on a store and returns the gaps that it tells the destination of, by device.
func startOn(t *testing.T, dir string) map[string]buffer.Gap {
	t.Helper()
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	text := "gateway: shop\nweb: {enabled: false}\nbuffer: {path: " + dir + "}\ndestinations:\n  - {name: cloud, url: \"mqtt://127.0.0.1:1\"}\ndevices:\n" + device("a") + "\n" + device("new") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file, newPlant().protocols(), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(t.Context(), cfg, Options{Version: "test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	g.missing.runs(g.running.connections)
	if err := g.buf.Close(); err != nil { // as a start that is killed before it has sent anything
		t.Fatal(err)
	}
	return gapsOf(t, dir)
}

// gapsOf returns the gaps that a store tells its destination of, by device.
func gapsOf(t *testing.T, dir string) map[string]buffer.Gap {
	t.Helper()
	b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}, CommitInterval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = b.Run(ctx) }()
	waitFor(t, "all losses to be told", func() bool { return b.Stats().Destinations[0].Untold == 0 })
	gaps := map[string]buffer.Gap{}
	if err := b.Scan(ctx, 0, b.NextSeq(), func(r *buffer.Record) error {
		if r.Gap != nil {
			gaps[r.Stream.Account()] = *r.Gap
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return gaps
}

// spoil overwrites files of a store.
func spoil(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 8<<10), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPolledDevicesAreToldOfWhatWasNotKept: after an end that was not clean, and when nobody knows whether it was, a gap record tells for each device that the store
// knew, also where it is polled, of all since the store was safe; where that is not known it has no beginning. One that is new has lost nothing.
func TestPolledDevicesAreToldOfWhatWasNotKept(t *testing.T) {
	running := filepath.Join(t.TempDir(), "store")
	b, last := ran(t, running)
	copied := func(t *testing.T, dir string) {
		if err := os.CopyFS(dir, os.DirFS(running)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, reason string
		from         time.Time
		fresh        bool // the new device is told of, too
		store        func(t *testing.T, dir string)
	}{
		{"killed", gapUnclean, last.Add(-accepting), false, copied},
		{"state.db is garbage", gapUnknown, last.Add(-accepting), true, func(t *testing.T, dir string) {
			copied(t, dir)
			spoil(t, dir, "state.db")
		}},
		{"nothing is known", gapUnknown, time.Time{}, true, func(t *testing.T, dir string) {
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			spoil(t, dir, "state.db", "missing.json")
		}},
		{"restored", gapRestored, time.Time{}, true, func(t *testing.T, dir string) {
			if err := buffer.WriteBackup(dir, func(file func(string, int64, io.Reader) error) error { return b.Backup(t.Context(), file) }); err != nil {
				t.Fatal(err)
			}
		}},
		{"stopped", "", time.Time{}, false, func(t *testing.T, dir string) {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			copied(t, dir)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			c.store(t, dir)
			began := time.Now()
			gaps := startOn(t, dir)
			g, told := gaps["a"]
			_, fresh := gaps["new"]
			if told != (c.reason != "") || fresh != c.fresh {
				t.Fatalf("told: %v", gaps)
			}
			if !told {
				return
			}
			if c.name == "restored" {
				c.from = time.UnixMicro(g.From)
				if age := began.Sub(c.from); age < 0 || age > time.Minute {
					t.Errorf("from %v before the start", age)
				}
			}
			if want := fmt.Sprintf("%d true outage %s", micros(c.from), c.reason); fmt.Sprintf("%d %v %s %s", g.From, g.Unknown, g.Cause, g.Reason) != want || g.To < began.UnixMicro() {
				t.Errorf("%+v, want from, unknown, cause and reason %s", g, want)
			}
		})
	}
}

// micros returns a time in µs since 1970, 0 for none.
func micros(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixMicro()
}
