package publisher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"millrace/buffer"
)

// session is one connection from login to loss. A goroutine of its own runs it; mu is held by that
// goroutine at all times but while it waits or is inside Publish, so that a session can be ended at once
// while Publish hangs: the goroutine then finds it dead and touches nothing any more.
type session struct {
	p      *Publisher
	client mqtt.Client
	conn   *conn
	born   time.Time
	timer  *time.Timer

	mu    sync.Mutex
	dead  bool
	win   window
	lanes lanes
	rec   buffer.Record
	acked int
}

func (p *Publisher) newSession(client mqtt.Client, c *conn) *session {
	s := &session{p: p, client: client, conn: c, born: time.Now(), timer: time.NewTimer(time.Hour)}
	s.win = newWindow(p.o.Window, p.o.WindowBytes)
	s.lanes = lanes{p: p, notBefore: s.born.Add(p.poison.pause()), tryFrom: s.born.Add(settled)}
	return s
}

// leaveWait is how long a session waits at the end for what is in flight.
const leaveWait = time.Second

// run publishes until the session fails or ctx has ended; nil means that it is to be closed in peace.
func (s *session) run(ctx context.Context) error {
	defer s.timer.Stop()
	leave := time.Time{}
	for {
		s.mu.Lock()
		if s.dead {
			s.mu.Unlock()
			return nil
		}
		now := time.Now()
		if ctx.Err() != nil && leave.IsZero() {
			leave = now.Add(leaveWait)
		}
		topic, m, wait, err := s.step(now, leave)
		var payload []byte // what follows is done without mu: no look into a message then
		if m != nil {
			payload = m.payload
		}
		acked, calm := s.win.signal(), 2*s.win.n < s.p.o.Window
		s.mu.Unlock()
		switch {
		case err != nil:
			return err
		case m != nil:
			if err := s.publish(topic, payload, m); err != nil {
				return err
			}
		case !leave.IsZero() && (acked == nil || !now.Before(leave)):
			return nil
		default:
			calm = calm && leave.IsZero()
			if calm && acked != nil {
				acked, wait = nil, min(wait, collectAfter)
			}
			s.wait(ctx, acked, wait, !leave.IsZero())
			if calm {
				s.linger(ctx)
			}
		}
	}
}

// A wake-up costs more than a message. A session that keeps up therefore waits a moment before each turn, so that
// the turn takes all that is polled in the same moment, and takes acknowledgements in with the next messages.
const (
	lingerFor    = 3 * time.Millisecond
	collectAfter = 25 * time.Millisecond
)

// linger sleeps for lingerFor, or until something is lost.
func (s *session) linger(ctx context.Context) {
	s.timer.Reset(lingerFor)
	select {
	case <-s.timer.C:
	case <-s.conn.lost:
	case <-ctx.Done():
	}
}

// publish hands the message to the client library. Nobody holds mu meanwhile.
func (s *session) publish(topic string, payload []byte, m *message) error {
	token := s.client.Publish(topic, 1, false, payload)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return nil
	}
	m.token = token
	select {
	case <-token.Done():
		return token.Error()
	default:
		return nil
	}
}

// wait sleeps until there may be something to do. A session that is leaving has seen the end of ctx and takes
// nothing new.
func (s *session) wait(ctx context.Context, acked <-chan struct{}, wait time.Duration, leaving bool) {
	var done, notify <-chan struct{}
	if !leaving {
		done = ctx.Done()
		notify = s.p.dest.Notify()
	}
	s.timer.Reset(max(wait, 0))
	select {
	case <-acked:
	case <-notify:
	case <-s.timer.C:
	case <-s.conn.lost:
	case <-done:
	}
}

// These say that the session is of no more use.
var (
	errNoAck  = errors.New("the broker acknowledges nothing")
	errNoPing = errors.New("the broker does not answer pings")
)

// alive returns how long the session may go on without an answer, or what is wrong. While messages are in
// flight their acknowledgement counts, and on a slow line a ping queues behind them; on an idle line the
// pings count that the client library sends. mu is held.
func (s *session) alive(now time.Time) (time.Duration, error) {
	o := &s.p.o
	if oldest := s.win.oldest(); oldest != nil {
		left := s.win.deadline(o.AckTimeout).Sub(now)
		if left <= 0 {
			return 0, fmt.Errorf("%w for %v", errNoAck, now.Sub(oldest.sent).Round(time.Second))
		}
		return left, nil
	}
	left := s.conn.born.Add(time.Duration(s.conn.heard.Load()) + o.KeepAlive + pingCheck + o.AckTimeout).Sub(now)
	if left <= 0 {
		return 0, errNoPing
	}
	return left, nil
}

// step does what can be done now: it takes in acknowledgements and returns a message to publish, or how
// long to wait. mu is held.
func (s *session) step(now, leave time.Time) (topic string, m *message, wait time.Duration, err error) {
	if err := s.conn.lostFor(); err != nil {
		return "", nil, 0, err
	}
	if err := s.collect(now); err != nil {
		return "", nil, 0, err
	}
	if wait, err = s.alive(now); err != nil {
		return "", nil, 0, err
	}
	if !leave.IsZero() {
		return "", nil, min(wait, leave.Sub(now)), nil
	}
	topic, m, pause, err := s.fetch(now)
	return topic, m, min(wait, pause), err
}

