package publisher

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn stands between the client library and the network connection. Outbound it collects packets, so that
// Write never blocks and a busy session makes few system calls; the session's window bounds what can collect.
// Inbound it passes on only what a publisher may hear, so that the library, which allocates what a packet
// announces and completes a publish on any packet with its id, never sees anything else.
type conn struct {
	raw  net.Conn
	r    *bufio.Reader
	in   [4]byte // the packet being passed on
	left []byte  // what of it the library has not read

	mu          sync.Mutex // guards what follows
	buf, spare  []byte
	ids, spared []uint16     // packet ids in buf
	outstanding [1024]uint64 // packet ids on the wire and not acknowledged
	welcomed    bool         // CONNACK has come
	stray       uint64       // PUBACKs that acknowledged nothing

	born    time.Time
	heard   atomic.Int64  // when the last packet came, in nanoseconds since born: a clock that is set does not matter
	kick    chan struct{} // there is something to write
	closing chan struct{}
	flushed chan struct{} // closed when the writer has ended
	lost    chan struct{} // closed when the connection is of no more use; err says why
	once    sync.Once
	ended   sync.Once
	err     error
}

const (
	writeChunk   = 16 << 10
	writeTimeout = 10 * time.Second // for one chunk: no progress at all on the slowest link
	closeTimeout = 500 * time.Millisecond
	keepWrite    = 1 << 20
)

// errClosed says that the client library closed the connection.
var errClosed = errors.New("connection closed")

// wrap takes over the connection. The caller runs write in a goroutine.
func wrap(raw net.Conn) *conn {
	return &conn{raw: raw, born: time.Now(), r: bufio.NewReaderSize(raw, 4096), kick: make(chan struct{}, 1), closing: make(chan struct{}),
		flushed: make(chan struct{}), lost: make(chan struct{})}
}

// fail ends the connection at once for this reason; the first reason counts.
func (c *conn) fail(err error) {
	c.once.Do(func() {
		c.err = err
		close(c.lost)
		c.raw.Close()
	})
}

// lostFor returns why the connection was lost, nil if it was not.
func (c *conn) lostFor() error {
	select {
	case <-c.lost:
		return c.err
	default:
		return nil
	}
}

// Read gives the library the packets that a publisher may hear, one at a time.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.left) == 0 {
		if err := c.next(); err != nil {
			c.fail(err)
			return 0, c.err
		}
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}

// First bytes of the packets that matter here (MQTT 3.1.1 section 2.2).
const (
	packetConnack  = 0x20
	packetPublish1 = 0x32 // QoS 1, not retained, not a duplicate
	packetPuback   = 0x40
	packetPingresp = 0xd0
)

// next reads the next packet to pass on.
func (c *conn) next() error {
	for {
		if _, err := io.ReadFull(c.r, c.in[:2]); err != nil {
			return err
		}
		c.heard.Store(int64(time.Since(c.born)))
		switch kind, size := c.in[0], c.in[1]; {
		case kind == packetPingresp && size == 0:
			c.left = c.in[:2]
			return nil
		case (kind == packetConnack || kind == packetPuback) && size == 2:
			if _, err := io.ReadFull(c.r, c.in[2:4]); err != nil {
				return err
			}
			c.left = c.in[:4]
			pass, err := c.judge()
			if pass || err != nil {
				return err
			}
		default:
			return fmt.Errorf("the broker sent a packet %#02x of length byte %d, which no publisher asks for", kind, size)
		}
	}
}

// judge says whether the CONNACK or PUBACK in c.in makes sense.
func (c *conn) judge() (pass bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.in[0] == packetConnack {
		// An unknown return code makes the library believe that it is connected (paho v1.5.1 client.go:419).
		if c.welcomed || c.in[3] > 5 {
			return false, fmt.Errorf("the broker sent a login answer that makes no sense (code %d)", c.in[3])
		}
		c.welcomed = true
		return true, nil
	}
	id := uint16(c.in[2])<<8 | uint16(c.in[3])
	if c.outstanding[id/64]&(1<<(id%64)) == 0 {
		c.stray++
		return false, nil
	}
	c.outstanding[id/64] &^= 1 << (id % 64)
	return true, nil
}

// Write queues one packet; the library never splits one.
func (c *conn) Write(p []byte) (int, error) {
	select {
	case <-c.lost:
		return 0, net.ErrClosed
	case <-c.closing:
		return 0, net.ErrClosed
	default:
	}
	c.mu.Lock()
	c.buf = append(c.buf, p...)
	if id, ok := publishID(p); ok {
		c.ids = append(c.ids, id)
	}
	c.mu.Unlock()
	select {
	case c.kick <- struct{}{}:
	default:
	}
	return len(p), nil
}

// publishID returns the packet id of a QoS 1 PUBLISH.
func publishID(p []byte) (uint16, bool) {
	if len(p) < 2 || p[0]&^0x08 != packetPublish1 {
		return 0, false
	}
	i := 1
	for i < len(p) && p[i] >= 0x80 {
		i++
	}
	if i++; i+2 > len(p) {
		return 0, false
	}
	i += 2 + int(p[i])<<8 + int(p[i+1])
	if i+2 > len(p) {
		return 0, false
	}
	return uint16(p[i])<<8 | uint16(p[i+1]), true
}

// write sends what is queued until the connection ends.
func (c *conn) write() {
	defer close(c.flushed)
	for {
		select {
		case <-c.kick:
		case <-c.lost:
			return
		case <-c.closing:
			c.flush()
			return
		}
		if !c.flush() {
			return
		}
	}
}

func (c *conn) flush() bool {
	c.mu.Lock()
	chunk, ids := c.buf, c.ids
	c.buf, c.ids = c.spare[:0], c.spared[:0]
	for _, id := range ids {
		c.outstanding[id/64] |= 1 << (id % 64)
	}
	c.mu.Unlock()
	for rest := chunk; len(rest) > 0; {
		n := min(len(rest), writeChunk)
		c.raw.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := c.raw.Write(rest[:n]); err != nil {
			c.fail(err)
			return false
		}
		rest = rest[n:]
	}
	if cap(chunk) > keepWrite {
		chunk = nil
	}
	c.mu.Lock()
	c.spare, c.spared = chunk, ids
	c.mu.Unlock()
	return true
}

// Close lets what is queued go out (a DISCONNECT), for a moment, and ends the connection.
func (c *conn) Close() error {
	c.ended.Do(func() { close(c.closing) })
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-c.flushed:
	case <-timer.C:
	}
	c.fail(errClosed)
	return nil
}

// strays returns how many PUBACKs acknowledged nothing that was on the wire.
func (c *conn) strays() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stray
}

// SetDeadline bounds reading only: writing has its own bound.
func (c *conn) SetDeadline(t time.Time) error { return c.raw.SetReadDeadline(t) }

// SetReadDeadline bounds reading.
func (c *conn) SetReadDeadline(t time.Time) error { return c.raw.SetReadDeadline(t) }

// SetWriteDeadline does nothing: Write does not block.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr returns the near end.
func (c *conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the far end.
func (c *conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }
