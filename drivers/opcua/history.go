package opcua

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/wire"
	"millrace/drivers/telemetry"
)

// Bounds of reading history.
const (
	historyNodes  = 10     // nodes a request
	historyValues = 1000   // values of each node in one answer
	maxPoint      = 64_000 // bytes of all continuation points of a request, which it repeats
)

// historyError says of which tags the server gave no history.
type historyError struct {
	refused, of  int
	node, reason string // of the first
}

// Unwrap says that the link is good.
func (e *historyError) Unwrap() error { return drivers.ErrDevice }

// Error names the first.
func (e *historyError) Error() string {
	switch {
	case e.of == 0:
		return "events are not read from a server's history"
	case e.node == "":
		return e.reason
	}
	return fmt.Sprintf("the server gives no history of %d of %d tags, first %q: %s", e.refused, e.of, e.node, e.reason)
}

// Backfill says whether the config wants the past, and how the server's clock differs from ours: drivers.Historian. A server that does not tell its time has put it on its answer.
func (d *driver) Backfill(ctx context.Context) (asked bool, least, most time.Duration, err error) {
	defer caught(&err)
	if !d.set.backfill {
		return false, 0, 0, nil
	}
	if d.link == nil {
		return true, 0, 0, errors.New("not connected")
	}
	ask, err := valueOf(ua.NewNumericNodeID(0, id.Server_ServerStatus_CurrentTime))
	if err != nil {
		return true, 0, 0, fmt.Errorf("BUG: encode a node id: %w", err)
	}
	before := time.Now().Round(0)
	r, err := d.request(ctx, [][]byte{ask})
	after := time.Now().Round(0)
	if err != nil && !splittable(err) {
		return true, 0, 0, err
	}
	ticks := ticksOf(r.Clock)
	if v := r.DataValue(0); err == nil && r.Err == nil {
		d.decode.ctx, d.decode.group = ctx, nil
		if now := d.reading(0, &v, wanted{}); now.Value.Kind == telemetry.KindTime {
			ticks = int64(now.Value.Bits)
		}
	}
	if ticks <= firstTick || ticks >= lastTick {
		return true, 0, 0, nil
	}
	now := time.UnixMicro(micros(ticks))
	return true, now.Sub(after), now.Sub(before), nil
}

// History reads what the server has kept of the group's nodes: drivers.Historian (OPC 10000-11, 6.5.3, ReadRawModifiedDetails). Values without a
// source time, or with one that is not asked for, are passed over. Tags that are refused do not keep the others from it; an error
// names them at the end.
func (d *driver) History(ctx context.Context, ref drivers.Ref, from, to int64, emit func([]telemetry.Reading) error) (err error) {
	defer caught(&err)
	if d.link == nil {
		return errors.New("not connected")
	}
	g, refused := &d.groups[ref.Device][ref.Group], &historyError{}
	if of := historyOf(ref); d.lost.often(of) || d.lost.often(anyHistory) {
		return &historyError{refused: len(g.tags), of: len(g.tags), reason: unborne}
	}
	if err := d.feed.settle(ctx); err != nil {
		return err
	}
	defer func() { err = d.lapse(ref, err) }()
	d.decode.ctx, d.decode.group = ctx, g
	h := history{driver: d, group: g, from: from, to: to, emit: emit, refused: refused}
	for tag := range g.tags {
		if g.tags[tag].event != nil { // an event is no value
			continue
		}
		refused.of++
		ask := g.ask.ids[g.nodeOf(tag)]
		if ask == nil {
			h.refuse(tag, g.ask.reasons[g.nodeOf(tag)])
			continue
		}
		if h.asked = append(h.asked, past{tag: tag, node: historyNode(ask)}); len(h.asked) == historyNodes {
			if err := h.all(ctx); err != nil {
				return err
			}
		}
	}
	if err := h.all(ctx); err != nil {
		return err
	}
	if refused.refused > 0 || refused.of == 0 && len(g.tags) > 0 {
		return refused
	}
	return nil
}

