package publisher

import (
	"fmt"
	"time"

	"millrace/buffer"
)

// suspicion finds the one message that the broker does not take: it closes the connection on it, every time.
// An outage must never look like that, so a message is first suspected (it was the oldest in flight when the
// broker closed the connection, several times), then sent alone, on a connection that was quiet and stable
// before, and condemned only when the broker closes on it each time.
type suspicion struct {
	fronts   map[uint64]int // how often the broker closed while this message was the oldest in flight
	seq      uint64         // the suspect, if alone
	alone    bool
	closings int // on the suspect alone
	care     int // acknowledgements still to come with one message in flight
	window   int
	quiet    time.Duration // how long a connection must stand before the suspect is sent
	proven   bool          // the broker has acknowledged something since the last rejection
	unproven int           // rejections in a row between which it has not
}

const (
	suspectAfter = 3 // closings that make a suspect
	condemnAfter = 5 // closings on the suspect alone
	quietTime    = time.Second
	soon         = 5 * time.Second // a closing later than this after sending (and the time that takes) has another cause
	maxFronts    = 64
	maxDoubling  = 4
)

// suspect returns the message that is to be sent alone.
func (q *suspicion) suspect() (uint64, bool) { return q.seq, q.alone }

// pause is how long a new session waits before its first message.
func (q *suspicion) pause() time.Duration {
	if q.alone {
		return q.quiet
	}
	return 0
}

// careful reports whether only one message may be in flight. So it is for a while after a suspect proved
// harmless: the culprit is then one of those that came after it.
func (q *suspicion) careful() bool { return q.care > 0 }

// clear drops the suspicion.
func (q *suspicion) clear() { q.seq, q.alone, q.closings = 0, false, 0 }

// acked says that the broker has acknowledged a message.
func (q *suspicion) acked(seq uint64) {
	q.proven, q.unproven = true, 0
	if q.care > 0 {
		q.care--
	}
	if len(q.fronts) > 0 {
		delete(q.fronts, seq)
	}
	if q.alone && seq == q.seq {
		q.clear()
		q.care = q.window
	}
}

// closed says that the broker closed the connection soon after it got the message and before anything else
// was acknowledged. It reports whether the message is condemned.
func (q *suspicion) closed(seq uint64) bool {
	if q.alone {
		if seq != q.seq {
			return false
		}
		q.closings++
		return q.closings >= q.needed()
	}
	if q.fronts == nil || len(q.fronts) >= maxFronts {
		q.fronts = map[uint64]int{}
	}
	if q.fronts[seq]++; q.fronts[seq] >= suspectAfter {
		q.seq, q.alone, q.closings = seq, true, 0
	}
	return false
}

// needed is how many closings condemn. A broker that acknowledges nothing at all may refuse everything, for
// want of a permission perhaps: then each further message needs twice as many.
func (q *suspicion) needed() int {
	if q.proven {
		return condemnAfter
	}
	return condemnAfter << min(q.unproven+1, maxDoubling)
}

// rejected says that the suspect was put into quarantine.
func (q *suspicion) rejected() {
	if !q.proven {
		q.unproven++
	}
	q.proven = false
	delete(q.fronts, q.seq)
	q.clear()
}

// judge draws conclusions from the end of a session.
func (p *Publisher) judge(e *ending) {
	if !e.connected || !e.byPeer || e.lived > settled {
		p.short = 0
	} else {
		p.short++
	}
	e.suspicious = e.connected && e.byPeer && e.inFlight > 0 && e.frontFor < soon+time.Duration(e.frontSize)*time.Second/slowest
	now := time.Now()
	if tried := p.suspects.lost(e.trial && e.suspicious, e.acked > 0, p.poison.needed(), now); e.trial {
		if tried {
			p.condemn(e, "the broker closed the connection on this message alone, as on others of its stream before")
		}
		e.note = "a message of a suspect stream was tried in vain"
		return
	}
	if !e.suspicious {
		return
	}
	_, before := p.poison.suspect()
	if !before && p.suspects.relapsed(e.frontOf, p.topic(e.frontOf), now) {
		p.holdsBack(e)
		return
	}
	condemned := p.poison.closed(e.front)
	if seq, alone := p.poison.suspect(); alone && !before {
		p.log.Warn("the broker closed the connection several times on the same message; it is sent alone now", "seq", seq)
	}
	if condemned {
		p.condemn(e, fmt.Sprintf("the broker closed the connection %d times on this message alone", p.poison.closings))
	}
}

// condemn puts the message that was in front into quarantine, and holds its stream back.
func (p *Publisher) condemn(e *ending, reason string) {
	defer p.dest.Reset()
	var rec buffer.Record
	if ok, err := p.one(e.front, e.front+1, &rec); err != nil || !ok {
		return
	}
	if err := p.reject(e.front, reason); err != nil {
		return
	}
	p.poison.rejected()
	if e.frontOf = rec.Stream; !e.trial && p.suspects.condemned(rec.Stream, p.topic(rec.Stream), time.Now()) {
		p.holdsBack(e)
	}
}

// holdsBack says that the stream of the message in front is held back from now on.
func (p *Publisher) holdsBack(e *ending) {
	e.held = true
	e.note = fmt.Sprintf("the records of topic %q are held back until the broker takes one again", p.topic(e.frontOf))
	p.log.Warn("the records of a stream are held back until the broker takes one again", "device", e.frontOf.Account(), "topic", p.topic(e.frontOf))
}

// topic returns the topic of a stream's messages, for people to read.
func (p *Publisher) topic(of *buffer.Stream) string {
	s, err := p.encoder.stream(of)
	if err != nil {
		return ""
	}
	return s.Topic()
}

// reject puts a record that cannot be delivered into quarantine, and says so.
func (p *Publisher) reject(seq uint64, reason string) error {
	err := p.quarantine(seq, reason)
	if err == nil {
		p.log.Warn("record put into quarantine", "seq", seq, "reason", reason)
	}
	return err
}

func (p *Publisher) quarantine(seq uint64, reason string) error {
	if err := p.dest.Reject(seq, reason); err != nil {
		err = fmt.Errorf("put record %d into quarantine: %w; trying again", seq, err)
		p.complain(err)
		return err
	}
	p.mu.Lock()
	p.n.rejected++
	p.mu.Unlock()
	return nil
}
