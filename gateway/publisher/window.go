package publisher

import (
	"slices"
	"sort"
	"time"

	"millrace/buffer"
)

// unit is one or more records on their way as one or more messages, with one acknowledgement.
type unit struct {
	first    uint64 // number of its first message in the session
	messages int
	left     int      // of them unanswered
	seqs     []uint64 // of its records; none for what a format says of its own accord
	stream   *buffer.Stream
	lane     *lane // nil for a try, and for what a format says of its own accord
	bytes    int
	sent     time.Time
	try      *breaker  // not nil: it is to show whether the receiver takes this stream again
	silent   bool      // a try of a stream that is refused by silence: others do not wait for its answer
	passed   time.Time // when one that was sent later was first answered; zero = none was
	late     bool      // nothing at all is answered for too long: nothing newer of its stream is sent
}

// window is the units sent and not yet acknowledged, in the order of sending. Answers may come in any order.
type window struct {
	units       []*unit
	tries       int  // of them tries whose answer nobody waits for
	late        int  // of them late
	freed       bool // one that was late is not in flight any more
	bytes       int
	maxUnits    int
	maxBytes    int
	width       int // units that may be in flight now; it grows fourfold with each round (slow start)
	nextMessage uint64

	// limit adapts the bytes in flight to the link: as much as it carries in about a second. It keeps a fresh
	// reading from queueing behind a megabyte of backlog on a slow line.
	limit    int
	fastest  time.Duration // shortest time to an acknowledgement in this session
	cutAt    time.Time     // when limit was last halved
	progress time.Time     // when the receiver last acknowledged
}

const (
	firstLimit = 64 << 10
	leastLimit = 16 << 10
	patience   = time.Second // queueing beyond the fastest answer that is too much
)

// newWindow returns an empty window. careful says that the receiver closed the last session: then it begins with one unit
// alone, so that the next close tells which message it was.
func newWindow(units, bytes int, careful bool) window {
	w := window{maxUnits: units, maxBytes: bytes, width: 1, limit: min(firstLimit, bytes)}
	if !careful {
		w.width = max(units/4, 1)
	}
	return w
}

// space reports whether one more unit may be sent. The last quarter is kept for live ones. One unit is always allowed,
// however large.
func (w *window) space(live bool) bool {
	units, bytes := min(w.width, w.maxUnits), w.limit
	if !live {
		units, bytes = max(units*3/4, 1), max(bytes*3/4, 1)
	}
	n := len(w.units) - w.tries
	return n == 0 || n < units && w.bytes < bytes
}

func (w *window) push(u *unit) {
	u.first, u.left = w.nextMessage, u.messages
	w.nextMessage += uint64(u.messages)
	w.units = append(w.units, u)
	w.bytes += u.bytes
	if u.silent {
		w.tries++
	}
}

// answered counts the answer to a message and returns its unit when that is the last one; nil otherwise.
func (w *window) answered(n uint64) *unit {
	i := sort.Search(len(w.units), func(i int) bool { return w.units[i].first+uint64(w.units[i].messages) > n })
	if i == len(w.units) || w.units[i].first > n {
		return nil
	}
	u := w.units[i]
	if u.left--; u.left > 0 {
		return nil
	}
	return u
}

// finish takes a unit out of flight that was acknowledged at a time.
func (w *window) finish(u *unit, at time.Time) {
	w.width = min(w.width+3, w.maxUnits)
	w.progress = at
	for i := slices.Index(w.units, u) - 1; i >= 0 && w.units[i].passed.IsZero(); i-- {
		w.units[i].passed = at
	}
	w.adapt(u, at)
	w.drop(u)
}

// drop takes a unit out of flight.
func (w *window) drop(u *unit) {
	i := slices.Index(w.units, u)
	w.units = slices.Delete(w.units, i, i+1)
	w.bytes -= u.bytes
	if u.silent {
		w.tries--
	}
	if u.late {
		w.late--
		w.freed = true
	}
}

// stall makes late what is in flight: none of it is answered.
func (w *window) stall() {
	for _, u := range w.units {
		if !u.late && u.try == nil {
			u.late = true
			w.late++
		}
	}
}

// stalled reports whether a unit of the stream is late. What is sent then may be taken by a receiver that never took the other.
func (w *window) stalled(s *buffer.Stream) bool {
	return w.late > 0 && slices.ContainsFunc(w.units, func(u *unit) bool { return u.late && u.stream == s })
}

// of counts the units in flight of a lane.
func (w *window) of(l *lane) (n int) {
	for _, u := range w.units {
		if u.lane == l {
			n++
		}
	}
	return n
}

// has reports whether a record is in flight.
func (w *window) has(seq uint64) bool {
	return slices.ContainsFunc(w.units, func(u *unit) bool { return slices.Contains(u.seqs, seq) })
}

func (w *window) adapt(u *unit, now time.Time) {
	took := now.Sub(u.sent)
	if w.fastest == 0 || took < w.fastest {
		w.fastest = max(took, 1)
	}
	if took <= w.fastest+patience {
		w.limit = min(w.limit+u.bytes, w.maxBytes)
		return
	}
	if u.sent.After(w.cutAt) { // sent since the last cut: it has had its effect
		w.limit = max(w.limit/2, min(leastLimit, w.maxBytes))
		w.cutAt = now
	}
}

// slowest is the slowest link that is worth waiting for, in bytes a second.
const slowest = 8 << 10

// carrying is how long the slowest link takes for so many bytes.
func carrying(bytes int) time.Duration { return time.Duration(bytes) * time.Second / slowest }
