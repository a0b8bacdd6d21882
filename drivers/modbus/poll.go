package modbus

import (
	"context"
	"fmt"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// poll is one Read: the blocks still to ask and what came of the others.
type poll struct {
	*group
	out      []telemetry.Reading
	now      time.Time
	queue    []*block
	at       int       // in the queue
	pending  []*block  // refused while nothing said that the device is well otherwise
	answered int       // answers with values
	spoke    int       // answers of any kind that the unit itself gave
	refused  int       // exceptions
	lost     int       // requests without an answer:
	vain     int       // of these, since the last answer,
	failed   int       // for blocks that were not answered when asked again either, and
	sought   int       // for what is known to be bad, or looked for
	most     int       // of these, of a unit that answers none
	probes   int       // known bad registers asked again
	last     *block    // the last block that was answered, and
	lastAt   time.Time // the middle of its request
	over     string    // why nothing more is asked, "" = go on
	dead     string    // why the unit is silent, "" = it is not
	changed  bool      // some block is not as it was
	caller   int       // whose call it was that was answered first
	mixed    string    // why not all values are one device's, "" = they are
	splits   []split
}

// run asks every block of the group that is worth it. It fails only when nothing was answered at all:
// what the device did say is delivered, with bad readings beside it.
func (d *driver) run(ctx context.Context, g *group, out []telemetry.Reading) error {
	d.forgetAsked()
	defer d.publish(g.unit)
	if err := d.link.back(ctx, g.unit.timeout); err != nil {
		return err
	}
	p := &d.poll
	for again := false; ; again = true {
		p.begin(g, out, d.now())
		p.most = d.link.mostSilent(g.unit)
		doubts := d.link.strays.doubts
		if err := d.asks(ctx); err != nil {
			return err
		}
		p.learn()
		if d.link.strays.doubts != doubts && p.mixed == "" {
			p.mixed = crowdWords
		}
		if p.mixed == "" {
			break
		}
		if again {
			return fmt.Errorf("%w: %s", drivers.ErrDevice, p.mixed)
		}
	}
	if d.link.closeAfter {
		d.link.leave()
	}
	if p.dead != "" && p.answered == 0 {
		return fmt.Errorf("%w: unit %d: %s", drivers.ErrDevice, p.unit.id, p.dead)
	}
	p.stamp(d.now())
	return nil
}

// begin lays out the poll: the good blocks first, then those bad ones that are due, at least one in all.
// The others get their bad readings.
func (p *poll) begin(g *group, out []telemetry.Reading, now time.Time) {
	*p = poll{group: g, out: out, now: now, queue: p.queue[:0], pending: p.pending[:0], splits: p.splits[:0]}
	g.polls++
	for _, a := range g.areas {
		a.answered, a.alone = false, 0
	}
	for _, s := range g.spans {
		if s.area.reason == "" {
			p.enterGood(s)
		}
	}
	for _, s := range g.spans {
		if s.area.reason == "" {
			p.enterBad(s)
		}
	}
	p.enterShut()
	if len(p.queue) == 0 {
		p.enterSoonest()
	}
	if t := p.trial(); t != nil {
		p.queue = append(p.queue, t)
	}
}

// enter queues the blocks of a span that are to be asked in this poll.
func (p *poll) enter(s *span) {
	p.enterGood(s)
	p.enterBad(s)
}

func (p *poll) enterGood(s *span) {
	s.good = false
	for _, b := range s.blocks {
		if b.reason == "" {
			p.queue, s.good = append(p.queue, b), true
		}
	}
}

func (p *poll) enterBad(s *span) {
	for _, b := range s.blocks {
		if b.reason == "" {
			continue
		}
		p.bad(b, b.reason)
		single := b.hi-b.lo == 1
		if b.due(p.polls, p.now) && (!single || b.chance || p.probes < maxProbes) {
			p.queue = append(p.queue, b)
			if single && !b.chance {
				p.probes++
			}
		}
	}
}

// enterShut queues one single register of each table that was given up, or of one only where nothing else is asked. Which
// table and which register it is changes from poll to poll.
func (p *poll) enterShut() {
	alone := len(p.queue) == 0
	for i := range p.areas {
		a := p.areas[(i+p.polls)%len(p.areas)]
		if a.reason == "" {
			continue
		}
		for _, s := range a.spans {
			p.bad(&block{span: s, ops: s.ops}, a.reason)
		}
		if alone && len(p.queue) == 0 || !alone && a.due(p.polls, p.now) {
			p.queue = append(p.queue, a.single())
		}
	}
}

// enterSoonest queues the bad block that is due first: no poll goes by without a request.
func (p *poll) enterSoonest() {
	var soonest *block
	for _, s := range p.spans {
		for _, b := range s.blocks {
			if soonest == nil || b.next < soonest.next {
				soonest = b
			}
		}
	}
	if soonest != nil {
		p.queue = append(p.queue, soonest)
	}
}

// asks works the queue off; it grows meanwhile.
func (d *driver) asks(ctx context.Context) error {
	p := &d.poll
	defer d.gather()
	d.spread(ctx)
	for b := d.lanes.claim(); b != nil; b = d.lanes.claim() {
		b.asked = true
		if err := d.ask(ctx, b); err != nil {
			return err
		}
	}
	d.gather()
	for i := 0; i < len(p.queue) || p.resolve(); i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.at = i
		if b := p.queue[i]; b.asked {
			b.asked = false // the next time it is queued it is to be asked once more
			continue
		}
		if err := d.ask(ctx, p.queue[i]); err != nil {
			return err
		}
	}
	return nil
}

