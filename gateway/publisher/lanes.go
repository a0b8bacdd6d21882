package publisher

import (
	"cmp"
	"slices"
	"time"

	"millrace/buffer"
)

// lane says on which way a record goes to the broker.
type lane uint8

const (
	laneNone    lane = iota
	laneProbe        // one message alone, to see whether the broker acknowledges at all
	laneOwed         // live records of an earlier session that it did not acknowledge: before the live ones
	laneLive         // from the head on
	laneBacklog      // everything else
)

// lanes decide which record is next. They open with a probe: only when the broker has acknowledged one
// message is the link taken to be up and the buffer told so, because that is what marks records historical.
type lanes struct {
	p         *Publisher
	notBefore time.Time // the probe waits till then
	probed    bool
	open      bool

	owed     []island
	live     *buffer.Reader // nil with OldestFirst
	backlog  []span
	reader   *buffer.Reader // of owed[0], then of backlog[0]
	nextOwed uint64
	nextLive uint64 // everything below has been handed out
}

// island is a span that goes before the live records: what is owed of it, or all of it.
type island struct {
	span
	all bool
}

// far is a wait for which something else must end it.
const far = time.Hour

// next hands out the next record that may be sent now, or says how long to wait.
func (l *lanes) next(now time.Time, win *window, rec *buffer.Record) (lane, time.Duration, error) {
	if !l.open {
		if from, wait, err := l.begin(now, win, rec); !l.open {
			return from, wait, err
		}
	}
	if !win.room(true) || win.n > 0 && l.p.poison.careful() {
		return laneNone, far, nil
	}
	if ok, err := l.fromOwed(rec); ok || err != nil {
		return pick(laneOwed, ok), 0, err
	}
	if l.live != nil {
		head := l.p.buf.NextSeq()
		ok, err := l.live.Next(rec)
		if ok || err != nil {
			l.nextLive = rec.Seq + 1
			return pick(laneLive, ok), 0, err
		}
		l.nextLive = head
	}
	return l.fromBacklog(now, win, rec)
}

func pick(l lane, ok bool) lane {
	if ok {
		return l
	}
	return laneNone
}

// fromOwed hands out what is owed, and leaves the rest of each island to the backlog.
func (l *lanes) fromOwed(rec *buffer.Record) (bool, error) {
	for ; len(l.owed) > 0; l.owed = l.owed[1:] {
		o := l.owed[0]
		ok, err := l.read(o.span, rec)
		if err != nil {
			return false, err
		}
		if ok && (o.all || !rec.Historical) {
			l.nextOwed = rec.Seq + 1
			return true, nil
		}
		l.reader.Close()
		l.reader = nil
		if ok {
			l.leave(span{rec.Seq, o.to})
		}
	}
	return false, nil
}

// read hands out the next record of a span, with the reader that is there for it.
func (l *lanes) read(s span, rec *buffer.Record) (bool, error) {
	if l.reader == nil {
		l.reader = l.p.dest.Reader(s.from, s.to)
	}
	return l.reader.Next(rec)
}

// leave puts a span into the backlog, in order.
func (l *lanes) leave(s span) {
	at, _ := slices.BinarySearchFunc(l.backlog, s.from, func(b span, from uint64) int { return cmp.Compare(b.from, from) })
	l.backlog = slices.Insert(l.backlog, at, s)
}

func (l *lanes) fromBacklog(now time.Time, win *window, rec *buffer.Record) (lane, time.Duration, error) {
	alone := l.live == nil
	if len(l.backlog) == 0 || !win.room(alone) {
		return laneNone, far, nil
	}
	if wait := l.p.throttle.wait(now); wait > 0 {
		return laneNone, wait, nil
	}
	for len(l.backlog) > 0 {
		if ok, err := l.read(l.backlog[0], rec); ok || err != nil {
			return pick(laneBacklog, ok), 0, err
		}
		if alone { // it has no end
			break
		}
		l.reader.Close()
		l.reader, l.backlog = nil, l.backlog[1:]
	}
	return laneNone, far, nil
}

