package publisher

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"millrace/gateway/link"
)

// When a session waits, and when it has waited long enough.

// alive returns how long the session may go on without an answer, or what is wrong. It puts what is refused by silence
// aside, and when nothing gets an answer lets more be sent, of other streams: perhaps they do.
func (s *session) alive(now time.Time) (time.Duration, error) {
	wait := far
	if len(s.win.units) == 0 {
		return wait, nil
	}
	u := s.win.units[0]
	if !u.passed.IsZero() {
		left := u.passed.Add(max(silence, 8*s.win.fastest) + carrying(u.bytes)).Sub(now)
		if left <= 0 {
			return 0, s.silent(u, now)
		}
		wait = left
	}
	since := later(u.sent, s.win.progress)
	left := since.Add(s.p.o.AckTimeout + carrying(u.bytes)).Sub(now)
	if left <= 0 {
		return 0, fmt.Errorf("%w: nothing is acknowledged for %v", link.ErrSilent, now.Sub(since).Round(time.Second))
	}
	grow := later(since, s.grown).Add(s.patience()).Sub(now)
	if grow <= 0 {
		s.win.width, s.grown, grow = min(s.win.width+1, s.win.maxUnits), now, s.patience()
		s.win.stall()
	}
	return min(wait, left, grow), nil
}

// patience is how long an answer may take before others are sent beside. Until there is one, the time that the login
// took says how fast the receiver is.
func (s *session) patience() time.Duration {
	return max(300*time.Millisecond, 4*cmp.Or(s.win.fastest, s.dialled))
}

// answerBy is until when the answer to a unit is in time.
func (s *session) answerBy(u *unit) time.Time { return u.sent.Add(s.patience() + carrying(u.bytes)) }

const (
	againAfter = time.Minute // how long a record may be overdue
	lookEvery  = time.Second // for one
)

// readAgain has the lanes read from the oldest record on when that is overdue for long: they have lost sight of it. It returns when to look again.
func (s *session) readAgain(now time.Time) (wait time.Duration) {
	if left := s.looked.Add(lookEvery).Sub(now); left <= 0 {
		s.looked = now
		if seq := s.due(); seq != s.overdue {
			s.overdue, s.since, s.again = seq, now, now.Add(againAfter)
		}
	}
	if s.overdue == 0 {
		return far
	}
	if s.again.After(now) {
		return lookEvery
	}
	s.p.log.Warn("the oldest record that waits stands still, though nothing is seen that keeps it; it is read again", "seq", s.overdue, "for", now.Sub(s.since).Round(time.Second))
	s.again = now.Add(againAfter)
	s.p.lanes.again([]uint64{s.overdue})
	return lookEvery
}

// due returns the number of the oldest record when nothing is seen that keeps it from being sent, and it is not in flight; 0 = none.
func (s *session) due() uint64 {
	seq, there := s.p.dest.Oldest()
	if !there || s.limited || s.win.late > 0 || s.alone != nil || !s.renewBy.IsZero() || len(s.p.unfiled) > 0 || s.p.breakers.held() > 0 || s.win.has(seq) {
		return 0
	}
	return seq
}

// renew lets the session end when what is in flight has had time to be answered.
func (s *session) renew(now time.Time) {
	if s.renewBy.IsZero() {
		s.renewBy = now.Add(s.patience())
	}
}

func later(a, b time.Time) time.Time {
	return slices.MaxFunc([]time.Time{a, b}, time.Time.Compare)
}

// silent puts aside a unit that gets no answer while later ones do, and with it all of its stream that is in flight.
func (s *session) silent(u *unit, now time.Time) error {
	if u.stream == nil {
		return fmt.Errorf("%w: what was said at the beginning of the session is not acknowledged, and later messages are", link.ErrSilent)
	}
	for _, v := range s.win.units { // a lane may be ahead of the other
		if v.stream == u.stream && v.seqs[0] < u.seqs[0] {
			u = v
		}
	}
	b := s.refused(u, now, false, true)
	if b == nil {
		return fmt.Errorf("%w: messages of more than %d streams are not acknowledged while others are", link.ErrSilent, maxBreakers)
	}
	stream := u.stream
	for _, u := range slices.Clone(s.win.units) {
		if u.stream != stream {
			continue
		}
		for _, seq := range u.seqs {
			s.p.dest.Release(seq)
			b.hold(seq)
		}
		s.win.drop(u)
		s.abandoned++
	}
	s.alone = nil
	if s.abandoned > 2*s.win.maxUnits {
		s.renew(now)
	}
	s.p.confirmed(b, false, now) // by those that were answered
	return nil
}

// A wake-up costs more than a message. A session that keeps up therefore waits a moment before each turn, so that
// the turn takes all that is polled in the same moment, and takes acknowledgements in with the next messages.
const (
	lingerFor    = 3 * time.Millisecond
	collectAfter = 25 * time.Millisecond
)

// wait sleeps until there may be something to do. A session that is leaving takes nothing new.
func (s *session) wait(ctx context.Context, wait time.Duration, leaving bool) {
	if wait <= 0 {
		return
	}
	done, notify, changed := ctx.Done(), s.p.dest.Notify(), s.link.Changed()
	calm := 2*len(s.win.units) < min(s.win.width, s.win.maxUnits) && s.alone == nil && s.renewBy.IsZero() && !leaving
	if leaving {
		done, notify = nil, nil
	}
	if calm && len(s.win.units) > 0 {
		changed, wait = nil, min(wait, collectAfter)
	}
	s.timer.Reset(wait)
	select {
	case <-changed:
		return
	case <-s.timer.C:
		return
	case <-done:
		return
	case <-notify:
	}
	if calm {
		s.timer.Reset(lingerFor)
		select {
		case <-s.timer.C:
		case <-done:
		}
	}
}
