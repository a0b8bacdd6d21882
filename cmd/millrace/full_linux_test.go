package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace/drivers/drivertest"
	"millrace/gateway"
	"millrace/gateway/config"
)

// smallDisk mounts a file system of 2 MiB and returns where, and what makes it read-only, or writable again.
func smallDisk(t *testing.T) (mnt string, readOnly func(bool)) {
	t.Helper()
	mnt = t.TempDir()
	if err := unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=2m"); err != nil {
		drivertest.Lacks(t, "needs to mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mnt, unix.MNT_DETACH) })
	return mnt, func(yes bool) {
		t.Helper()
		flags := uintptr(unix.MS_REMOUNT)
		if yes {
			flags |= unix.MS_RDONLY
		}
		if err := unix.Mount("", mnt, "", flags, ""); err != nil {
			t.Error(err)
		}
	}
}

// TestStartWaitsForDisk: a gateway whose disk has no room at its start, or is read-only, waits, says so once, and starts when somebody has seen to it,
// or ends when told so.
func TestStartWaitsForDisk(t *testing.T) {
	for _, c := range []struct {
		name, want string
		errno      error
	}{
		{"full", "cannot start before there is room on the disk of its store, which", syscall.ENOSPC},
		{"read-only", "cannot start before the disk of its store, which is read-only, is mounted writable (the kernel's log says whether an error of the disk made it so), which", syscall.EROFS},
	} {
		t.Run(c.name, func(t *testing.T) {
			mnt, readOnly := smallDisk(t)
			spoil, mend := func() { readOnly(true) }, func() { readOnly(false) }
			if c.errno == syscall.ENOSPC {
				spoil, mend = func() { fill(t, mnt+"/junk") }, func() { _ = os.Remove(mnt + "/junk") }
			}
			cfg := storeConfig(t, mnt+"/store")
			spoil()
			if _, err := gateway.New(t.Context(), cfg, gateway.Options{Log: slog.New(slog.DiscardHandler)}); !errors.Is(err, c.errno) {
				t.Fatal(err)
			}
			var log bytes.Buffer
			s := &start{o: gateway.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, every: time.Millisecond, open: gateway.New}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := s.gateway(ctx, t.Context(), cfg); !errors.Is(err, errStopped) {
				t.Errorf("told to end while it waits: %v", err)
			}
			if n := strings.Count(log.String(), c.want); n != 1 {
				t.Errorf("%d lines: %s", n, &log)
			}
			mended := make(chan struct{})
			time.AfterFunc(100*time.Millisecond, func() { mend(); close(mended) })
			g, err := s.gateway(t.Context(), t.Context(), cfg)
			<-mended
			if err != nil {
				t.Fatal(err)
			}
			end(t, g)
		})
	}
}

// TestRoomIsTold: on a full disk the log has the bytes that are free as df has them, and apart from them those that the store can take.
func TestRoomIsTold(t *testing.T) {
	mnt, _ := smallDisk(t)
	for _, full := range []bool{false, true} {
		cfg := storeConfig(t, mnt+"/store")
		if full {
			fill(t, mnt+"/junk")
		}
		var log bytes.Buffer
		g, err := gateway.New(t.Context(), cfg, gateway.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		var room, free int64
		if _, after, ok := strings.Cut(log.String(), " room="); !ok {
			t.Errorf("no room in %s", &log)
		} else if _, err := fmt.Sscanf(after, "%d free=%d max_size=4194304", &room, &free); err != nil || room-free < 32<<10 || full == (free > 256<<10) {
			t.Errorf("full: %v, room %d, free %d, %v: %s", full, room, free, err, &log)
		}
		end(t, g)
	}
}

// TestDiskIsSeen: of a store that no gateway runs on the commands say that its disk is read-only, or full.
func TestDiskIsSeen(t *testing.T) {
	mnt, readOnly := smallDisk(t)
	dir := mnt + "/store"
	g, err := gateway.New(t.Context(), storeConfig(t, dir), gateway.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	end(t, g)
	looks := func(health, trouble string) {
		t.Helper()
		var out bytes.Buffer
		if code := execute([]string{"buffer", "status", "--path", dir}, &out); code != exitOK || !strings.Contains(out.String(), "health      "+health+"\n") || strings.Contains(out.String(), "waits") != (trouble != "") {
			t.Errorf("status, exit %d: %s", code, &out)
		}
		cmd := newHealth()
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetArgs([]string{"--path", dir})
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "no gateway answers") || !strings.Contains(err.Error(), trouble) {
			t.Errorf("health: %v", err)
		}
	}
	looks("ok", "")
	readOnly(true)
	looks("failing: its disk is read-only", "its disk is read-only")
	readOnly(false)
	fill(t, mnt+"/junk")
	looks("failing: its disk is full (0 bytes free)", "its disk is full (0 bytes free)")
}

// TestReadOnlyForUsAlone: a store that only this process's mounts keep read-only is not waited for; where it was waited for, the process has to be started again.
func TestReadOnlyForUsAlone(t *testing.T) {
	disk, _ := smallDisk(t)
	cfg := storeConfig(t, disk+"/store")
	if err := unix.Mount(disk, disk, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(disk, unix.MNT_DETACH) }()
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for waited, want := range map[bool]int{false: exitStartup, true: exitFailed} {
		s := &start{o: gateway.Options{Log: slog.New(slog.DiscardHandler)}, every: time.Millisecond, open: gateway.New}
		s.waiting.Store(waited)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // of waiting, which it should not
		_, err := s.gateway(ctx, t.Context(), cfg)
		cancel()
		var e *exitError
		if !errors.As(err, &e) || e.code != want || !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "for this process alone") {
			t.Errorf("it has waited %v: %v", waited, err)
		}
	}
}

// TestWaitingStartIsReached: a start that waits tells systemd why, ends cleanly at a signal, and reads its config again at a SIGHUP.
func TestWaitingStartIsReached(t *testing.T) {
	mnt, readOnly := smallDisk(t)
	readOnly(true)
	const waits = "the disk of its store, which is read-only"
	for _, c := range []struct {
		name            string
		terminal, again bool
		signal          syscall.Signal // 0 = none
		want            string
	}{
		{"terminated", false, false, syscall.SIGTERM, "signal=terminated"},
		{"interrupted", false, false, syscall.SIGINT, "signal=interrupt"},
		{"again and again", false, true, syscall.SIGTERM, "signal=terminated"},
		{"terminal", true, false, 0, "signal=hangup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := startChild(t, mnt+"/store", c.terminal, false)
			g.waitFor(waits)
			_ = g.cmd.Process.Signal(c.signal)
			if c.again {
				go func() {
					for g.cmd.Process.Signal(c.signal) == nil {
					}
				}()
			}
			if c.terminal {
				_ = g.terminal.Close()
			}
			g.endsWell()
			if log := g.log(); !strings.Contains(log, c.want) || strings.Count(log, "\n") != 2 || !strings.Contains(log, "stopped while the start waited") {
				t.Errorf("want a line that it waits, and one with %q: %s", c.want, log)
			}
		})
	}
	t.Run("reload", func(t *testing.T) {
		said := notified(t)
		g := startChild(t, mnt+"/store", false, false)
		g.waitFor(waits)
		if first := said(); !strings.HasPrefix(first, "STATUS=nothing is polled before "+waits) || !strings.Contains(first, mnt) {
			t.Errorf("systemd hears %q", first)
		}
		if then := said(); then != "EXTEND_TIMEOUT_USEC=70000000" {
			t.Errorf("systemd hears %q", then)
		}
		good := readFile(t, g.config)
		writeFile(t, g.config, "gateway: [")
		_ = g.cmd.Process.Signal(syscall.SIGHUP)
		g.waitFor("config not read again")
		writeFile(t, g.config, strings.ReplaceAll(good, mnt+"/store", t.TempDir()+"/no/where"))
		_ = g.cmd.Process.Signal(syscall.SIGHUP)
		g.waitFor("the one before is waited with")
		writeFile(t, g.config, strings.ReplaceAll(good, mnt+"/store", t.TempDir()+"/elsewhere"))
		_ = g.cmd.Process.Signal(syscall.SIGHUP)
		g.waitFor("gateway runs")
		for s := ""; s != "READY=1"; {
			last := s
			if s = said(); s == "READY=1" && last != "STATUS=" {
				t.Errorf("systemd hears %q before READY=1", last)
			}
		}
		_ = g.cmd.Process.Signal(syscall.SIGTERM)
		g.endsWell()
	})
}

