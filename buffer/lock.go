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
		return nil, err
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
	writeLock(f, readSeen(f))
	return f, nil
}

// seen is what the lock's file says besides the process: which store was in the directory, and which generation of its checkpoints was in
// state.db. A state.db with an older one is not that which was here last. The zero value says nothing.
type seen struct{ store, gen uint64 }

func readSeen(f *os.File) (s seen) {
	text, _ := io.ReadAll(io.NewSectionReader(f, 0, 128))
	_, line, _ := strings.Cut(string(text), "\n")
	if n, err := fmt.Sscanf(line, "store %16x generation %d\n", &s.store, &s.gen); n != 2 || err != nil {
		return seen{}
	}
	return s
}

// writeLock writes the process, for people, and what was seen. That it cannot be written is no loss by itself.
func writeLock(f *os.File, s seen) {
	text := strconv.Itoa(os.Getpid()) + "\n"
	if s != (seen{}) {
		text += fmt.Sprintf("store %016x generation %d\n", s.store, s.gen)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(text), 0)
	}
}

// seenIn is readSeen of a directory's lock, of which nothing is taken.
func seenIn(dir string) seen {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return seen{}
	}
	defer func() { _ = f.Close() }() // nothing was written
	return readSeen(f)
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
	pid, _, _ := strings.Cut(string(text), "\n")
	pid = strings.TrimSpace(pid)
	if err != nil || pid == "" {
		return "a process that is not known"
	}
	return "process " + pid
}
