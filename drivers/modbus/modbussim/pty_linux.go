package modbussim

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal: the device's end, and the other end held open, so that a client may come and go.
type terminal struct {
	*os.File
	other *os.File
}

// Close closes both ends.
func (t *terminal) Close() error {
	t.other.Close()
	return t.File.Close()
}

// upSerial serves a pseudo-terminal. After Down it is another one.
func (s *Server) upSerial() error {
	t, err := openTerminal()
	if err != nil {
		return fmt.Errorf("open pseudo-terminal: %w", err)
	}
	s.listener, s.addr = t, t.other.Name()
	c := &conn{server: s, socket: t, done: make(chan struct{}), packing: packingOf(s.scheme())}
	s.conns[c] = true
	s.wg.Add(1)
	go c.run()
	return nil
}

func openTerminal() (*terminal, error) {
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	raw, err := m.SyscallConn()
	if err != nil {
		m.Close()
		return nil, err
	}
	number := 0
	if e := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); e != nil {
		err = e
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	other, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		m.Close()
		return nil, err
	}
	return &terminal{m, other}, makeRaw(other)
}

// makeRaw lets bytes through as they are, for clients that do not see to that themselves.
func makeRaw(f *os.File) error {
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	return unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}
