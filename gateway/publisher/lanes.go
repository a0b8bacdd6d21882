package publisher

import (
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

	owed     []*buffer.Reader
	live     *buffer.Reader // nil with OldestFirst
	backlog  []*buffer.Reader
	nextOwed uint64
	nextLive uint64 // everything below has been handed out
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
	for len(l.owed) > 0 {
		if ok, err := l.owed[0].Next(rec); ok || err != nil {
			l.nextOwed = rec.Seq + 1
			return pick(laneOwed, ok), 0, err
		}
		l.owed = l.owed[1:]
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

func (l *lanes) fromBacklog(now time.Time, win *window, rec *buffer.Record) (lane, time.Duration, error) {
	alone := l.live == nil
	if len(l.backlog) == 0 || !win.room(alone) {
		return laneNone, far, nil
	}
	if wait := l.p.throttle.wait(now); wait > 0 {
		return laneNone, wait, nil
	}
	for len(l.backlog) > 0 {
		if ok, err := l.backlog[0].Next(rec); ok || err != nil {
			return pick(laneBacklog, ok), 0, err
		}
		if alone { // it has no end
			break
		}
		l.backlog = l.backlog[1:]
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
	l.open = true
	low := p.buf.NextSeq()
	if err := p.dest.SetLive(true); err != nil {
		p.complain(err)
	}
	if p.o.Order == OldestFirst {
		l.backlog = []*buffer.Reader{p.dest.Reader(0, 0)}
		return
	}
	head := l.head(low, p.buf.NextSeq())
	owed := p.owing(head)
	at := uint64(0)
	for _, o := range owed {
		l.owed = append(l.owed, p.dest.Reader(o.from, o.to))
		if at < o.from {
			l.backlog = append(l.backlog, p.dest.Reader(at, o.from))
		}
		at = o.to
	}
	if at < head {
		l.backlog = append(l.backlog, p.dest.Reader(at, head))
	}
	if len(owed) > 0 {
		l.nextOwed = owed[0].from
	}
	l.live, l.nextLive = p.dest.Reader(head, 0), head
}

// head returns where the live lane begins: at the first record, of those that came while the link was being
// declared up, that is not historical.
func (l *lanes) head(low, high uint64) uint64 {
	head := high
	l.p.scan(low, high, func(rec *buffer.Record) bool {
		if !rec.Historical {
			head = rec.Seq
		}
		return rec.Historical
	})
	return head
}

// scan looks at up to maxScan records without sending them.
func (p *Publisher) scan(from, to uint64, visit func(*buffer.Record) bool) {
	if from >= to {
		return
	}
	r := p.dest.Reader(from, to)
	defer r.Close()
	defer p.dest.Reset()
	var rec buffer.Record
	for range maxScan {
		ok, err := r.Next(&rec)
		if err != nil {
			p.complain(err)
		}
		if !ok || !visit(&rec) {
			return
		}
	}
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
