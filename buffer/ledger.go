package buffer

import (
	"fmt"
	"time"
)

// Cause says why readings were dropped.
type Cause uint8

// The causes. Their numbers are stored on disk: append, never renumber.
const (
	CauseFull     Cause = iota // no room: the oldest dropped, or the newest refused, or one that is larger than the tail takes
	CauseExpired               // older than MaxAge
	CauseRejected              // the destination refused the message; it is in quarantine
	CauseShutdown              // still in memory when the last commit failed at Close
	CauseDamaged               // the file that held it is damaged
	causes
)

// The causes of gaps that Missed tells. They are in no ledger, because nobody has polled what is missing.
const (
	CauseOutage Cause = 32 + iota // the device was not heard
	CauseLost                     // it was, but its queue or the way to it has lost something
	CauseAbsent                   // the destination was not in use: told to it alone, when it is again; not by Missed
	gapCauses
)

// known reports whether a gap may have the cause.
func (c Cause) known() bool { return c < causes || c >= CauseOutage && c < gapCauses }

// Causes is the number of causes.
const Causes = int(causes)

// String returns the cause's word as it stands in messages and on pages.
func (c Cause) String() string {
	switch c {
	case CauseFull:
		return "full"
	case CauseExpired:
		return "expired"
	case CauseRejected:
		return "rejected"
	case CauseShutdown:
		return "shutdown"
	case CauseDamaged:
		return "damaged"
	case CauseOutage:
		return "outage"
	case CauseLost:
		return "lost"
	case CauseAbsent:
		return "absent"
	}
	return fmt.Sprintf("cause %d", uint8(c))
}

// account is the ledger of one account while the store is open. buffered is counted by its own, not
// computed, so that the equation is a check.
type account struct {
	name       string
	index      uint32                              // in Buffer.accountSeq
	counted    struct{ polled, suppressed uint64 } // of the next Append: of the account, because a stream may give way to another between the two
	polled     uint64
	suppressed uint64
	accepted   uint64
	dests      []destAccount                          // by slot
	told       [gapCauses - CauseOutage]time.Duration // when Missed last made a gap record, by cause; 0 = never
}

type destAccount struct {
	before    uint64 // accepted before the destination was there, or while it was not in use
	delivered uint64
	buffered  uint64
	inflight  uint64
	dropped   [Causes]uint64
}

// account returns the account of a name, new if need be. mu is held.
func (b *Buffer) account(name string) (*account, error) {
	if a := b.accounts[name]; a != nil {
		return a, nil
	}
	if len(b.accountSeq) >= MaxAccounts {
		return nil, fmt.Errorf("open account %q: the store has %d accounts already, the most it can have", name, MaxAccounts)
	}
	a := &account{name: name, index: uint32(len(b.accountSeq)), dests: make([]destAccount, MaxDestinations)}
	b.accounts[name] = a
	b.accountSeq = append(b.accountSeq, a)
	b.changed, b.st.fresh = true, true
	return a, nil
}

// Account is the ledger of one account, in readings. At every moment and for each destination
// Accepted = Before + Delivered + Buffered + InFlight + the sum of Dropped.
type Account struct {
	Name         string               `json:"name"`
	Polled       uint64               `json:"polled"`     // read from the device
	Suppressed   uint64               `json:"suppressed"` // of them not worth reporting
	Accepted     uint64               `json:"accepted"`   // of them given to Append, those it refused for want of room included
	Destinations []DestinationAccount `json:"destinations"`
}

// DestinationAccount is what became of an account's accepted readings at one destination.
type DestinationAccount struct {
	Name      string         `json:"name"`
	Before    uint64         `json:"before"` // accepted before the destination was known to the store, or while it was not in use
	Delivered uint64         `json:"delivered"`
	Buffered  uint64         `json:"buffered"`
	InFlight  uint64         `json:"in_flight"`
	Dropped   [Causes]uint64 `json:"dropped"` // by Cause
}

// Lost returns the readings dropped for any cause.
func (a *DestinationAccount) Lost() uint64 {
	var n uint64
	for _, c := range a.Dropped {
		n += c
	}
	return n
}

// Ledger returns every account, in order of first appearance.
func (b *Buffer) Ledger() []Account {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Account, 0, len(b.accountSeq))
	for _, a := range b.accountSeq {
		out := Account{Name: a.name, Polled: a.polled, Suppressed: a.suppressed, Accepted: a.accepted}
		for slot, d := range b.slots {
			if d == nil {
				continue
			}
			n := &a.dests[slot]
			out.Destinations = append(out.Destinations, DestinationAccount{Name: d.name, Before: n.before,
				Delivered: n.delivered, Buffered: n.buffered, InFlight: n.inflight, Dropped: n.dropped})
		}
		all = append(all, out)
	}
	return all
}

// counted notes that a loss was counted now. mu is held.
func (b *Buffer) counted() { b.lost = time.Now() }
