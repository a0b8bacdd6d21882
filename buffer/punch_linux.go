package buffer

import (
	"os"

	"golang.org/x/sys/unix"
)

// punch gives a part of a file back to the file system; it reads as zeros then.
func punch(f *os.File, at, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
}
