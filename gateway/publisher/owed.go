package publisher

import "millrace/buffer"

// What is owed: live records that an earlier session did not see acknowledged. They are not historical, and
// sending them after fresher live ones would break the order of those. So the publisher remembers where they
// are: an island for each session that was lost, among the historical records of the outages.

// span is the records from <= seq < to.
type span struct{ from, to uint64 }

const (
	maxScan    = 8 << 10 // records looked at in one place to find out what is owed
	maxOwed    = 256     // islands remembered; beyond, the oldest are left to the backlog
	fewRecords = 512     // so many are sent in order after a start, before anything live, if there is no throttle
)

// owe notes what a session that has ended left behind. The link is declared down already.
func (p *Publisher) owe(from uint64) {
	to := p.buf.NextSeq()
	if k := len(p.owed); k > 0 && p.owed[k-1].to >= from { // the session before did not get so far
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

// owing returns what must go before the records from head on, in order.
func (p *Publisher) owing(head uint64) []span {
	few := uint64(p.o.Window)
	if !p.started {
		p.started = true
		p.owed = p.recall(head)
		if !p.throttle.limits() {
			few = max(few, fewRecords)
		}
	}
	owed := p.owed[:0]
	for _, o := range p.owed {
		if to := p.firstHistorical(o.from, min(o.to, head)); o.from < to {
			owed = append(owed, span{o.from, to})
		}
	}
	p.owed = owed
	if p.dest.Len() <= few { // all that waits is sent in a moment: strictly in order
		return []span{{0, head}}
	}
	return owed
}

// recall looks for what the sessions of earlier processes left behind, among the oldest and the youngest
// records that wait.
func (p *Publisher) recall(head uint64) []span {
	owed, end := p.islands(0, head)
	more, _ := p.islands(max(end, head-min(head, maxScan)), head)
	owed = append(owed, more...)
	return owed[max(len(owed)-maxOwed, 0):]
}

// islands returns the runs of live records in the range, and how far it looked.
func (p *Publisher) islands(from, to uint64) (found []span, end uint64) {
	end, run := from, false
	p.scan(from, to, func(rec *buffer.Record) bool {
		end = rec.Seq + 1
		switch {
		case rec.Historical:
			run = false
		case run:
			found[len(found)-1].to = end
		default:
			found, run = append(found, span{rec.Seq, end}), true
		}
		return true
	})
	return found, end
}

// firstHistorical returns the end of the live records at the start of the range; from when there are none.
func (p *Publisher) firstHistorical(from, to uint64) uint64 {
	end := from
	p.scan(from, to, func(rec *buffer.Record) bool {
		if !rec.Historical {
			end = rec.Seq + 1
		}
		return !rec.Historical
	})
	return end
}
