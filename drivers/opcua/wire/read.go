package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// read takes chunks for as long as something is awaited, until the channel fails. While nothing is, what the server sends stays
// in the socket: there is nothing that it could have to say.
func (c *Channel) read() {
	defer close(c.done)
	for c.awaited() {
		if err := c.chunk(); err != nil {
			c.Fail(err)
		}
	}
}

// awaited waits until a request is under way; false means that the channel is of no use.
func (c *Channel) awaited() bool {
	for {
		c.mu.Lock()
		n, err := len(c.pending), c.err
		c.mu.Unlock()
		switch {
		case err != nil:
			return false
		case n > 0:
			return true
		}
		select {
		case <-c.wake:
		case <-c.lost:
		}
	}
}

// chunk takes one chunk of an answer.
func (c *Channel) chunk() error {
	kind, mark, err := c.head("MSG")
	if err != nil {
		return err
	}
	if kind == "OPN" {
		return c.openChunk()
	}
	c.mu.Lock()
	id := c.id
	c.mu.Unlock()
	if id == 0 {
		return ProtocolError(fmt.Sprintf("the server answered with %q", c.raw[:4]))
	}
	return c.messageChunk(id, mark)
}

// opening reports whether an answer to Open is awaited.
func (c *Channel) opening() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.pending {
		if call.open != nil {
			return true
		}
	}
	return false
}

// head reads a chunk whole into c.raw and returns its kind and mark (F final, C more to come, A aborted). Where a MSG is wanted, it may also be the
// answer to Open, which may have been sent while the wait was on.
func (c *Channel) head(want string) (kind string, mark byte, err error) {
	b, err := c.in.Peek(8)
	if err != nil {
		return "", 0, err
	}
	kind, mark = string(b[:3]), b[3]
	size, least := binary.LittleEndian.Uint32(b[4:]), uint32(8)
	if kind == "MSG" {
		least = HeadSize
	}
	switch {
	case kind == "ERR" && size >= 8:
		return "", 0, c.failed(int(min(size, ChunkSize)) - 8)
	case kind != want && !(kind == "OPN" && want == "MSG" && c.opening()), mark != 'F' && (kind != "MSG" || mark != 'C' && mark != 'A'):
		return "", 0, ProtocolError(fmt.Sprintf("the server answered with %q", b[:4]))
	case size > ChunkSize || size < least:
		return "", 0, ProtocolError(fmt.Sprintf("the server sends a chunk of %d bytes; %d to %d are allowed", size, least, ChunkSize))
	}
	if cap(c.raw) < int(size) {
		c.raw = make([]byte, min(2*int(size), ChunkSize))
	}
	c.raw = c.raw[:size]
	_, err = io.ReadFull(c.in, c.raw)
	return kind, mark, err
}

// failed takes an error message, with which the server ends the connection.
func (c *Channel) failed(n int) error {
	var b [12]byte
	if _, err := io.ReadFull(c.in, b[:8+min(n, 4)]); err != nil {
		return err
	}
	code := binary.LittleEndian.Uint32(b[8:])
	if code>>31 == 0 {
		return ProtocolError("the server ended the connection and did not say why")
	}
	return &EndedError{Status: code, words: c.words(code)}
}

// EndedError says that the server ended the connection by an error message.
type EndedError struct {
	Status uint32
	words  string
}

// Error says the server's reason in words.
func (e *EndedError) Error() string { return "the server ended the connection: " + e.words }

// openChunk takes the answer to Open.
func (c *Channel) openChunk() error {
	b, err := c.security.openOpen(c.raw)
	if err != nil {
		return err
	}
	r := Reader{B: b}
	call, request, err := c.follows(&r)
	if err != nil {
		return err
	}
	if call.open == nil {
		return ProtocolError("the server answered another request")
	}
	if err := c.opened(call.open, r); err != nil {
		return err
	}
	c.answer(call, request, nil)
	return nil
}

// messageChunk takes a chunk of an answer to any other request.
func (c *Channel) messageChunk(id uint32, mark byte) error {
	channel, token := binary.LittleEndian.Uint32(c.raw[8:]), binary.LittleEndian.Uint32(c.raw[12:])
	if channel != id {
		return errOtherChannel
	}
	b, err := c.unseal(token)
	if err != nil {
		return c.late(err)
	}
	r := Reader{B: b}
	call, request, err := c.follows(&r)
	if err != nil {
		return err
	}
	if call.open != nil {
		return ProtocolError(fmt.Sprintf("the server answered with %q", c.raw[:4]))
	}
	return c.part(call, request, mark, r.B)
}

