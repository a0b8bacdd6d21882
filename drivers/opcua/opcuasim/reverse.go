package opcuasim

import (
	"encoding/binary"
	"errors"
	"net"
	"time"
)

// Call makes a connection to a client that listens at host:port, says to be the server uri at its endpoint, and serves on it: reverse connect. from is
// the address that it calls from, "" for any. It returns once the connection has ended.
func (s *Server) Call(to, from, uri string) error {
	d := net.Dialer{Timeout: time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", to)
	if err != nil {
		return err
	}
	tcp := c.(*net.TCPConn)
	if _, err := tcp.Write(ReverseHello(uri, s.Endpoint())); err != nil {
		return errors.Join(err, tcp.Close())
	}
	s.mu.Lock()
	if s.listener == nil {
		s.mu.Unlock()
		return errors.Join(errors.New("the simulated OPC UA server is closed"), tcp.Close())
	}
	s.conns[tcp] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	s.serve(tcp)
	return nil
}

// KeepCalling calls again whenever its connection has ended, after a while, until the server is closed.
func (s *Server) KeepCalling(to, from, uri string, after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.listener
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		for {
			_ = s.Call(to, from, uri)
			time.Sleep(after)
			s.mu.Lock()
			closed := s.listener != l || l == nil
			s.mu.Unlock()
			if closed {
				return
			}
		}
	}()
}

// ReverseHello returns the message with which a server that calls says who it is.
func ReverseHello(uri, endpoint string) []byte {
	b := append([]byte("RHEF"), 0, 0, 0, 0)
	for _, text := range []string{uri, endpoint} {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(text))), text...)
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	return b
}
