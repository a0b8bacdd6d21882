package modbus

import (
	"fmt"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// contest is what is known of callers that were there while another one answered: DESIGN.md says who wins.
type contest struct {
	mu          sync.Mutex
	since, last time.Time
	answers     string // the address of the caller that answered
	refused     string // and of the last that was refused for it
	times       int
}

// contestTime is how long after the last refusal a line counts as contested.
const contestTime = 5 * time.Minute

// on reports whether the line is contested now.
func (k *contest) on(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fresh(now)
}

func (k *contest) fresh(now time.Time) bool { return !k.last.IsZero() && now.Sub(k.last) < contestTime }

// note keeps who was refused for whom.
func (k *contest) note(answers, refused string, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.fresh(now) {
		k.since, k.times = now, 0
	}
	k.last, k.answers, k.refused = now, answers, refused
	k.times++
}

// trouble says who calls besides the device.
func (k *contest) trouble(address string, registration []byte, now time.Time) drivers.Trouble {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.fresh(now) {
		return drivers.Trouble{}
	}
	t := drivers.Trouble{State: drivers.Contested, Since: k.since}
	if len(registration) > 0 {
		t.What, t.Mend = fmt.Sprintf("two callers of %q register as %q", address, registration), "give each modem a registration of its own"
	} else {
		t.What, t.Mend = fmt.Sprintf("two callers of %q", address), "say with allow_from from where the device calls, or give it a registration"
	}
	t.What += fmt.Sprintf(": %s answered and was kept, %s was hung up on (%s so far)", k.answers, k.refused, telemetry.Count(k.times, "call"))
	return t
}

// answered is called when the call of a line answered a request that was sent at a moment. Who called before that, and still
// waits, is another one, and refused.
func (l *listener) answered(s *slot, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.waiting == nil || s.taken == nil || !sent.After(s.arrived) {
		return
	}
	s.contest.note(s.taken.RemoteAddr().String(), s.waiting.RemoteAddr().String(), time.Now())
	hangUp(&s.waiting)
}

// waits reports whether a newer call than the line's is there.
func (l *listener) waits(s *slot) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.waiting != nil
}

// yields reports whether the call of the line is to be given up for a newer one, because it did not answer a unit.
func (l *link) yields(u *unit) bool {
	if l.network != netListen || l.slot.listener == nil || l.wire == nil || !l.slot.listener.waits(&l.slot.slot) {
		return false
	}
	return l.mute >= deadWires || u.silent == 1 && !l.slot.contest.on(time.Now())
}

// Trouble says that two callers want to be the device, that another master speaks on the line, or that it is on its spare path: see drivers.Troubled.
func (d *driver) Trouble() drivers.Trouble {
	if t := d.link.spares.trouble(); t.State != "" {
		return t
	}
	l := &d.link
	if t := l.slot.contest.trouble(l.slot.address, l.slot.registration, time.Now()); t.State != "" {
		return t
	}
	return l.strays.trouble(time.Now())
}
