package poller

import (
	"fmt"
	"slices"
	"time"

	"millrace/drivers/telemetry"
)

// Cause is what takes the time of polls that come too late.
type Cause string

// The causes.
const (
	OnTime      Cause = ""        // nothing: they come in time
	SlowPoll    Cause = "poll"    // its own polls
	BusyLine    Cause = "line"    // other polls and jobs of its connection
	BusyStore   Cause = "store"   // the store, which takes readings too slowly
	BusyMachine Cause = "machine" // nothing of the connection's: the process does not get its turn
)

// Delay is why the polls of a group come too late.
type Delay struct {
	Cause Cause
	For   time.Duration // what the cause took of the last tick that made the group miss others
	By    string        // what of the line took the most of it, in words; "" = not known
}

// took is how long a tick took from its time to the end of its poll.
type took struct{ line, machine, poll time.Duration }

// hold is a time for which the connection was at one thing.
type hold struct {
	of     *group // nil = a job
	end    time.Time
	took   time.Duration // of the device
	stored time.Duration // of whoever takes the readings
	failed bool
}

func (h *hold) lasts() time.Duration { return h.took + h.stored }

// String says in words what it was.
func (h *hold) String() string {
	what := "a write, or another job by hand"
	if h.of != nil {
		what = h.of.String()
	}
	if h.failed {
		what += ", which gives no answer"
	}
	return telemetry.Short(h.took.Round(time.Millisecond)) + " for " + what
}

func (g *group) String() string { return fmt.Sprintf("group %q of %q", g.name, g.device.name) }

// maxHolds is how many holds of a line that is never idle are remembered: as long and as many are more than a tick waits for.
const maxHolds = 16

// held notes that the connection is free again, and what held it.
func (p *Poller) held(h hold) {
	p.free = h.end
	n := len(p.holds)
	for n > 0 && p.holds[n-1].lasts() <= h.lasts() {
		n--
	}
	if p.holds = append(p.holds[:n], h); len(p.holds) > maxHolds {
		p.holds = slices.Delete(p.holds, 0, 1)
	}
}

// since returns the longest hold that ended after a tick; zero = there was none.
func (p *Poller) since(due time.Time) hold {
	for _, h := range p.holds {
		if h.end.After(due) {
			return h
		}
	}
	return hold{}
}

// unanswered reports whether a tick waited for a poll of its own device that got no answer: the device is down then, and none of its groups late.
func (p *Poller) unanswered(g *group, due time.Time) bool {
	h := p.since(due)
	return h.failed && h.of != nil && h.of.device == g.device
}

// waited returns what came between a tick and its poll. A tick that did not wait for the line ends what it is blamed for.
func (p *Poller) waited(due, now time.Time) took {
	line := min(max(p.free.Sub(due), 0), now.Sub(due))
	if line == 0 {
		p.holds = p.holds[:0]
	}
	return took{line: line, machine: now.Sub(due) - line}
}

// delay returns what took most of a tick.
func (p *Poller) delay(due time.Time, t took) Delay {
	switch h := p.since(due); {
	case t.poll >= max(t.line, t.machine):
		return Delay{Cause: SlowPoll, For: t.poll}
	case t.line < t.machine:
		return Delay{Cause: BusyMachine, For: t.machine}
	case !h.end.After(due):
		return Delay{Cause: BusyLine, For: t.line}
	case h.stored > h.took:
		return Delay{Cause: BusyStore, For: h.stored}
	default:
		return Delay{BusyLine, t.line, h.String()}
	}
}
