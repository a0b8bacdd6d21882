package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// subscriber is the recording side: the least MQTT 3.1.1 client that takes every message at QoS 1, so
// that measuring costs the machine as little as possible.
type subscriber struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	buf  []byte
	mu   sync.Mutex // guards writes
}

// subscribe connects and subscribes to everything.
func subscribe(address, clientID string) (*subscriber, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, fmt.Errorf("connect to broker %s: %w", address, err)
	}
	s := &subscriber{conn: conn, in: bufio.NewReaderSize(conn, 256<<10)}
	// CONNECT: MQTT 3.1.1 §3.1, clean session, no keep-alive.
	head := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0, 0, byte(len(clientID))}, clientID...)
	sub := []byte{0, 1, 0, 1, '#', 1}
	s.write(packet(0x10, head))
	s.write(packet(0x82, sub))
	for _, want := range []byte{0x20, 0x90} {
		kind, body, err := s.read()
		if err != nil || kind != want || body[len(body)-1] > 1 {
			conn.Close()
			return nil, fmt.Errorf("subscribe at %s: packet %#x, %w", address, kind, errors.Join(err, errRefused))
		}
	}
	return s, nil
}

var errRefused = errors.New("broker refused")

func packet(kind byte, body []byte) []byte {
	p := binary.AppendUvarint([]byte{kind}, uint64(len(body))) // the remaining length is a uvarint
	return append(p, body...)
}

func (s *subscriber) write(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.conn.Write(p)
}

func (s *subscriber) read() (kind byte, body []byte, err error) {
	kind, err = s.in.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(s.in)
	if err != nil {
		return 0, nil, err
	}
	if uint64(cap(s.buf)) < n {
		s.buf = make([]byte, n)
	}
	body = s.buf[:n]
	_, err = io.ReadFull(s.in, body)
	return kind, body, err
}

// run hands every message to take until the connection ends.
func (s *subscriber) run(take func(topic, payload []byte)) error {
	for {
		kind, body, err := s.read()
		if err != nil {
			return err
		}
		if kind>>4 != 3 || len(body) < 4 {
			continue
		}
		n := int(binary.BigEndian.Uint16(body))
		topic, rest := body[2:2+n], body[2+n:]
		if kind&6 != 0 {
			s.out = append(s.out, 0x40, 2, rest[0], rest[1])
			rest = rest[2:]
		}
		take(topic, rest)
		if len(s.out) > 0 && (s.in.Buffered() == 0 || len(s.out) > 1<<10) {
			s.write(s.out)
			s.out = s.out[:0]
		}
	}
}

func (s *subscriber) close() { s.conn.Close() }
