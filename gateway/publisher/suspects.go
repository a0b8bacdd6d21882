package publisher

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"millrace/buffer"
)

// suspects are the streams of which the broker refused a record by closing the connection. Their records are
// held back, so that the others flow: the lanes step over them, and they stay in flight in the buffer. Now
// and then the oldest of a stream is tried alone; an acknowledgement frees the stream.
type suspects struct {
	some atomic.Bool // there was one ever: else a message costs no lock

	mu     sync.Mutex // guards what follows; Stats looks in from outside
	list   []*suspect
	trying *suspect // one of its records is in flight, alone
}

type suspect struct {
	stream   *buffer.Stream
	topic    string
	gaps     bool      // it is that of a device's gap records
	held     []uint64  // what the session stepped over, in the order of the lanes
	closings int       // on the record that is tried
	failed   int       // tries in vain since the broker took one
	next     time.Time // of the next try
	parole   time.Time // it flows; till then one closing holds it back again. Zero = it is held back
}

const (
	maxSuspects = 64
	maxHeld     = buffer.MaxInFlight / 2 // by all
	maxHeldGaps = buffer.MaxInFlight / 8 // gap records, likewise
	firstTry    = settled
	retryFirst  = time.Minute // from the first failed try on; doubles
	retryLast   = 8 * time.Minute
	paroleFor   = time.Hour
)

// find returns the suspect of a stream, or nil. mu is held.
func (q *suspects) find(s *buffer.Stream) *suspect {
	for _, x := range q.list {
		if x.stream == s {
			return x
		}
	}
	return nil
}

// any reports whether a stream is held back.
func (q *suspects) any() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.list, func(x *suspect) bool { return x.parole.IsZero() })
}

// holds reports whether the records of a stream are held back.
func (q *suspects) holds(s *buffer.Stream) bool {
	if !q.some.Load() {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	x := q.find(s)
	return x != nil && x.parole.IsZero()
}

// condemned says that a record of the stream was put into quarantine. It reports false when there are too many
// suspects to hold this one back.
func (q *suspects) condemned(s *buffer.Stream, topic string, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.add(s, topic, now)
}

// relapsed says that the broker closed the connection when a record of the stream was the oldest in flight. It
// reports true when that is enough to hold the stream back: it is on parole, or another of the device is held back,
// perhaps because the broker refuses whatever is the device's.
func (q *suspects) relapsed(s *buffer.Stream, topic string, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if x := q.find(s); x != nil && now.Before(x.parole) {
		x.parole, x.next = time.Time{}, now.Add(retryFirst)
		return true
	}
	related := func(x *suspect) bool { return x.parole.IsZero() && x.stream.Account() == s.Account() }
	return slices.ContainsFunc(q.list, related) && q.add(s, topic, now)
}

// add holds a stream back. It reports false when there are too many suspects. mu is held.
func (q *suspects) add(s *buffer.Stream, topic string, now time.Time) bool {
	x := q.find(s)
	if x == nil {
		q.list = slices.DeleteFunc(q.list, func(x *suspect) bool { return !x.parole.IsZero() && now.After(x.parole) })
		if len(q.list) >= maxSuspects {
			return false
		}
		x = &suspect{stream: s, topic: topic}
		q.list = append(q.list, x)
		q.some.Store(true)
	}
	x.parole, x.next = time.Time{}, now.Add(firstTry)
	return true
}

// wait puts the next try off. mu is held.
func (x *suspect) wait(now time.Time) {
	x.next = now.Add(min(retryFirst<<min(x.failed, maxDoubling), retryLast))
	x.failed++
}

// hold notes a record that was stepped over. When that is one too many it names one to give up: the oldest of the
// stream that holds most. Gap records are counted apart, lest those that tell of what is given up push out more.
func (q *suspects) hold(rec *buffer.Record) (seq uint64, over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	x := q.find(rec.Stream)
	x.held, x.gaps = append(x.held, rec.Seq), rec.Gap != nil
	if q.held(x.gaps) <= limit(x.gaps) {
		return 0, false
	}
	for _, y := range q.list {
		if y.gaps == x.gaps && len(y.held) > len(x.held) {
			x = y
		}
	}
	seq = x.held[0]
	x.held = x.held[1:]
	return seq, true
}

func limit(gaps bool) int {
	if gaps {
		return maxHeldGaps
	}
	return maxHeld
}

// held counts the records held back. mu is held.
func (q *suspects) held(gaps bool) (n int) {
	for _, x := range q.list {
		if x.gaps == gaps {
			n += len(x.held)
		}
	}
	return n
}

// full reports whether one more record would be too many.
func (q *suspects) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held(false) >= maxHeld
}

// due returns how long it is to the next try; 0 = now. It reports false when there is nothing to try.
func (q *suspects) due(now time.Time) (wait time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	x := q.first()
	if x == nil {
		return 0, false
	}
	return max(x.next.Sub(now), 0), true
}

// first returns the suspect that is tried next, or nil. mu is held.
func (q *suspects) first() (first *suspect) {
	for _, x := range q.list {
		if x.parole.IsZero() && len(x.held) > 0 && (first == nil || x.next.Before(first.next)) {
			first = x
		}
	}
	return first
}

// try names the record to send alone. It reports false when there is none.
func (q *suspects) try() (uint64, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.trying = q.first(); q.trying == nil {
		return 0, false
	}
	return q.trying.held[0], true
}

// untried says that the record named by try was not sent, and whether it can be later.
func (q *suspects) untried(later bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !later {
		q.trying.held, q.trying.closings = q.trying.held[1:], 0
	}
	q.trying = nil
}

// busy reports whether a try is under way.
func (q *suspects) busy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.trying != nil
}

// back says that the buffer gets back what was held back. When the record that was tried was acknowledged, its stream
// flows again, on parole.
func (q *suspects) back(freed bool, now time.Time) (topic string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if x := q.trying; freed {
		x.parole, x.closings, x.failed, topic = now.Add(paroleFor), 0, 0, x.topic
	}
	q.reset()
	return topic
}

// reset says that the buffer has back what was held back. mu is held.
func (q *suspects) reset() {
	q.trying = nil
	for _, x := range q.list {
		x.held = nil
	}
}

// lost says that the session ended. When a try was under way it was in vain, and closed says whether because the
// broker closed the connection; enough closings condemn the record. Where the broker acknowledged others in the
// session, one is enough, and they are spared the next try for a while.
func (q *suspects) lost(closed, others bool, enough int, now time.Time) (condemned bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer q.reset()
	x := q.trying
	if x == nil {
		return false
	}
	if closed {
		x.closings++
	}
	if condemned = closed && others || x.closings >= enough; condemned {
		x.closings = 0
	}
	if x.next = now.Add(firstTry); others {
		x.wait(now)
	}
	return condemned
}

// Suspect is a stream whose records are held back because the broker closed the connection on some.
type Suspect struct {
	Device  string
	Topic   string
	Held    int       // records held back
	Failed  int       // tries in vain
	NextTry time.Time // not before
}

func (q *suspects) stats() (all []Suspect, total int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, x := range q.list {
		if x.parole.IsZero() {
			all = append(all, Suspect{Device: x.stream.Account(), Topic: x.topic, Held: len(x.held), Failed: x.failed, NextTry: x.next})
		}
	}
	return all, q.held(false) + q.held(true)
}
