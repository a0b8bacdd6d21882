package gateway

import "time"

// halt tells whether what waits for a destination stands still though it should go out. What trend tells is that it grows.
type halt struct {
	seq   uint64 // the oldest record that should go out, as it was seen last; 0 = none
	since time.Time
}

// haltFor is how long a record may be due and not go out. Each reason to wait that there is, is known, so this is for none.
const haltFor = 30 * time.Second

// see takes in the number of the oldest record that nothing keeps from being sent, 0 for none, and returns since when it has been the same,
// zero when that is not long. possible says that the store gives its records.
func (x *halt) see(now time.Time, seq uint64, possible bool) time.Time {
	if !possible || seq == 0 || seq != x.seq {
		*x = halt{seq: seq, since: now}
	}
	if !possible || seq == 0 || now.Sub(x.since) < haltFor {
		return time.Time{}
	}
	return x.since
}
