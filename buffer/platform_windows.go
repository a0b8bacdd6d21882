package buffer

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockFile takes a byte of the file far behind its text for this process alone, or fails at once: what is locked on
// Windows cannot be read, and the text says who holds the lock.
func lockFile(f *os.File) error { return lockRange(f, windows.LOCKFILE_EXCLUSIVE_LOCK) }

// lockShared takes the same byte beside others that do so, or fails at once.
func lockShared(f *os.File) error { return lockRange(f, 0) }

func lockRange(f *os.File, flags uint32) error {
	at := windows.Overlapped{Offset: 1 << 30}
	return windows.LockFileEx(windows.Handle(f.Fd()), flags|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
}

// syncDir has nothing to do: NTFS logs the names in a directory itself, and offers no call for it.
func syncDir(string) error { return nil }

// linked has nothing to tell: a directory of which a file is open cannot be moved.
func linked(*os.File) bool { return false }
