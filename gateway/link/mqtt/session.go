package mqtt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/gateway/link"
)

// session is one login. Send, Flush, Acked and Subscribe are the owner's; one goroutine reads, one writes.
type session struct {
	o    *Options
	conn net.Conn
	r    *bufio.Reader

	mu         sync.Mutex // guards what follows
	out        []byte     // queued packets
	spare      []byte
	queued     uint64            // bytes that were in out and have been taken from it
	sent       uint64            // messages numbered
	pending    map[uint16]flight // packet ids on their way to an answer
	unreleased int               // QoS 2 messages to us, all discarded, whose PUBREL is to come
	nextID     uint16
	unsent     []uint64 // numbers of QoS 0 messages in out
	acks       []link.Ack
	filters    [][]string  // by level
	subID      uint16      // of the SUBSCRIBE that is unanswered; 0 = none
	granted    chan []byte // its answer's codes
	closing    bool

	born           time.Time
	asked          atomic.Bool   // a PINGREQ is unanswered
	heard, written atomic.Int64  // nanoseconds since born
	wire           atomic.Uint64 // bytes given to the network, the ones being written included
	stats          struct{ stray, discarded atomic.Uint64 }

	kick    chan struct{} // there is something to write
	changed chan struct{}
	inbox   chan link.Message
	life    context.Context // ends with the session; its cause says why
	end     context.CancelCauseFunc
	timer   *time.Timer
	wg      sync.WaitGroup
}

// flight is a message that waits for its answer.
type flight struct {
	n   uint64
	end uint64 // bytes of the session up to its last: it is on the wire when so many are
	qos byte
	rec bool // QoS 2: PUBREC has come
}

const (
	inboxSize   = 64
	maxInbound  = 64 << 10         // bytes of a message that is subscribed to
	inboxWait   = 10 * time.Second // how long a full inbox may hold up the session
	maxInFlight = 1 << 14          // packet ids in use at once: far above any window, below the 65,535 there are
	maxTopic    = 65535            // bytes, MQTT 3.1.1 section 1.5.3
	maxPacket   = 268435455        // bytes, section 2.2.3
	keepBuffer  = 2 << 20          // a larger write buffer is kept only while it is in use: to grow it anew costs more than to fill it
	farewell    = 500 * time.Millisecond
)

func newSession(o *Options, conn net.Conn) *session {
	s := &session{o: o, conn: conn, r: bufio.NewReaderSize(conn, 4096), pending: map[uint16]flight{}, born: time.Now(),
		kick: make(chan struct{}, 1), changed: make(chan struct{}, 1), inbox: make(chan link.Message, inboxSize)}
	s.life, s.end = context.WithCancelCause(context.Background())
	return s
}

// start begins reading and writing.
func (s *session) start() {
	s.mu.Lock() // the first watch may come before the timer is stored
	s.timer = time.AfterFunc(s.o.KeepAlive, s.watch)
	s.mu.Unlock()
	s.wg.Go(s.read)
	s.wg.Go(s.write)
}

// fail ends the session for this reason; the first counts.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.closing { // a broker hangs up on our farewell
		err = link.ErrClosed
	}
	s.mu.Unlock()
	s.end(err)
	_ = s.conn.Close()
	s.signal()
}

// Err returns why the session has ended: see link.Link.
func (s *session) Err() error { return context.Cause(s.life) }

// Changed is signalled when there is something to look at: see link.Link.
func (s *session) Changed() <-chan struct{} { return s.changed }

func (s *session) signal() { wake(s.changed) }

// wake signals without waiting: one signal is enough.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Inbox delivers what was subscribed to: see link.Link.
func (s *session) Inbox() <-chan link.Message { return s.inbox }

// Send queues one PUBLISH: see link.Link.
func (s *session) Send(m link.Message) error {
	if err := fit(&m, maxPacket-maxTopic-4); err != nil {
		return err
	}
	if err := s.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return link.ErrClosed // nothing may follow a DISCONNECT (MQTT-3.14.4-2)
	}
	var id uint16
	if m.QoS > 0 {
		if id = s.freeID(); id == 0 {
			return fmt.Errorf("%w: %d messages are unanswered", link.ErrMessage, maxInFlight)
		}
	}
	s.out = appendPublish(s.out, &m, id)
	if m.QoS > 0 {
		s.pending[id] = flight{n: s.sent, end: s.queued + uint64(len(s.out)), qos: m.QoS}
	} else {
		s.unsent = append(s.unsent, s.sent)
	}
	s.sent++
	return nil
}

