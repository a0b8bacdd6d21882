package gateway

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"millrace/buffer"
)

// Capacity returns how many bytes a store in a directory, which need not be there yet, can grow to: max size, or what its
// file system has room for with what the store takes already. short reports that it is less than max size.
func Capacity(dir string, maxSize int64) (bytes int64, short bool) {
	free, known := FreeBytes(dir)
	for at := dir; !known && at != filepath.Dir(at); {
		at = filepath.Dir(at)
		free, known = FreeBytes(at)
	}
	if !known {
		return maxSize, false
	}
	entries, _ := os.ReadDir(dir) // what is not there takes nothing
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			free += info.Size()
		}
	}
	return min(maxSize, free), free < maxSize
}

// answers is how long a disk has to say how it is.
const answers = 2 * time.Second

// DiskTrouble says in words why nothing can be written to a store in a directory, which need not be there yet, as far as it can be seen without writing:
// its disk is read-only, or full, or does not answer; "" for none of them. waits reports that a start may wait for that; it does not where the mounts of the process alone are to blame.
func DiskTrouble(dir string) (why string, waits bool) {
	type trouble struct {
		why   string
		waits bool
	}
	seen := make(chan trouble, 1)
	go func() {
		why, waits := diskTrouble(dir)
		seen <- trouble{why, waits}
	}()
	select {
	case t := <-seen:
		return t.why, t.waits
	case <-time.After(answers):
		return "its disk does not answer", true
	}
}

func diskTrouble(dir string) (why string, waits bool) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		dir = filepath.Dir(dir)
	}
	if errors.Is(writable(dir), syscall.EROFS) {
		switch {
		case inEmergency(dir):
			return "its disk is read-only after an error of its file system, which must be unmounted, checked (e2fsck) and mounted again", true
		case ReadOnlyHere(dir):
			return "its path is mounted read-only, though its disk is writable", false
		}
		return "its disk is read-only", true
	}
	if free, known := FreeBytes(dir); known && free < leastStore {
		return fmt.Sprintf("its disk is full (%d bytes free)", max(free, 0)), true
	}
	if buffer.NoInodes(dir) {
		return "its disk has no inode free for a new file (see df -i)", true
	}
	return "", false
}

// ErrNoParent means that the directory of a store cannot be made because the one above it is not there.
var ErrNoParent = errors.New("the directory above it is not there; create its parent directory or give another one")

// leastStore is what a new store takes before it keeps anything: state.db and its first segment, 60 KiB measured.
const leastStore = 64 << 10

// Storable returns why no store can be in a directory, which need not be there yet. Whether this very user may write there it does
// not say: it is asked by other users than the gateway's.
func Storable(dir string) error {
	at := dir
	_, err := os.Stat(at)
	if errors.Is(err, os.ErrNotExist) {
		at = filepath.Dir(dir)
		if _, err = os.Stat(at); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("buffer.path %q: %w", dir, ErrNoParent)
		}
	}
	if err == nil || errors.Is(err, os.ErrPermission) {
		err = writable(at)
	}
	if err != nil {
		return fmt.Errorf("buffer.path %q: %w; give one in which the gateway may write", dir, err)
	}
	if !buffer.IsStore(dir) && buffer.NoInodes(at) {
		return fmt.Errorf("buffer.path %q: its file system has no inode free for a new file (see df -i); give another path or remove files", dir)
	}
	room, _ := Capacity(dir, leastStore)
	return storable(dir, room)
}

// storable returns why no store can be where there is so much room, bytes.
func storable(dir string, room int64) error {
	if room < leastStore {
		return fmt.Errorf("buffer.path %q: its file system has room for %d bytes, and a store begins with %d; give another path or free space", dir, room, leastStore)
	}
	return nil
}
