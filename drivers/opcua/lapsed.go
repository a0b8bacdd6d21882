package opcua

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	anyHistory   = "history"
	anyHandle    = "handles of nodes"
	anyNotifier  = "whether nodes tell events"
)

// without says what lacks while something is not asked for.
var without = [...]struct{ what, lacks string }{
	{anyHistory, "what it has kept of outages is not read"},
	{anyCondition, "an alarm from before is not seen until it changes"},
	{anyType, "values of data types that are not known yet are bad"},
	{anyNotifier, "a tag of events that none can come of is not seen as such"},
	{anyHandle, "nodes are read by their own ids"},
	{anyBelow, "hints to what is there in place of a wrong path are missing"},
}

// often reports whether that is not to be asked for now.
func (l *lapsed) often(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.by[what]
	return of.times >= maxLapses && time.Since(of.at) < lapseRest
}

// note takes why the link was lost over it, nil when it was not. That we gave up ourselves says nothing.
func (l *lapsed) note(what string, lost error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of, known := l.by[what]
	switch {
	case errors.Is(lost, context.Canceled):
		return
	case lost == nil:
		delete(l.by, what)
		return
	case l.by == nil:
		l.by = map[string]lapse{}
	case !known && len(l.by) == maxTypes:
		return
	}
	l.by[what] = lapse{of.times + 1, time.Now()}
}

// notes says what the server is not asked for now, and what lacks by that.
func (l *lapsed) notes() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range without {
		if of := l.by[w.what]; of.times >= maxLapses && time.Since(of.at) < lapseRest {
			all = append(all, fmt.Sprintf("the server closed the connection, or did not answer, %d times in a row when it was asked for %s: %s; it is asked again after %s",
				of.times, w.what, w.lacks, of.at.Add(lapseRest).UTC().Format(time.RFC3339)))
		}
	}
	return all
}

// Notes says what the server is not asked for because it does not bear that, and what is no certificate among those: drivers.Noted.
func (d *driver) Notes() []string {
	d.set.seen.mu.Lock()
	defer d.set.seen.mu.Unlock()
	all := append(d.lost.notes(), d.set.seen.passedOver...)
	if reason := d.unregistered.Load(); reason != nil {
		all = append(all, *reason)
	}
	return all
}

// Inherit takes over what the server does not bear: drivers.Heir.
func (d *driver) Inherit(from any) {
	if was, ok := from.(*driver); ok {
		d.lost.by = was.lost.copy()
		d.lapses.Store(was.lapses.Load())
	}
}

func (l *lapsed) copy() map[string]lapse {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.by)
}

// over names what a server was asked for when the link was lost.
func over(err error, what string) error {
	return fmt.Errorf("%w when it was asked for %s; after %d times in a row it is not asked for that for an hour", err, what, maxLapses)
}

// unbearable is why a value cannot be read whose type the server does not bear to be asked for.
const unbearable = "the server drops the connection, or does not answer, when it is asked for this data type; it is asked again after an hour"
