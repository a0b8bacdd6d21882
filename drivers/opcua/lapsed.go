package opcua

import (
	"sync"
	"time"
)

// lapseRest is how long a server is not asked for what it does not bear.
const lapseRest = time.Hour

// lapsed counts the links that were lost in a row while a server was asked for something beside values, by what: it may be the question that it does not bear, or cannot answer in time.
// Such a thing must not cost the values, again and again. It lasts longer than a session.
type lapsed struct {
	mu sync.Mutex
	by map[string]lapse // at most maxTypes
}

type lapse struct {
	times int
	at    time.Time // the last
}

// Things that are asked for beside data types, which have their encodings, and rules.
const (
	anyType      = "any data type"
	anyBelow     = "what is below a node"
	anyCondition = "the conditions that stand"
)

// often reports whether that is not to be asked for now.
func (l *lapsed) often(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.by[what]
	return of.times >= maxLapses && time.Since(of.at) < lapseRest
}

// note takes whether the link was lost over it.
func (l *lapsed) note(what string, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of, known := l.by[what]
	switch {
	case !lost:
		delete(l.by, what)
		return
	case l.by == nil:
		l.by = map[string]lapse{}
	case !known && len(l.by) == maxTypes:
		return
	}
	l.by[what] = lapse{of.times + 1, time.Now()}
}

// unbearable is why a value cannot be read whose type the server does not bear to be asked for.
const unbearable = "the server drops the connection, or does not answer, when it is asked for this data type; it is asked again after an hour"
