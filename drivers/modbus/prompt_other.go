//go:build !unix

package modbus

import "net"

// prompt is what a socket can do at once where the system lets it.
type prompt struct{}

// promptOf returns nil: it cannot be done here.
func promptOf(net.Conn, bool) *prompt { return nil }

// ask does nothing.
func (*prompt) ask([]byte, []byte) (sent, got int, err error) { return 0, 0, nil }