// begin sends the probe, waits for its acknowledgement and opens the lanes.
func (l *lanes) begin(now time.Time, win *window, rec *buffer.Record) (lane, time.Duration, error) {
	if wait := l.notBefore.Sub(now); wait > 0 {
		return laneNone, wait, nil
	}
	if l.probed && win.n > 0 {
		return laneNone, far, nil
	}
	if !l.probed {
		ok, err := l.probe(rec)
		if ok || err != nil {
			l.probed = ok
			return pick(laneProbe, ok), 0, err
		}
	}
	l.goLive()
	return laneNone, 0, nil
}

// probe picks the message that goes first: the one under suspicion, else the oldest live one that is owed,
// else the oldest of all. It reports false when nothing waits.
func (l *lanes) probe(rec *buffer.Record) (bool, error) {
	p := l.p
	if seq, ok := p.poison.suspect(); ok {
		if ok, err := p.one(seq, seq+1, rec); ok || err != nil {
			return ok, err
		}
		p.poison.clear() // acknowledged or dropped in the meantime
	}
	for _, o := range p.owed {
		if ok, err := p.one(o.from, o.to, rec); ok && !rec.Historical || err != nil {
			return ok, err
		}
		p.dest.Reset()
	}
	return p.one(0, 0, rec)
}

// one hands out the first record of a range.
func (p *Publisher) one(from, to uint64, rec *buffer.Record) (bool, error) {
	r := p.dest.Reader(from, to)
	defer r.Close()
	return r.Next(rec)
}

// skipped says that the record handed out last was not sent after all.
func (l *lanes) skipped(from lane) {
	if from == laneProbe {
		l.probed = false
	}
}

// goLive tells the buffer that the link is up and lays the lanes. Nothing is in flight at this moment.
func (l *lanes) goLive() {
	p := l.p
	low := p.buf.NextSeq()
	if err := p.dest.SetLive(true); err != nil {
		p.complain(err)
	}
	p.dest.Reset() // what the probe stepped over
	l.lay(l.head(low, p.buf.NextSeq()))
}

// lay lays the lanes; the live one begins at head.
func (l *lanes) lay(head uint64) {
	p := l.p
	*l = lanes{p: p, probed: true, open: true}
	if p.o.Order == OldestFirst {
		l.backlog = []span{{0, 0}}
		return
	}
	l.owed = p.owing(head)
	at := uint64(0)
	for _, o := range l.owed {
		if at < o.from {
			l.backlog = append(l.backlog, span{at, o.from})
		}
		at = o.to
	}
	if at < head {
		l.backlog = append(l.backlog, span{at, head})
	}
	if len(l.owed) > 0 {
		l.nextOwed = l.owed[0].from
	}
	l.live, l.nextLive = p.dest.Reader(head, 0), head
}

// head returns where the live lane begins: after the historical ones of the records that came while the link
// was being declared up.
func (l *lanes) head(low, high uint64) uint64 {
	if low == high {
		return low
	}
	r := l.p.dest.Reader(low, high)
	defer r.Close()
	defer l.p.dest.Reset()
	var rec buffer.Record
	for range maxScan {
		ok, err := r.Next(&rec)
		if err != nil {
			l.p.complain(err)
		}
		if !ok || !rec.Historical {
			break
		}
		low = rec.Seq + 1
	}
	return low
}

// close ends the lanes. It returns the first record that is not acknowledged and may have gone out live.
func (l *lanes) close(win *window) (from uint64, any bool) {
	from, any = l.nextLive, l.live != nil
	for i := range win.n {
		m := win.ring[(win.head+i)%len(win.ring)]
		// A probe of the time before going live counts: being handed out early made it a live record.
		if m.lane == laneLive || m.lane == laneProbe && !l.open {
			if !any || m.seq < from {
				from, any = m.seq, true
			}
		}
	}
	return from, any
}
