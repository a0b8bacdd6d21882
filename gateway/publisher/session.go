package publisher

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"millrace/buffer"
	"millrace/gateway/format"
	"millrace/gateway/link"
	"millrace/gateway/record"
)

// session is one link from login to loss. Run's goroutine is the only one that touches it.
type session struct {
	p     *Publisher
	link  link.Link
	enc   format.Encoder
	born  time.Time
	timer *time.Timer
	win   window

	acks     []link.Ack
	messages []link.Message
	recs     []format.Record
	decoded  []record.Record
	arena    []byte // payloads of a unit of several records
	rec      buffer.Record

	acked     int        // units
	sent      int        // units
	told      link.Stats // as Stats has them already
	dialled   time.Duration
	alone     *unit     // nothing else is sent while its answer is awaited, until that is late
	renewBy   time.Time // not zero: the session ends then, or sooner when nothing is in flight
	abandoned int       // units whose answer is not waited for any more: at two windows, a new session
	grown     time.Time // when the width last grew for want of answers
	limited   bool      // the backlog lane has to wait, for the window or for backlog_limit

	looked  time.Time // when it was last looked for a record that is overdue
	overdue uint64    // its number, 0 = none
	since   time.Time
	again   time.Time // when the lanes read from it on
}

const (
	leaveWait = time.Second     // how long a session waits at the end for what is in flight
	soon      = 5 * time.Second // a close later than this after sending (and the time that takes) has another cause
	silence   = time.Second     // how long others are answered, at least, before a message counts as refused by silence
	perTurn   = 128             // records looked at before acknowledgements have their turn
	far       = time.Hour       // a wait that something else must end
)

// errRenew ends a session so that a record can be tried as the first message of the next.
var errRenew = errors.New("a new session is wanted")

func newSession(p *Publisher, l link.Link, dialled time.Duration) *session {
	s := &session{p: p, link: l, born: time.Now(), dialled: dialled, timer: time.NewTimer(far), win: newWindow(p.o.Window, p.o.WindowBytes, p.careful)}
	s.enc = p.o.Open(slices.Collect(maps.Values(p.schemas)))
	n := max(s.enc.Batch(), 1)
	s.recs, s.decoded = make([]format.Record, n), make([]record.Record, n)
	p.lanes.begin(p.o.Window)
	return s
}

// run publishes until the session fails or ctx has ended; nil means that it is to be closed in peace.
func (s *session) run(ctx context.Context) error {
	defer s.timer.Stop()
	if err := s.hello(); err != nil {
		return err
	}
	leave := time.Time{}
	for {
		now := time.Now()
		if ctx.Err() != nil && leave.IsZero() {
			leave = now.Add(leaveWait)
		}
		leaving := !leave.IsZero()
		wait, err := s.turn(now, leaving)
		switch {
		case err != nil:
			return err
		case leaving && (len(s.win.units) == 0 || !now.Before(leave)):
			return nil
		case leaving:
			wait = min(wait, leave.Sub(now))
		}
		s.wait(ctx, wait, leaving)
	}
}

// hello sends what the format says at the beginning of a session.
func (s *session) hello() error {
	s.messages = s.enc.Hello(s.messages[:0])
	if len(s.messages) == 0 {
		return nil
	}
	u := &unit{messages: len(s.messages), sent: time.Now()}
	err := s.send(u)
	s.link.Flush()
	return err
}

// turn does what can be done now: it takes in answers and sends what may be sent. It returns how long to wait.
func (s *session) turn(now time.Time, leaving bool) (wait time.Duration, err error) {
	before := s.sent
	s.p.begins()
	defer s.p.busy.Store(0)
	s.collect(now)
	if err := s.link.Err(); err != nil {
		return 0, err
	}
	if err := s.hear(); err != nil {
		return 0, err
	}
	wait, err = s.alive(now)
	wait = min(wait, s.p.asideAgain(now))
	if err == nil && !leaving {
		wait = min(wait, s.readAgain(now))
		var pause time.Duration
		pause, err = s.fill(now)
		wait = min(wait, pause)
	}
	if err != nil {
		return 0, err
	}
	if s.sent > before {
		s.link.Flush()
	}
	s.p.update(s)
	return wait, nil
}

// collect takes in the answers that have come.
func (s *session) collect(now time.Time) {
	s.acks = s.link.Acked(s.acks[:0])
	for _, a := range s.acks {
		u := s.win.answered(a.N)
		if u == s.alone {
			s.alone = nil
		}
		switch {
		case u == nil: // not waited for any more: its record is sent again, or was
		case a.Err != nil:
			s.p.putAside(a.Err.Error(), u.seqs...)
			s.win.drop(u)
		default:
			s.acknowledged(u, a.At)
		}
	}
}

