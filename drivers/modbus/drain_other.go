//go:build !unix

package modbus

import "net"

// drainOf has no way to look without waiting here: what lies in the socket is told from an answer by its transaction id.
func drainOf(net.Conn, bool) drain { return nil }

// drain throws away what came unread.
func (p *serialPort) drain([]byte) (int, error) { return 0, p.ResetInputBuffer() }
