package opcua

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// Bounds of the transport, told to the server in the handshake and held against it.
const (
	chunkSize   = 65535     // one chunk, in either direction
	maxMessage  = 2 << 20   // one response; of a larger one the rest is dropped as it comes
	maxChunks   = 512       // chunks of one response; a server that sends more loses the connection
	minChunk    = 1024      // what we still cope with; the specification has 8192
	keptMessage = 256 << 10 // memory for responses that is kept between polls
	maxLifetime = time.Hour // of the channel's token, asked of the server
	minLifetime = time.Second
)

// headSize is what stands before the body of a MSG chunk: header, channel, token, sequence number, request id.
const headSize = 24

// channel is a secure channel of policy None over one connection (OPC 10000-6, 6.7 and 7.1). It does
// one request after the other, starts no goroutine, and takes no byte of the server on trust.
//
// It is ours, and not the library's, because the library decodes in a goroutine of its own, where
// nobody can recover, and on the way allocates, recurses and waits as the server says.
type channel struct {
	tcp net.Conn
	in  *bufio.Reader

	id       uint32 // of the channel
	token    uint32 // of its key, renewed in time
	previous uint32 // the token before
	sent     uint32 // sequence number of our last chunk
	received uint32 // of the server's last one
	request  uint32 // id of the last request

	largest    int // chunk that the server takes
	maxRequest int // bytes of node ids in one request
	renew, end time.Time

	out  []byte // the request, behind room for its head
	body []byte // the response
}

func newChannel(tcp net.Conn) *channel {
	return &channel{tcp: tcp, in: bufio.NewReader(tcp), largest: minChunk}
}

// hello exchanges Hello and Acknowledge (OPC 10000-6, 7.1.2). What the server says of its own buffers bounds
// what it is sent; what it may send is bounded by us.
func (c *channel) hello(endpoint string) error {
	b := binary.LittleEndian.AppendUint32(frame("HELF"), 0)
	for _, bound := range []uint32{chunkSize, chunkSize, maxMessage, maxChunks, uint32(len(endpoint))} {
		b = binary.LittleEndian.AppendUint32(b, bound)
	}
	if err := c.write(append(b, endpoint...)); err != nil {
		return err
	}
	if err := c.chunk("ACK"); err != nil {
		return err
	}
	r := reader{b: c.body}
	r.u32() // protocol version
	receives := r.u32()
	r.u32() // what it sends is for us to bound
	message, chunks := r.u32(), r.u32()
	switch {
	case r.err != nil:
		return r.err
	case receives < minChunk:
		return protocolError(fmt.Sprintf("the server takes chunks of %d bytes only", receives))
	case message != 0 && message < minChunk:
		return protocolError(fmt.Sprintf("the server takes messages of %d bytes only", message))
	}
	c.largest = int(min(receives, chunkSize))
	c.maxRequest = maxRequest
	if message != 0 {
		c.maxRequest = int(min(message/2, maxRequest))
	}
	if chunks != 0 {
		c.maxRequest = int(min(uint64(chunks)*uint64(c.largest)/2, uint64(c.maxRequest)))
	}
	return nil
}

