package powercut

import (
	"fmt"
	"sort"
	"strings"
)

// tally adds up what power cuts did.
type tally struct {
	states, required, excused, lost int
	repaired, unmounted, failed     int
	damages                         int // reported by the store
	volatile, kept, partly          int // sectors not flushed; those of them kept; cuts that kept a part
	phases                          map[string]int
	manners                         map[manner]int
}

func newTally() *tally { return &tally{phases: map[string]int{}, manners: map[manner]int{}} }

// add counts one power cut.
func (a *tally) add(v *verdict, c crash, volatile, kept int) {
	a.states++
	a.required += v.required
	a.excused += v.excused
	a.lost += v.lost
	a.damages += int(v.damages)
	a.volatile += volatile
	a.kept += kept
	if kept > 0 && kept < volatile {
		a.partly++
	}
	a.phases[c.phase]++
	a.manners[c.manner]++
	if v.repaired {
		a.repaired++
	}
	if v.unmounted {
		a.unmounted++
	}
	if len(v.problems) > 0 {
		a.failed++
	}
}

// merge adds another tally.
func (a *tally) merge(b *tally) {
	a.states, a.required, a.excused, a.lost = a.states+b.states, a.required+b.required, a.excused+b.excused, a.lost+b.lost
	a.unmounted += b.unmounted
	a.damages += b.damages
	a.repaired, a.failed, a.volatile, a.kept, a.partly = a.repaired+b.repaired, a.failed+b.failed, a.volatile+b.volatile, a.kept+b.kept, a.partly+b.partly
	for name, n := range b.phases {
		a.phases[name] += n
	}
	for m, n := range b.manners {
		a.manners[m] += n
	}
}

func (a *tally) String() string {
	return fmt.Sprintf("%d power cuts (%s; %s); %d of %d unflushed sectors kept, a part of them in %d cuts; %d promises held against them, %d broken; "+
		"%d records dropped for want of room; e2fsck needed %d times, in vain %d times; %d damages reported; %d cuts with problems",
		a.states, list(a.phases), list(a.manners), a.kept, a.volatile, a.partly, a.required, a.lost, a.excused, a.repaired, a.unmounted, a.damages, a.failed)
}

func list[K comparable](counts map[K]int) string {
	parts := make([]string, 0, len(counts))
	for name, n := range counts {
		parts = append(parts, fmt.Sprintf("%v %d", name, n))
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}
