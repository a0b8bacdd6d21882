package powercut

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	sectorSize = 512 // what a drive writes whole or not at all
	diskSize   = 32 << 20
)

// request is one thing the disk was asked to do: a write, or without data a flush of its cache.
type request struct {
	off  int64
	data []byte
}

func (r *request) isFlush() bool { return r.data == nil }

// disk is a file in memory, served over FUSE, that remembers what was done to it and in which order. A
// moment is the number of requests answered before it.
type disk struct {
	fs.Inode
	lying bool // flushes are answered and forgotten, as by a drive with a broken cache

	mu   sync.Mutex
	data []byte
	log  []request
	err  error // the first request that no drive would get
}

var (
	_ fs.NodeOpener    = (*disk)(nil)
	_ fs.NodeGetattrer = (*disk)(nil)
	_ fs.NodeReader    = (*disk)(nil)
	_ fs.NodeWriter    = (*disk)(nil)
	_ fs.NodeFsyncer   = (*disk)(nil)
)

// newDisk returns a disk that holds a copy of image.
func newDisk(image []byte) *disk { return &disk{data: append([]byte(nil), image...)} }

// now returns the moment.
func (d *disk) now() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log)
}

func (d *disk) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (d *disk) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = syscall.S_IFREG|0o600, diskSize, 4096
	return 0
}

func (d *disk) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	if off < diskSize {
		n = copy(dest, d.data[off:])
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (d *disk) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(data) == 0 || off%sectorSize != 0 || len(data)%sectorSize != 0 || off+int64(len(data)) > diskSize {
		d.err = fmt.Errorf("write of %d bytes at %d is not one of whole sectors", len(data), off)
		return 0, syscall.EINVAL
	}
	copy(d.data[off:], data)
	d.log = append(d.log, request{off: off, data: append([]byte(nil), data...)})
	return uint32(len(data)), 0
}

func (d *disk) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.lying {
		d.log = append(d.log, request{})
	}
	return 0
}