// open opens the channel or, later, renews its token (OPC 10000-4, 5.5.2).
func (c *channel) open(lifetime time.Duration) error {
	kind := uint32(ua.SecurityTokenRequestTypeIssue)
	if c.id != 0 {
		kind = uint32(ua.SecurityTokenRequestTypeRenew)
	}
	c.request++
	c.sent = nextSequence(c.sent)
	b := binary.LittleEndian.AppendUint32(frame("OPNF"), c.id)
	b = appendText(b, ua.SecurityPolicyURINone)
	for _, v := range []uint32{noLength, noLength, c.sent, c.request} { // no certificate, no thumbprint
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = appendHeader(b, id.OpenSecureChannelRequest_Encoding_DefaultBinary, noToken, c.request, 0)
	for _, v := range []uint32{0, kind, uint32(ua.MessageSecurityModeNone), noLength, uint32(lifetime / time.Millisecond)} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	if err := c.write(b); err != nil {
		return err
	}
	if err := c.chunk("OPN"); err != nil {
		return err
	}
	return c.opened(lifetime)
}

// opened takes the answer to open.
func (c *channel) opened(lifetime time.Duration) error {
	r := reader{b: c.body}
	r.u32() // the channel, which some servers say behind only
	policy := r.bytes()
	r.bytes()
	r.bytes()
	if r.err == nil && string(policy) != ua.SecurityPolicyURINone {
		return protocolError("the server answered with another security policy than None")
	}
	if err := c.follows(&r); err != nil {
		return err
	}
	if err := r.response(id.OpenSecureChannelResponse_Encoding_DefaultBinary); err != nil {
		return err
	}
	r.u32() // protocol version
	issued := r.u32()
	token := r.u32()
	r.u64() // its clock, which may be wrong
	revised := time.Duration(r.u32()) * time.Millisecond
	switch {
	case r.err != nil:
		return r.err
	case issued == 0, c.id != 0 && c.id != issued:
		return protocolError("the server answered with another secure channel")
	}
	if c.id == 0 {
		c.token = token
	}
	c.id, c.previous, c.token = issued, c.token, token
	if revised == 0 { // says nothing; a token that lives for no time would be of no use
		revised = lifetime
	}
	revised = min(max(revised, minLifetime), lifetime)
	now := time.Now()
	c.renew, c.end = now.Add(revised*3/4), now.Add(revised)
	return nil
}

// begin returns the buffer for a request, with room for its head. The caller appends the body and calls do.
func (c *channel) begin() []byte {
	if cap(c.out) < headSize {
		c.out = make([]byte, headSize, 1024)
	}
	c.request++
	return c.out[:headSize]
}

// do sends the request that stands in b behind its head, and returns the body of the answer, which is valid
// until the next.
func (c *channel) do(b []byte) ([]byte, error) {
	if err := c.send("MSG", b); err != nil {
		return nil, err
	}
	return c.receive()
}

// send writes the request in chunks. The head of each stands where the chunk before ended.
func (c *channel) send(kind string, b []byte) error {
	c.out = b
	for final := false; !final; {
		n, mark := len(b), byte('F')
		if n > c.largest {
			n, mark = c.largest, 'C'
		}
		final = mark == 'F'
		c.sent = nextSequence(c.sent)
		copy(b, kind)
		b[3] = mark
		for i, v := range [...]uint32{uint32(n), c.id, c.token, c.sent, c.request} {
			binary.LittleEndian.PutUint32(b[4+4*i:], v)
		}
		if _, err := c.tcp.Write(b[:n]); err != nil {
			return err
		}
		if !final {
			b = b[n-headSize:]
		}
	}
	return nil
}

// receive reads the answer to the last request into c.body, chunk by chunk. An answer over maxMessage is read to
// its end, without being kept, so that the connection stays of use.
func (c *channel) receive() ([]byte, error) {
	c.body = c.body[:0]
	size := 0
	for range maxChunks {
		mark, n, err := c.head("MSG", headSize)
		if err != nil {
			return nil, err
		}
		if err := c.security(); err != nil {
			return nil, err
		}
		if mark == 'A' {
			return nil, c.aborted(n)
		}
		if size += n; size > maxMessage {
			_, err = c.in.Discard(n)
		} else {
			err = c.keep(n)
		}
		switch {
		case err != nil:
			return nil, err
		case mark == 'F' && size > maxMessage:
			return nil, statusError(ua.StatusBadResponseTooLarge)
		case mark == 'F':
			return c.body, nil
		}
	}
	return nil, protocolError(fmt.Sprintf("the server sends an answer of more than %d chunks", maxChunks))
}

// head takes the first 8 bytes of a chunk and returns its mark (F final, C more to come, A aborted) and
// how many bytes follow its head.
func (c *channel) head(kind string, size int) (mark byte, rest int, err error) {
	b, err := c.in.Peek(8)
	if err != nil {
		return 0, 0, err
	}
	mark, n := b[3], binary.LittleEndian.Uint32(b[4:])
	switch got := string(b[:3]); {
	case got == "ERR" && n >= 8:
		return 0, 0, c.failed(int(min(n, chunkSize)) - 8)
	case got != kind, mark != 'F' && (kind != "MSG" || mark != 'C' && mark != 'A'):
		return 0, 0, protocolError(fmt.Sprintf("the server answered with %q", b[:4]))
	case n > chunkSize || int(n) < size:
		return 0, 0, protocolError(fmt.Sprintf("the server sends a chunk of %d bytes; %d to %d are allowed", n, size, chunkSize))
	}
	_, err = c.in.Discard(8)
	return mark, int(n) - size, err
}

// chunk reads a message of one chunk that is not a MSG; what follows its first 8 bytes is in c.body.
func (c *channel) chunk(kind string) error {
	_, n, err := c.head(kind, 8)
	if err != nil {
		return err
	}
	c.body = c.body[:0]
	return c.keep(n)
}

// security checks the rest of a MSG chunk's head.
func (c *channel) security() error {
	b, err := c.in.Peek(headSize - 8)
	if err != nil {
		return err
	}
	r := reader{b: b}
	channel, token := r.u32(), r.u32()
	if channel != c.id || token != c.token && token != c.previous {
		return protocolError("the server answered on another secure channel")
	}
	if err := c.follows(&r); err != nil {
		return err
	}
	_, err = c.in.Discard(headSize - 8)
	return err
}

// follows checks that a chunk comes behind the last one and belongs to the last request. An answer to any
// other ends the connection: none of ours is ever late.
func (c *channel) follows(r *reader) error {
	sequence, request := r.u32(), r.u32()
	switch {
	case r.err != nil:
		return r.err
	case request != c.request:
		return protocolError("the server answered another request")
	case c.id != 0 && sequence != c.received+1 && (c.received < lastSequence || sequence >= 1024):
		return protocolError("the server's chunks are out of sequence")
	}
	c.received = sequence
	return nil
}

// Sequence numbers end below 2^32-1024 and begin anew below 1024 (OPC 10000-6, 6.7.2.4).
const lastSequence = 1<<32 - 1 - 1024

func nextSequence(n uint32) uint32 {
	if n >= lastSequence {
		return 1
	}
	return n + 1
}

// aborted takes the body of an abort: the server gives up on its answer, and the connection is good.
func (c *channel) aborted(n int) error {
	c.body = c.body[:0] // what came of the answer is void
	if err := c.keep(n); err != nil {
		return err
	}
	r := reader{b: c.body}
	code := r.u32()
	if r.err != nil || code>>31 == 0 {
		return protocolError("the server gave up on its answer and did not say why")
	}
	return statusError(code)
}

// failed takes an error message, with which the server ends the connection.
func (c *channel) failed(n int) error {
	if _, err := c.in.Discard(8); err != nil {
		return err
	}
	c.body = c.body[:0]
	if err := c.keep(min(n, 4)); err != nil {
		return err
	}
	r := reader{b: c.body}
	code := r.u32()
	if r.err != nil || code>>31 == 0 {
		return protocolError("the server ended the connection and did not say why")
	}
	return protocolError("the server ended the connection: " + statusText(ua.StatusCode(code)))
}

// keep reads n bytes, at most one chunk, to the end of c.body.
func (c *channel) keep(n int) error {
	at := len(c.body)
	if cap(c.body)-at < n {
		c.body = append(make([]byte, 0, min(max(2*at, at+n, 4096), maxMessage)), c.body...)
	}
	c.body = c.body[:at+n]
	_, err := io.ReadFull(c.in, c.body[at:])
	return err
}

// write sends a message of one chunk whose size is not filled in yet.
func (c *channel) write(b []byte) error {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	_, err := c.tcp.Write(b)
	return err
}

// frame begins a message of a kind such as "HELF", with room for its size.
func frame(kind string) []byte {
	return append(make([]byte, 0, 256), kind[0], kind[1], kind[2], kind[3], 0, 0, 0, 0)
}

// trim lets go of the last answer if it was large, so that rare ones do not cost memory between polls.
func (c *channel) trim() {
	if cap(c.body) > keptMessage {
		c.body = nil
	}
}

// farewell closes the channel (OPC 10000-4, 5.5.3). The server does not answer.
func (c *channel) farewell() error {
	b := c.begin()
	return c.send("CLO", appendHeader(b, id.CloseSecureChannelRequest_Encoding_DefaultBinary, noToken, c.request, 0))
}
