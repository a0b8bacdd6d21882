package faults

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"millrace/drivers/drivertest"
)

// diskAt and diskOf are how a child of this binary is told to serve a directory as a file system.
const (
	diskAt = "FAULTS_DISK_AT"
	diskOf = "FAULTS_DISK_OF"
)

// serveDisk passes everything on. At each line of its standard input the kernel forgets what it has read.
func serveDisk(at, of string) {
	var mu sync.Mutex
	var nodes []*fs.LoopbackNode
	root := &fs.LoopbackRoot{Path: of}
	root.NewNode = func(r *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		n := &fs.LoopbackNode{RootData: r}
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, n)
		return n
	}
	root.RootNode = &fs.LoopbackNode{RootData: root}
	server, err := fs.Mount(at, root.RootNode, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true, FsName: "disk"}})
	fmt.Println("mounted", err)
	for in := bufio.NewScanner(os.Stdin); err == nil && in.Scan(); fmt.Println("forgotten") {
		mu.Lock()
		for _, n := range nodes {
			_ = n.EmbeddedInode().NotifyContent(0, 0) // a file may be gone
		}
		mu.Unlock()
	}
	if err == nil {
		_ = server.Unmount()
	}
}

// disk is a directory on such a file system.
type disk struct {
	dir    string
	server *os.Process
	forget func()
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	at, of := filepath.Join(t.TempDir(), "at"), t.TempDir()
	must(t, os.Mkdir(at, 0o755))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), diskAt+"="+at, diskOf+"="+of)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = syscall.Unmount(at, syscall.MNT_DETACH)
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	if lines.Scan(); lines.Text() != "mounted <nil>" {
		if os.Getuid() != 0 {
			t.Skip("needs to mount a file system (" + lines.Text() + "); run as root")
		}
		drivertest.Lacks(t, "cannot mount a file system: %s", lines.Text())
	}
	return &disk{at, cmd.Process, func() {
		fmt.Fprintln(in)
		if lines.Scan(); lines.Text() != "forgotten" {
			t.Fatalf("the disk says %q", lines.Text())
		}
	}}
}

// faultHungDisk, F8: the disk of the store does not answer any more, as it is written, or as pages are read that the kernel has dropped (which
// would stop the whole process where they are mapped). Health says it, polls and the way to the broker go on, SIGTERM ends the gateway
// with its own exit code, and the next one goes on with all that had not arrived.
func faultHungDisk(t *testing.T) {
	const interval = time.Second
	for _, what := range []string{"write", "read"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			d := newDisk(t)
			b := newBed(t, 3, Setup{Words: 8, Interval: interval.String(), Path: filepath.Join(d.dir, "data")})
			t.Cleanup(func() { _ = d.server.Kill() }) // or the gateway could not be killed
			b.start()
			b.await(5, 20*time.Second)
			b.net.Refuse()
			b.net.Cut()
			before := b.snapshot().Buffer.Commits
			b.until(30*time.Second, "commits", func() bool { return b.snapshot().Buffer.Commits > before+1 })
			if what == "read" {
				d.forget()
			}
			must(t, d.server.Signal(syscall.SIGSTOP))
			hung := time.Now()
			began := hung
			b.until(time.Minute, "health that says what hangs", func() bool {
				code, body, err := b.gateway.Get("/healthz")
				return err == nil && code != 200 && strings.Contains(string(body), ": hung since")
			})
			said := time.Since(began)
			for _, command := range []string{"health", "values"} { // each looks for the socket on that disk
				if code, out := run("timeout", "-k", "1", "60", b.gateway.Binary, command, "--path", b.setup.Path); code == 124 || code == 137 || code < 0 {
					t.Errorf("%s waits for the disk: %d, %s", command, code, out)
				}
			}
			must(t, b.net.Accept())
			b.await(10, time.Minute)
			b.missedNone(began, interval, for10s)
			b.stops, began = append(b.stops, time.Now()), time.Now()
			b.gateway.Signal(syscall.SIGTERM)
			b.until(time.Minute, "the end of the stop", func() bool { return strings.Contains(b.gateway.Log(), "the stop did not end in time") })
			ended := time.Since(began)
			must(t, d.server.Signal(syscall.SIGCONT)) // a process is not gone before the kernel gets the thread back that waits for the disk
			code, err := b.gateway.Wait(time.Minute)
			must(t, err)
			_, stall := b.machine.stalled()
			t.Logf("FIGURES %s: said after %v, SIGTERM ended it after %v with exit code %d; the machine stood still for %v at most", t.Name(), said, ended, code, stall)
			if code != 4 || said > 15*time.Second+20*stall || ended > 16*time.Second+20*stall { // grace_time is 10 s
				t.Errorf("said after %v, ended after %v with exit code %d, want 4", said, ended, code)
			}
			b.start()
			b.await(5, time.Minute)
			b.toldUnclean(hung)
			b.judge()
		})
	}
}

// toldUnclean waits until a gap message says of each device that the gateway was not stopped cleanly, from before a moment on until after the last stop.
func (b *bed) toldUnclean(from time.Time) {
	b.t.Helper()
	stopped := b.stops[len(b.stops)-1]
	for _, d := range b.devices {
		b.until(time.Minute, d.Name+"'s gap message", func() bool {
			return slices.ContainsFunc(b.gapsOf(d.Name), func(g Gap) bool {
				return strings.Contains(g.Reason, "not stopped cleanly") && g.From > 0 && g.From < from.UnixMilli() && g.To > stopped.UnixMilli() && g.To <= time.Now().UnixMilli()
			})
		})
	}
}
