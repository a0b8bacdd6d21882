package modbus

import (
	"context"
	"fmt"
	"time"
)

// unit is one device of the line.
type unit struct {
	settings
	timeout time.Duration
	limits  [2]limit                  // learned: of registers, of bits
	gaps    gapState                  // learned: of requests across gaps
	late    time.Time                 // until when an answer to an earlier request is likely to come, where no transaction id tells it apart
	silent  int                       // requests without any answer since the last one
	heard   bool                      // it has answered
	down    bool                      // it was given up, and has not answered since
	slowest time.Duration             // learned: how long it takes to answer at most, what the characters take left aside
	tested  time.Time                 // when it last met the whole timeout with silence
	part    struct{ have, whole int } // bytes of the last answer that was incomplete
	missed  string                    // the PDU of the last of them
	foreign int                       // the unit id that answered last in its place
	strange int                       // how often in a row that one did, since its own last answer
	many    bool                      // learned: it writes only with the functions for several
	noMask  bool                      // learned: it does not know function 22
	weather
	cuts        int     // how often it was learned anew what may be read together
	told        manners // what of it is shown
	outstanding outstanding
}

// limitOf returns what was learned of the size of requests to a table.
func (u *unit) limitOf(t table) *limit {
	if t.bits() {
		return &u.limits[1]
	}
	return &u.limits[0]
}

// The bounds of patience.
const (
	busyTries = 3
	busyWait  = 60 * time.Millisecond // doubled each time: 420 ms in all
	deadWires = 3                     // requests without an answer, and
	deadTime  = 10 * time.Second      // time without one, before a connection counts as dead
	crowdWait = 20 * time.Millisecond // for another answer where another master is
)

// downError says that the connection is lost and could not be made again.
type downError struct {
	reason string
	err    error
}

func (e *downError) Error() string {
	if a, ok := e.err.(absence); ok {
		return string(a)
	}
	return fmt.Sprintf("%s, and connect again: %v", e.reason, e.err)
}
func (e *downError) Unwrap() error { return e.err }

// exchange asks a unit, patiently: a device that is busy is asked again a moment later, and a connection that the peer ended
// after an earlier answer is made anew. Its error is an exception, a *loss after which the connection is fit for use, a
// *downError, or that of ctx.
func (d *driver) exchange(ctx context.Context, u *unit, q *request) ([]byte, error) {
	renewed, turned, tested, busies := false, false, false, 0
	for {
		pdu, err := d.once(ctx, u, q)
		l := asLoss(err)
		switch e, refused := err.(exception); {
		case err == nil:
			return pdu, nil
		case refused && (e == busy || e == acknowledge && !q.writes) && busies < busyTries:
			if err := wait(ctx, time.Now().Add(busyWait<<busies)); err != nil {
				return nil, err
			}
			busies++
		case l == nil:
			return nil, err
		case d.link.pace.vain != noTrial && !tested:
			tested = true // it was too soon on purpose
		case l.kind == lossClosed && !l.begun && !renewed && (l.idle || d.link.answered && !q.writes):
			renewed = true // an idle close, or the manner of a device that closes after each answer
			if err := d.renew(ctx, u, l); err != nil {
				return nil, err
			}
		case !turned && !q.writes && d.turns(u, l):
			turned = true
			if err := d.renew(ctx, u, l); err != nil {
				return nil, err
			}
		case d.blocked(u, l) && !renewed && !q.writes:
			renewed = true
			if err := d.renew(ctx, u, l); err != nil {
				return nil, err
			}
		default:
			return nil, d.mend(ctx, u, l)
		}
	}
}

// turns reports whether another connection is to be asked instead of the one that did not answer, and moves the line where that is
// another path.
func (d *driver) turns(u *unit, l *loss) bool {
	if d.link.worn() {
		d.link.move(l.words(u.timeout))
		d.link.spares.turned()
		return true
	}
	return d.link.yields(u)
}

