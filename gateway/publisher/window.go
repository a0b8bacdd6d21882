package publisher

import (
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"millrace/buffer"
)

// message is one PUBLISH in flight. Its payload belongs to the client library until the PUBACK: the library
// writes it in a goroutine of its own, after Publish has returned (paho v1.5.1 client.go:786, net.go:255).
type message struct {
	seq     uint64
	lane    lane
	stream  *buffer.Stream
	payload []byte
	token   mqtt.Token
	sent    time.Time
}

// window is the messages sent and not yet acknowledged, in the order of sending. Only the oldest is waited
// for: a broker acknowledges in order (MQTT 3.1.1 section 4.6), and where one does not, the cursor still
// never runs ahead of it.
type window struct {
	ring        []*message
	head, n     int
	bytes       int
	maxMessages int
	maxBytes    int

	// limit adapts the bytes in flight to the link: as much as it carries in about a second. It keeps a fresh
	// reading from queueing behind a megabyte of backlog on a slow line.
	limit    int
	fastest  time.Duration // shortest time to an acknowledgement in this session
	cutAt    time.Time     // when limit was last halved
	progress time.Time     // when the broker last acknowledged
	free     []*message
}

const (
	firstLimit = 64 << 10
	leastLimit = 16 << 10
	patience   = time.Second // queueing beyond the fastest answer that is too much
	keepBuffer = 256 << 10   // a larger payload buffer is not kept
)

func newWindow(messages, bytes int) window {
	return window{ring: make([]*message, messages), maxMessages: messages, maxBytes: bytes, limit: min(firstLimit, bytes)}
}

// room reports whether one more message may be sent. The last quarter is kept for live messages. One message
// is always allowed, however large.
func (w *window) room(live bool) bool {
	messages, bytes := w.maxMessages, w.limit
	if !live {
		messages, bytes = max(messages*3/4, 1), max(bytes*3/4, 1)
	}
	return w.n == 0 || w.n < messages && w.bytes < bytes
}

// slot returns an empty message to fill.
func (w *window) slot() *message {
	if k := len(w.free); k > 0 {
		m := w.free[k-1]
		w.free = w.free[:k-1]
		return m
	}
	return &message{}
}

func (w *window) push(m *message) {
	w.ring[(w.head+w.n)%len(w.ring)] = m
	w.n++
	w.bytes += len(m.payload)
}

// oldest returns the message to wait for, or nil.
func (w *window) oldest() *message {
	if w.n == 0 {
		return nil
	}
	return w.ring[w.head]
}

// signal returns a channel that is closed when the oldest message is acknowledged or lost, nil if there is none.
func (w *window) signal() <-chan struct{} {
	if m := w.oldest(); m != nil && m.token != nil {
		return m.token.Done()
	}
	return nil
}

// pop takes the oldest message out: it was acknowledged now. The slot is free again.
func (w *window) pop(now time.Time) {
	m := w.ring[w.head]
	w.ring[w.head] = nil
	w.head = (w.head + 1) % len(w.ring)
	w.n--
	w.bytes -= len(m.payload)
	w.progress = now
	w.adapt(m, now)
	if cap(m.payload) > keepBuffer {
		m.payload = nil
	}
	*m = message{payload: m.payload[:0]}
	w.free = append(w.free, m)
}

func (w *window) adapt(m *message, now time.Time) {
	took := now.Sub(m.sent)
	if w.fastest == 0 || took < w.fastest {
		w.fastest = max(took, 1)
	}
	if took <= w.fastest+patience {
		w.limit = min(w.limit+len(m.payload), w.maxBytes)
		return
	}
	if m.sent.After(w.cutAt) { // sent since the last cut: it has had its effect
		w.limit = max(w.limit/2, min(leastLimit, w.maxBytes))
		w.cutAt = now
	}
}

// slowest is the slowest link that is worth waiting for, in bytes a second.
const slowest = 8 << 10

// deadline returns when the session is to be given up if nothing is acknowledged until then.
func (w *window) deadline(timeout time.Duration) time.Time {
	m := w.oldest()
	since := m.sent
	if w.progress.After(since) {
		since = w.progress
	}
	return since.Add(timeout + time.Duration(len(m.payload))*time.Second/slowest)
}
