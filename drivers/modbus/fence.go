package modbus

import (
	"context"
	"time"
)

// Where no transaction id says which request an answer is to, the answer to one that was given up may be taken for that of a later one, however
// late it comes. A device answers in order, though. So after a loss a unit is first asked for what no outstanding answer can be taken for, a fence:
// when that is answered, all that was asked before it is answered or lost. DESIGN.md says why it is so.

// diagnostics is a function that only fences use: the device gives back what it was sent (Modbus Application Protocol V1.1b3, 6.8.1).
const diagnostics = 8

// fenceKind is what a fence asks.
type fenceKind uint8

const (
	fencePart  fenceKind = iota // the beginning of what was answered before: another byte count
	fenceEcho                   // function 8: another function, also where it is refused
	fenceAgain                  // the request itself, as often as answers may be outstanding, where the others are of no use
)

// The bounds of fences.
const (
	outstandingTime = 15 // timeouts, or owedTime if that is more, for which an answer may come yet at least, and twice that at most
	mostOutstanding = 8  // answers that fenceAgain reckons with
	fenceTries      = 3  // fences for one request, of a unit that is known to be there
	fenceVain       = 4  // fences of a kind lost in a row, until it is left out for fenceRest; fenceOften times as many
	fenceOften      = 3  // where that kind was answered before, which is tried so often in turn
	fenceRest       = time.Minute
	mostFences      = 8 // fences, whatever comes of them
)

// The answers that are told apart.
const (
	otherSlot = 0             // functions that polls do not use
	echoSlot  = readInput + 1 // function 8; the functions 1 to 4 have a slot each
	slots     = echoSlot + 1  //
	readPDU   = 5             // bytes of a request of the functions 1 to 4, and of function 8
	echoData  = 0             // sub-function of function 8
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

	fences      int              // since the last other request that was given up:
	sent        [fenceAgain]int  // of each kind, and
	first, last [fenceAgain]int  // which of all were the first and the last of it
	clean       [fenceAgain]bool // an exception to it cannot be one to a request before it
	part        [readPDU]byte    // what fencePart asks, the same until it is answered
	echo        [readPDU]byte    // what fenceEcho asks
	query       request

	sure    [readPDU]byte         // the read with the longest answer so far
	want    int                   // bytes of values in that, 0 = none yet
	refuses bool                  // function 8 was refused
	known   [fenceAgain]bool      // a fence of that kind was answered
	vain    [fenceAgain]int       // fences of that kind lost in a row, and
	rest    [fenceAgain]time.Time // when the last of them was
}

// slotOf returns what the answer to a request is told by.
func slotOf(q *request) (slot, size int) {
	switch code := q.pdu[0]; {
	case code >= readCoils && code <= readInput:
		return int(code), q.want & 0xff
	case code == diagnostics:
		return echoSlot, 0
	}
	return otherSlot, 0
}

func (o *outstanding) holds(slot int) bool { return o.times(slot) > 0 }

// none reports whether nothing is outstanding.
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
		o.plain, o.fences, o.sent = now, 0, [fenceAgain]int{}
	}
}

// clear notes that nothing is outstanding.
func (o *outstanding) clear() {
	o.recent, o.older, o.fences, o.sent = unanswered{}, unanswered{}, 0, [fenceAgain]int{}
}

// confuses reports whether an outstanding answer, an exception among them, may come in place of that to a request. That to a write repeats its address.
func (o *outstanding) confuses(q *request, timeout time.Duration, now time.Time) bool {
	if o.none() || q.writes {
		return false
	}
	for most := outstandingFor(timeout); now.Sub(o.turned) > most && !o.none(); o.turned = o.turned.Add(most) {
		o.older, o.recent = o.recent, unanswered{}
	}
	return !o.none() // also of another function: a device may get that wrong
}

// outstandingFor is how long an answer may come yet at least.
func outstandingFor(timeout time.Duration) time.Duration {
	return max(owedTime, outstandingTime*timeout)
}

// answered notes that a request was answered, which is as good as a fence where no outstanding answer could be taken for that.
func (o *outstanding) answered(q *request, refused bool) {
	slot, _ := slotOf(q)
	if !o.none() && !o.holds(slot) {
		o.clear()
	}
	if slot != otherSlot && slot != echoSlot && !refused && q.want > o.want {
		o.want = q.want
		copy(o.sure[:], q.pdu)
	}
}

// usable reports whether a kind of fence may be tried for a request; hears says that an adapter hears itself, so that function 8 seems to be
// answered at once.
func (o *outstanding) usable(kind fenceKind, q *request, hears bool, now time.Time) bool {
	most := fenceVain
	if o.known[kind] {
		most *= fenceOften
	}
	switch {
	case o.vain[kind] >= most && now.Sub(o.rest[kind]) < fenceRest:
		return false
	case kind == fenceEcho:
		if o.sent[kind] == 0 {
			o.clean[kind] = !o.holds(echoSlot)
		}
		return !hears && (o.clean[kind] || !o.refuses)
	}
	return o.sent[kind] > 0 || o.shorten(q)
}