// late says of a chunk that cannot be opened what it likely comes from: node-opcua does not secure what it sends under a token that has expired.
func (c *Channel) late(err error) error {
	if _, end := c.Times(); c.security.Mode == ModeNone || err == errOtherChannel || time.Now().Before(end) {
		return err
	}
	return ProtocolError(err.Error() + "; it came after the channel's token had expired, when some servers do not secure it")
}

const errOtherChannel = ProtocolError("the server answered on another secure channel")

// unseal opens the chunk in c.raw. Under a token that is not the present one it may also be sealed with the present keys: see readKeys.
func (c *Channel) unseal(token uint32) ([]byte, error) {
	keys, ok := c.keysOf(token)
	present := c.reads[0]
	switch {
	case !ok && present.keys == nil:
		return nil, errOtherChannel
	case token == present.token || present.keys == nil:
		return keys.open(c.raw)
	}
	again := bytes.Clone(c.raw) // opening spoils a chunk
	if ok {
		if b, err := keys.open(c.raw); err == nil {
			return b, nil
		}
	}
	b, err := present.keys.open(again)
	if err != nil && !ok {
		return nil, errOtherChannel
	}
	return b, err
}

func (c *Channel) keysOf(token uint32) (*keys, bool) {
	for i, k := range c.reads {
		if k.valid && k.token == token && (i == 0 || time.Now().Before(k.until)) {
			return k.keys, true
		}
	}
	return nil, false
}

// follows checks that a chunk comes behind the last one and returns the request that it answers. An answer to any
// that is not under way ends the connection: none of ours is ever given up.
func (c *Channel) follows(r *Reader) (*Call, uint32, error) {
	sequence, request := r.U32(), r.U32()
	c.mu.Lock()
	call, first := c.pending[request], c.id == 0
	c.mu.Unlock()
	switch {
	case r.Err != nil:
		return nil, 0, r.Err
	case call == nil:
		return nil, 0, ProtocolError("the server answered another request")
	case !first && sequence != c.received+1 && (c.received < lastSequence || sequence >= 1024):
		return nil, 0, ProtocolError("the server's chunks are out of sequence")
	}
	c.received = sequence
	return call, request, nil
}

// part adds a chunk to an answer. One over MaxMessage is read to its end, without being kept, so that the channel
// stays of use. When the channel failed meanwhile, the call has its answer and may be in use again.
func (c *Channel) part(call *Call, request uint32, mark byte, b []byte) error {
	if mark == 'A' {
		return c.aborted(call, request, b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[request] != call {
		return c.err
	}
	if call.size += len(b); call.size <= MaxMessage {
		call.keep(b)
	}
	switch call.chunks++; {
	case mark == 'F' && call.size > MaxMessage:
		c.settle(call, request, StatusError(0x80B90000)) // BadResponseTooLarge
	case mark == 'F':
		c.settle(call, request, nil)
	case call.chunks == MaxChunks:
		return ProtocolError(fmt.Sprintf("the server sends an answer of more than %d chunks", MaxChunks))
	}
	return nil
}

// keep adds bytes, at most one chunk, to the answer.
func (call *Call) keep(b []byte) {
	at := len(call.body)
	if cap(call.body)-at < len(b) {
		call.body = append(make([]byte, 0, min(max(2*at, at+len(b), 4096), MaxMessage)), call.body...)
	}
	call.body = append(call.body, b...)
}

// aborted takes the body of an abort: the server gives up on its answer, and the channel is good.
func (c *Channel) aborted(call *Call, request uint32, b []byte) error {
	r := Reader{B: b}
	code := r.U32()
	if r.Err != nil || code>>31 == 0 {
		return ProtocolError("the server gave up on its answer and did not say why")
	}
	c.answer(call, request, StatusError(code))
	return nil
}

// answer gives a call its end, unless the channel failed meanwhile and did.
func (c *Channel) answer(call *Call, request uint32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[request] == call {
		c.settle(call, request, err)
	}
}

func (c *Channel) settle(call *Call, request uint32, err error) {
	delete(c.pending, request)
	call.finish(err)
}