// blocked reports whether a unit that answered so far may be silent because the gateway before it still waits for another
// unit: many serve a connection strictly in turn, and a new one at once.
func (d *driver) blocked(u *unit, l *loss) bool {
	return l.kind == lossSilent && u.heard && u.silent == 1 && d.link.owing != nil && d.link.owing != u && (d.link.network == netTCP || d.link.network == netTLS)
}

// once makes one exchange. Where no transaction id tells a late answer, it waits first until none is likely to come any more, and then makes sure
// of that.
func (d *driver) once(ctx context.Context, u *unit, q *request) ([]byte, error) {
	timeout := d.patience(u, q)
	if time.Now().Before(u.late) && timeout < u.timeout {
		return nil, &loss{kind: lossSilent} // to wait for a late answer now costs the others more than a try
	}
	q.fenced = u.outstanding.confuses(q, u.timeout, time.Now())
	if q.fenced && d.link.wire != nil {
		if again, err := d.fence(ctx, u, q, timeout); err != nil {
			return nil, err
		} else if again {
			return d.again(ctx, u, q, timeout)
		}
	}
	return d.attempt(ctx, u, q, q, timeout)
}

// attempt makes one request, for the sake of another one where it is a fence, and keeps what comes of it.
func (d *driver) attempt(ctx context.Context, u *unit, q, sake *request, timeout time.Duration) ([]byte, error) {
	quiet := u.late
	if now := time.Now(); d.link.crowded(now) && now.Add(u.guard()).After(quiet) {
		quiet = now.Add(u.guard()) // a request that comes while the device serves the other master may be lost
	}
	if d.link.wire != nil && time.Now().Before(quiet) {
		d.link.watch.follow(ctx)
		if err := d.link.wire.settle(ctx, quiet); err != nil {
			return nil, err
		}
	}
	before := d.link.strays.rival
	pdu, err := d.link.ask(ctx, q, timeout)
	if _, refused := err.(exception); (err == nil && q.want >= 0 || refused) && d.link.crowded(time.Now()) { // a write's answer shows what it is to
		if e := d.link.alone(ctx, before != d.link.strays.rival, u.guard()); e != nil {
			pdu, err = nil, e
		}
	}
	l := asLoss(err)
	if ended := err != nil && ctx.Err() != nil; d.numberless(u) && (l != nil && !l.idle || ended) { // its answer may come yet
		u.outstanding.gaveUp(q, q != sake, time.Now())
		if ended || d.link.framing != mbap { // else the connection is made anew
			u.late = time.Now().Add(u.timeout)
		}
	}
	if e, refused := err.(exception); err == nil || refused {
		d.took(u, q, sake, e)
		return pdu, err
	}
	if l != nil {
		d.missed(u, q, sake, l, timeout)
	}
	return pdu, err
}

// numberless reports whether no transaction id tells the answers of a unit apart.
func (d *driver) numberless(u *unit) bool { return d.link.framing != mbap || u.acceptTransaction.given }

// took keeps what an answer says of a unit; e is 0 for values.
func (d *driver) took(u *unit, q, sake *request, e exception) {
	if u.silent > 0 {
		d.link.pace.recovered(&d.link, time.Now(), u.missed == string(sake.pdu))
	}
	u.silent, u.missed, u.strange = 0, "", 0
	if !e.gateway() {
		u.heard, u.down = true, false
		switch {
		case e != 0:
			u.outstanding.doubted(q)
		case q == sake:
			u.outstanding.answered(q)
		}
	}
	u.slowest = max(d.link.took-d.link.characterTime(q), u.slowest-u.slowest/128)
	if d.link.owing == u {
		d.link.owing = nil
	}
}

