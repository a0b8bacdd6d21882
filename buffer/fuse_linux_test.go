//go:build !386 && !arm

// go-fuse does not build for 32 bits: these tests, and who uses them, are for 64.

package buffer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"millrace/drivers/drivertest"
)

// A directory on a disk that goes bad on demand: a FUSE file system that passes everything on, but for the page of a file
// that cannot be read or written, or a file whose requests are never answered. It is served by a process of its own: who
// waits for a page in a mapped file holds a processor.

const (
	badMount = "MILLRACE_FUSE_MOUNT"
	badDir   = "MILLRACE_FUSE_DIR"
)

// badDisk is what is wrong with the disk.
type badDisk struct {
	mu    sync.Mutex
	what  string // "read", "write", "hang", "hang-read", or "" for nothing
	file  string
	page  int64
	hits  int
	nodes map[string]*fs.Inode
}

// fault returns what a request for so many bytes of a file is to end with. It does not return for a write that hangs; a read ends
// after two minutes, because one under a map would stop the whole test, with its own time limit.
func (d *badDisk) fault(what, file string, at int64, n int) syscall.Errno {
	d.mu.Lock()
	bad := d.file == file && (d.what == "hang" && what == "write" || d.what == "hang-read" && what == "read" || d.what == what && at < (d.page+1)*pageSize && at+int64(n) > d.page*pageSize)
	as := d.what
	if bad {
		d.hits++
	}
	d.mu.Unlock()
	switch {
	case bad && as == "hang":
		select {}
	case bad && as == "hang-read":
		time.Sleep(2 * time.Minute)
	case bad:
		return syscall.EIO
	}
	return 0
}

type badNode struct {
	fs.LoopbackNode
	d *badDisk
}

type badFile struct {
	*fs.LoopbackFile
	d    *badDisk
	name string
}

func (n *badNode) wrap(fh fs.FileHandle, of *fs.Inode, name string) fs.FileHandle {
	n.d.mu.Lock()
	n.d.nodes[name] = of
	n.d.mu.Unlock()
	return &badFile{fh.(*fs.LoopbackFile), n.d, name}
}

func (n *badNode) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	fh, fl, errno := n.LoopbackNode.Open(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return n.wrap(fh, n.EmbeddedInode(), n.Path(n.Root())), fl, 0
}

func (n *badNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	inode, fh, fl, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return inode, n.wrap(fh, inode, filepath.Join(n.Path(n.Root()), name)), fl, 0
}

// PassthroughFd keeps the kernel from serving the file without us.
func (f *badFile) PassthroughFd() (int, bool) { return 0, false }

func (f *badFile) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if errno := f.d.fault("read", f.name, off, len(buf)); errno != 0 {
		return nil, errno
	}
	return f.LoopbackFile.Read(ctx, buf, off)
}

func (f *badFile) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := f.d.fault("write", f.name, off, len(data)); errno != 0 {
		return 0, errno
	}
	return f.LoopbackFile.Write(ctx, data, off)
}

// otherChild is what this binary does as a child of the tests on this system.
func otherChild() bool {
	if mount := os.Getenv(badMount); mount != "" {
		serveBad(mount, os.Getenv(badDir))
		return true
	}
	return false
}

// serveBad is the process that serves the disk. A line on its standard input says what is wrong from now on.
func serveBad(mount, dir string) {
	d := &badDisk{nodes: map[string]*fs.Inode{}}
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		fmt.Println("error", err)
		return
	}
	root := &fs.LoopbackRoot{Path: dir, Dev: uint64(st.Dev)}
	root.NewNode = func(r *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		return &badNode{fs.LoopbackNode{RootData: r}, d}
	}
	root.RootNode = &badNode{fs.LoopbackNode{RootData: root}, d}
	server, err := fs.Mount(mount, root.RootNode, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true, FsName: "bad"}})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("ok")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		d.mu.Lock()
		hits := d.hits
		d.what, d.file, d.page, d.hits = "", "", 0, 0
		_, _ = fmt.Sscan(in.Text(), &d.what, &d.file, &d.page) // less than all is fine
		node := d.nodes[d.file]
		d.mu.Unlock()
		if node != nil && (d.what == "read" || d.what == "hang-read") {
			node.NotifyContent(0, 0) // the kernel forgets what it has read
		}
		fmt.Println("ok", hits)
	}
	_ = server.Unmount()
}

// bad is a directory on such a disk.
type bad struct {
	t   *testing.T
	dir string
	in  io.WriteCloser
	out *bufio.Reader
	end func() // takes the disk away: what waits for it goes on, with an error
}

func mountBad(t *testing.T) *bad {
	t.Helper()
	if os.Getuid() != 0 {
		drivertest.Lacks(t, "mounting a file system needs root")
	}
	mount := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), badMount+"="+mount, badDir+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := &bad{t: t, dir: mount, in: in, out: bufio.NewReader(out)}
	b.end = sync.OnceFunc(func() {
		_ = syscall.Unmount(mount, syscall.MNT_DETACH)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(b.end)
	whenHung.Store(new(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // it prints its goroutines, and ends
		time.Sleep(time.Second)
	}))
	if line, err := b.out.ReadString('\n'); err != nil || line != "ok\n" {
		t.Skipf("no file system can be mounted here: %q %v", line, err)
	}
	return b
}

// set says what is wrong with the disk from now on, and returns how many requests met what was wrong until now.
func (b *bad) set(format string, args ...any) (hits int) {
	b.t.Helper()
	if _, err := fmt.Fprintf(b.in, format+"\n", args...); err != nil {
		b.t.Fatal(err)
	}
	line, err := b.out.ReadString('\n')
	if n, _ := fmt.Sscanf(line, "ok %d", &hits); n != 1 || err != nil {
		b.t.Fatalf("%q %v", line, err)
	}
	return hits
}
