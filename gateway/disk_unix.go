//go:build linux || darwin

package gateway

import "golang.org/x/sys/unix"

// FreeBytes returns how many bytes this user may still write to the file system of a directory, and whether that is known.
func FreeBytes(dir string) (int64, bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
