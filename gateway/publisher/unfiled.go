package publisher

import "time"

// unfiled is a record that can never be sent, or was refused by an answer, and for which the quarantine had no room to be written: its disk
// is full, for instance. It stays in flight in the buffer, so there are at most as many as may be in flight there, and is put aside when that
// works again; with a new session it is sent again.
type unfiled struct {
	seq    uint64
	reason string
	next   time.Time // not tried before
}

const fileEvery = time.Second

// putAside puts records in flight into quarantine, later where that fails now.
func (p *Publisher) putAside(reason string, seqs ...uint64) {
	for _, seq := range seqs {
		if !p.reject(reason, seq) {
			p.unfiled = append(p.unfiled, unfiled{seq, reason, time.Now().Add(fileEvery)})
		}
	}
}

// asideAgain tries what could not be put into quarantine, until one fails, and returns when to come again.
func (p *Publisher) asideAgain(now time.Time) (wait time.Duration) {
	for range min(len(p.unfiled), perTurn) {
		u := p.unfiled[0]
		if left := u.next.Sub(now); left > 0 {
			return left
		}
		if !p.reject(u.reason, u.seq) {
			p.unfiled[0].next = now.Add(fileEvery)
			return fileEvery
		}
		p.unfiled = p.unfiled[1:]
	}
	if len(p.unfiled) > 0 {
		return 0
	}
	return far
}

// forgetAside has the records that could not be put into quarantine be read again: the session is over.
func (p *Publisher) forgetAside() {
	for _, u := range p.unfiled {
		p.lanes.again([]uint64{u.seq})
	}
	p.unfiled = nil
}
