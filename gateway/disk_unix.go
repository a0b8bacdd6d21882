//go:build linux || darwin

package gateway

import (
	"errors"
	"path/filepath"

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

// DeviceOf returns the number of the file system that a directory is on, or, where it is not there, the one above it, and whether that is known.
func DeviceOf(dir string) (device uint64, known bool) {
	var s unix.Stat_t
	err := unix.Stat(dir, &s)
	if errors.Is(err, unix.ENOENT) {
		err = unix.Stat(filepath.Dir(dir), &s)
	}
	return uint64(s.Dev), err == nil
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
