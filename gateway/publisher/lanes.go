package publisher

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"time"

	"millrace/buffer"
)

// lanes are where reading stands in the buffer: the live lane from the head on, the backlog lane in what is older. They
// outlive sessions; a lost one sets them back to the oldest record that was in flight.
type lanes struct {
	p       *Publisher
	live    lane
	backlog lane
	head    uint64 // the buffer's next number when the session began: what is older waited
}

// lane reads the records from pos to end.
type lane struct {
	dest     *buffer.Destination
	reader   *buffer.Reader
	pos, end uint64 // end 0 = none
	skipped  uint64 // the first record stepped over because its stream has stalled; 0 = none
	sent     uint64 // below it, records were sent in a session that was lost
	check    uint64 // below it, records may be in flight: the lane was set back among them
}

// begin lays the lanes for a new session. What the live lane of the session before has not seen acknowledged goes on as
// live when it is at most a window, so that a short loss of the link leaves no mark; else it is backlog.
func (l *lanes) begin(window int) {
	l.head = l.p.buf.NextSeq()
	if l.p.o.Order == OldestFirst {
		return
	}
	switch {
	case l.live.pos == 0: // the first session
		l.backlog.end = l.head
	case l.head-l.live.pos <= uint64(window):
		return
	default:
		l.backlog.back(l.live.pos, l.head)
	}
	l.live.set(l.head, 0)
}

// lost sets the lanes back to what was in flight.
func (l *lanes) lost(w *window) {
	l.resume()
	l.live.sent, l.backlog.sent = max(l.live.sent, l.live.pos), max(l.backlog.sent, l.backlog.pos)
	for _, u := range w.units {
		if u.lane != nil && u.seqs[0] < u.lane.pos {
			u.lane.set(u.seqs[0], u.lane.end)
		}
	}
	if b := &l.backlog; l.p.o.Order == LiveFirst && b.end > l.live.pos { // of what was released there, newer ones may have gone out as live
		b.back(l.live.pos, b.end)
		l.live.set(b.end, 0)
	}
}

// again lets the backlog lane read once more from the first of the records on that were held back.
func (l *lanes) again(held []uint64) {
	if len(held) > 0 {
		l.backlog.check = max(l.backlog.check, l.backlog.pos, l.live.pos)
		l.backlog.back(held[0], l.live.pos)
	}
}

// resume sets the lanes back to what was stepped over when streams had stalled. Among what the live lane did, there may be what was released
// to the backlog lane: then all of it is for that one.
func (l *lanes) resume() {
	for _, x := range [...]*lane{&l.live, &l.backlog} {
		from := x.skipped
		switch x.skipped = 0; {
		case from == 0:
		case x == &l.live && l.backlog.end > from:
			l.again([]uint64{from})
		default:
			x.check = max(x.check, x.pos)
			x.back(from, x.end)
		}
	}
}

// read returns the number below which the backlog lane has handed out everything.
func (l *lanes) read() uint64 {
	if l.backlog.any() {
		return l.backlog.pos
	}
	return math.MaxUint64
}

// historical reports whether a record of a lane is backlog in this session; tries have none.
func (l *lanes) historical(from *lane, seq uint64) bool {
	if l.p.o.Order == OldestFirst {
		return seq < l.head
	}
	return from != &l.live
}

// set moves the lane.
func (l *lane) set(pos, end uint64) {
	if l.reader != nil {
		l.reader.Close()
		l.reader = nil
	}
	l.pos, l.end = pos, end
}

// back moves the lane to at most pos, and its end to at least end, 0 = none.
func (l *lane) back(pos, end uint64) { l.set(min(l.pos, pos), max(l.end, end)) }

// any reports whether the lane may have something.
func (l *lane) any() bool { return l.end == 0 || l.first() < l.end }

// first returns the number below which the lane has handed out everything.
func (l *lane) first() uint64 { return cmp.Or(l.skipped, l.pos) }

const maxSkip = 8 << 10

// skip steps over the record read last, or stays at it when it has gone far enough.
func (l *lane) skip(seq uint64) (wait time.Duration) {
	if l.skipped = cmp.Or(l.skipped, seq); seq-l.skipped < maxSkip {
		return 0
	}
	l.set(seq, l.end)
	return far
}

// next reads the next record that is not in flight.
func (l *lane) next(rec *buffer.Record, w *window) (bool, error) {
	for {
		ok, err := l.read(rec)
		if !ok || err != nil || rec.Seq >= l.check || !w.has(rec.Seq) {
			return ok, err
		}
	}
}

func (l *lane) read(rec *buffer.Record) (bool, error) {
	if !l.any() {
		return false, nil
	}
	if l.reader == nil {
		l.reader = l.dest.Reader(l.pos, l.end)
	}
	ok, err := l.reader.Next(rec)
	if errors.Is(err, buffer.ErrUnreadable) {
		return false, nil // the lane stays there
	}
	if err != nil {
		return false, fmt.Errorf("read the buffer: %w", err)
	}
	if !ok {
		if l.reader.Done() { // else what is not on disk yet (commit_interval 0) comes still
			l.set(l.end, l.end)
		}
		return false, nil
	}
	l.pos = rec.Seq + 1
	return true, nil
}