// acknowledged counts a unit that the receiver has.
func (s *session) acknowledged(u *unit, at time.Time) {
	for _, seq := range u.seqs {
		s.p.dest.Ack(seq)
	}
	took := at.Sub(u.sent)
	s.p.show(func(n *Stats) {
		n.Acked++
		if n.AckLatency += (took - n.AckLatency) / 16; n.Acked == 1 {
			n.AckLatency = took
		}
		n.AckMax = max(n.AckMax, took)
	})
	if s.acked++; s.p.shown.State == Unanswered {
		s.p.setState(Connected)
	}
	if len(s.p.breakers.order) > 0 && len(u.seqs) > 0 {
		s.p.flowed(u, at)
	}
	s.win.finish(u, at)
}

// hear takes what the receiver says besides answers.
func (s *session) hear() error {
	for range perTurn {
		select {
		case m := <-s.link.Inbox():
			event, ok := s.enc.Take(m)
			if ok && event.Rebirth {
				if err := s.hello(); err != nil {
					return err
				}
			} else if ok && s.p.o.OnEvent != nil {
				s.p.o.OnEvent(event)
			}
		default:
			return nil
		}
	}
	return nil
}

// fill sends what may be sent, bounded by what may be in flight and by a turn's worth.
func (s *session) fill(now time.Time) (wait time.Duration, err error) {
	for range perTurn {
		if wait, err = s.next(now); wait > 0 || err != nil {
			return wait, err
		}
	}
	return 0, nil
}

// next sends one unit or steps over one record, and returns 0; else how long to wait. So do those that it calls.
func (s *session) next(now time.Time) (wait time.Duration, err error) {
	if s.alone != nil {
		if left := s.answerBy(s.alone).Sub(now); left > 0 {
			return left, nil
		}
		s.alone = nil
	}
	if !s.renewBy.IsZero() {
		if left := s.renewBy.Sub(now); len(s.win.units) > 0 && left > 0 {
			return left, nil
		}
		return 0, errRenew
	}
	if s.p.first != 0 {
		return 0, s.sendFirst(now)
	}
	wait = far
	if len(s.p.breakers.order) > 0 {
		pause, only, err := s.tryOne(now)
		if pause == 0 || only || err != nil {
			return pause, err
		}
		wait = pause
	}
	pause, err := s.fromLanes(now)
	return min(wait, pause), err
}

// sendFirst begins the session with the record that may have ended the last one, alone, where it is the next of its lane:
// receivers handle messages in order.
func (s *session) sendFirst(now time.Time) error {
	seq, l, before := s.p.first, &s.p.lanes.live, s.sent
	s.p.first = 0
	if s.p.o.Order == OldestFirst || seq < l.pos {
		l = &s.p.lanes.backlog
	}
	if seq != l.pos {
		return nil
	}
	_, err := s.fromLane(l, now)
	if err == nil && s.sent > before {
		s.await()
	}
	return err
}

// await lets nothing else be sent until the unit sent last is answered, or its answer is late.
func (s *session) await() { s.alone = s.win.units[len(s.win.units)-1] }

// fromLanes sends the next unit of the lanes.
func (s *session) fromLanes(now time.Time) (time.Duration, error) {
	l := &s.p.lanes
	oldest := s.p.o.Order == OldestFirst
	if s.limited = l.backlog.any() && !s.win.space(oldest); !s.win.space(true) {
		return far, nil
	}
	if s.win.freed {
		s.win.freed = false
		l.resume()
	}
	if !oldest {
		if wait, err := s.fromLane(&l.live, now); wait == 0 || err != nil {
			return wait, err
		}
	}
	if l.backlog.any() && s.win.space(oldest) {
		if wait := max(s.p.messages.wait(now), s.p.bytes.wait(now)); wait > 0 {
			s.limited = true
			return wait, nil
		}
		if wait, err := s.fromLane(&l.backlog, now); wait == 0 || err != nil {
			return wait, err
		}
	}
	return s.idle(now)
}

// fromLane reads, encodes and sends the next unit of a lane, or steps over a record that is held back.
func (s *session) fromLane(l *lane, now time.Time) (time.Duration, error) {
	ok, err := l.next(&s.rec, &s.win)
	if err != nil || !ok {
		return far, err
	}
	if b := s.p.breakers.find(s.rec.Stream); b != nil && b.state != Closed {
		ok, err := s.p.makeSpace(l)
		if err != nil || !ok { // what is held back must be tried first
			l.set(s.rec.Seq, l.end)
			return far, err
		}
		b.hold(s.rec.Seq)
		return 0, nil
	}
	if s.win.stalled(s.rec.Stream) {
		return l.skip(s.rec.Seq), nil
	}
	if !s.p.dest.Take(&s.rec) {
		if s.p.dest.Needs(s.rec.Seq) { // as many as may be are in flight
			l.set(s.rec.Seq, l.end)
			return far, nil
		}
		return 0, nil
	}
	return 0, s.sendRecord(l, nil, now)
}

