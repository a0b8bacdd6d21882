package modbussim

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// peer is one client of a UDP server.
type peer struct {
	*net.UDPConn
	addr netip.AddrPort
}

func (p *peer) Write(b []byte) (int, error) { return p.WriteToUDPAddrPort(b, p.addr) }

// Close does nothing: the socket serves every client.
func (p *peer) Close() error { return nil }

// SetWriteDeadline does nothing: a datagram does not wait.
func (p *peer) SetWriteDeadline(time.Time) error { return nil }

func (s *Server) upUDP() error {
	addr, err := net.ResolveUDPAddr("udp", s.addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	socket, err := net.ListenUDP("udp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.listener, s.addr = socket, socket.LocalAddr().String()
	s.wg.Add(1)
	go s.datagrams(socket)
	return nil
}

// datagrams answers every datagram in turn, each for itself.
func (s *Server) datagrams(socket *net.UDPConn) {
	defer s.wg.Done()
	conns := map[netip.AddrPort]*conn{}
	in := make([]byte, 2<<10)
	for {
		n, from, err := socket.ReadFromUDPAddrPort(in)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an answer to somebody who is gone
		}
		c := conns[from]
		if c == nil {
			if c = s.take(socket, &peer{socket, from}); c == nil {
				return
			}
			conns[from] = c
		}
		c.take(in[:n])
		c.out = c.out[:0]
	}
}
