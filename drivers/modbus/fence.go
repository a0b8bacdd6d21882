package modbus

import (
	"context"
	"time"
)

// Where no transaction id says which request an answer is to, the answer to one that was given up may be taken for that of a later one, however
// late it comes. A device gives values in the order in which it is asked, though. So after a loss a unit is first asked for what no outstanding
// answer can be taken for, a fence: when that brings values, all that was asked before is answered or lost. Exceptions prove nothing: a device that
// is busy with an older request refuses a newer one at once. DESIGN.md says why it is so.

// The bounds of fences.
const (
	outstandingTime = 15 // timeouts, or owedTime if that is more, for which an answer may come yet at least, and twice that at most
	mostOutstanding = 8  // answers that again reckons with
	fenceTries      = 3  // fences for one request, of a unit that is known to be there
	fenceVain       = 4  // fences lost in a row, until they are left out for fenceRest; fenceOften times as many where one was answered before
	fenceOften      = 3
	fenceRest       = time.Minute
	fenceRefused    = 2 // fences refused in a row, until what was read before counts as given no more: one may be to an older request
	mostFences      = 8 // fences, or rounds of again, whatever comes of them
)

// The answers that are told apart.
const (
	otherSlot = 0             // functions that polls do not use
	slots     = readInput + 1 // the functions 1 to 4 have a slot each
	readPDU   = 5             // bytes of a request of the functions 1 to 4
	sizeWords = (1 << 8) / 64 // of one bit for each byte count
)

// unanswered is requests that were given up.
type unanswered struct {
	sizes [slots][sizeWords]uint64 // the byte counts of the answers, by function, and
	times [slots]int               // how many there are, up to mostOutstanding
}

// outstanding is which answers of a unit may come yet.
type outstanding struct {
	recent, older unanswered
	turned        time.Time // when recent was begun
	plain         time.Time // when a request that is no fence was last made in spite of that, or given up
	unknown       time.Time // until when an answer may come to what another process asked before the line was opened, zero = none

	sent  int           // fences since the last other request that was given up
	part  [readPDU]byte // what they ask, the same until one is answered
	query request

	sure    [readPDU]byte // the read with the longest answer so far
	want    int           // bytes of values in that, 0 = none yet
	known   bool          // a fence was answered
	vain    int           // fences lost in a row, and
	rest    time.Time     // when the last of them was
	refused int           // fences refused in a row
}

// slotOf returns what the answer to a request is told by.
func slotOf(q *request) (slot, size int) {
	if code := q.pdu[0]; code >= readCoils && code <= readInput {
		return int(code), q.want & 0xff
	}
	return otherSlot, 0
}

func (o *outstanding) holds(slot int) bool { return o.times(slot) > 0 }

// none reports whether nothing is outstanding of what was asked.
func (o *outstanding) none() bool {
	return o.recent.times == [slots]int{} && o.older.times == [slots]int{}
}

// has reports whether an answer of a byte count is outstanding, of whatever function.
func (o *outstanding) has(size int) bool {
	for slot := range slots {
		if (o.recent.sizes[slot][size/64]|o.older.sizes[slot][size/64])>>(size%64)&1 == 1 {
			return true
		}
	}
	return false
}

// times is how many answers of a slot may come yet, up to mostOutstanding.
func (o *outstanding) times(slot int) int {
	return min(o.recent.times[slot]+o.older.times[slot], mostOutstanding)
}

// add notes that an answer to a request may come yet.
func (o *outstanding) add(q *request) {
	slot, size := slotOf(q)
	o.recent.sizes[slot][size/64] |= 1 << (size % 64)
	o.recent.times[slot] = min(o.recent.times[slot]+1, mostOutstanding)
}

// gaveUp notes that a request was given up. Fences before one that was none say nothing of it.
func (o *outstanding) gaveUp(q *request, fence bool, now time.Time) {
	if o.none() {
		o.turned = now
	}
	o.add(q)
	if !fence {
		o.plain, o.sent = now, 0
	}
}

// clear notes that nothing is outstanding.
func (o *outstanding) clear() { o.recent, o.older, o.sent = unanswered{}, unanswered{}, 0 }

// confuses reports whether an outstanding answer, an exception among them, may come in place of that to a request. That to a write repeats its address.
func (o *outstanding) confuses(q *request, timeout time.Duration, now time.Time) bool {
	if now.After(o.unknown) {
		o.unknown = time.Time{}
	}
	for most := outstandingFor(timeout); now.Sub(o.turned) > most && !o.none(); o.turned = o.turned.Add(most) {
		o.older, o.recent = o.recent, unanswered{}
	}
	return !q.writes && (!o.none() || !o.unknown.IsZero()) // also of another function: a device may get that wrong
}

// outstandingFor is how long an answer may come yet at least.
func outstandingFor(timeout time.Duration) time.Duration {
	return max(owedTime, outstandingTime*timeout)
}

// opened notes that the line was opened: what another process asked on it may be answered yet.
func (o *outstanding) opened(timeout time.Duration, now time.Time) {
	o.unknown = now.Add(outstandingFor(timeout))
}

// answered notes that a request brought values, which is as good as a fence where no outstanding answer could be taken for that.
func (o *outstanding) answered(q *request) {
	slot, _ := slotOf(q)
	if o.unknown.IsZero() && !o.none() && !o.holds(slot) {
		o.clear()
	}
	if slot != otherSlot && q.want > o.want {
		o.want = q.want
		copy(o.sure[:], q.pdu)
	}
}

