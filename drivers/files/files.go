// Package files reads what others have put on the disk: config, secrets, certificates, notes of an earlier run. It promises
// that such a file takes a bounded time of a reader that is not a hung mount, and bounded memory: a pipe or a device in its place is refused unread.
package files

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// What Read refuses; each is the Err of a *fs.PathError.
var (
	ErrNotRegular = errors.New("it is not a regular file")
	ErrTooLarge   = errors.New("it is too large")
)

// MaxPEM bounds a file of certificates, in bytes: a system's whole bundle has 250 KB.
const MaxPEM = 1 << 20

// Read returns the content of a regular file of at most so many bytes. A link to such a file is one. Every error is a *fs.PathError.
func Read(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path) // to open a device may do something
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: ErrNotRegular}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO put there since must not hang us
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(f, most)
}

func read(f *os.File, most int64) ([]byte, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: ErrNotRegular}
	case info.Size() > most:
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: ErrTooLarge}
	}
	var b bytes.Buffer
	b.Grow(int(info.Size()) + bytes.MinRead)
	n, err := b.ReadFrom(io.LimitReader(f, most+1)) // it may grow meanwhile
	if err == nil && n > most {
		err = &fs.PathError{Op: "read", Path: f.Name(), Err: ErrTooLarge}
	}
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
