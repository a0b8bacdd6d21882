package publisher

import "time"

// The states of a session.
const (
	Stopped    State = "stopped"    // Run is not at work
	Connecting State = "connecting" // dialling or logging in
	Connected  State = "connected"  // logged in
	Unanswered State = "unanswered" // logged in, and nothing is acknowledged yet, nor was in the session before
	Waiting    State = "waiting"    // between two attempts
	Refused    State = "refused"    // likewise, and the receiver answered the last login with no
)

// Stats is what a Publisher knows of itself. Counters begin with the process.
type Stats struct {
	State     State
	Since     time.Time // when the session began, or the link was lost: an attempt in vain, or a session that got nothing through, changes State and not Since
	LastError string    // the last trouble, with what happens next; "" = none yet

	Sessions   uint64        // logins accepted
	Sent       uint64        // units handed to the link, those sent again included
	Acked      uint64        // units acknowledged
	Resent     uint64        // units sent again after a session was lost
	Rejected   uint64        // records put into quarantine
	Bytes      uint64        // payload bytes sent
	Stray      uint64        // answers to nothing: the receiver is at fault
	Discarded  uint64        // messages from the receiver that nobody asked for
	AckLatency time.Duration // from sending to the acknowledgement, smoothed over 16
	AckMax     time.Duration // the longest in this session

	InFlight       int    // units sent and not yet acknowledged
	Unacknowledged uint64 // records in the buffer, those in flight included
	Overdue        uint64 // number of the oldest of them when nothing is seen that keeps it from being sent, and it is not in flight; 0 = none
	OverdueSince   time.Time
	Held           int            // of them those held back by circuit breakers
	Breakers       []BreakerStats // those that are not closed; at most 64

	before       *Stats // when it was last Connected
	liveInFlight int    // of those in flight the live ones
	livePos      uint64 // where the live lane stands
}

// BreakerStats is the state of the circuit breaker of one stream.
type BreakerStats struct {
	Device, Topic string
	State         State // open or half-open
	Since         time.Time
	Held          int       // records
	NextTry       time.Time // not before
	Reason        string
}

// Stats returns the state and the counters.
func (p *Publisher) Stats() Stats {
	p.mu.Lock()
	s := p.shown
	p.mu.Unlock()
	s.Unacknowledged = p.dest.Len()
	return s
}

// live returns how many records the receiver lacks that Drain waits for.
func (p *Publisher) live(s *Stats) uint64 {
	n := s.Unacknowledged - min(s.Unacknowledged, uint64(s.Held))
	if p.o.Order == LiveFirst {
		next := p.buf.NextSeq()
		n = min(n, next-min(next, s.livePos)+uint64(s.liveInFlight))
	}
	return n
}

// update shows where the session stands.
func (p *Publisher) update(x *session) {
	p.breakers.expire(time.Now())
	before := x.told
	x.told = x.link.Stats()
	p.show(func(s *Stats) {
		s.Stray += x.told.Stray - before.Stray
		s.Discarded += x.told.Discarded - before.Discarded
		s.InFlight, s.liveInFlight, s.livePos = len(x.win.units), x.win.of(&p.lanes.live), p.lanes.live.first()
		s.Breakers, s.Held = p.breakerStats(), p.breakers.held()
		s.Overdue, s.OverdueSince = x.overdue, x.since
	})
	p.drained()
}

// sending counts a unit that goes out.
func (p *Publisher) sending(u *unit) {
	p.messages.spend(1)
	p.bytes.spend(float64(u.bytes))
	again := u.lane != nil && u.seqs[0] < u.lane.sent
	p.show(func(s *Stats) {
		s.Sent++
		s.Bytes += uint64(u.bytes)
		if again {
			s.Resent++
		}
	})
}

// show brings what Stats tells up to date.
func (p *Publisher) show(f func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.shown)
}

// setState changes the state. After a session in which nothing was acknowledged, only an acknowledgement makes it Connected.
func (p *Publisher) setState(state State) {
	p.show(func(s *Stats) {
		unanswered, was := s.before != nil && s.Sent > s.before.Sent && s.Acked == s.before.Acked, s.State
		switch s.State = state; {
		case state == Connected && unanswered:
			s.State = Unanswered
		case state == Connected:
			s.before = &Stats{Since: s.Since, Sent: s.Sent, Acked: s.Acked}
			s.Since = time.Now()
		case was == Connected && unanswered:
			s.Since = s.before.Since
		case was == Connected:
			s.Since = time.Now()
		}
	})
}

// breakerStats describes the breakers that are not closed.
func (p *Publisher) breakerStats() (list []BreakerStats) {
	for _, b := range p.breakers.order {
		if b.state != Closed && b.confirmed > 0 {
			list = append(list, BreakerStats{Device: b.device, Topic: b.topic, State: b.state, Since: b.since, Held: len(b.held), NextTry: b.next, Reason: b.reason()})
		}
	}
	return list
}