// ask reads one block and sees to whatever comes of it. An error ends the poll.
func (d *driver) ask(ctx context.Context, b *block) error {
	p := &d.poll
	if !p.worth(b) {
		return nil
	}
	err := d.request(ctx, b)
	if err != nil {
		d.gather()
	}
	p.amiss(b, err)
	failed := p.failed
	for n := 0; p.again(b, err, n, &d.link.pace); n++ {
		err = d.request(ctx, b)
	}
	switch e := err.(type) {
	case nil:
		p.failed = failed
		p.took(b)
	case exception:
		p.refuse(b, e)
	case *loss:
		p.miss(b, e)
	case *downError:
		if p.answered == 0 {
			return err
		}
		p.over = e.reason // deliver what there is; the next Read finds the link down
		p.leave(b)
	default:
		return err
	}
	return nil
}

// worth reports whether a block is still worth a request in this poll, and gives it its readings when it is not.
func (p *poll) worth(b *block) bool {
	switch {
	case b.stale(): // its atoms are in other blocks by now, which are in the queue too
		return false
	case p.over != "":
		p.leave(b)
		return false
	case p.recut(b):
		return false
	case b.half.words != "" && p.spent():
		p.postpone(b)
		return false
	case b.trial:
		return p.answered > 0 && p.vain == 0 && 2*p.lost <= p.answered
	case b.reason == "" || b.probe || b.twice || b.chance:
		b.twice = false
		return true
	}
	return !p.spent() && !(b.lost && b.hi-b.lo == 1 && p.sought > 0)
}

// leave is what becomes of a block for which the poll has no more time.
func (p *poll) leave(b *block) {
	switch {
	case b.trial, b.probe:
	case b.half.words != "":
		p.postpone(b)
	case b.reason == "":
		p.bad(b, p.over)
	}
}

// recut replaces a block that is longer than the device answers, or has gaps that it does not read across, as was learned since it
// was made.
func (p *poll) recut(b *block) bool {
	if b.trial || b.probe || b.hi-b.lo == 1 {
		return false
	}
	gapped := !b.proved && p.unit.gaps.strict[b.table] && b.suspect(b.lo, b.hi) > 0
	if !gapped && b.count <= p.unit.limitOf(b.table).most() {
		return false
	}
	p.doubts = p.doubts || gapped
	parts := b.span.chunks(b.lo, b.hi)
	b.span.replace(b, parts...)
	p.queue = append(p.queue, parts...)
	p.changed = true
	return true
}

// request reads one block and decodes the answer.
func (d *driver) request(ctx context.Context, b *block) error {
	p := &d.poll
	pdu, err := d.exchange(ctx, p.unit, d.readRequest(p.unit, b))
	if err != nil {
		if l := asLoss(err); l != nil && l.kind == lossCrowd {
			p.spoke++ // it may have been the unit
		}
		return err
	}
	if p.answered == 0 {
		p.caller = d.link.calls
	}
	if p.caller != d.link.calls {
		p.mixed = "its callers change within a poll"
	}
	held := time.Since(d.link.last) // to see whether the answer is alone
	p.lastAt = middle(d.now().Add(-held), d.link.took)
	p.decode(b, pdu[2:], p.lastAt.UnixMicro(), p.out)
	return nil
}

// readRequest makes the request of a block in the driver's one request.
func (d *driver) readRequest(u *unit, b *block) *request {
	q := u.read(b, &d.query, d.pdu[:0])
	q.brief = q.brief || u.down
	q.patient = d.poll.spoke > 0
	q.telling = d.poll.spoke == 0 || b.proved && b.reason == "" && b.half.words == "" && !b.trial
	return q
}