// doubted notes that an exception came, where it may be the answer to an older request: then this one's values may come yet. There are no more
// outstanding answers than before.
func (o *outstanding) doubted(q *request) {
	if slot, size := slotOf(q); o.holds(slot) {
		o.recent.sizes[slot][size/64] |= 1 << (size % 64)
		o.recent.times[slot] = max(o.recent.times[slot], 1)
	}
}

// usable reports whether a fence may be tried for a request.
func (o *outstanding) usable(q *request, now time.Time) bool {
	most := fenceVain
	if o.known {
		most *= fenceOften
	}
	if !o.unknown.IsZero() || o.vain >= most && now.Sub(o.rest) < fenceRest {
		return false
	}
	return o.sent > 0 || o.shorten(q)
}

// shorten finds the shortest beginning of what was answered before whose byte count neither an outstanding answer has nor that to a request.
func (o *outstanding) shorten(q *request) bool {
	step, each := 2, 1 // bytes, and registers or bits
	if o.sure[0] <= readDiscretes {
		step, each = 1, 8
	}
	_, size := slotOf(q)
	for n := 1; n*step < o.want; n++ {
		if !o.has(n*step) && size != n*step {
			o.part = o.sure
			o.part[3], o.part[4] = byte(n*each>>8), byte(n*each)
			return true
		}
	}
	return false
}

// request makes a fence for a request.
func (o *outstanding) request(q *request) *request {
	f := &o.query
	*f = request{unit: q.unit, brief: q.brief, telling: q.telling, units: q.units, transactions: q.transactions, pdu: o.part[:]}
	_ = f.reads(o.part[0])
	return f
}

// passed notes that a fence brought values, for all that is known the first of them: only those to later ones may come yet.
func (o *outstanding) passed(q *request) {
	later := o.sent - 1
	o.known, o.vain, o.refused = true, 0, 0
	o.clear()
	for range min(later, mostOutstanding) {
		o.add(o.request(q))
	}
}

// declined notes that a fence was refused: in the name of an older request, or because it cannot be read so.
func (o *outstanding) declined() {
	if o.refused++; o.refused >= fenceRefused {
		o.want, o.sent, o.refused = 0, 0, 0
	}
}

// fence makes sure that no outstanding answer can be taken for that to a request. Where it cannot, again reports that the request is to be made more
// than once. Its error is one that the request may have.
func (d *driver) fence(ctx context.Context, u *unit, q *request, timeout time.Duration) (again bool, err error) {
	o, lost := &u.outstanding, 0
	for range mostFences {
		now := time.Now()
		if !o.usable(q, now) || o.sent > 0 && now.Sub(o.plain) > outstandingFor(u.timeout) { // it may not know these any more
			o.plain = now
			return true, nil
		}
		o.sent++
		_, err := d.attempt(ctx, u, o.request(q), q, timeout)
		e, refused := err.(exception)
		switch {
		case err == nil:
			d.poll.spoke++
			if o.passed(q); o.none() {
				return false, nil
			}
			continue // answers to later fences may come yet
		case refused && (e.gateway() || e.passing()):
			return false, err
		case refused:
			o.declined()
			continue
		case !u.down:
			o.vain, o.rest = o.vain+1, now
		}
		l := asLoss(err)
		if l != nil {
			l.fence = true
		}
		switch lost++; {
		case l == nil || l.kind == lossClosed || l.kind == lossFlood || d.link.wire == nil:
			return false, err
		case q.once:
			return true, nil
		case !q.patient || lost == fenceTries:
			return false, err
		}
	}
	return false, &loss{kind: lossSilent, fence: true}
}

// again makes a request until one more than outstanding answers has come with values: the last of them is to one of these requests. As many
// refusals may be to older requests; one more is the answer. Where nobody knows what is outstanding nothing may follow it either.
func (d *driver) again(ctx context.Context, u *unit, q *request, timeout time.Duration) ([]byte, error) {
	o := &u.outstanding
	slot, _ := slotOf(q)
	before, opening := o.times(slot), !o.unknown.IsZero()
	if opening {
		before++
	}
	for values, refusals, rounds := 0, 0, 0; ; {
		pdu, err := d.attempt(ctx, u, q, q, timeout)
		e, refused := err.(exception)
		switch {
		case refused && e.passing() && refusals < before+busyTries:
			if err := wait(ctx, time.Now().Add(busyWait)); err != nil {
				return nil, err
			}
			refusals++
			continue
		case refused && !e.gateway() && !e.passing() && refusals < before:
			refusals++
			continue
		case err != nil:
			return nil, err
		}
		values++
		if values <= before {
			d.link.strays.settled(q, false, d.link.last) // what it was to may be answered behind it
			continue
		}
		if opening {
			quiet, err := d.quiet(ctx, u)
			if err != nil {
				return nil, err
			}
			if rounds++; !quiet && rounds < mostFences {
				values = before
				continue
			}
			o.unknown = time.Time{}
			o.answered(q)
		}
		return pdu, nil
	}
}

// quiet reports whether nothing follows an answer within the time in which the unit would have given another.
func (d *driver) quiet(ctx context.Context, u *unit) (bool, error) {
	d.link.strays.last.until = time.Time{} // what comes from now on casts no doubt on it
	odd, err := d.link.wire.follows(ctx, u.guard())
	return odd < leastFrame, err
}
