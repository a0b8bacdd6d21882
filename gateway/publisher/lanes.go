package publisher

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"millrace/buffer"
)

// lane says on which way a record goes to the broker.
type lane uint8

const (
	laneNone    lane = iota
	laneProbe        // one message alone, to see whether the broker acknowledges at all
	laneTrial        // one message of a suspect stream alone, to see whether the broker takes it now
	laneBeside       // one message alone that is of no suspect stream, to see whether the broker takes those
	laneOwed         // live records of an earlier session that it did not acknowledge: before the live ones
	laneLive         // from the head on
	laneBacklog      // everything else
)

// lanes decide which record is next. They open with a probe: only when the broker has acknowledged one
// message is the link taken to be up and the buffer told so, because that is what marks records historical.
type lanes struct {
	p         *Publisher
	notBefore time.Time // the probe waits till then
	tryFrom   time.Time // no suspect is tried before
	lookFrom  time.Time // no look beside the suspects before
	probed    bool
	open      bool
	proven    bool // the broker has acknowledged something

	owed     []island
	live     *buffer.Reader // nil with OldestFirst
	backlog  []span
	reader   *buffer.Reader // of owed[0], then of backlog[0]
	nextOwed uint64
	nextLive uint64 // everything below has been handed out
	heldLive uint64 // the first of the live lane that is held back; 0 = none
}

// island is a span that goes before the live records: what is owed of it, or all of it.
type island struct {
	span
	all bool
}

// far is a wait for which something else must end it.
const far = time.Hour

// lookEvery is how often a session looks for a message beside the suspects.
const lookEvery = time.Second

// next hands out the next record that may be sent now, or says how long to wait.
func (l *lanes) next(now time.Time, win *window, rec *buffer.Record) (lane, time.Duration, error) {
	if !l.open {
		if from, wait, err := l.begin(now, win, rec); !l.open {
			return from, wait, err
		}
	}
	if !l.p.suspects.some.Load() {
		return l.ordinary(now, win, rec)
	}
	from, pause, err := l.trial(now, win, rec)
	if from != laneNone || pause == 0 || err != nil {
		return from, far, err
	}
	from, wait, err := l.ordinary(now, win, rec)
	return from, min(wait, pause), err
}

// trial hands out the record of a suspect stream that is to be tried now, alone. It returns the wait until
// then, or 0 when nothing else may be sent before.
func (l *lanes) trial(now time.Time, win *window, rec *buffer.Record) (lane, time.Duration, error) {
	q := &l.p.suspects
	if q.busy() {
		return laneNone, 0, nil
	}
	wait, any := q.due(now)
	if wait = max(wait, l.tryFrom.Sub(now)); !any || wait > 0 {
		if !any {
			wait = far
		}
		return laneNone, wait, nil
	}
	for win.n == 0 {
		seq, any := q.try()
		if !any {
			return laneNone, far, nil
		}
		ok, err := l.p.one(seq, seq+1, rec)
		if ok {
			return laneTrial, 0, nil
		}
		if q.untried(err != nil); err != nil {
			return laneNone, 0, err
		}
	}
	return laneNone, 0, nil
}

// held notes that the record handed out last is held back.
func (l *lanes) held(from lane, seq uint64) {
	if from == laneLive && l.heldLive == 0 {
		l.heldLive = seq
	}
}

// ordinary hands out the next record of the lanes.
func (l *lanes) ordinary(now time.Time, win *window, rec *buffer.Record) (lane, time.Duration, error) {
	if !win.room(true) || win.n > 0 && l.p.poison.careful() {
		return laneNone, far, nil
	}
	if !l.proven && l.p.suspects.some.Load() && l.p.suspects.full() {
		return l.beside(now, win, rec)
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

// beside hands out the oldest message that is of no suspect stream, alone. So much is held back that nothing more
// can be, and what is too much may only be given up when the broker takes other messages.
func (l *lanes) beside(now time.Time, win *window, rec *buffer.Record) (lane, time.Duration, error) {
	if win.n > 0 {
		return laneNone, far, nil
	}
	if wait := l.lookFrom.Sub(now); wait > 0 {
		return laneNone, wait, nil
	}
	l.lookFrom = now.Add(lookEvery)
	ok, err := l.p.unsuspected(l.p.buf.NextSeq(), rec)
	return pick(laneBeside, ok), lookEvery, err
}

// unsuspected hands out the first record below to that is of no suspect stream. Nothing else may be in flight.
func (p *Publisher) unsuspected(to uint64, rec *buffer.Record) (bool, error) {
	r := p.dest.Reader(0, to)
	defer r.Close()
	for n := 1; ; n++ {
		if ok, err := r.Next(rec); !ok || err != nil || !p.suspects.holds(rec.Stream) {
			return ok, err
		}
		if n%maxScan == 0 {
			p.dest.Reset()
		}
	}
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
	if p.suspects.any() {
		return l.probeBesides(rec)
	}
	for _, o := range p.owed {
		if ok, err := p.one(o.from, o.to, rec); ok && !rec.Historical || err != nil {
			return ok, err
		}
		p.dest.Reset()
	}
	return p.one(0, 0, rec)
}

// probeBesides picks a message of a stream that is not held back: the oldest of those that were in flight when a
// session ended, else the oldest on disk.
func (l *lanes) probeBesides(rec *buffer.Record) (bool, error) {
	p := l.p
	for _, seq := range slices.Sorted(maps.Keys(p.lost)) {
		if ok, err := p.one(seq, seq+1, rec); ok && !p.suspects.holds(rec.Stream) || err != nil {
			return ok, err
		}
		delete(p.lost, seq)
	}
	return p.unsuspected(p.firm, rec)
}

// one hands out the first record of a range.
func (p *Publisher) one(from, to uint64, rec *buffer.Record) (bool, error) {
	r := p.dest.Reader(from, to)
	defer r.Close()
	return r.Next(rec)
}

// skipped says that the record handed out last was not sent after all.
func (l *lanes) skipped(from lane) {
	switch from {
	case laneProbe:
		l.probed = false
	case laneTrial:
		l.p.suspects.untried(false)
	}
}

// goLive tells the buffer that the link is up and lays the lanes. Nothing is in flight at this moment.
func (l *lanes) goLive() {
	p := l.p
	low := p.buf.NextSeq()
	if err := p.dest.SetLive(true); err != nil {
		p.complain(err)
	}
	p.firm = low
	p.dest.Reset() // what the probe stepped over
	l.lay(l.head(low, p.buf.NextSeq()))
}

// lay lays the lanes; the live one begins at head.
func (l *lanes) lay(head uint64) {
	p := l.p
	*l = lanes{p: p, tryFrom: l.tryFrom, lookFrom: l.lookFrom, proven: l.proven, probed: true, open: true}
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
	if l.heldLive != 0 {
		from = l.heldLive
	}
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
