package publisher

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"millrace/buffer"
)

// What the session does with circuit breakers: breaker.go has their rules.

// refused notes that the receiver refused a unit. It returns the stream's breaker, nil when there are too many.
func (s *session) refused(u *unit, now time.Time, asFirst, silent bool) *breaker {
	topic := ""
	if schema, err := s.p.schema(u.stream); err == nil {
		topic = s.enc.Topic(schema)
	}
	b := s.p.breakers.get(u.stream, topic)
	if b == nil {
		return nil
	}
	if byIdle := u.lane == nil && u.try == nil; b.pending && (u.seqs[0] > b.seq || byIdle) { // an older one is judged, or it is to be seen whether anything is taken
		if byIdle {
			b.others++
		}
		b.hold(u.seqs[0])
		b.next = now.Add(idlePause)
		return b
	}
	b.refuse(u, now, asFirst, silent)
	return b
}

// flowed is told of each acknowledged unit while there are breakers: it frees the unit's own stream, and confirms the
// refusals of others.
func (p *Publisher) flowed(u *unit, now time.Time) {
	q := &p.breakers
	q.flowing = q.flowing || u.try == nil
	switch b := q.find(u.stream); {
	case b == nil:
	case u.try == b && b.poison != 0 && u.seqs[0] > b.poison:
		b.cleared++
		b.again, b.state, b.next = true, Open, now
		p.passed++
	case u.try == b || u.seqs[0] == b.seq:
		p.free(b)
	}
	for i := len(q.order) - 1; i >= 0; i-- { // one that is given up goes
		b := q.order[i]
		if b.stream == u.stream {
			b.release(u.seqs[0])
		}
		if b.pending && b.seq != u.seqs[0] {
			p.confirmed(b, u.stream == b.stream, now)
		}
	}
}

// free closes a breaker: all that it held back goes out by the backlog lane.
func (p *Publisher) free(b *breaker) {
	if b.named {
		p.log.Info("the receiver takes the messages of a stream again", "topic", b.topic, "device", b.device, "records_held_back", len(b.held))
	}
	p.lanes.again(b.held)
	p.breakers.forget(b)
}

// confirmed counts a refusal after which another message was acknowledged, own: one of the stream itself.
func (p *Publisher) confirmed(b *breaker, own bool, now time.Time) {
	if !b.confirm(now) {
		p.lanes.again(b.held)
		b.held = b.held[:0]
		return
	}
	if !b.named && b.confirmed > 1 {
		b.named = true
		p.log.Warn("the receiver refuses the messages of a stream; it is held back and tried now and then, all others go on",
			"topic", b.topic, "device", b.device, "cause", b.reason())
	}
	if own {
		b.cleared++
	}
	switch often := b.often(maxTries, minFresh); {
	case b.poison != 0 && b.seq > b.poison:
		b.others++
		b.refusedWhole(now)
	case b.cleared >= minCleared && (often || b.poison != 0):
		p.giveUp(b, now)
	case b.whole || often || b.poison != 0:
		if b.seq != b.poison {
			b.cleared = 0
		}
		if b.poison, b.again = b.seq, false; b.other(p.lanes.read()) == 0 {
			b.refusedWhole(now)
		}
	}
}

// giveUp puts the record that was refused last into quarantine, and lets its stream flow. A gap record waits until it is taken, tried ever
// more rarely: it is all that the receiver learns of a loss.
func (p *Publisher) giveUp(b *breaker, now time.Time) {
	var rec buffer.Record
	switch ok, err := p.read(b.seq, &rec); {
	case ok && rec.Gap != nil:
		b.refusedWhole(now)
	case err != nil || !ok && p.dest.Needs(b.seq) || ok && (!p.dest.Take(&rec) || !p.reject(b.reason(), b.seq)): // tried again, and then given up
	default:
		b.release(b.seq)
		p.free(b)
	}
}

// read reads one record.
func (p *Publisher) read(seq uint64, rec *buffer.Record) (bool, error) {
	l := lane{dest: p.dest, pos: seq, end: seq + 1}
	defer l.set(0, 0)
	return l.read(rec)
}

// reject puts records in flight into quarantine and reports whether they are there.
func (p *Publisher) reject(reason string, seqs ...uint64) (all bool) {
	all = true
	for _, seq := range seqs {
		switch err := p.dest.Reject(seq, reason); {
		case err == nil:
			p.show(func(s *Stats) { s.Rejected++ })
			p.log.Warn("a record is in quarantine: millrace buffer quarantine shows it", "seq", seq, "cause", reason)
		case !errors.Is(err, buffer.ErrNotFound): // else it was dropped in the meantime
			p.complain(err)
			all = false
		}
	}
	return all
}

