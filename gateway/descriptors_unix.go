//go:build linux || darwin

package gateway

import (
	"errors"
	"os"
	"syscall"
)

// descriptorLimit returns the soft limit, which Go raises to the hard one at the start.
func descriptorLimit() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Cur > 1<<30 {
		return 0
	}
	return int(l.Cur)
}

// openDescriptors counts, where the system shows them.
func openDescriptors() int {
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		list, err := os.ReadDir(dir)
		switch {
		case err == nil:
			return len(list) - 1 // less the one that lists them
		case errors.Is(err, syscall.EMFILE):
			return descriptorLimit() // not even one is left
		}
	}
	return 0
}