// read makes the request of a block in q, its PDU in pdu.
func (u *unit) read(b *block, q *request, pdu []byte) *request {
	code, want := b.table.function(), int(2*b.count)
	if b.table.bits() {
		want = int(b.count+7) / 8
	}
	pdu = append(pdu, code, byte(b.first>>8), byte(b.first), byte(b.count>>8), byte(b.count))
	*q = request{unit: u.id, want: want, brief: b.probe, units: u.acceptUnit, transactions: u.acceptTransaction, pdu: pdu}
	return q
}

// middle is the source time of an answer that came just now: the middle of its own request, what was tried in vain before
// left aside.
func middle(now time.Time, took time.Duration) time.Time { return now.Add(-took / 2) }

// nearEnd is how far before the end of the poll the last answer may be and still have its time: a time of their own costs each reading some
// twenty bytes of every message.
const nearEnd = 100 * time.Millisecond

// stamp gives the readings of the last answer the time of the poll, unless that is late for them; those before it keep their own. Where it was
// late, it is so for some polls more: a device that takes about as long as the bound would go back and forth.
func (p *poll) stamp(now time.Time) {
	if p.last == nil {
		return
	}
	if now.Sub(p.lastAt) > nearEnd {
		p.exact = p.polls + maxWait
	}
	if p.polls < p.exact {
		return
	}
	for i := range p.last.ops {
		p.out[p.last.ops[i].tag].Time = 0
	}
}

// bad gives every tag of a block a bad reading, with the time of the poll.
func (p *poll) bad(b *block, reason string) {
	for i := range b.ops {
		tag := b.ops[i].tag
		p.out[tag] = telemetry.BadReading(int(tag), 0, reason)
	}
}

// refuse is called when a block was answered with an exception.
func (p *poll) refuse(b *block, e exception) {
	r := refusal{words: e.Error(), sweeping: e == illegalFunction || e.passing() || e.gateway(), function: e == illegalFunction, chance: e.gateway()}
	if !b.trial {
		p.bad(b, r.words)
	}
	p.fails(b, e)
	p.setback(b, r)
	if e.gateway() && p.spoke == 0 && (p.refused >= min(p.most, maxSilent) || b.probe) {
		p.silence(r)
	}
}

// miss is called when a block was met by silence, by a wrong answer or by the end of the connection.
func (p *poll) miss(b *block, l *loss) {
	r := refusal{words: l.words(p.unit.timeout), lost: true, sweeping: true, damaged: l.damaged(), chance: true}
	if !b.trial {
		p.bad(b, r.words)
	}
	if p.fails(b, l); p.enough(0) {
		p.over = r.words
	}
	p.setback(b, r)
	if p.spoke == 0 && (p.lost >= p.most || b.probe && (p.most == maxSilent || b.area.reason != "")) {
		p.silence(r)
	}
}

// askedAgain is how often a request that is refused by an exception is made again at once where it may be chance: that costs no timeout.
const askedAgain = 2

// again reports whether a request that failed, and was made again n times, is worth making again at once: when it was answered before and that
// may be chance, or when it may have come too soon after the last answer, which is tried once whatever `retries` says: every second request of
// such a device would be lost for ever.
func (p *poll) again(b *block, err error, n int, pace *pace) bool {
	l := asLoss(err)
	e, refused := err.(exception)
	if l == nil && (!refused || e.passing()) || b.trial || b.probe || l != nil && (p.spoke == 0 || p.enough(1)) {
		return false
	}
	allowed := n < p.unit.retries || l == nil && n < askedAgain
	if !allowed || b.run+1 >= p.unit.enough(b, l != nil || e.gateway()) {
		if !allowed && n > 0 || l == nil || l.kind != lossSilent || !pace.hasty() {
			return false
		}
		pace.futile++
	}
	p.fails(b, err)
	return true
}

// fails counts a request that was not answered with values.
func (p *poll) fails(b *block, err error) {
	if l := asLoss(err); l == nil || !l.fence { // which tells nothing of the block
		b.run++
	}
	if e, refused := err.(exception); refused {
		if p.refused++; !e.gateway() {
			p.spoke++
		}
		return
	}
	p.lost++
	p.vain++
	p.failed++
	if b.reason != "" && !b.chance || b.half.words != "" {
		p.sought++
	}
}

// bearable is how many losses in vain a poll bears: a few, and half as many as there were answers, in a search those of long polls only.
func (p *poll) bearable() int {
	if p.sought > 0 {
		return maxLost + max(0, p.answered-2*maxLost)/2
	}
	return maxLost + p.answered/2
}

// enough reports whether so many more losses would be enough for one poll: some in a row, on a line that loses many anyway a few more, or many
// as against the answers.
func (p *poll) enough(more int) bool {
	return p.vain+more >= maxLost+(p.lost-p.vain)/maxLost || p.failed+more >= p.bearable()
}
