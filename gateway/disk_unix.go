//go:build linux || darwin

package gateway

import (
	"errors"

	"golang.org/x/sys/unix"
)

// FreeBytes returns how many bytes this user may still write to the file system of a directory, and whether that is known.
func FreeBytes(dir string) (int64, bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}

// writable returns why nobody may write in a directory, nil when somebody may: another user than this one, perhaps.
func writable(dir string) error {
	err := unix.Access(dir, unix.W_OK)
	if errors.Is(err, unix.EACCES) {
		err = nil
	}
	if err == nil && inEmergency(dir) {
		return unix.EROFS
	}
	return err
}
