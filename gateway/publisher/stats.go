package publisher

import (
	"fmt"
	"time"
)

// State says what the link to the broker does.
type State uint8

// The states.
const (
	Stopped    State = iota // Run is not at work
	Connecting              // dialling or logging in
	Connected               // logged in
	Waiting                 // between two attempts
	Refused                 // likewise, and the broker answered the last login with no
)

// String returns the state's word as it stands on pages.
func (s State) String() string {
	switch s {
	case Connecting:
		return "connecting"
	case Connected:
		return "connected"
	case Waiting:
		return "waiting"
	case Refused:
		return "refused"
	}
	return "stopped"
}

// Stats is what a Publisher knows of itself. Counters begin with the process.
type Stats struct {
	State       State
	Since       time.Time // when the link came up, or was lost: an attempt in vain changes State and not Since
	LastError   string    // the last trouble, with what happens next; "" = none yet
	LastErrorAt time.Time

	Sessions   uint64        // logins accepted
	Sent       uint64        // messages handed to the connection, those sent again included
	Acked      uint64        // messages the broker acknowledged
	Resent     uint64        // messages sent again after a session was lost
	Rejected   uint64        // records put into quarantine
	Bytes      uint64        // payload bytes sent
	StrayAcks  uint64        // acknowledgements of nothing: the broker is at fault
	AckLatency time.Duration // from sending to the acknowledgement, smoothed

	InFlight      int // messages sent and not yet acknowledged
	InFlightBytes int
	Window        int // most messages in flight
	WindowBytes   int // most bytes in flight that this link has shown to carry in about a second

	Unacked      uint64 // records in the buffer, those in flight included
	LiveLag      uint64 // of them live ones not yet sent; all of them while the link is down
	LiveInFlight int    // of those in flight the live ones
	BacklogLag   uint64 // older ones not yet sent

	Held     int       // records held back because the broker closed the connection on others of their streams
	Suspects []Suspect // those streams; at most 64
}

type counters struct {
	sessions, sent, acked, resent, rejected, bytes, stray uint64
	latency                                               time.Duration
}

type status struct {
	state State
	since time.Time
	err   string
	errAt time.Time
}

// Stats returns the state and the counters.
func (p *Publisher) Stats() Stats {
	p.mu.Lock()
	s := Stats{State: p.state.state, Since: p.state.since, LastError: p.state.err, LastErrorAt: p.state.errAt,
		Sessions: p.n.sessions, Sent: p.n.sent, Acked: p.n.acked, Resent: p.n.resent, Rejected: p.n.rejected, Bytes: p.n.bytes,
		StrayAcks: p.n.stray, AckLatency: p.n.latency, Window: p.o.Window, WindowBytes: p.o.WindowBytes}
	current := p.current
	p.mu.Unlock()
	s.Unacked = p.dest.Len()
	s.LiveLag = s.Unacked
	s.Suspects, s.Held = p.suspects.stats()
	if current != nil {
		current.stats(&s)
	}
	return s
}

func (x *session) stats(s *Stats) {
	head := x.p.buf.NextSeq()
	x.mu.Lock()
	defer x.mu.Unlock()
	s.InFlight, s.InFlightBytes, s.WindowBytes = x.win.n, x.win.bytes, x.win.limit
	s.StrayAcks += x.conn.strays()
	s.Unacked = x.p.dest.Len()
	waiting := s.Unacked - min(s.Unacked, uint64(x.win.n+s.Held))
	s.LiveLag = waiting
	if x.lanes.live == nil {
		s.LiveInFlight = x.win.n
		return
	}
	next := x.lanes.nextLive
	if len(x.lanes.owed) > 0 {
		next = x.lanes.nextOwed
	}
	s.LiveLag = min(waiting, head-min(head, next))
	s.BacklogLag = waiting - s.LiveLag
	for i := range x.win.n {
		if x.win.ring[(x.win.head+i)%len(x.win.ring)].lane != laneBacklog {
			s.LiveInFlight++
		}
	}
}

func (p *Publisher) setState(state State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.state == state {
		return
	}
	if p.state.since.IsZero() || (p.state.state == Connected) != (state == Connected) {
		p.state.since = time.Now()
	}
	p.state.state = state
	if state == Connected {
		p.n.sessions++
		p.log.Info("connected", "url", p.o.URL, "session", p.n.sessions)
	}
}

func (p *Publisher) setCurrent(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current != nil {
		p.n.stray += p.current.conn.strays()
	}
	p.current = s
}

// sending counts a message that goes out.
func (p *Publisher) sending(m *message) {
	_, again := p.lost[m.seq]
	if again {
		delete(p.lost, m.seq)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n.sent++
	p.n.bytes += uint64(len(m.payload))
	if again {
		p.n.resent++
	}
}

// counted counts a message that was acknowledged.
func (p *Publisher) counted(m *message, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n.acked++
	p.n.latency += (now.Sub(m.sent) - p.n.latency) / 16
}

// complain notes trouble that does not end the session.
func (p *Publisher) complain(err error) {
	p.mu.Lock()
	same := p.state.err == err.Error()
	p.state.err, p.state.errAt = err.Error(), time.Now()
	p.mu.Unlock()
	if !same {
		p.log.Warn("publisher in trouble", "err", err)
	}
}

// fight is the number of short sessions in a row from which on another client with our id is suspected.
const fight = 5

// failed notes why there is no session, and logs it when that is news.
func (p *Publisher) failed(e *ending, wait time.Duration) {
	what := fmt.Sprintf("%s: %v", p.o.URL, e.err)
	switch {
	case e.refused:
		what += "; check client_id, username and password"
	case p.short >= fight && !e.suspicious:
		what += fmt.Sprintf("; the broker closed %d connections in a row soon after the login: perhaps another client uses the client id %q", p.short, p.o.ClientID)
	}
	if e.note != "" {
		what += "; " + e.note
	}
	state := Waiting
	if e.refused {
		state = Refused
	}
	p.setState(state)
	p.mu.Lock()
	defer p.mu.Unlock()
	if full := what + "; trying again soon"; p.state.err != full {
		p.state.err = full
		p.log.Warn("no link to the broker", "err", what, "retry_in", wait.Round(time.Millisecond))
	}
	p.state.errAt = time.Now()
}
