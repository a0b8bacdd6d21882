package publisher

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"millrace/drivers/peer"
	"millrace/gateway/link"
)

// outage is what is told of the time without a link.
type outage struct {
	since    time.Time     // zero = the link is up
	next     time.Duration // after so long it is said that there still is none
	ours     bool          // it has had a cause that is not the breaker's to tell
	draining time.Time     // since when what waited is going out; zero = it is not
	told     []told        // causes, that told longest ago first; over all outages
	left     int           // times since the last line that one was not told again
}

// told is a cause that the log was told of.
type told struct {
	cause  string    // without numbers
	at     time.Time // when, last
	outage time.Time // when that began in which it came last; zero = in none
}

const (
	brief     = 3 * time.Second // how long the link may be gone without a line in the log at its return
	quiet     = time.Minute     // how long the same cause is not told again, when sessions come and go
	maxCauses = 6               // told in that time
	fight     = 5               // short sessions in a row from which on another client with our id is suspected
)

// connected notes that a session has begun.
func (p *Publisher) connected() {
	p.setState(Connected)
	p.show(func(n *Stats) {
		n.Sessions++
		n.AckMax = 0
	})
	o := &p.outage
	switch down := time.Since(o.since); {
	case o.since.IsZero() && p.shown.Sessions <= 1:
		p.log.Info("connected", "to", p.o.Receiver, "records_waiting", p.dest.Len())
	case !o.since.IsZero() && down > brief:
		n := p.dest.Len()
		p.log.Info("connected again", "to", p.o.Receiver, "after", down.Round(time.Second), "records_waiting", n)
		if n > uint64(p.o.Window) {
			o.draining = time.Now()
		}
	}
	o.since, o.ours = time.Time{}, false
}

// drained says once that what waited during an outage is delivered.
func (p *Publisher) drained() {
	o := &p.outage
	if o.draining.IsZero() {
		return
	}
	oldest, _ := p.dest.Oldest()
	done, held := oldest >= p.lanes.head, p.breakers.held()
	switch {
	case done || held == 0:
	case p.o.Order == OldestFirst: // what is held back is said elsewhere
		done = p.dest.Len() <= uint64(p.o.Window+held)
	default:
		done = !p.lanes.backlog.any()
	}
	if done {
		p.log.Info("everything that waited is sent", "took", time.Since(o.draining).Round(100*time.Millisecond))
		o.draining = time.Time{}
	}
}

// complain notes trouble that does not end the session.
func (p *Publisher) complain(err error) {
	if text := peer.Text(err); p.shown.LastError != text {
		p.show(func(s *Stats) { s.LastError = text })
		if p.outage.news(text, time.Now()) {
			p.log.Warn("publisher in trouble", "cause", text)
		}
	}
}

// failed notes why there is no session, and says it when that is news, or when it has lasted.
func (p *Publisher) failed(e *ending, wait time.Duration) {
	if errors.Is(e.err, errRenew) {
		return
	}
	state := Waiting
	if errors.Is(e.err, link.ErrRefused) {
		state = Refused
	}
	p.setState(state)
	what := p.o.Receiver + ": " + peer.Text(e.err) + p.hint(e)
	p.show(func(s *Stats) { s.LastError = what + "; trying again soon" })
	o, now := &p.outage, time.Now()
	if o.since.IsZero() {
		o.since, o.next, o.draining = now, time.Minute, time.Time{}
	}
	if e.progress && !o.ours { // the breaker says what there is to say
		return
	}
	o.ours = true
	down, news, left := now.Sub(o.since), o.news(what, now), o.left
	switch {
	case down >= o.next:
		o.next = min(4*o.next, o.next+time.Hour)
		p.log.Warn("still no link", "for", down.Round(time.Second), "cause", what, "records_waiting", p.dest.Len())
	case news:
		p.log.Warn("no link", "cause", what, "retry_in", wait.Round(time.Millisecond), "left_out", left)
		o.left = 0
	}
}

// news reports whether a cause is to be told, and takes it as told: once an outage, once a minute, and few of them in a minute.
func (o *outage) news(what string, now time.Time) bool {
	cause := digits.ReplaceAllString(what, "")
	i := slices.IndexFunc(o.told, func(t told) bool { return t.cause == cause })
	switch {
	case i >= 0 && !o.since.IsZero() && o.told[i].outage.Equal(o.since):
		return false
	case i >= 0 && now.Sub(o.told[i].at) < quiet:
		o.told[i].outage = o.since
		o.left++
		return false
	case i >= 0:
		o.told = slices.Delete(o.told, i, i+1)
	case len(o.told) == maxCauses && now.Sub(o.told[0].at) < quiet:
		o.left++
		return false
	case len(o.told) == maxCauses:
		o.told = slices.Delete(o.told, 0, 1)
	}
	o.told = append(o.told, told{cause, now, o.since})
	return true
}

// digits are left out where causes are compared: ports and times differ from one attempt to the next.
var digits = regexp.MustCompile(`\d+`)

// hint says what may be behind sessions that end soon.
func (p *Publisher) hint(e *ending) string {
	if !e.connected || e.lived > soon || !errors.Is(e.err, link.ErrPeerClosed) || e.progress {
		p.short = 0
		return ""
	}
	p.short++
	pending := slices.ContainsFunc(p.breakers.order, func(b *breaker) bool { return b.pending })
	switch {
	case pending && e.acked == 0 && p.short > 1:
		return "; it closes the connection on every message: perhaps it limits the rate of this client (see backlog_limit), or a policy forbids it to publish; nothing is given up"
	case p.short < fight:
		return ""
	}
	rate := ""
	if e.acked > 0 {
		rate = "it limits the rate (see backlog_limit), or "
	}
	return fmt.Sprintf("; it closed %d connections in a row soon after the login: perhaps %sanother client uses the same client id", p.short, rate)
}
