package gateway

import (
	"os"
	"path/filepath"
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
