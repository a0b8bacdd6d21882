package publisher

import (
	"os"
	"syscall"
	"testing"
)

// storeDir is an empty directory in memory where the machine has room for one: the stores of these tests are killed by nobody, and
// thousands of fsyncs, for which the clock of a bubble waits, take longer than all else.
func storeDir(t *testing.T) string {
	t.Helper()
	const shm, room = "/dev/shm", 1 << 30
	var s syscall.Statfs_t
	if err := syscall.Statfs(shm, &s); err != nil || int64(s.Bavail)*int64(s.Bsize) < room {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "millrace-publisher")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