// Past reads what the server has kept of a group of one tag, as History does. refused says why it gives nothing, "" when it does.
func (c *Client) Past(ctx context.Context, ref drivers.Ref, from, to int64, emit func([]telemetry.Reading) error) (refused string, err error) {
	err = c.History(ctx, ref, from, to, emit)
	var none *historyError
	if errors.As(err, &none) {
		return none.reason, nil
	}
	return "", err
}

// history is one reading of the past of a group.
type history struct {
	driver   *driver
	group    *group
	from, to int64
	begin    int64 // of the request at hand, a DateTime: from, or the last value when what is behind it is asked for
	emit     func([]telemetry.Reading) error
	refused  *historyError
	asked    []past // of the next request
	ended    []past // whose answers said that there is no more, which is not believed yet
	alone    bool   // the server has continuation points for one node at a time only
	readings []telemetry.Reading
	results  []result
}

// past is a node whose history is not read to its end.
type past struct {
	tag   int
	node  []byte // its HistoryReadValueId but for the continuation point
	point []byte // that, without its length
	empty int    // answers in a row that gave no value

	at       int64 // a DateTime: its latest value; 0 = none has come
	equal    int   // values with that time
	known    int64 // at and equal when it was asked from begin on: what comes again is passed over
	again    int
	got, new int  // values that have come since, and those of them that had not come before
	step     bool // it is asked from behind at on, because all that comes from at on is known
	many     bool // these are several
	lapsed   bool // the server has lost its place since a value came
	short    bool // it was told that some may be missing
}

// historyNode makes what a HistoryReadValueId (OPC 10000-4, 5.11.3) says before its continuation point, of an encoded ReadValueId, which differs in
// the attribute between node id and range.
func historyNode(ask []byte) []byte {
	r := newReader(ask)
	r.NodeID()
	at := len(ask) - len(r.B)
	return append(ask[:at:at], ask[at+4:]...)
}

func (h *history) refuse(tag int, reason string) {
	if h.refused.refused++; h.refused.refused == 1 {
		h.refused.node, h.refused.reason = h.group.tags[tag].addr.String(), reason
	}
}

// all reads the nodes at hand to their ends.
func (h *history) all(ctx context.Context) error {
	h.begin = dateTimeOf(h.from)
	err := h.pages(ctx)
	for err == nil && len(h.ended) > 0 {
		n := len(h.ended)
		if h.alone {
			n = 1
		}
		h.asked = append(h.asked[:0], h.ended[:n]...)
		h.ended = append(h.ended[:0], h.ended[n:]...)
		h.begin = h.asked[0].next(h.from)
		for i := range h.asked {
			h.begin = min(h.begin, h.asked[i].next(h.from))
		}
		for i := range h.asked {
			p := &h.asked[i]
			p.known, p.again, p.got, p.new = p.at, p.equal, 0, 0
		}
		err = h.pages(ctx)
	}
	return err
}

// next returns from when on what may be missing of a node has to be asked for, a DateTime.
func (p *past) next(from int64) int64 {
	switch {
	case p.at == 0:
		return dateTimeOf(from)
	case p.step:
		return p.at + 1
	}
	return p.at
}

// end takes the end of the answers of a node, which said nothing of more. Servers have been seen to cut an answer short without that: the node is at its end when it is asked once more,
// from its last value on, and nothing new comes. Where others are asked with it, and from earlier on, that counts only of an answer that is far from the longest one. Where all that comes has the one time, and may
// be what of it fits in, what is behind that time is asked for.
func (h *history) end(p *past) {
	first, whole := p.known == 0, 2*p.got < h.driver.longest
	switch {
	case p.at == 0:
		return
	case first:
	case p.new > 0 && p.step && p.many && !p.short:
		p.short = true
		h.refuse(p.tag, "more values have the same time than the server puts into an answer; some may be missing")
	case p.new > 0:
	case p.got == 0 || whole || p.step && h.begin == p.next(h.from):
		return
	case h.begin == p.next(h.from):
		p.step, p.many = true, p.equal > 1
		h.ended = append(h.ended, *p)
		return
	}
	p.step = p.step && p.new == 0
	h.ended = append(h.ended, *p)
}

