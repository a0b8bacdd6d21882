package wire

import (
	"context"
	"encoding/binary"
	"time"
)

const (
	openRequest  = 446 // encoding ids, OPC 10000-6, A
	openResponse = 449
	serviceFault = 397
)

// Open opens the channel or, later, renews its token (OPC 10000-4, 5.5.2). The server's keys of the old token stay good until it
// has expired, or is renewed again; requests under way are not disturbed.
func (c *Channel) Open(ctx context.Context, timeout, lifetime time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	begin := time.Now()
	if !c.begun {
		c.begun = true
		go c.read()
	}
	stop := context.AfterFunc(ctx, func() { c.Fail(ctx.Err()) })
	defer stop()
	c.write.Lock()
	defer c.write.Unlock() // the answer's keys are ours before the next request is sent
	call := NewCall()
	call.open = &opening{nonce: c.security.Policy.Nonce(), lifetime: lifetime, asked: time.Now()}
	c.request++
	if err := c.await(call, c.request); err != nil {
		return err
	}
	if err := c.sendOpen(call.open, timeout); err != nil {
		return c.forget(call, c.request, err)
	}
	if _, err := c.wait(call, timeout-time.Since(begin), timeout); err != nil {
		return err
	}
	c.token, c.keys = call.open.token, call.open.keys
	return nil
}

// Renew renews the token when that is due, for at most the timeout: without renewal the channel ends when the token does. Do does so
// while it waits. Any error is a RenewalError, but on a channel that was of no use before.
func (c *Channel) Renew(ctx context.Context, timeout time.Duration) error {
	c.renewing.Lock()
	defer c.renewing.Unlock()
	c.mu.Lock()
	due, lifetime, lost := !time.Now().Before(c.renew), c.lifetime, c.err
	c.mu.Unlock()
	switch {
	case !due:
		return nil
	case lost != nil:
		return lost
	}
	if err := c.Open(ctx, timeout, lifetime); err != nil {
		return &RenewalError{err}
	}
	return nil
}

func (c *Channel) sendOpen(o *opening, timeout time.Duration) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return ErrClosed
	}
	c.mu.Lock()
	id, kind := c.id, uint32(0)
	c.mu.Unlock()
	if id != 0 {
		kind = 1 // renew
	}
	c.sent = nextSequence(c.sent)
	b := binary.LittleEndian.AppendUint32([]byte("OPNF\x00\x00\x00\x00"), id)
	b = c.security.asymmetricHead(b)
	head := len(b)
	b = binary.LittleEndian.AppendUint32(b, c.sent)
	b = binary.LittleEndian.AppendUint32(b, c.request)
	b = AppendHeader(b, openRequest, NoToken(), c.request, 0)
	for _, v := range []uint32{0, kind, uint32(c.security.Mode)} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = binary.LittleEndian.AppendUint32(AppendBytes(b, o.nonce), uint32(o.lifetime/time.Millisecond))
	b, err := c.security.sealOpen(b, head)
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(b); err != nil {
		return writeError(err, timeout)
	}
	return nil
}

// minGrace is for how long an answer may be on its way that the server gave under a token before it expired, or a quarter of the token's life if
// that is longer (OPC 10000-4, 5.5.2.1). That quarter alone is too short for tokens of a few seconds: node-opcua itself uses it up.
const minGrace = 2 * time.Second

// opened takes the answer to Open, behind sequence number and request id. It is called by the goroutine that reads, because the next chunk
// may use the new keys.
func (c *Channel) opened(o *opening, r Reader) error {
	if err := r.Response(openResponse); err != nil {
		return err
	}
	r.U32() // protocol version
	issued := r.U32()
	token := r.U32()
	r.U64() // its clock, which may be wrong
	revised := time.Duration(r.U32()) * time.Millisecond
	if r.Err != nil {
		return r.Err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if issued == 0 || c.id != 0 && c.id != issued {
		return ProtocolError("the server answered with another secure channel")
	}
	var keys *keys
	if s := &c.security; s.Mode != ModeNone {
		nonce := r.Bytes()
		if r.Err != nil || len(nonce) != len(o.nonce) {
			return ProtocolError("the server's nonce does not have the size that the security policy asks for")
		}
		o.keys, keys = s.newKeys(nonce, o.nonce), s.newKeys(o.nonce, nonce)
	}
	o.token, c.id = token, issued
	until := c.lives(revised, o)
	copy(c.reads[1:], c.reads[:])
	c.reads[0] = readKeys{token: token, keys: keys, valid: true, until: until}
	return nil
}

// lives sets the token's times, and returns until when what the server secures with it is taken. A server that says 0 says nothing; a token that lives
// for no time would be of no use. The server counts from when it made the token, which is some time between the request and its answer: the token is
// renewed, and ends, by the first of them, the server's keys by the last. With the answer no more than half of its life counts as over, lest it be renewed
// without a pause.
func (c *Channel) lives(revised time.Duration, o *opening) (until time.Time) {
	if revised == 0 {
		revised = o.lifetime
	}
	life := min(max(revised, MinLifetime), o.lifetime)
	now := time.Now()
	from := now.Add(-min(now.Sub(o.asked), life/2))
	c.renew, c.end, c.lifetime = from.Add(life*3/4), from.Add(life), o.lifetime
	return now.Add(life + max(life/4, minGrace))
}
