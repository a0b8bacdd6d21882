package publisher

import (
	"slices"
	"time"

	"millrace/buffer"
)

// breaker is the circuit breaker of one stream: of the records of one device and poll group. It opens when the receiver
// refuses a message of the stream, by closing the session on it or by never answering it while others are answered. While
// it is open, records of the stream are stepped over and stay in the buffer; half-open, one of them is tried.
//
// A refusal counts only when another message is acknowledged after it: what a receiver refuses whatever it is, is no
// matter of a stream. The first one only makes a breaker watch: with the next acknowledgement the stream flows again.
type breaker struct {
	stream        *buffer.Stream
	device, topic string

	state     State
	since     time.Time
	named     bool      // the log says that it is refused
	pending   bool      // the last refusal is not confirmed by an acknowledgement of another message
	unproven  int       // refusals in a row that were not
	confirmed int       // refusals that were
	next      time.Time // when a record is tried again
	level     int       // of the waits between tries

	held []uint64 // records stepped over, in order

	seq      uint64 // the record refused last
	counted  int    // its confirmed refusals
	fresh    int    // of them as the first message of a session: the others came after others were acknowledged
	asFirst  bool   // it was the first of its session, the last time
	silent   bool   // it was refused by silence
	doubtful bool   // which began when nothing at all was answered
	bytes    int

	poison  uint64 // perhaps: refused so often that another record of the stream decides over it; 0 = none is
	cleared int    // others of the stream that were acknowledged while the same record was refused
	again   bool   // it is tried next, not another
	whole   bool   // that one was refused, too: it is the stream that is refused
	others  int    // that were tried so
}

// Bounds.
const (
	maxBreakers = 64       // open ones; of further streams records go out as ever
	maxHeld     = 32 << 10 // records stepped over: acknowledged ranges in the buffer fragment with each
	maxTries    = 8        // confirmed refusals after which another record of the stream is tried
	minCleared  = 3        // of others acknowledged, each before another refusal of the record, after which that is given up
	minFresh    = 2        // of them as the first message of a session: there, no limit of a rate has been used up
	maxOthers   = 8        // records among which the one that decides changes: several in a row may be refused
	minUnproven = 4        // refusals in a row with nothing else to send, before another record of the stream is tried
	watching    = time.Hour
)

// tryAfter are the waits before a record is tried again. Where it is the stream that is refused, they double from streamRetry to maxRetry.
var tryAfter = [maxTries]time.Duration{time.Second / 2, time.Second, time.Second, 2 * time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second, 3 * time.Second}

const (
	streamRetry = 8 * time.Second
	maxRetry    = 8 * time.Minute
	tryPause    = time.Second // between two tries of any streams
	idlePause   = time.Second // for others to confirm a refusal, before one that is not confirmed is tried again
)

// State is the state of a circuit breaker or of a session, in the field's words.
type State string

// The states of a circuit breaker.
const (
	Closed   State = "closed"
	Open     State = "open"
	HalfOpen State = "half-open"
)

// refuse notes a refusal of a record of the stream.
func (b *breaker) refuse(u *unit, now time.Time, asFirst, silent bool) {
	if b.seq != u.seqs[0] {
		b.seq, b.counted, b.fresh = u.seqs[0], 0, 0
	}
	if b.state != Open && b.state != HalfOpen {
		b.since = now
	}
	b.state, b.pending, b.asFirst, b.silent, b.bytes = Open, true, asFirst, silent, u.bytes
	b.doubtful = silent && u.late && !u.passed.IsZero()
	b.unproven++
	b.hold(u.seqs[0])
	b.next = now.Add(idlePause)
}

// confirm counts the pending refusal: another message was acknowledged after it. open reports whether the breaker is open
// now; false means that it only watches, and the stream flows again.
func (b *breaker) confirm(now time.Time) (open bool) {
	b.pending, b.unproven = false, 0
	b.confirmed++
	b.counted++
	if b.asFirst {
		b.fresh++
	}
	if b.confirmed == 1 && !b.silent || b.doubtful && b.counted == 1 && b.poison == 0 && !b.whole {
		b.state, b.since = Closed, now
		return false
	}
	b.next = now.Add(tryAfter[min(b.counted, maxTries)-1])
	return true
}

// refusedWhole notes that it is the stream that is refused, not one record of it.
func (b *breaker) refusedWhole(now time.Time) {
	b.whole, b.poison, b.cleared = true, 0, 0
	b.next = now.Add(min(streamRetry<<min(b.level, 16), maxRetry))
	b.level++
}

// often reports whether the refusals of the record refused last that count are n, and fresh of them as first of a session.
func (b *breaker) often(n, fresh int) bool { return b.counted >= n && (b.silent || b.fresh >= fresh) }

