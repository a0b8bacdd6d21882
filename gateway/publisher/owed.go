package publisher

import (
	"context"
	"time"

	"millrace/buffer"
)

// What is owed: live records that an earlier session did not see acknowledged. They are not historical, and
// sending them after fresher live ones would break the order of those. So the publisher remembers where they
// are: an island for each session that was lost, among the historical records of the outages.

// span is the records from <= seq < to. One that is owed begins with what is owed; what came when the link was
// lost already follows, and is historical.
type span struct{ from, to uint64 }

const (
	maxScan    = 8 << 10          // records looked at before the buffer gets them back
	maxOwed    = 1 << 10          // islands remembered; beyond, the oldest are left to the backlog
	fewRecords = 512              // so many are sent in order after a start, before anything live, if there is no throttle
	recallFor  = 10 * time.Second // longest look at what waits, at a start; then only the youngest are looked at
)

// owe notes what a session left behind that was live until now.
func (p *Publisher) owe(from, to uint64) {
	if k := len(p.owed); k > 0 && p.owed[k-1].to > from { // the session before did not get so far
		p.owed[k-1].to = max(p.owed[k-1].to, to)
		return
	}
	if from < to {
		p.owed = append(p.owed, span{from, to})
	}
	if len(p.owed) > maxOwed {
		p.owed = p.owed[1:]
	}
}

// owing returns what must go before the records from head on, in order. Nothing is in flight at this moment.
func (p *Publisher) owing(head uint64) []island {
	few := uint64(p.o.Window)
	if !p.started && !p.throttle.limits() {
		few = max(few, fewRecords)
	}
	p.started = true
	owed, islands := p.owed[:0], []island(nil)
	for _, o := range p.owed {
		var rec buffer.Record
		if ok, err := p.one(o.from, min(o.to, head), &rec); err != nil || ok && !rec.Historical {
			owed = append(owed, o)
			islands = append(islands, island{span: span{o.from, min(o.to, head)}})
		}
	}
	p.owed = owed
	p.dest.Reset()
	if p.dest.Len() <= few { // all that waits is sent in a moment: strictly in order
		return []island{{span{0, head}, true}}
	}
	return islands
}

// recall looks for what the sessions of earlier processes left behind. The whole backlog is looked at, for the
// islands may lie anywhere in it; what takes too long is cut short, and said.
func (p *Publisher) recall(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, recallFor)
	defer cancel()
	head := p.firm // not beyond: a record that is handed out before it was committed is a live one for ever
	end := p.islands(ctx, 0, head)
	if end < head && ctx.Err() == context.DeadlineExceeded {
		p.log.Warn("backlog too large to look through; some records that are not historical may come after younger ones", "from", end, "to", head)
		end = max(end, head-min(head, maxScan))
		p.islands(context.WithoutCancel(ctx), end, head)
	}
}

// islands remembers the runs of live records in the range, and returns how far it looked.
func (p *Publisher) islands(ctx context.Context, from, to uint64) uint64 {
	r := p.dest.Reader(from, to)
	defer r.Close()
	defer p.dest.Reset()
	var rec buffer.Record
	run := false
	for n := 1; ; n++ {
		ok, err := r.Next(&rec)
		if err != nil {
			p.complain(err)
		}
		if !ok {
			return to
		}
		if !rec.Historical && run {
			p.owed[len(p.owed)-1].to = rec.Seq + 1
		} else if !rec.Historical {
			p.owe(rec.Seq, rec.Seq+1)
		}
		run = !rec.Historical
		if n%maxScan == 0 {
			p.dest.Reset()
			if ctx.Err() != nil {
				return rec.Seq + 1
			}
		}
	}
}