// missed keeps what it says of a unit that it did not answer.
func (d *driver) missed(u *unit, q, sake *request, l *loss, timeout time.Duration) {
	u.steady(l, q == sake)
	if l.kind != lossCrowd {
		u.silent++
	}
	u.names(l)
	if timeout == u.timeout {
		u.tested = time.Now()
	}
	if l.kind == lossSilent && l.instead == "" && d.link.strays.late(u.id, time.Now()) {
		l.instead = lateWords
	}
	if l.kind != lossSilent {
		d.link.pace.doubt()
		return
	}
	d.link.pace.silent()
	if d.link.owing == nil || u.silent > 1 {
		d.link.owing = u
	}
	u.missed = string(sake.pdu)
}

// sureForeign is how often another unit must have answered in place of one until it is named: a damaged answer has any number.
const sureForeign = 3

// names says whether the answer of another unit is always of the same one.
func (u *unit) names(l *loss) {
	if l.kind != lossUnit {
		return
	}
	if u.strange == 0 || l.unit != u.foreign {
		u.foreign, u.strange = l.unit, 0
	}
	u.strange++
	l.often = u.strange >= sureForeign
}

// The bounds of a brief wait.
const (
	briefTimes = 4                      // as long as the slowest answer
	briefLeast = 100 * time.Millisecond // USB converters alone need 16
	briefSpan  = 50                     // timeouts that pass until a silent unit gets a whole one again
)

// guard is for how long another master's line is listened to before a request, and after its answer: the device would have answered by then.
func (u *unit) guard() time.Duration { return min(2*u.slowest+crowdWait, u.timeout) }

// steady keeps the words of answers that drip in the same from one attempt to the next: about as much of them comes each time.
func (u *unit) steady(l *loss, own bool) {
	if l.kind != lossPart {
		return
	}
	if !own && u.part.whole > 0 { // of a fence: nobody has asked for that
		l.have, l.whole = u.part.have, u.part.whole
	}
	if l.whole == u.part.whole && 4*max(l.have-u.part.have, u.part.have-l.have) <= l.whole {
		l.have = u.part.have
	}
	u.part.have, u.part.whole = l.have, l.whole
}

// patience is how long to wait for the answer to a request. Where a serial line is shared, each wait for a silent unit costs the others, so
// it is brief, by what the unit itself or the others needed so far. One that has become slower is found by a whole timeout now and then.
// With transaction ids the line is a gateway's, which waits in its own way whatever we do.
func (d *driver) patience(u *unit, q *request) time.Duration {
	if !q.brief || d.link.framing == mbap || !d.link.several || time.Since(u.tested) > briefSpan*u.timeout {
		return u.timeout
	}
	slowest := u.slowest
	for _, other := range d.units {
		if u.slowest == 0 {
			slowest = max(slowest, other.slowest)
		}
	}
	if slowest == 0 {
		return u.timeout
	}
	return min(max(briefTimes*slowest, briefLeast)+d.link.characterTime(q), u.timeout)
}

// mend makes the connection fit for use after a loss, and returns the loss or why it cannot.
func (d *driver) mend(ctx context.Context, u *unit, l *loss) error {
	spoilt := l.spoilt() && d.link.framing == mbap || l.kind == lossClosed || l.kind == lossFlood
	if u.acceptTransaction.given && d.link.framing == mbap {
		spoilt = true // its late answers cannot be told from others
	}
	if d.turns(u, l) || u.silent >= deadWires && time.Since(d.link.heard) > deadTime {
		spoilt = true
	}
	if !spoilt {
		return l
	}
	if err := d.renew(ctx, u, l); err != nil {
		return err
	}
	return l
}

// renew makes the connection anew.
func (d *driver) renew(ctx context.Context, u *unit, l *loss) error {
	err := d.link.reopen(ctx, u.timeout)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if a, ok := err.(absence); ok && l.kind != lossClosed {
		return &downError{l.words(u.timeout), absence(l.words(u.timeout) + "; hung up, and the device has not called again yet")}
	} else if ok {
		return &downError{l.words(u.timeout), a}
	}
	if err != nil {
		return &downError{l.words(u.timeout), err}
	}
	return nil
}
