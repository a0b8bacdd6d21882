package poller

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// group is one poll group and its ticks.
type group struct {
	ref      drivers.Ref
	device   *device
	tags     int
	events   int // of the tags, those that take events, which no history has
	interval time.Duration
	name     string
	sink     Sink
	past     Sink      // nil = its history is not asked for
	pushes   bool      // the device is to push it, as far as the config tells
	base     time.Time // ticks are base + n*interval
	next     time.Time
	lost     damped
	heard    time.Time     // when the last push came, or the subscription was made
	told     time.Time     // when the sink was last told that values are unchanged
	beat     time.Duration // see Options.Beats
	stat     GroupStats

	// Of the source times that are pushed: see dated.
	latest int64         // the latest of the first values, µs since 1970; 0 = none has come
	came   []bool        // by tag, since the subscription was made; nil = none
	seen   int           // tags of which something has come, or is not waited for any more
	fresh  bool          // skew is from this subscription
	skew   time.Duration // how far fresh values were ahead of our clock, at most; 0 = not known
}

// first reports whether the first values of the group's subscription have not all come: there is one of each tag.
func (g *group) first() bool { return g.seen < g.tags }

// begun is for when the group's subscription was made, if it has one.
func (g *group) begun() {
	g.seen, g.fresh, g.latest = 0, false, 0
	clear(g.came)
}

// sees notes of which tags something has come.
func (g *group) sees(readings []telemetry.Reading) {
	if !g.first() {
		return
	}
	if g.came == nil {
		g.came = make([]bool, g.tags)
	}
	for i := range readings {
		if came := &g.came[readings[i].Tag]; !*came {
			*came = true
			g.seen++
		}
	}
}

// start lays the ticks: each group keeps a phase of its own, by a hash of its name, so that a
// thousand devices do not answer in the same millisecond. The first poll comes within a second.
func (p *Poller) start(now time.Time) {
	p.mu.Lock()
	for _, d := range p.devices {
		d.since = now
	}
	p.mu.Unlock()
	for _, g := range p.groups {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s\x00%s", g.device.name, g.name)
		phase := h.Sum64()
		first := min(g.interval, time.Second)
		g.base = onGrid(now.Add(time.Duration(phase%uint64(g.interval))), p.grid(g.interval))
		g.next = onGrid(now.Add(time.Duration(phase%uint64(first))), p.grid(g.interval))
	}
}

// onGrid moves a tick forward, to where other connections have theirs too: a wake-up of the process costs more than a
// poll, and this way a thousand connections share four a second.
func onGrid(t time.Time, grid time.Duration) time.Time {
	return t.Add(grid - time.Duration(t.UnixNano()%int64(max(grid, 1))))
}

// grid returns that of the ticks of an interval: a quarter of it, at most 250 ms. Groups that share the connection are asked one after
// the other, and keep further apart on 100 ms.
func (p *Poller) grid(interval time.Duration) time.Duration {
	most := 250 * time.Millisecond
	if len(p.groups) > 1 {
		most = 100 * time.Millisecond
	}
	return min(most, interval/4)
}

// served reports whether the group needs no polls now, because the device pushes it.
func (p *Poller) served(g *group) bool { return g.stat.Pushed && p.link.up }

// soonest returns the group whose tick comes next, nil when all are pushed. What probes a device waits until every group that is due and costs
// no time-out has been polled since the last probe, so that many silent devices cost their line one time-out between two polls of the others.
func (p *Poller) soonest(now time.Time) *group {
	var plain, probe *group
	waiting := false
	for _, g := range p.groups {
		switch {
		case p.served(g):
		case p.probes(g.device, now):
			if probe == nil || g.before(probe, now) {
				probe = g
			}
		default:
			waiting = waiting || !g.next.After(now) && !g.stat.LastAt.After(p.probed)
			if plain == nil || g.next.Before(plain.next) {
				plain = g
			}
		}
	}
	if probe == nil || plain != nil && (waiting || !probe.next.Before(plain.next)) {
		return plain
	}
	return probe
}

// probes reports whether a poll of a device now asks one that is not known to answer, which may cost the others on its line a time-out.
func (p *Poller) probes(d *device, now time.Time) bool {
	return len(p.devices) > 1 && p.link.up && d.reason != "" && d.retry.due(now)
}

// before reports whether a group is probed before another one: of those that are due the one whose device was tried least, then what has
// answered, then in the order of the config.
func (g *group) before(o *group, now time.Time) bool {
	if g.next.After(now) || o.next.After(now) || g.device == o.device {
		return g.next.Before(o.next)
	}
	if g.device.tries == o.device.tries && g.device.heard != o.device.heard {
		return g.device.heard
	}
	return cmp.Or(cmp.Compare(g.device.tries, o.device.tries), cmp.Compare(g.ref.Device, o.ref.Device)) < 0
}

// wake returns when there is something to do: the group's tick, a portion of history, or the next attempt to connect.
func (p *Poller) wake(g *group) time.Time {
	next := time.Now().Add(time.Hour) // all groups are pushed, and whatever comes wakes us
	if g != nil {
		next = g.next
	}
	for _, g := range p.groups {
		if at := p.beatAt(g); !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	if at := p.wakeSettle(); !at.IsZero() && at.Before(next) {
		next = at
	}
	if due := p.wakeFill(); !due.IsZero() && due.Before(next) {
		return due
	}
	if !p.link.up && p.link.connecting == nil && p.link.retry.at.Before(next) {
		return p.link.retry.at
	}
	return next
}

// skip leaves out the ticks before the last one: nothing was to be polled at them.
func (g *group) skip(now time.Time) {
	if late := now.Sub(g.next); late > g.interval {
		g.next = g.next.Add(late / g.interval * g.interval)
	}
}

// advance moves to the next tick after now and returns how many were missed.
func (g *group) advance(now time.Time) (missed uint64) {
	since := now.Sub(g.base)
	next := g.base
	if since >= 0 {
		next = g.base.Add((since/g.interval + 1) * g.interval)
	}
	if gap := next.Sub(g.next); gap > g.interval+g.interval/2 {
		missed = uint64(gap/g.interval) - 1
	}
	g.next = next
	return missed
}
