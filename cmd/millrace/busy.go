package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"millrace/drivers"
)

// poll is one poll group on a line, and what a poll of it costs there.
type poll struct {
	device, group string
	interval      time.Duration
	cost          drivers.Cost
}

// line is the polls that share one connection.
type line []poll

const (
	full    = 1.0 // of the time: more cannot be done
	crowded = 0.8 // leaves little for requests that are made again
)

// busy is the share of the time for which the line is in use, more than 1 where it cannot keep up.
func (l line) busy() (share float64) {
	for _, p := range l {
		share += p.share()
	}
	return share
}

func (p *poll) share() float64 { return p.cost.Time.Seconds() / p.interval.Seconds() }

// judge returns what is to be said of the line before it is built: whether it can do what is asked of it, and what to change.
func (l line) judge(name string) (warnings []string) {
	share := l.busy()
	fastest := l.fastest()
	switch {
	case share > full:
		warnings = append(warnings, fmt.Sprintf("%s cannot do %v: it needs %v%s; %s", name, fastest, l.needs(fastest), l.assumed(), l.cure(fastest)))
	case share > crowded:
		warnings = append(warnings, fmt.Sprintf("%s is busy for %.0f %% of the time%s, which leaves little for requests that are made again; %s", name, 100*share, l.assumed(), l.cure(fastest)))
	}
	if share > full {
		return warnings
	}
	slow := slices.MaxFunc(l, func(a, b poll) int { return cmp.Compare(a.cost.Time, b.cost.Time) })
	if slow.cost.Time > fastest && slow.interval > fastest {
		warnings = append(warnings, fmt.Sprintf("%s: a poll of %s takes %v, and those each %v start late meanwhile; divide it into several groups", name, slow.name(), round(slow.cost.Time), fastest))
	}
	return warnings
}

// assumed is on what condition the judgement rests that is not in the config.
func (l line) assumed() string {
	if l[0].cost.Assumes == "" {
		return ""
	}
	return " if " + l[0].cost.Assumes
}

func (p *poll) name() string { return fmt.Sprintf("%q of %q", p.group, p.device) }

func (l line) fastest() time.Duration {
	return slices.MinFunc(l, func(a, b poll) int { return cmp.Compare(a.interval, b.interval) }).interval
}

// needs is the interval that the fastest polls would have to have for the line to keep up; where the others alone are too
// much, the one that all would have to have in proportion.
func (l line) needs(fastest time.Duration) time.Duration {
	fast, rest := time.Duration(0), 0.0
	for i := range l {
		if l[i].interval == fastest {
			fast += l[i].cost.Time
		} else {
			rest += l[i].share()
		}
	}
	if rest < 0.95 {
		return round(time.Duration(float64(fast) / (1 - rest)))
	}
	return round(time.Duration(float64(fastest) * l.busy()))
}

// cure says which groups to slow down, the greatest users first.
func (l line) cure(fastest time.Duration) string {
	users := slices.Clone(l)
	slices.SortStableFunc(users, func(a, b poll) int {
		if a.share() > b.share() {
			return -1
		} else if a.share() < b.share() {
			return 1
		}
		return 0
	})
	var names []string
	for i := range users[:min(len(users), 3)] {
		names = append(names, fmt.Sprintf("%s (%.0f %%)", users[i].name(), 100*users[i].share()))
	}
	return "raise the interval of " + strings.Join(names, ", ") + ", read fewer registers, or divide the devices among more lines"
}

// round leaves three digits.
func round(d time.Duration) time.Duration {
	for unit := time.Second; unit > time.Microsecond; unit /= 10 {
		if d >= 100*unit {
			return d.Round(unit)
		}
	}
	return d
}

// cost prints what the line of a connection has to do, and returns what is to be said of it.
func (p *planWriter) cost(name string, l line) {
	if len(l) == 0 {
		return
	}
	var requests, bytes float64
	for i := range l {
		per := 1 / l[i].interval.Seconds()
		requests, bytes = requests+per*float64(l[i].cost.Requests), bytes+per*float64(l[i].cost.Bytes)
	}
	p.printf("  line: %.3g requests/s, %s/s, busy for %.3g %% of the time%s\n", requests, size(bytes), 100*l.busy(), l.assumed())
	for _, w := range l.judge(name) {
		p.warnings = append(p.warnings, w)
		p.printf("  WARNING: %s\n", w)
	}
}
