//go:build linux || darwin

package gateway

import (
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

// openDescriptors counts. When not even the directory can be opened, none is left.
func openDescriptors() int {
	list, err := os.ReadDir("/dev/fd")
	if err != nil {
		return descriptorLimit()
	}
	return len(list) - 1 // less the one that lists them
}