// shorten finds the shortest beginning of what was answered before whose byte count neither an outstanding answer has nor that to a request.
func (o *outstanding) shorten(q *request) bool {
	slot, step, each := int(o.sure[0]), 2, 1 // bytes, and registers or bits
	if o.sure[0] <= readDiscretes {
		step, each = 1, 8
	}
	_, size := slotOf(q)
	for n := 1; n*step < o.want; n++ {
		if !o.has(n*step) && size != n*step {
			o.part, o.clean[fencePart] = o.sure, !o.holds(slot)
			o.part[3], o.part[4] = byte(n*each>>8), byte(n*each)
			return true
		}
	}
	return false
}

// choose returns the next fence for a request: both kinds in turn, what was answered before more often.
func (o *outstanding) choose(q *request, hears bool, now time.Time) fenceKind {
	best, least := fenceAgain, 0
	for k := range fenceAgain {
		turns := o.sent[k]
		if o.known[k] {
			turns /= fenceOften
		}
		if (best == fenceAgain || turns < least) && o.usable(k, q, hears, now) {
			best, least = k, turns
		}
	}
	return best
}

// request makes a fence for a request. The data of an echo are another number each time.
func (o *outstanding) request(kind fenceKind, q *request, number uint16) *request {
	f := &o.query
	*f = request{unit: q.unit, brief: q.brief, telling: q.telling, units: q.units, transactions: q.transactions}
	if kind == fenceEcho {
		o.echo = [readPDU]byte{diagnostics, 0, echoData, byte(number >> 8), byte(number)}
		f.pdu, f.want, f.echo = o.echo[:], -1, readPDU
		return f
	}
	f.pdu = o.part[:]
	_ = f.reads(o.part[0])
	return f
}

// sends notes that a fence is made.
func (o *outstanding) sends(kind fenceKind) {
	if o.sent[kind] == 0 {
		o.first[kind] = o.fences
	}
	o.last[kind] = o.fences
	o.fences++
	o.sent[kind]++
}

// passed notes that a fence was answered, for all that is known the first of its kind: only answers to later ones may come yet.
func (o *outstanding) passed(kind fenceKind, q *request) {
	first, last, sent := o.first[kind], o.last, o.sent
	if kind == fenceEcho && !o.refuses {
		first = last[kind] // what it gives back says which it was
	}
	sent[kind]--
	o.known[kind], o.vain[kind] = true, 0
	o.clear()
	for k := range fenceAgain {
		for range min(sent[k], mostOutstanding) {
			if last[k] > first {
				o.add(o.request(k, q, 0))
			}
		}
	}
}

// fence makes sure that no outstanding answer can be taken for that to a request. Its error is one that the request may have.
func (d *driver) fence(ctx context.Context, u *unit, q *request, timeout time.Duration) error {
	o, lost := &u.outstanding, 0
	for range mostFences {
		kind := o.choose(q, d.link.strays.hears, time.Now())
		if kind == fenceAgain || o.fences > 0 && time.Since(o.plain) > outstandingFor(u.timeout) { // it may not know these any more
			o.plain = time.Now()
			return d.again(ctx, u, q, timeout)
		}
		o.sends(kind)
		_, err := d.attempt(ctx, u, o.request(kind, q, d.link.wire.number), q, timeout)
		e, refused := err.(exception)
		if kind == fenceEcho && (err == nil || refused) {
			o.refuses = refused
		}
		switch {
		case err == nil, refused && !e.gateway() && o.clean[kind]:
			d.poll.spoke++
			if o.passed(kind, q); o.none() {
				return nil
			}
			continue // answers to later fences may come yet
		case refused && e.gateway():
			return err
		case refused && kind == fencePart: // perhaps in the name of an older request, perhaps because it cannot be read so
			o.want, o.vain[kind], o.rest[kind] = 0, fenceVain*fenceOften, time.Now()
			continue
		case refused:
			continue
		case !u.down:
			o.vain[kind], o.rest[kind] = o.vain[kind]+1, time.Now()
		}
		l := asLoss(err)
		if l != nil {
			l.fence = true
		}
		switch lost++; {
		case l == nil || l.kind == lossClosed || l.kind == lossFlood || d.link.wire == nil:
			return err
		case q.once:
			return d.again(ctx, u, q, timeout)
		case !q.patient || lost == fenceTries:
			return err
		}
	}
	return &loss{kind: lossSilent, fence: true}
}

// again makes a request as often as answers are outstanding: the next answer is to one of these at least.
func (d *driver) again(ctx context.Context, u *unit, q *request, timeout time.Duration) error {
	slot, _ := slotOf(q)
	for range u.outstanding.times(slot) {
		_, err := d.attempt(ctx, u, q, q, timeout)
		if e, refused := err.(exception); err != nil && (!refused || e.gateway()) {
			return err
		}
	}
	return nil
}