// lapse takes that the server has lost the place of a node, or has none for it: it is asked for from its last value on, unless that happens again without a value.
func (h *history) lapse(p *past) bool {
	if p.lapsed && h.alone {
		return false
	}
	p.lapsed, h.alone, p.point = true, true, p.point[:0]
	h.ended = append(h.ended, *p)
	return true
}

// pages asks until the nodes at hand say that they have no more.
func (h *history) pages(ctx context.Context) error {
	for len(h.asked) > 0 {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, h.release())
		}
		r, err := h.request(ctx, false)
		if err == nil {
			err = h.parse(&r)
		}
		switch {
		case err != nil && unlessRefused(err) == nil:
			return h.each(ctx, err)
		case err != nil:
			return err
		}
		if err := h.take(); err != nil {
			return errors.Join(err, h.release())
		}
	}
	return nil
}

// each asks for each of the nodes at hand alone: servers refuse a whole request for one node that can have no history. The link is good.
func (h *history) each(ctx context.Context, why error) error {
	if len(h.asked) == 1 {
		h.refuse(h.asked[0].tag, why.Error())
		h.asked = h.asked[:0]
		return nil
	}
	for _, p := range slices.Clone(h.asked) {
		h.asked = append(h.asked[:0], p)
		if err := h.pages(ctx); err != nil {
			return err
		}
	}
	return nil
}

// release lets the server forget the continuation points, of which it keeps only a few.
func (h *history) release() error {
	h.asked = keep(h.asked, func(p *past) bool { return len(p.point) > 0 })
	if len(h.asked) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := h.request(ctx, true)
	return err
}

func (h *history) request(ctx context.Context, release bool) (reader, error) {
	r, err := h.driver.link.call(ctx, id.HistoryReadRequest_Encoding_DefaultBinary, id.HistoryReadResponse_Encoding_DefaultBinary, func(b []byte) ([]byte, error) {
		return h.encode(b, release), nil
	})
	if err != nil || release {
		return r, err
	}
	if n := r.Count(1); r.Err == nil && n != len(h.asked) {
		return r, protocolError(fmt.Sprintf("the server answered with %d results for %d nodes", n, len(h.asked)))
	}
	return r, r.Err
}

// encode appends a HistoryRead request behind its header.
func (h *history) encode(b []byte, release bool) []byte {
	b = append(b, 1, 0) // a node id of namespace 0 with 16 bits: what the details are
	b = binary.LittleEndian.AppendUint16(b, id.ReadRawModifiedDetails_Encoding_DefaultBinary)
	b = append(b, 1) // as bytes
	b = binary.LittleEndian.AppendUint32(b, 1+8+8+4+1)
	b = append(b, 0) // raw, not what was modified
	b = binary.LittleEndian.AppendUint64(b, uint64(h.begin))
	b = binary.LittleEndian.AppendUint64(b, uint64(dateTimeOf(h.to)))
	b = binary.LittleEndian.AppendUint32(b, historyValues)
	b = append(b, 0) // no values from outside
	b = binary.LittleEndian.AppendUint32(b, uint32(ua.TimestampsToReturnSource))
	if b = append(b, 0); release {
		b[len(b)-1] = 1
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(h.asked)))
	for i := range h.asked {
		p := &h.asked[i]
		b = append(b, p.node...)
		if len(p.point) == 0 {
			b = binary.LittleEndian.AppendUint32(b, math.MaxUint32)
			continue
		}
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(p.point))), p.point...)
	}
	return b
}

// result is what an answer says of one node. Its bytes stay in the message.
type result struct {
	status ua.StatusCode
	point  []byte
	kind   uint32 // of the structure that holds the values, 0 for none
	body   []byte
}