// fit refuses what MQTT cannot carry, and a payload of more bytes than most.
func fit(m *link.Message, most int) error {
	switch {
	case m.Topic == "" || len(m.Topic) > maxTopic:
		return fmt.Errorf("%w: its topic has %d bytes; MQTT allows 1 to %d", link.ErrMessage, len(m.Topic), maxTopic)
	case strings.ContainsAny(m.Topic, "+#\x00"):
		return fmt.Errorf("%w: its topic %q holds one of + # and NUL", link.ErrMessage, m.Topic)
	case len(m.Payload) > most:
		return fmt.Errorf("%w: it has %d bytes; MQTT allows %d", link.ErrMessage, len(m.Payload), most)
	case m.QoS > 2:
		return fmt.Errorf("%w: there is no QoS %d", link.ErrMessage, m.QoS)
	}
	return nil
}

// freeID returns a packet id that is not in use, 0 when too many are. mu is held.
func (s *session) freeID() uint16 {
	if len(s.pending) >= maxInFlight {
		return 0
	}
	for {
		s.nextID++
		if _, used := s.pending[s.nextID]; s.nextID != 0 && !used && s.nextID != s.subID {
			return s.nextID
		}
	}
}

// Flush wakes the writer: see link.Link.
func (s *session) Flush() { wake(s.kick) }

// Acked appends the answers that have come: see link.Link.
func (s *session) Acked(dst []link.Ack) []link.Ack {
	s.mu.Lock()
	defer s.mu.Unlock()
	dst = append(dst, s.acks...)
	s.acks = s.acks[:0]
	return dst
}

// Stats returns the counters: see link.Link.
func (s *session) Stats() link.Stats {
	return link.Stats{Stray: s.stats.stray.Load(), Discarded: s.stats.discarded.Load()}
}

// Subscribe asks for messages with QoS 1 and waits for the broker's answer: see link.Link.
func (s *session) Subscribe(filters ...string) error {
	if err := s.ask(filters); err != nil {
		return err
	}
	s.Flush()
	select {
	case codes := <-s.granted:
		return refused(filters, codes)
	case <-s.life.Done():
		return s.Err()
	case <-time.After(connectTimeout):
		s.mu.Lock()
		s.subID = 0
		s.mu.Unlock()
		return fmt.Errorf("subscribe: %w within %v", link.ErrSilent, connectTimeout)
	}
}

// ask queues the SUBSCRIBE. The answer comes once at most.
func (s *session) ask(filters []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(filters) == 0 || len(s.filters)+len(filters) > maxFilters {
		return fmt.Errorf("subscribe: %w: %d topic filters after %d; 1 to %d are possible in a session", link.ErrMessage, len(filters), len(s.filters), maxFilters)
	}
	for _, f := range filters {
		if f == "" || len(f) > maxTopic || strings.ContainsRune(f, 0) {
			return fmt.Errorf("subscribe: %w: MQTT has no topic filter %.99q", link.ErrMessage, f)
		}
	}
	id := s.freeID()
	if id == 0 {
		return fmt.Errorf("subscribe: %w: %d messages are unanswered", link.ErrMessage, maxInFlight)
	}
	s.subID, s.granted = id, make(chan []byte, 1)
	for _, f := range filters {
		s.filters = append(s.filters, strings.Split(f, "/"))
	}
	s.out = appendSubscribe(s.out, id, filters)
	return nil
}

// refused names the filters that the broker did not grant (MQTT 3.1.1 section 3.9.3).
func refused(filters []string, codes []byte) error {
	if len(codes) != len(filters) {
		return fmt.Errorf("subscribe: %w: %d answers to %d filters", link.ErrProtocol, len(codes), len(filters))
	}
	var errs []error
	for i, code := range codes {
		if code > 2 {
			errs = append(errs, fmt.Errorf("subscribe: the broker refuses %q; check its access rules", filters[i]))
		}
	}
	return errors.Join(errs...)
}

// watch keeps the session alive and notices that the broker is not (MQTT 3.1.1 section 3.1.2.10).
func (s *session) watch() {
	now := time.Since(s.born)
	quiet, silent := now-time.Duration(s.written.Load()), now-time.Duration(s.heard.Load())
	limit := s.o.KeepAlive*3/2 + 5*time.Second
	ping := s.o.KeepAlive * 7 / 8 // and the timer may be late by the last eighth
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.Err() != nil {
		return
	}
	if s.asked.Load() && silent >= limit {
		go s.fail(fmt.Errorf("%w to a ping for %v", link.ErrSilent, silent.Round(time.Second)))
		return
	}
	if (quiet >= ping || silent >= ping) && !s.asked.Swap(true) {
		quiet = 0
		s.out = append(s.out, packetPingreq, 0)
		s.Flush()
	}
	s.timer.Reset(max(min(ping-quiet, limit-silent), s.o.KeepAlive/8))
}

// Close says DISCONNECT and ends the session: see link.Link.
func (s *session) Close() error {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		s.out = append(s.out, packetDisconnect, 0)
	}
	s.mu.Unlock()
	s.timer.Stop()
	s.Flush()
	timer := time.AfterFunc(farewell, func() { s.fail(link.ErrClosed) })
	defer timer.Stop()
	s.wg.Wait()
	return nil
}
