//go:build unix

package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, size := range map[string]int{"empty": 0, "just": 100, "over": 101} {
		if err := os.WriteFile(path(name), []byte(strings.Repeat("x", size)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(syscall.Mkfifo(path("fifo"), 0o600), os.Symlink(path("just"), path("link")), os.Symlink(path("fifo"), path("pipe"))); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		size int
		want error
	}{
		{"empty", 0, nil}, {"just", 100, nil}, {"link", 100, nil},
		{"over", 0, ErrTooLarge}, {"fifo", 0, ErrNotRegular}, {"pipe", 0, ErrNotRegular}, {".", 0, ErrNotRegular}, {"none", 0, fs.ErrNotExist},
	} {
		got, err := Read(path(c.name), 100)
		var of *fs.PathError
		if len(got) != c.size || !errors.Is(err, c.want) || err != nil && !errors.As(err, &of) {
			t.Errorf("%s: %d bytes, %v", c.name, len(got), err)
		}
	}
	if _, err := Read("/dev/zero", 100); !errors.Is(err, ErrNotRegular) {
		t.Errorf("a device: %v", err)
	}
}

// TestReadOpened has what may have been put there between the look and the opening, and what says that it is empty and is not.
func TestReadOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := read(f, 100); !errors.Is(err, ErrNotRegular) {
		t.Errorf("a FIFO: %v", err)
	}
	if runtime.GOOS != "linux" {
		t.Skip("no file that has more than it says is known here")
	}
	p, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := read(p, 100); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a file that has more than it says: %v", err)
	}
}
