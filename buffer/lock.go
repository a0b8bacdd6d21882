package buffer

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const lockName = "lock"

// takeLock takes the directory's lock, which the operating system lets go of when the process ends.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("%w; the directory must be writable by this user", err)
	}
	if err := lockFile(f); err != nil {
		holder := lockHolder(f)
		_ = f.Close()
		return nil, fmt.Errorf("%w (%s); stop it, or give this one another data directory", ErrInUse, holder)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // only told to people
	}
	return f, nil
}

func lockHolder(f *os.File) string {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	pid := strings.TrimSpace(string(text))
	if err != nil || pid == "" {
		return "its process id is not known"
	}
	return "process " + pid
}
