//go:build unix

package modbus

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// errLocked is the error of a line that another gateway or tool has.
var errLocked = errors.New("another millrace has it; stop that, or go through it: --config names its config")

// lockSerial keeps a serial line for one millrace. The line's own exclusive mode does not stop a process of root, which a gateway
// in a container mostly is. A line that cannot be opened is left to what comes next, which says why.
func lockSerial(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, errLocked
	}
	return f, nil
}
