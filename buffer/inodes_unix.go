//go:build linux || darwin

package buffer

import "golang.org/x/sys/unix"

// NoInodes reports whether the file system of a directory can have no further file, however many bytes are free.
func NoInodes(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Files > 0 && s.Ffree == 0 // one that counts no files has 0 of them
}
