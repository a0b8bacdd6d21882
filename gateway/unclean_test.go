package gateway

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