// sendRecord sends the record read last, and as many after it in its lane as the format wants in one unit. What can never be
// sent goes into quarantine.
func (s *session) sendRecord(l *lane, try *breaker, now time.Time) error {
	u := &unit{seqs: []uint64{s.rec.Seq}, stream: s.rec.Stream, lane: l, sent: now, try: try, silent: try != nil && try.silent}
	n, err := s.gather(u)
	if err == nil {
		s.messages, err = s.enc.Encode(s.messages[:0], s.recs[:n])
	}
	for i := range s.messages {
		if n := len(s.messages[i].Payload); err == nil && s.p.o.MaxMessage > 0 && n > s.p.o.MaxMessage {
			err = fmt.Errorf("message of %d bytes is over the limit of %d", n, s.p.o.MaxMessage)
		}
	}
	if err != nil {
		s.p.putAside(err.Error(), u.seqs...)
		return nil
	}
	u.messages = len(s.messages)
	return s.send(u)
}

// gather decodes the record read last, and takes the next ones of the same stream along, up to the format's batch.
func (s *session) gather(u *unit) (n int, err error) {
	l := u.lane
	schema, err := s.p.schema(s.rec.Stream)
	if err != nil {
		return 0, err
	}
	s.arena = s.arena[:0]
	for {
		if err := s.decode(n, schema, l); err != nil {
			return 0, err
		}
		if n++; n == len(s.recs) || l == nil {
			return n, nil
		}
		ok, err := l.next(&s.rec, &s.win)
		if err != nil || !ok {
			return n, nil // what is read already goes out; the next read tells
		}
		if s.rec.Stream != u.stream || !s.p.dest.Take(&s.rec) {
			l.set(s.rec.Seq, l.end)
			return n, nil
		}
		u.seqs = append(u.seqs, s.rec.Seq)
	}
}

// decode makes the i-th record of a unit of the record read last.
func (s *session) decode(i int, schema *record.Schema, l *lane) error {
	rec := &s.rec
	r := format.Record{Epoch: rec.Epoch, Seq: rec.Seq, Historical: s.p.lanes.historical(l, rec.Seq) || rec.Retried, Schema: schema, Time: rec.At}
	if g := rec.Gap; g != nil {
		r.Gap = &format.Gap{From: g.From, To: g.To, FirstSeq: g.FirstSeq, LastSeq: g.LastSeq, Count: g.Count, Unknown: g.Unknown, Cause: g.Cause.String(), Reason: g.Reason, Tags: g.Tags}
	} else {
		payload := rec.Payload
		if len(s.recs) > 1 { // the next read may overwrite it
			s.arena = append(s.arena, payload...)
			payload = s.arena[len(s.arena)-len(payload):]
		}
		if err := record.Decode(payload, &s.decoded[i]); err != nil {
			return fmt.Errorf("decode record %d of %q: %w", rec.Seq, rec.Stream.Account(), err)
		}
		r.Record = &s.decoded[i]
		r.Time = r.Record.Time
	}
	s.recs[i] = r
	return nil
}

// send hands a unit's messages to the link.
func (s *session) send(u *unit) error {
	for i := range s.messages {
		u.bytes += len(s.messages[i].Payload)
	}
	s.win.push(u)
	s.sent++
	s.p.sending(u)
	for i := range s.messages {
		if err := s.link.Send(s.messages[i]); err != nil {
			if errors.Is(err, link.ErrMessage) {
				s.p.reject(err.Error(), u.seqs...)
			}
			return err
		}
	}
	return nil
}

// end says how the session ended. What was acknowledged until now counts; what was not is sent again.
func (s *session) end(err error) ending {
	now := time.Now()
	s.collect(now)
	e := ending{err: err, connected: true, lived: now.Sub(s.born), acked: s.acked}
	s.p.careful = errors.Is(err, link.ErrPeerClosed)
	if s.p.careful {
		e.progress = s.closedOn(now)
	}
	p := s.p
	for _, b := range p.breakers.order {
		if b.state == HalfOpen { // it got no answer for another reason
			b.state, b.next = Open, now.Add(tryAfter[1])
		}
	}
	p.lanes.lost(&s.win)
	p.forgetAside()
	p.dest.Reset()
	s.win.units, s.overdue = nil, 0
	p.update(s)
	return e
}

// closedOn puts the end down to a unit: the only one in flight that was sent lately, if the end came soon after that. What has
// been in flight for longer than an answer takes counts as refused by silence. It reports whether a stream was not
// known to be refused.
func (s *session) closedOn(now time.Time) (news bool) {
	var lately *unit
	for _, u := range s.win.units {
		switch {
		case len(u.seqs) == 0:
		case len(s.win.units) > 1 && !now.Before(s.answerBy(u)):
			news = s.noteRefusal(u, now, true) || news
		case lately == nil:
			lately = u
		default:
			if lately.lane != nil {
				s.p.first = lately.seqs[0]
			}
			return news
		}
	}
	if lately != nil && now.Sub(lately.sent) <= soon+carrying(lately.bytes) {
		news = s.noteRefusal(lately, now, false) || news
	}
	return news
}

// noteRefusal notes a refusal that ended the session and reports whether that is a step forward: news, or what the try of a
// stream known to be refused was to show.
func (s *session) noteRefusal(u *unit, now time.Time, silent bool) bool {
	before := s.p.breakers.find(u.stream)
	news := before == nil || before.state == Closed && before.confirmed < 2 || u.try == before && !before.pending
	s.refused(u, now, u.first == 0, silent)
	return news
}
