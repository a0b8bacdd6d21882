package opcua

import "sync"

// lapsed counts the links that were lost while a server was asked for something beside values, by what: it may be the question that it does not bear. It lasts longer than a session.
type lapsed struct {
	mu sync.Mutex
	by map[string]int // at most maxTypes
}

// often reports whether that is not to be asked any more.
func (l *lapsed) often(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by[what] >= maxLapses
}

// note takes whether the link was lost over it.
func (l *lapsed) note(what string, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !lost:
		delete(l.by, what)
	case l.by == nil:
		l.by = map[string]int{what: 1}
	case l.by[what] > 0 || len(l.by) < maxTypes:
		l.by[what]++
	}
}

// unbearable is why a value cannot be read whose type the server does not bear to be asked for.
const unbearable = "the server drops the connection, or does not answer, when it is asked for this data type; it is asked again after a reload"