// makeSpace gives up the oldest record of the stream that holds most, of those that are refused as a whole, when as
// many are held back as may be: by the backlog lane twice as many as by the live lane, so that the oldest of a stream can always be tried.
// It reports false when no stream is, and the lane has to wait.
func (p *Publisher) makeSpace(l *lane) (bool, error) {
	most := maxHeld
	if l == &p.lanes.backlog {
		most *= 2
	}
	if p.breakers.held() < most {
		return true, nil
	}
	b := p.breakers.largest()
	if b == nil {
		return false, nil
	}
	var rec buffer.Record
	ok, err := p.read(b.held[0], &rec)
	if err != nil {
		return false, err
	}
	if ok && p.dest.Take(&rec) {
		p.reject(b.reason()+"; and too many of them wait", rec.Seq)
	}
	if p.dest.Needs(b.held[0]) { // it cannot be read, or put aside, for now
		return false, nil
	}
	b.release(b.held[0])
	return true, nil
}

// tryOne sends a record of a stream that is held back, if one is due. only says that nothing else may be sent meanwhile.
func (s *session) tryOne(now time.Time) (wait time.Duration, only bool, err error) {
	q := &s.p.breakers
	if !q.flowing && s.sent == 0 { // between two tries something else must flow
		return far, false, nil
	}
	limit := s.p.lanes.read()
	b, wait := q.due(now, s.sent == 0, false, limit)
	switch {
	case b == nil:
		if other, _ := q.due(now, true, false, limit); other == nil || s.acked == 0 || !q.flowing { // each session gets on, however slow the answers
			return wait, false, nil
		}
		s.renew(now)
		return 0, false, nil
	case b.silent && s.acked == 0, !b.silent && !q.flowing:
		return far, false, nil
	case !b.silent && len(s.win.units) > 0: // some of it may never be answered: then others go on meanwhile
		return s.patience(), now.Sub(s.win.units[0].sent) < s.patience(), nil
	case !b.silent:
		q.flowing = false
	}
	q.pause = now.Add(tryPause)
	return 0, false, s.try(b, b.candidate(limit), b, now)
}

// idle tries a record of a stream that is held back when nothing else can be sent: of each stream in turn, so that one's
// acknowledgement confirms another's refusal. Where there is only one, it tries another record than was refused last: that
// is the one case in which a record may pass an older one of its stream.
func (s *session) idle(now time.Time) (time.Duration, error) {
	q := &s.p.breakers
	if len(q.order) == 0 || len(s.win.units) > 0 {
		return far, nil
	}
	b, wait := q.due(now, s.sent == 0, true, s.p.lanes.read())
	if b == nil {
		return wait, nil
	}
	if i := 1 + slices.Index(b.held, b.seq); b.stuck() && i > 0 && len(b.held) == q.held() && len(b.held) > 1 {
		s.p.passed++
		return 0, s.try(b, b.held[(i+b.others%maxOthers)%len(b.held)], nil, now)
	}
	return 0, s.try(b, b.candidate(s.p.lanes.read()), b, now)
}

// try sends one record of a breaker's stream. as is the breaker when its fate decides over it, nil when it is sent only to
// see whether the receiver takes anything.
func (s *session) try(b *breaker, seq uint64, as *breaker, now time.Time) error {
	ok, err := s.p.read(seq, &s.rec)
	if err != nil {
		return err
	}
	if !ok || !s.p.dest.Take(&s.rec) {
		if b.next = now.Add(idlePause); !s.p.dest.Needs(seq) { // else it cannot be read for now
			b.release(seq)
		}
		return nil
	}
	if as != nil {
		b.state = HalfOpen
	}
	before := s.sent
	err = s.sendRecord(nil, as, now)
	if s.sent == before { // it can never be sent
		b.release(seq)
		b.state = Open
	} else if !b.silent && err == nil {
		s.await()
	}
	return err
}

// reason says why a stream is held back, and what may be the cause.
func (b *breaker) reason() string {
	if b.silent {
		return "it does not acknowledge these messages while it acknowledges others; perhaps a queue is full there, or its rules drop this topic in silence: see the broker's log, its queue limits and its access rules for the topic"
	}
	text := fmt.Sprintf("it closes the connection on these messages (the last had %d bytes); perhaps its access rules forbid the topic", b.bytes)
	if !b.whole {
		text += ", or the message is over its size limit: then write that as max_message at the destination, and what is larger goes to quarantine unsent"
	}
	return text
}
