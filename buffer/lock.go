package buffer

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const lockName = "lock"

// takeLock takes the directory's lock, which the operating system lets go of when the process ends.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("%w; the directory must be writable by this user", err)
	}
	err = lockFile(f)
	for try := 0; err != nil && try < 5; try++ { // somebody may just be looking: Holder
		time.Sleep(10 * time.Millisecond)
		err = lockFile(f)
	}
	if err != nil {
		holder := lockHolder(f)
		_ = f.Close()
		return nil, fmt.Errorf("%w (%s); stop it, or give this one another data directory", ErrInUse, holder)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // only told to people
	}
	return f, nil
}

// Holder says which process has the store in dir open, "" for none that can be seen.
func Holder(dir string) string {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return ""
	}
	defer f.Close() // lets go of the lock, too
	if lockShared(f) == nil {
		return ""
	}
	return lockHolder(f)
}

func lockHolder(f *os.File) string {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	pid := strings.TrimSpace(string(text))
	if err != nil || pid == "" {
		return "a process that is not known"
	}
	return "process " + pid
}