// other returns a record of the stream behind the one that may be poison, each time another one of the next few; 0 when there is none below limit.
func (b *breaker) other(limit uint64) uint64 {
	i, _ := slices.BinarySearch(b.held, b.poison+1)
	n, _ := slices.BinarySearch(b.held, limit)
	if n <= i {
		return 0
	}
	return b.held[i+b.others%min(n-i, maxOthers)]
}

// candidate returns the record whose try decides.
func (b *breaker) candidate(limit uint64) uint64 {
	if b.poison != 0 && !b.again {
		if seq := b.other(limit); seq != 0 {
			return seq
		}
	}
	return b.held[0]
}

// wantsFirst reports whether the next try is to be the first message of a session.
func (b *breaker) wantsFirst() bool { return !b.silent && 2*b.fresh <= b.counted }

// hold notes a record that is stepped over.
func (b *breaker) hold(seq uint64) {
	if i, there := slices.BinarySearch(b.held, seq); !there {
		b.held = slices.Insert(b.held, i, seq)
	}
}

// release forgets a record that is not held back any more.
func (b *breaker) release(seq uint64) {
	if i, there := slices.BinarySearch(b.held, seq); there {
		b.held = slices.Delete(b.held, i, i+1)
	}
}

// breakers are those of all streams that are not closed, or that were lately not.
type breakers struct {
	order   []*breaker
	flowing bool      // since the last try an ordinary message was acknowledged
	pause   time.Time // no try before, unless nothing else can be sent: a try may cost the others a session
}

// find returns the breaker of a stream, nil for none.
func (q *breakers) find(s *buffer.Stream) *breaker {
	for _, b := range q.order {
		if b.stream == s {
			return b
		}
	}
	return nil
}

// get returns the breaker of a stream, a new one if need be, in place of one that only watches when there are too many;
// nil when none does.
func (q *breakers) get(s *buffer.Stream, topic string) *breaker {
	if b := q.find(s); b != nil {
		return b
	}
	if len(q.order) >= maxBreakers {
		i := slices.IndexFunc(q.order, func(b *breaker) bool { return b.state == Closed })
		if i < 0 {
			return nil
		}
		q.order = slices.Delete(q.order, i, i+1)
	}
	b := &breaker{stream: s, device: s.Account(), topic: topic, state: Closed}
	q.order = append(q.order, b)
	return b
}

func (q *breakers) forget(b *breaker) {
	q.order = slices.DeleteFunc(q.order, func(x *breaker) bool { return x == b })
}

// expire forgets those that have watched long enough, and lets those only watch that have nothing to try.
func (q *breakers) expire(now time.Time) {
	for i := len(q.order) - 1; i >= 0; i-- {
		switch b := q.order[i]; {
		case b.state == Closed && now.Sub(b.since) > watching:
			q.forget(b)
		case b.state == Open && !b.pending && len(b.held) == 0 && now.After(b.next):
			b.state, b.since = Closed, now
		}
	}
}

// held is how many records are stepped over.
func (q *breakers) held() (n int) {
	for _, b := range q.order {
		n += len(b.held)
	}
	return n
}

// largest returns the breaker that holds most, of streams that are refused as a whole.
func (q *breakers) largest() (most *breaker) {
	for _, b := range q.order {
		if b.state != Closed && b.whole && len(b.held) > 0 && (most == nil || len(b.held) > len(most.held)) {
			most = b
		}
	}
	return most
}

// due returns a breaker whose record is to be tried now, or how long to wait for one, far when there is none. first
// asks for one to be tried as the first message of a session. idle says that nothing else can be sent: then one whose
// refusal is not confirmed is tried too. Only records below limit are tried: the backlog lane may have older ones above.
func (q *breakers) due(now time.Time, first, idle bool, limit uint64) (*breaker, time.Duration) {
	wait := far
	var best *breaker
	for _, b := range q.order {
		if b.state != Open || len(b.held) == 0 || b.held[0] >= limit || b.pending && !idle {
			continue
		}
		next := b.next
		if !idle {
			next = later(next, q.pause)
		}
		if left := next.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		fits := b.pending || idle || b.wantsFirst() == first || b.silent && !first
		if fits && (best == nil || b.next.Before(best.next)) { // in turn
			best = b
		}
	}
	return best, wait
}

// stuck reports whether a pending refusal is worth a record that passes an older one: the stream was refused before, or this
// one was several times in a row. A receiver that ends sessions for another reason takes it at the next try.
func (b *breaker) stuck() bool { return b.pending && (b.confirmed > 0 || b.unproven >= minUnproven) }
