package gateway

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/config"
)

// TestUncleanStopIsSaid: a start says that the last process did not end in peace, and only then.
func TestUncleanStopIsSaid(t *testing.T) {
	plant := newPlant()
	dir := t.TempDir()
	start := func(store, interval string) (*Gateway, *safeBuffer) {
		t.Helper()
		file := filepath.Join(dir, "millrace.yaml")
		text := "gateway: shop\nweb: {enabled: false}\nbuffer: {path: " + store + ", commit_interval: " + interval + "}\n" +
			"destinations:\n  - {name: cloud, url: \"mqtt://127.0.0.1:1\"}\ndevices:\n" + device("a") + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Load(file, plant.protocols(), config.Options{})
		if err != nil {
			t.Fatal(err)
		}
		log := &safeBuffer{}
		g, err := New(t.Context(), cfg, Options{Version: "test", Log: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		return g, log
	}
	first, second := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	g, log := start(first, "2s")
	if strings.Contains(log.String(), "not clean") {
		t.Errorf("a new store: %s", log)
	}
	for store, interval := range map[string]string{second: "2s", second + "0": "0s"} { // what a process leaves that is killed now
		if err := os.CopyFS(store, os.DirFS(first)); err != nil {
			t.Fatal(err)
		}
		killed, log := start(store, interval)
		want := "up to 2s of readings"
		if interval == "0s" {
			want = "nothing that was on its way through the store is missing"
		}
		if !strings.Contains(log.String(), "the last stop was not clean") || !strings.Contains(log.String(), want) || !strings.Contains(log.String(), "records_waiting=0") {
			t.Errorf("after a kill with commit_interval %s: %s", interval, log)
		}
		if err := killed.buf.Close(); err != nil {
			t.Fatal(err)
		}
	}
	restored := filepath.Join(dir, "c")
	if err := buffer.WriteBackup(restored, func(file func(string, int64, io.Reader) error) error { return g.buf.Backup(t.Context(), file) }); err != nil {
		t.Fatal(err)
	}
	back, log := start(restored, "2s")
	if strings.Contains(log.String(), "not clean") || !strings.Contains(log.String(), "restored from a backup") {
		t.Errorf("a restored store: %s", log)
	}
	if err := back.buf.Close(); err != nil {
		t.Fatal(err)
	}
	if err := g.buf.Close(); err != nil {
		t.Fatal(err)
	}
	for _, store := range []string{first, second} {
		g, log := start(store, "2s")
		if strings.Contains(log.String(), "not clean") {
			t.Errorf("after a clean stop: %s", log)
		}
		if err := g.buf.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKillKeepsLosses: when a loss was noticed is not when the gateway was started after a kill.
func TestKillKeepsLosses(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{device("a")}})
	b.polled(2, "a")
	s, err := b.g.buf.Stream("a", []byte("other"))
	if err != nil {
		t.Fatal(err)
	}
	lose := func() {
		t.Helper()
		if _, err := b.g.buf.Append(s, make([]byte, b.g.buf.MaxRecord()+1), 7, time.Now().UnixMicro()); err == nil {
			t.Fatal("a record of any size is taken")
		}
		b.g.Snapshot()
	}
	lose()
	if err := b.g.losses.write(true); err != nil {
		t.Fatal(err)
	}
	note := b.g.buf.Note()
	lose()
	store, left := b.g.config().Buffer.Path, filepath.Join(t.TempDir(), "left")
	if err := errors.Join(b.g.buf.SetNote(note), os.Mkdir(left, 0o750)); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); onDisk(t, store) < 14 && time.Since(began) < time.Minute; {
		time.Sleep(20 * time.Millisecond)
	}
	files, err := filepath.Glob(filepath.Join(store, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
			continue
		}
		data, err := os.ReadFile(file)
		if err := errors.Join(err, os.WriteFile(filepath.Join(left, filepath.Base(file)), data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(b.file, b.plant.protocols(), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Buffer.Path = left
	started := time.Now()
	g, err := New(t.Context(), cfg, Options{Version: "test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer g.buf.Close()
	if got := g.Snapshot().Losses; len(got) != 1 || got[0].Readings != 14 || !got[0].To.Before(started) || got[0].Losing {
		t.Errorf("started at %v: %+v; want 14 readings lost before that", started, got)
	}
}

// onDisk returns how many readings the store's files say that it had no room for.
func onDisk(t *testing.T, store string) (n uint64) {
	t.Helper()
	r, err := buffer.OpenReadOnly(store)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, a := range r.Ledger() {
		for _, d := range a.Destinations {
			n += d.Dropped[buffer.CauseFull]
		}
	}
	return n
}
