package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"time"
)

// NewCall returns a Call for one request at a time.
func NewCall() *Call { return &Call{done: make(chan *Call, 1)} }

// NewCalls returns n Calls, each for one request at a time, and the channel that yields each of them when its request was answered or
// has failed, in the order of the answers. Take is called then. They are for Start only.
func NewCalls(n int) ([]*Call, <-chan *Call) {
	done := make(chan *Call, n)
	calls := make([]*Call, n)
	for i := range calls {
		calls[i] = &Call{done: done}
	}
	return calls, done
}

// Take returns the body of the answer, which is valid until the Call is used again.
func (call *Call) Take() ([]byte, error) { return call.body, call.err }

// Sent returns when the request was sent, or a little before.
func (call *Call) Sent() time.Time { return call.sent }

// At returns when the answer had come, however long it waited to be taken.
func (call *Call) At() time.Time { return call.at }

func (call *Call) finish(err error) {
	call.err, call.at = err, time.Now()
	call.done <- call
}

// reset makes the Call ready for a request.
func (call *Call) reset() {
	call.body, call.size, call.chunks, call.err = call.body[:0], 0, 0, nil
}

// Trim lets go of the last answer if it was large, so that rare ones do not cost memory for ever.
func (call *Call) Trim() {
	if cap(call.body) > keptMessage {
		call.body = nil
	}
}

// Do sends a request and waits for the body of its answer, for at most the timeout. The channel is failed when it runs out, or when
// ctx ends. The token is renewed when that is due before the answer has come. build appends the request's body; it is told the request's id.
func (c *Channel) Do(ctx context.Context, call *Call, timeout time.Duration, build func(b []byte, request uint32) ([]byte, error)) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	begin := time.Now()
	stop := context.AfterFunc(ctx, func() { c.Fail(ctx.Err()) })
	defer stop()
	if err := c.Start(call, timeout, build); err != nil {
		return nil, err
	}
	if err := c.outlast(ctx, call, timeout, begin.Add(timeout)); err != nil {
		return nil, err
	}
	return call.Take()
}

// outlast waits for an answer, however many tokens that takes: under one that has expired, and was not renewed, node-opcua answers in mode Sign without
// a signature, and in SignAndEncrypt not at all.
func (c *Channel) outlast(ctx context.Context, call *Call, timeout time.Duration, end time.Time) error {
	request := call.id
	timer := time.AfterFunc(time.Until(end), func() { c.expire(request, TimeoutError(timeout)) })
	defer timer.Stop()
	for {
		renew, _ := c.Times()
		if renew.After(end) {
			<-call.done
			return nil
		}
		due := time.NewTimer(time.Until(renew))
		select {
		case <-call.done:
			due.Stop()
			return nil
		case <-due.C:
		}
		if err := c.Renew(ctx, timeout); err != nil {
			return c.unrenewed(call, err)
		}
	}
}

// unrenewed ends the channel, and with it a call. A timeout is that of the call, which was there first.
func (c *Channel) unrenewed(call *Call, err error) error {
	c.Fail(err)
	<-call.done
	var slow TimeoutError
	if errors.As(err, &slow) {
		return nil
	}
	return err
}

// wait waits for an answer. The timer fails the channel, which answers the call.
func (c *Channel) wait(call *Call, left, timeout time.Duration) ([]byte, error) {
	request := call.id
	timer := time.AfterFunc(left, func() { c.expire(request, TimeoutError(timeout)) })
	<-call.done
	timer.Stop()
	return call.Take()
}

// Start sends a request, for at most the timeout, and does not wait for its answer. After an error the call is not under way.
func (c *Channel) Start(call *Call, timeout time.Duration, build func(b []byte, request uint32) ([]byte, error)) error {
	call.reset()
	call.sent = time.Now()
	c.write.Lock()
	defer c.write.Unlock()
	c.request++
	b, err := build(c.out[:0], c.request)
	if err != nil {
		return err
	}
	if c.out = b; len(b) > c.message { // refused here: no sequence number may be taken
		return StatusError(0x80B80000) // BadRequestTooLarge
	}
	if err := c.await(call, c.request); err != nil {
		return err
	}
	if err := c.send("MSG", b, timeout); err != nil {
		return c.forget(call, c.request, err)
	}
	return nil
}

// await lists a call before its request is sent.
func (c *Channel) await(call *Call, request uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case len(c.pending) >= MaxOpen:
		return errors.New("BUG: too many requests at a time")
	}
	c.pending[request], call.id = call, request
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// forget fails the channel because a request could not be sent whole. The call may have been told already; an error that the
// server sent before it hung up says more than that the connection is gone.
func (c *Channel) forget(call *Call, request uint32, err error) error {
	c.Fail(err)
	<-call.done
	return call.err
}

// send writes a body in chunks: each is sealed in a buffer of its own, so that encryption leaves the body alone.
func (c *Channel) send(kind string, b []byte, timeout time.Duration) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return ErrClosed
	}
	c.mu.Lock()
	id := c.id
	c.mu.Unlock()
	for room := c.keys.room(c.largest); ; b = b[room:] {
		mark, part := byte('F'), b
		if len(b) > room {
			mark, part = 'C', b[:room]
		}
		c.sent = nextSequence(c.sent)
		out := append(c.sealed[:0], kind[0], kind[1], kind[2], mark, 0, 0, 0, 0)
		for _, v := range [...]uint32{id, c.token, c.sent, c.request} {
			out = binary.LittleEndian.AppendUint32(out, v)
		}
		c.sealed = c.keys.seal(append(out, part...))
		if _, err := c.conn.Write(c.sealed); err != nil {
			return writeError(err, timeout)
		}
		if mark == 'F' {
			return nil
		}
	}
}

func writeError(err error, timeout time.Duration) error {
	var network net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &network) && network.Timeout() {
		return TimeoutError(timeout)
	}
	return err
}

// Farewell closes the channel on the server's side (OPC 10000-4, 5.5.3), for at most the timeout. The server does not answer.
func (c *Channel) Farewell(timeout time.Duration, build func(b []byte, request uint32) []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	c.request++
	return c.send("CLO", build(nil, c.request), timeout)
}

// Sequence numbers end below 2^32-1024 and begin anew below 1024 (OPC 10000-6, 6.7.2.4).
const lastSequence = 1<<32 - 1 - 1024

func nextSequence(n uint32) uint32 {
	if n >= lastSequence {
		return 1
	}
	return n + 1
}
