// Package link says what a session with a receiver is. A link carries messages one way and, where the receiver sends
// any, the other way; it knows nothing of records, and it never reconnects by itself: the publisher dials a new one.
// Package mqtt is the first kind.
package link

import (
	"context"
	"errors"
	"time"
)

// Message is one message on its way, out or in.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte // 0: sent is safe; 1: acknowledged; 2: exactly once
	Retain  bool
}

// Ack is one answer of the receiver: it has the n-th message of this session, counted from 0, or refuses it for good.
type Ack struct {
	N   uint64
	At  time.Time // when the answer came
	Err error     // nil = it has it; else why it never will, in words
}

// Link is one session. Its methods may be called from one goroutine at a time, but for Close, Err and Changed, which
// any may call. It owns its goroutines and ends them with Close.
type Link interface {
	// Send queues a message and does not block; topic and payload may be reused when it returns. The caller bounds what is
	// queued by what is acknowledged. An error means that the session has ended, or (ErrMessage) that this message can
	// never be sent over it; it then has no number.
	Send(m Message) error
	// Flush lets what is queued go out. A caller that sends several messages calls it once, after the last.
	Flush()
	// Acked appends the answers that came since the last call to dst, in the order in which they came, which need not be
	// the order of sending.
	Acked(dst []Ack) []Ack
	// Changed is signalled (capacity 1) when Acked or Inbox has something, or the session has ended.
	Changed() <-chan struct{}
	// Subscribe asks for messages; those that nobody asked for are discarded.
	Subscribe(filters ...string) error
	// Inbox delivers what was subscribed to. It is bounded; when it is full, the receiver is made to wait or the session ends.
	Inbox() <-chan Message
	// Err returns why the session has ended, nil while it lives.
	Err() error
	// Stats returns counters of this session; it may be called from any goroutine.
	Stats() Stats
	// Close says farewell where the receiver understands one, lets what is queued go out for a moment, and ends the session.
	Close() error
}

// Stats count what happened in a session that no other method tells.
type Stats struct {
	Stray     uint64 // answers to messages that were not in flight
	Discarded uint64 // messages that nobody asked for
}

// Dialer makes sessions with one receiver.
type Dialer interface {
	// Dial opens a session: it returns when messages can be sent. will, where not nil, is what the receiver publishes for
	// us when the session ends without a farewell. Errors that wrap ErrRefused say that the receiver answered with no.
	Dial(ctx context.Context, will *Message) (Link, error)
}

// The errors that a caller may ask for.
var (
	// ErrRefused means that the receiver answered the login with no: trying again soon helps nobody.
	ErrRefused = errors.New("login refused")
	// ErrMessage means that a message can never be sent over this link: too large, or a topic that the protocol forbids.
	ErrMessage = errors.New("message cannot be sent")
	// ErrPeerClosed means that the receiver ended the session, as a broker does that dislikes a message.
	ErrPeerClosed = errors.New("closed by the other side")
	// ErrSilent means that the receiver does not answer any more.
	ErrSilent = errors.New("no answer")
	// ErrProtocol means that the receiver sent what no receiver may send.
	ErrProtocol = errors.New("protocol violated")
	// ErrClosed means that Close was called.
	ErrClosed = errors.New("session closed")
)