// collect takes in the acknowledgements that have come. mu is held.
func (s *session) collect(now time.Time) error {
	for m := s.win.oldest(); m != nil && m.token != nil; m = s.win.oldest() {
		select {
		case <-m.token.Done():
		default:
			return nil
		}
		if err := m.token.Error(); err != nil {
			return err
		}
		s.p.dest.Ack(m.seq)
		s.p.counted(m, now)
		s.p.poison.acked(m.seq)
		s.acked++
		from := m.lane
		s.win.pop(now)
		s.lanes.proven = true
		if from == laneTrial || from == laneBeside {
			s.layAgain(from == laneTrial, now)
		}
	}
	return nil
}

// layAgain lays the lanes again, after a message was alone in flight. freed says that it was of a suspect stream,
// which flows from now on.
func (s *session) layAgain(freed bool, now time.Time) {
	p := s.p
	if topic := p.suspects.back(freed, now); freed {
		p.log.Info("the broker takes the messages of a stream again", "topic", topic)
	}
	head := p.buf.NextSeq()
	from, any := s.lanes.close(&s.win)
	p.dest.Reset()
	if any {
		p.owe(from, head)
	}
	s.lanes.lay(head)
}

// retryRead is the wait after the buffer could not be read.
const retryRead = time.Second

// fetch takes the next record that may be sent out of its lane, encodes it and puts it into the window. It
// returns no message but a wait when there is none. mu is held.
func (s *session) fetch(now time.Time) (topic string, m *message, wait time.Duration, err error) {
	for {
		l, wait, err := s.lanes.next(now, &s.win, &s.rec)
		if err != nil {
			s.p.complain(fmt.Errorf("read the buffer: %w; trying again in %v", err, retryRead))
			return "", nil, retryRead, nil
		}
		if l == laneNone {
			return "", nil, wait, nil
		}
		if l >= laneOwed && s.p.suspects.holds(s.rec.Stream) {
			if over, err := s.hold(l, now); over {
				return "", nil, 0, err // acknowledgements have their turn
			}
			continue
		}
		m := s.win.slot()
		topic, m.payload, err = s.p.encoder.encode(m.payload[:0], &s.rec)
		if err != nil {
			s.win.free = append(s.win.free, m)
			s.lanes.skipped(l)
			if err := s.p.reject(s.rec.Seq, err.Error()); err != nil {
				return "", nil, 0, err
			}
			continue
		}
		m.seq, m.lane, m.stream, m.sent, m.token = s.rec.Seq, l, s.rec.Stream, now, nil
		s.win.push(m)
		s.p.throttle.spend(len(m.payload))
		s.p.sending(m)
		return topic, m, 0, nil
	}
}

// hold steps over the record handed out last. It reports true when too many are held back, and puts one into
// quarantine. mu is held.
func (s *session) hold(l lane, now time.Time) (over bool, err error) {
	p := s.p
	s.lanes.held(l, s.rec.Seq)
	seq, over := p.suspects.hold(&s.rec)
	if !over {
		return false, nil
	}
	if now.Sub(p.toldFull) > time.Minute {
		p.toldFull = now
		p.log.Warn("too many records are held back; the oldest go into quarantine untried")
	}
	err = p.quarantine(seq, "the broker closes the connection on the messages of this stream, and too many of them wait to be tried")
	if errors.Is(err, buffer.ErrNotFound) { // dropped in the meantime
		err = nil
	}
	return true, err
}

// end makes the session dead and says how it ended, and the first record that may have gone out live and is
// not acknowledged. What was acknowledged until now counts.
func (s *session) end(err error) (e ending, left uint64, any bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	now := time.Now()
	if lost := s.collect(now); err == nil {
		err = lost
	}
	if errors.Is(err, errClosed) || s.conn.lostFor() != nil {
		err = s.conn.lostFor() // the client library knows less of the cause
	}
	e = ending{err: err, connected: true, byPeer: closedByPeer(err), lived: now.Sub(s.born), acked: s.acked, inFlight: s.win.n}
	if m := s.win.oldest(); m != nil {
		e.front, e.frontOf, e.frontFor, e.frontSize, e.trial = m.seq, m.stream, now.Sub(m.sent), len(m.payload), m.lane == laneTrial
	}
	left, any = s.lanes.close(&s.win)
	for m := s.win.oldest(); m != nil; m = s.win.oldest() {
		s.p.lost[m.seq] = struct{}{}
		s.win.pop(now)
	}
	return e, left, any
}

// closedByPeer reports whether the connection was closed from the other side, as a broker does that dislikes
// a message, and not by silence, by us or by the machine's own network.
func closedByPeer(err error) bool {
	var number syscall.Errno
	if errors.As(err, &number) && (number == wsaConnAborted || number == wsaConnReset) {
		return true
	}
	return err != nil && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || strings.HasPrefix(err.Error(), "websocket: close"))
}

// Windows has numbers of its own for a connection that the peer has reset.
const (
	wsaConnAborted = syscall.Errno(10053)
	wsaConnReset   = syscall.Errno(10054)
)