// parse takes an answer apart. One that is malformed has changed nothing: each node is asked for alone.
func (h *history) parse(r *reader) error {
	h.results = h.results[:0]
	points := 0
	for range h.asked {
		x := result{status: ua.StatusCode(r.U32()), point: r.Bytes()}
		kind, body := r.extension()
		x.kind, x.body = kind, body.B
		if points += len(x.point); r.Err == nil && points > maxPoint {
			r.Fail("it holds continuation points of over %d bytes", maxPoint)
		}
		h.results = append(h.results, x)
	}
	return r.Err
}

// take emits the values of an answer, and leaves the nodes that have more. It knows all continuation points before it emits.
func (h *history) take() error {
	for i := range h.asked {
		h.asked[i].point = append(h.asked[i].point[:0], h.results[i].point...)
	}
	for i := range h.asked {
		if err := h.one(&h.asked[i], &h.results[i]); err != nil {
			return err
		}
	}
	h.asked = keep(h.asked, func(p *past) bool { return len(p.point) > 0 })
	return nil
}

// one emits the values of one node.
func (h *history) one(p *past, x *result) error {
	switch {
	case (x.status == ua.StatusBadContinuationPointInvalid || x.status == ua.StatusBadNoContinuationPoints) && h.lapse(p):
		return nil
	case x.status>>31 != 0:
		h.refuse(p.tag, h.driver.texts.reason(x.status))
		p.point = p.point[:0]
		return nil
	}
	before := p.new
	n, err := h.values(p, x.kind, x.body)
	var malformed malformedError
	switch {
	case errors.As(err, &malformed): // it is of this node only, and would be so again
		h.refuse(p.tag, err.Error())
		p.point = p.point[:0]
		return nil
	case err != nil:
		return err
	}
	p.got += n
	h.driver.longest = max(h.driver.longest, n)
	p.lapsed = p.lapsed && p.new == before
	if p.empty++; n > 0 {
		p.empty = 0
	}
	if p.empty > 2 {
		h.refuse(p.tag, "the server goes on without a value and without an end")
		p.point = p.point[:0]
		return nil
	}
	if len(p.point) == 0 {
		h.end(p)
	}
	return nil
}

// values emits what a HistoryData (OPC 10000-11, 6.6.2) holds and returns how many values it had.
func (h *history) values(p *past, kind uint32, body []byte) (int, error) {
	if kind == 0 {
		return 0, nil
	}
	if kind != id.HistoryData_Encoding_DefaultBinary {
		return 0, malformedError(fmt.Sprintf("it has structure %d in place of history", kind))
	}
	h.readings, h.driver.decode.tag = h.readings[:0], p.tag
	r := newReader(body)
	all := r.Count(1)
	for n := all; n > 0 && r.Err == nil && len(h.readings) <= historyValues; n-- {
		v := r.DataValue(0)
		if r.Err != nil {
			break
		}
		if at := timeOf(&v); at >= h.from && at < h.to && at != 0 && p.isNew(v.Source) {
			h.readings = append(h.readings, h.driver.reading(p.tag, &v, h.group.tags[p.tag].want))
		}
	}
	if len(h.readings) > 0 {
		if err := h.emit(h.readings); err != nil {
			return all, err
		}
	}
	return all, r.Err
}

// isNew takes the time of a value, and reports whether it has not come before: of those with the latest time, so many have.
func (p *past) isNew(at int64) bool {
	switch {
	case at < p.known:
		return false
	case at == p.known && p.again > 0:
		p.again--
		return false
	case at > p.at:
		p.at, p.equal = at, 1
	case at == p.at:
		p.equal++
	}
	p.new++
	return true
}

// dateTimeOf is a time in µs since 1970 as a DateTime.
func dateTimeOf(micros int64) int64 {
	const most = math.MaxInt64 / 10
	return max(min(max(micros, -most), most)*10-wire.FirstTick, 0)
}

func keep(all []past, f func(*past) bool) []past {
	left := all[:0]
	for i := range all {
		if f(&all[i]) {
			left = append(left, all[i])
		}
	}
	return left
}
