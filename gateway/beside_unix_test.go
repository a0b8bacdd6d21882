//go:build unix

package gateway

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/gateway/config"
)

// TestBesideHangs: a directory beside a new store that hangs, such as one of a file server that is away, holds up neither the start nor the stop, and others are told of.
func TestBesideHangs(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{device("a")}})
	b.stop()
	dir := filepath.Dir(b.file)
	leaveRecords(t, filepath.Join(dir, "a-store"), 5)
	hangs := filepath.Join(dir, "nas")
	if err := os.Mkdir(hangs, 0o700); err != nil {
		t.Fatal(err)
	}
	spoil(t, hangs, "state.db")
	fifo := filepath.Join(hangs, "lock")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if f, err := os.OpenFile(fifo, os.O_RDWR, 0); err == nil { // lets go of who waits for it
			f.Close()
		}
	})
	text, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.file, []byte(strings.Replace(string(text), "path: data", "path: data-2", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(b.file, b.plant.protocols(), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log, done := &safeBuffer{}, make(chan error, 1)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	go func() {
		g, err := New(ctx, cfg, Options{Version: "test", Log: slog.New(slog.NewTextHandler(log, nil))})
		if err == nil {
			err = g.Run(ctx, context.Background())
		}
		done <- err
	}()
	for !strings.Contains(log.String(), "a-store") || !strings.Contains(log.String(), "gateway runs") {
		if ctx.Err() != nil {
			t.Fatalf("log: %s", log)
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Errorf("no stop; log: %s", log)
	}
}
