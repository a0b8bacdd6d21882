package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace/gateway"
	"millrace/gateway/config"
)

// TestStartWaitsForDisk: a gateway whose disk has no room at its start waits, says so once, and starts when somebody has made room, or ends when told so.
func TestStartWaitsForDisk(t *testing.T) {
	mnt := t.TempDir()
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=2m"); err != nil {
		if os.Getenv("INTEROP") == "required" {
			t.Fatalf("mount a small tmpfs: %v", err)
		}
		t.Skipf("needs to mount a small tmpfs: %v", err)
	}
	defer func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) }()
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	writeFile(t, file, fmt.Sprintf("gateway: x\nbuffer: {path: %s/store, max_size: 4MiB}\ndestinations:\n  - {name: cloud, url: \"mqtt://127.0.0.1:1\"}\n"+
		"devices:\n  - {name: d, driver: modbus, url: \"tcp://127.0.0.1:1\", groups: [{name: g, interval: 1s, tags: [{name: n, address: \"holding:0\"}]}]}\n", mnt))
	cfg, err := config.Load(file, protocols(), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	junk, err := os.Create(mnt + "/junk")
	if err != nil {
		t.Fatal(err)
	}
	defer junk.Close()
	if _, err := io.Copy(junk, neverEnding{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o := gateway.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := newGateway(ctx, cfg, o, time.Millisecond); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("told to end while it waits: %v", err)
	}
	if n := strings.Count(log.String(), "cannot start before there is room"); n != 1 {
		t.Errorf("%d lines: %s", n, &log)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = junk.Truncate(0) })
	g, err := newGateway(t.Context(), cfg, o, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := g.Run(ctx, ctx); err != nil {
		t.Error(err)
	}
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }
