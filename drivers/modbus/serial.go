package modbus

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"go.bug.st/serial"
)

// serialPort is a serial line with deadlines.
type serialPort struct {
	serial.Port
	until atomic.Int64 // the deadline, in ns since 1970
	lock  io.Closer    // nil = none
}

// Close releases the line.
func (p *serialPort) Close() error {
	err := p.Port.Close()
	if p.lock != nil {
		err = errors.Join(err, p.lock.Close())
	}
	return err
}

// slice is how long one read waits, so that a deadline that moves is seen.
const slice = 20 * time.Millisecond

func openSerial(path string, m serialMode) (*serialPort, error) {
	mode := &serial.Mode{BaudRate: m.baud, DataBits: m.data, StopBits: serial.OneStopBit}
	if m.stop == 2 {
		mode.StopBits = serial.TwoStopBits
	}
	switch m.parity {
	case "odd":
		mode.Parity = serial.OddParity
	case "even":
		mode.Parity = serial.EvenParity
	}
	lock, err := lockSerial(path)
	if err != nil {
		return nil, fmt.Errorf("open serial line %q: %w", path, err)
	}
	p, err := serial.Open(path, mode)
	if err != nil {
		if lock != nil {
			lock.Close()
		}
		return nil, fmt.Errorf("open serial line %q: %w%s", path, err, serialCure(err))
	}
	return &serialPort{Port: p, lock: lock}, nil
}

// serialCure is what to do about a serial line that does not open.
func serialCure(err error) string {
	pe := (*serial.PortError)(nil)
	if !errors.As(err, &pe) {
		return ""
	}
	switch pe.Code() {
	case serial.PermissionDenied:
		return "; add the user of millrace to the group that owns it, often dialout"
	case serial.PortBusy:
		return "; another program, or another device's url of this config, has it"
	case serial.PortNotFound:
		return "; is the adapter plugged in? /dev/serial/by-id names stay the same"
	}
	return ""
}

// SetDeadline sets when a read gives up, one under way included.
func (p *serialPort) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline sets when a read gives up, one under way included.
func (p *serialPort) SetReadDeadline(t time.Time) error {
	p.until.Store(t.UnixNano())
	return nil
}

// Read reads what has come, or waits for it until the deadline.
func (p *serialPort) Read(b []byte) (int, error) {
	for {
		left := time.Until(time.Unix(0, p.until.Load()))
		if left <= 0 {
			return 0, os.ErrDeadlineExceeded
		}
		if err := p.SetReadTimeout(max(min(left, slice), time.Millisecond)); err != nil {
			return 0, err
		}
		n, err := p.read(b)
		if pe := (*serial.PortError)(nil); errors.As(err, &pe) && pe.Code() == serial.PortClosed {
			err = io.EOF // unplugged
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// read turns a panic of the library into an error: it waits with select, which knows no file descriptor over 1023.
func (p *serialPort) read(b []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("read serial line: %v; it cannot be read while millrace has more than 1,000 files and connections open", r)
		}
	}()
	return p.Port.Read(b)
}
