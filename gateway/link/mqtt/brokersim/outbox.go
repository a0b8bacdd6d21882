package brokersim

import (
	"io"
	"sync"
)

// outbox is the queue of bytes to one client. Whoever queues a message waits while it is full; answers to
// the client's own packets are never held back, they are bounded by what it sends.
type outbox struct {
	mu     sync.Mutex
	room   sync.Cond // signalled when the queue has shrunk, an id is free again, or it is closed
	work   sync.Cond // signalled when there is something to write
	buf    []byte
	spare  []byte
	busy   bool // a write is under way
	closed bool
	limit  int

	inFlight map[uint16]struct{} // packet ids of QoS 1 messages not yet acknowledged
	lastID   uint16
}

// maxInFlight bounds the QoS 1 messages a subscriber has not acknowledged.
const maxInFlight = 1 << 12

func newOutbox(limit int) *outbox {
	o := &outbox{limit: limit, inFlight: map[uint16]struct{}{}}
	o.room.L, o.work.L = &o.mu, &o.mu
	return o
}

// answer queues what make appends. It does not wait.
func (o *outbox) answer(make func(dst []byte) []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.buf = make(o.buf)
		o.work.Signal()
	}
}

// message queues a message and waits for room. It reports false when the client is gone.
func (o *outbox) message(topic string, payload []byte, qos byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.closed && (len(o.buf) > o.limit || qos > 0 && len(o.inFlight) >= maxInFlight) {
		o.room.Wait()
	}
	if o.closed {
		return false
	}
	var id uint16
	if qos > 0 {
		id = o.newID()
	}
	o.buf = appendPublish(o.buf, topic, payload, qos, id)
	o.work.Signal()
	return true
}

// newID returns a packet id that is not in use. There is one: maxInFlight is far below 65,535.
func (o *outbox) newID() uint16 {
	for {
		o.lastID++
		if _, used := o.inFlight[o.lastID]; o.lastID != 0 && !used {
			o.inFlight[o.lastID] = struct{}{}
			return o.lastID
		}
	}
}

// acked frees a packet id.
func (o *outbox) acked(id uint16) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.inFlight, id)
	o.room.Broadcast()
}

// pending returns how much the client has yet to take: bytes not written and messages not acknowledged.
func (o *outbox) pending() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0
	}
	n := len(o.buf) + len(o.inFlight)
	if o.busy {
		n++
	}
	return n
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.room.Broadcast()
	o.work.Broadcast()
}

// run writes until the outbox is closed or a write fails.
func (o *outbox) run(w io.Writer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for len(o.buf) == 0 && !o.closed {
			o.work.Wait()
		}
		if o.closed {
			return nil
		}
		chunk := o.buf
		o.buf, o.busy = o.spare[:0], true
		o.room.Broadcast()
		o.mu.Unlock()
		_, err := w.Write(chunk)
		o.mu.Lock()
		o.spare, o.busy = chunk, false
		if err != nil {
			return err
		}
	}
}
