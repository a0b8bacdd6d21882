package faults

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/drivers/drivertest"
)

// mount puts a small file system at dir, or skips the test where that is not allowed.
func mount(t *testing.T, dir, options string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		says := "needs to mount a tmpfs (" + err.Error() + "); run as root"
		if os.Getuid() != 0 {
			t.Skip(says)
		}
		drivertest.Lacks(t, "%s", says)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// faultDiskFull, F8: the disk fills up under a backlog and is freed later. The policy is followed, polling
// goes on, health says so, and everything recovers without a restart.
func faultDiskFull(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	mount(t, disk, "size=64m")
	b := newBed(t, 6, Setup{Words: 100, Interval: "20ms", Path: filepath.Join(disk, "data"), Memory: "256KiB"})
	b.start()
	b.await(10, 20*time.Second)
	b.net.Refuse()
	b.net.Cut()
	time.Sleep(2 * time.Second)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast, disk, 64<<10)
	b.until(90*time.Second, "health that speaks of the full disk", func() bool {
		s, err := b.gateway.Snapshot()
		return err == nil && s.Buffer.Health != "ok"
	})
	s, _ := b.gateway.Snapshot()
	t.Logf("FIGURES %s: health while full: %s", t.Name(), s.Buffer.Health)
	polled := len(b.devices[0].Served())
	time.Sleep(pick(8*time.Second, time.Minute)) // longer than 256 KiB of memory last
	if n := len(b.devices[0].Served()) - polled; n < 50 {
		t.Errorf("%d polls in the seconds of the full disk, want polling to go on", n)
	}
	must(t, os.Remove(ballast))
	b.until(60*time.Second, "health after the disk was freed", func() bool {
		s, err := b.gateway.Snapshot()
		return err == nil && s.Buffer.Health == "ok"
	})
	b.heal()
	r := b.judge()
	t.Logf("FIGURES %s: %d answers dropped in %d gap records", t.Name(), r.Dropped, r.Gaps)
	if r.Dropped == 0 {
		t.Error("nothing was dropped: the disk and the memory were not full, the scenario proves nothing")
	}
	b.saysLoss()
}

// saysLoss: after the drain and over a restart readiness, the page and the log say first what was lost, with count and times, until a person has acknowledged it.
func (b *bed) saysLoss() {
	b.t.Helper()
	words := regexp.MustCompile(`^destination "cloud": lost data since 20[-0-9T:]+Z: [0-9,]+ readings \([^)]+\), the last noticed at 20`)
	said := func() bool {
		var ready struct{ Problems []string }
		var shown struct{ Summary struct{ Text string } }
		_, problems, err := b.gateway.Get("/readyz")
		_, page, err2 := b.gateway.Get("/api/v1/snapshot")
		if err != nil || err2 != nil || json.Unmarshal(problems, &ready) != nil || json.Unmarshal(page, &shown) != nil {
			return false
		}
		return len(ready.Problems) > 0 && words.MatchString(ready.Problems[0]) && strings.HasPrefix(shown.Summary.Text, ready.Problems[0])
	}
	b.until(20*time.Second, "the loss in readiness and on the page", said)
	b.stop()
	from := len(b.gateway.Log())
	b.start()
	b.until(20*time.Second, "the loss after a restart, in the log, too", func() bool {
		return said() && strings.Contains(b.gateway.Log()[from:], "lost data since")
	})
	code, says := run(b.gateway.Binary, "ack", "--config", b.gateway.Config)
	if code != 0 {
		b.t.Fatalf("ack: %d %s", code, says)
	}
	b.until(20*time.Second, "the end of the notice", func() bool {
		_, problems, err := b.gateway.Get("/readyz")
		return err == nil && !strings.Contains(string(problems), "lost data")
	})
}

// fill writes a file until the file system has only left bytes free.
func fill(t *testing.T, file, disk string, left int64) {
	t.Helper()
	var st syscall.Statfs_t
	must(t, syscall.Statfs(disk, &st))
	size := int64(st.Bavail)*st.Bsize - left
	must(t, os.WriteFile(file, bytes.Repeat([]byte{1}, int(max(0, size))), 0o644))
}

// faultBadDirectory, F9: the directory is a file, or another user's. The gateway says so in words, exits 3 and crashes nowhere. On a read-only
// disk it waits, and starts when that is writable. A missing directory is made.
func faultBadDirectory(t *testing.T) {
	b := newBed(t, 1, Setup{Words: 2})
	b.start()
	b.await(3, 20*time.Second) // it was missing, and was made
	b.stop()

	file := filepath.Join(b.dir, "file")
	must(t, os.WriteFile(file, []byte("not a directory"), 0o644))
	b.refuses("a file", file, nil)

	foreign := filepath.Join(b.dir, "foreign")
	must(t, os.Mkdir(foreign, 0o700))
	if os.Getuid() == 0 {
		openUp(t, b)
		b.refuses("another user's directory", foreign, &syscall.Credential{Uid: 65534, Gid: 65534})
	}
	disk := filepath.Join(b.dir, "disk")
	mount(t, disk, "size=1m,ro")
	g := b.second(func(s *Setup) { s.Path = filepath.Join(disk, "data") })
	must(t, g.Start())
	waitFor(t, time.Minute, "the start waits for the read-only disk", func() bool { return strings.Contains(g.Log(), "which is read-only") })
	must(t, syscall.Mount("", disk, "", syscall.MS_REMOUNT, ""))
	waitFor(t, time.Minute, "it starts on the disk that is writable", func() bool { return strings.Contains(g.Log(), "gateway runs") })
	if code, err := g.Stop(30 * time.Second); code != 0 || err != nil {
		t.Errorf("it ended with %d, %v: %s", code, err, g.Log())
	}
}

// openUp lets another user read the config and run the binary.
func openUp(t *testing.T, b *bed) {
	t.Helper()
	for dir := b.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	must(t, os.Chmod(filepath.Dir(b.gateway.Binary), 0o755))
}

func (b *bed) refuses(what, path string, user *syscall.Credential) {
	b.t.Helper()
	g := b.second(func(s *Setup) { s.Path = path })
	g.User = user
	must(b.t, g.Start())
	code, err := g.Wait(20 * time.Second)
	if err != nil {
		b.t.Errorf("started on %s: %v", what, err)
		return
	}
	says := strings.TrimSpace(g.Log())
	b.t.Logf("FIGURES %s: on %s it says %q", b.t.Name(), what, says)
	if code != 3 || !strings.Contains(says, path) || g.Crash() != "" {
		b.t.Errorf("on %s the gateway ended with %d, want 3 and a message that names %q: %s", what, code, path, says)
	}
}
