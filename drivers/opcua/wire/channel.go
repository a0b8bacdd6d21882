// Package wire is the OPC UA binary protocol up to the secure channel: the codec, chunks and security (OPC 10000-6). It
// imports none of ours and nothing of a library. The driver opcua calls it.
//
// It promises: no byte of the server is taken on trust: each length, kind, number and signature is checked before it is used, and
// whatever the server sends costs a bounded amount of memory. Requests are answered in any order, several at a time. One
// goroutine, owned by the Channel, reads; it begins with Open and has ended when Close returns.
package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"
)

// Bounds of the transport, told to the server in the handshake and held against it.
const (
	ChunkSize   = 65535     // bytes of one chunk, in either direction
	MaxMessage  = 2 << 20   // bytes of one response; of a larger one the rest is dropped as it comes
	MaxChunks   = 512       // chunks of one response; a server that sends more loses the connection
	MaxRequest  = 256 << 10 // bytes of one request; a larger one is refused here
	MaxOpen     = 32        // requests at a time
	MaxLifetime = time.Hour // of the channel's token, asked of the server
	MinLifetime = time.Second

	HeadSize = symmetric + sequenceSize // bytes before the body of a MSG chunk

	minChunk    = 1024      // what we still cope with; the specification has 8192
	keptMessage = 256 << 10 // bytes of a response that a Call keeps for the next
)

// Channel is a secure channel over one connection (OPC 10000-6, 6.7 and 7.1). All methods may be called at any time and from
// several goroutines, but Hello and the first Open, which come first and in this order. After any error that is not a StatusError or a
// MalformedError the channel is of no use.
type Channel struct {
	conn     net.Conn
	in       *bufio.Reader
	security Security
	words    func(status uint32) string

	largest int // chunk that the server takes
	message int // bytes of a request that the server takes

	write   sync.Mutex // held while a request is written, so that chunks go out in order; guards the next ones
	out     []byte     // the request at hand
	sealed  []byte     // the chunk at hand
	sent    uint32     // sequence number of our last chunk
	request uint32     // id of the last request
	token   uint32     // of the keys below
	keys    *keys

	renewing sync.Mutex // held while the token is renewed

	mu         sync.Mutex // guards the next ones
	id         uint32     // of the channel, 0 before the first answer to Open
	renew, end time.Time
	lifetime   time.Duration // of a token, asked of the server
	pending    map[uint32]*Call
	err        error         // why the channel is of no use
	lost       chan struct{} // closed with err
	wake       chan struct{} // something is pending

	// The rest belongs to the goroutine that reads.
	raw      []byte      // the chunk at hand
	received uint32      // sequence number of the server's last chunk
	reads    [2]readKeys // the present one first
	begun    bool
	done     chan struct{}
}

// readKeys are the server's keys under one token: the present one and, until it has expired, the one before. Servers should answer under the
// new token once they have seen it (OPC 10000-4, 5.5.2), but node-opcua answers each request under the token that it came with; once that has
// expired it uses the present keys and still names the old token.
type readKeys struct {
	token uint32
	keys  *keys
	valid bool
	until time.Time // of no account in the present one
}

// Call is one request under way and its answer. It may be used again once it was answered.
type Call struct {
	body   []byte
	size   int
	chunks int
	err    error
	sent   time.Time
	at     time.Time
	id     uint32 // of the request
	done   chan *Call
	open   *opening // of an OpenSecureChannel request
}

// opening is what an OpenSecureChannel request leaves until its answer.
type opening struct {
	nonce    []byte
	asked    time.Time
	lifetime time.Duration
	token    uint32
	keys     *keys
}

// New returns a channel over a connection, which it closes. words says a status code in words.
func New(conn net.Conn, s Security, words func(status uint32) string) *Channel {
	return &Channel{conn: conn, in: bufio.NewReader(conn), security: s, words: words, largest: minChunk,
		pending: map[uint32]*Call{}, lost: make(chan struct{}), wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// Security returns how the channel is secured.
func (c *Channel) Security() *Security { return &c.security }

// Request returns how many bytes of a request's body the server takes at most.
func (c *Channel) Request() int { return c.message }

// Times returns when the token should be renewed and when it ends at the earliest.
func (c *Channel) Times() (renew, end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.renew, c.end
}

// Lost is closed when the channel is of no use any more; Err says why.
func (c *Channel) Lost() <-chan struct{} { return c.lost }

// Err returns why the channel is of no use, nil while it is.
func (c *Channel) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Fail ends the channel for a reason that all requests under way are told.
func (c *Channel) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
}

// expire ends the channel where a request is still under way when its time is up. An answer that came in the last instant leaves the channel to the next.
func (c *Channel) expire(request uint32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[request] != nil {
		c.fail(err)
	}
}

func (c *Channel) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	close(c.lost)
	c.conn.Close()
	for id, call := range c.pending {
		delete(c.pending, id)
		call.finish(err)
	}
}

// Close closes the connection and waits for the goroutine that reads.
func (c *Channel) Close() {
	c.Fail(ErrClosed)
	if c.begun {
		<-c.done
	}
}

// Hello exchanges Hello and Acknowledge (OPC 10000-6, 7.1.2), within the deadline that the caller has set. What the server says of its
// own buffers bounds what it is sent; what it may send is bounded by us.
func (c *Channel) Hello(endpoint string) error {
	b := binary.LittleEndian.AppendUint32([]byte("HELF\x00\x00\x00\x00"), 0)
	for _, bound := range []uint32{ChunkSize, ChunkSize, MaxMessage, MaxChunks, uint32(len(endpoint))} {
		b = binary.LittleEndian.AppendUint32(b, bound)
	}
	b = append(b, endpoint...)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	kind, _, err := c.head("ACK")
	if err != nil {
		return err
	}
	if kind != "ACK" {
		return ProtocolError(fmt.Sprintf("the server answered with %q", kind))
	}
	return c.acknowledged(Reader{B: c.raw[8:]})
}

func (c *Channel) acknowledged(r Reader) error {
	r.U32() // protocol version
	receives := r.U32()
	r.U32() // what it sends is for us to bound
	message, chunks := r.U32(), r.U32()
	switch {
	case r.Err != nil:
		return r.Err
	case receives < minChunk:
		return ProtocolError(fmt.Sprintf("the server takes chunks of %d bytes only", receives))
	case message != 0 && message < minChunk:
		return ProtocolError(fmt.Sprintf("the server takes messages of %d bytes only", message))
	}
	c.largest = int(min(receives, ChunkSize))
	c.message = MaxRequest
	if message != 0 {
		c.message = int(min(message, MaxRequest))
	}
	if chunks != 0 { // half of what they hold: signature and padding stand in them, too
		c.message = int(min(uint64(chunks)*uint64(c.largest)/2, uint64(c.message)))
	}
	return nil
}