// TestWaitsForItsOwnDisk: while the disk that a start waits for is unmounted to be repaired, no store is made in the directory that is seen meanwhile, and no
// mistake of that ends the wait.
func TestWaitsForItsOwnDisk(t *testing.T) {
	disk, readOnly := smallDisk(t)
	point := t.TempDir()
	mount := func() {
		if err := unix.Mount(disk, point, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	unmount := func() { _ = unix.Unmount(point, unix.MNT_DETACH) }
	mount()
	t.Cleanup(unmount)
	g, err := gateway.New(t.Context(), storeConfig(t, point+"/store"), gateway.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	end(t, g)
	readOnly(true)
	var log bytes.Buffer
	step := 0
	s := &start{o: gateway.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}, every: time.Millisecond}
	s.open = func(ctx context.Context, cfg *config.Config, o gateway.Options) (*gateway.Gateway, error) {
		g, err := gateway.New(ctx, cfg, o)
		if step++; err != nil && step == 2 {
			unmount()
			time.AfterFunc(100*time.Millisecond, func() { readOnly(false); mount() })
		}
		return g, err
	}
	g, err = s.gateway(t.Context(), t.Context(), storeConfig(t, point+"/store"))
	if err != nil {
		t.Fatal(err)
	}
	end(t, g)
	if n := strings.Count(log.String(), "cannot start before the disk of its store is mounted again"); n != 1 {
		t.Errorf("%d lines: %s", n, &log)
	}
	unmount()
	if _, err := os.Stat(point + "/store"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a store was made on the other disk: %v", err)
	}
}

// notified returns what gives the next that the children started from now on tell systemd.
func notified(t *testing.T) (next func() string) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	buf := make([]byte, 4096)
	return func() string {
		t.Helper()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

// storeConfig is a config whose store is in dir.
func storeConfig(t *testing.T, dir string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	writeFile(t, file, storeText(dir))
	cfg, err := config.Load(file, protocols(), config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func storeText(dir string) string {
	return fmt.Sprintf("gateway: x\nbuffer: {path: %s, max_size: 4MiB}\ndestinations:\n  - {name: cloud, url: \"mqtt://127.0.0.1:1\"}\n"+
		"devices:\n  - {name: d, driver: modbus, url: \"tcp://127.0.0.1:1\", groups: [{name: g, interval: 1s, tags: [{name: n, address: \"holding:0\"}]}]}\n", dir)
}

// fill leaves no byte of a disk free.
func fill(t *testing.T, file string) {
	t.Helper()
	junk, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer junk.Close()
	if _, err := io.Copy(junk, neverEnding{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// end starts and stops a gateway, which closes its store.
func end(t *testing.T, g *gateway.Gateway) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Run(ctx, ctx); err != nil {
		t.Error(err)
	}
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }
