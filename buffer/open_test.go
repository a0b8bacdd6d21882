package buffer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestOpenSaysWhatToDo: a store that cannot be opened names the remedy for what happened, and no other.
func TestOpenSaysWhatToDo(t *testing.T) {
	remedies := map[syscall.Errno]string{syscall.EACCES: "give this user write permission", syscall.EROFS: "it must be mounted writable",
		syscall.ENOSPC: "free space on its disk", syscall.EDQUOT: "raise its quota", syscall.EIO: ""}
	for errno, want := range remedies {
		fs := osFiles()
		fs.bolt = func(path string, _ *bolt.Options) (*bolt.DB, error) {
			return nil, &os.PathError{Op: "open", Path: path, Err: errno}
		}
		_, err := open(filepath.Join(t.TempDir(), "store"), testOptions(), fs)
		made := mendMkdir(t.TempDir(), fmt.Errorf("mkdir: %w", errno)).Error()
		for _, other := range remedies {
			if other == "" {
				continue
			}
			if err == nil || strings.Contains(err.Error(), other) != (other == want) {
				t.Errorf("%v: %v", errno, err)
			}
			if errno != syscall.EACCES && strings.Contains(made, other) != (other == want) {
				t.Errorf("%v of the directory: %s", errno, made)
			}
		}
	}
}
