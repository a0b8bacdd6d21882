package poller

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Bounds of what is asked for of the past.
const (
	maxFills   = 1024 // outages of groups that wait to be read
	maxPast    = 7 * 24 * time.Hour
	fillPause  = 100 * time.Millisecond // between two portions, so that what is pushed now keeps its turn
	firstSpan  = time.Minute            // of a portion, then what takes between the next two
	quickFill  = 50 * time.Millisecond
	slowFill   = 500 * time.Millisecond
	maxSpan    = time.Hour
	minSpan    = time.Second
	maxSkew    = 24 * time.Hour // between a device's clock and what it stamps values with: another time zone, and a summer; what is beyond is a wrong stamp
	fillFailed = "a device gave no history of a time when it could not be heard"
	fillPartly = "a device gave only a part of its history of a time when it could not be heard"
)

// fill is a time of which the history of a group is to be read. Its portions are cut by the device's clock alone, so that they meet whatever is found of how
// the two clocks differ meanwhile.
type fill struct {
	group     *group
	from, to  time.Time     // by the gateway's clock
	left, end int64         // the same by the device's, µs since 1970, what has been read left out; end 0 = neither is known yet
	ahead     time.Duration // the device's clock is ahead of ours by so much at most, as far as was found
	skew      time.Duration // of what it stamped fresh values with, before the outage; 0 = not known
	live      int64         // the latest source time of the first values that were pushed afterwards
	span      time.Duration
	readings  int
	refused   error // the first
}

// place says what a fill is by the device's clock, which is ahead of ours by between least and most. What a device stamps values with may be another clock, such as that of a
// controller behind it: the wider of the two counts, and the first value that was pushed again lies within.
func (f *fill) place(least, most time.Duration) {
	if f.skew != 0 && (f.skew-least).Abs() <= maxSkew {
		least, most = min(least, f.skew), max(most, f.skew)
	}
	if f.end == 0 {
		f.left = f.from.Add(least).UnixMicro()
	}
	f.ahead = max(f.ahead, most)
	f.end = max(f.end, f.to.Add(most+travel).UnixMicro())
	f.meet()
}

// meet moves the end behind the first values that were pushed again.
func (f *fill) meet() {
	if f.end != 0 && f.live >= f.end && f.live-f.end <= maxSkew.Microseconds() {
		f.end = f.live + 1
	}
}

// read reports whether all of it has been read, as far as is known.
func (f *fill) read() bool { return f.end != 0 && f.left >= f.end }

// begin returns from when on a fill is not read, by the gateway's clock or before.
func (f *fill) begin() time.Time {
	if f.end == 0 {
		return f.from
	}
	return time.UnixMicro(f.left).Add(-f.ahead)
}

// fills are those that wait, and when the next portion is due.
type fills struct {
	list []fill
	due  time.Time
	lost damped
}

// fill lets the history of a device's groups be read that it pushes, where its driver can and is told to.
func (p *Poller) fill(d *device, from, to time.Time) {
	for _, g := range p.groups {
		if g.device == d {
			p.fillGroup(g, from, to)
		}
	}
}

func (p *Poller) fillGroup(g *group, from, to time.Time) {
	if _, ok := p.driver.(drivers.Historian); !ok || g.past == nil || !g.stat.Pushed || g.tags == 0 {
		return
	}
	to = to.Round(0)
	from = to.Add(-min(to.Sub(from), maxPast)) // by the clock of now
	if !from.Before(to) {
		return
	}
	for i := range p.fills.list { // a loss behind a loss
		if f := &p.fills.list[i]; f.group == g && !f.read() && !from.Before(f.from) && !from.After(f.to) {
			f.to, f.live = to, max(f.live, g.latest)
			return
		}
	}
	if len(p.fills.list) == maxFills {
		if n := p.fills.lost.add(1, time.Now()); n > 0 {
			p.log.Warn(fillFailed, "device", g.device.name, "cause", "over 1024 outages wait to be read", "lost", n)
		}
		return
	}
	if len(p.fills.list) == 0 {
		p.fills.due = time.Now()
	}
	p.fills.list = append(p.fills.list, fill{group: g, from: from, to: to, skew: g.skew, live: g.latest, span: firstSpan})
}

// Missing returns from when on what a device pushed may be missing: what is told of that, and read of its history, begins there when another poller, or the
// next start of the gateway, takes over. Zero = nothing is. It is for when Run has returned.
func (p *Poller) Missing(device int) (from time.Time) {
	from = p.unfilled(device, time.Now())
	for _, g := range p.groups {
		if g.device == p.devices[device] && g.stat.Pushed && !g.heard.IsZero() {
			from = earlier(from, g.since())
		}
	}
	return from.Round(0)
}

// unfilled returns from when on something is missing of a device that is to be told, or read of its history, yet; zero = nothing is. It is no time to come.
func (p *Poller) unfilled(device int, now time.Time) (from time.Time) {
	d := p.devices[device]
	if from = d.outage.from; from.After(now) {
		from = NotKnown()
	}
	for i := range p.fills.list {
		if f := &p.fills.list[i]; f.group.device == d {
			begin := f.begin()
			if begin.After(now) { // the device's clock is less ahead than it may be, and hardly anything is left
				begin = now
			}
			from = earlier(from, begin)
		}
	}
	return from
}

// earlier returns the earlier of two times; a zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// noteUnfilled has Unfilled say how it is now.
func (p *Poller) noteUnfilled() {
	if len(p.pushers) == 0 {
		return
	}
	now := time.Now()
	for _, i := range p.pushers {
		from := p.unfilled(i, now)
		p.mu.Lock()
		p.devices[i].unfilled = from.Round(0)
		p.mu.Unlock()
	}
}

// Unfilled returns, while Run is at work, from when on something is missing of a device that pushes: since the begin of an outage that lasts, or of what is not read
// yet of its history. Zero = nothing is. What was read before then has been handed on.
func (p *Poller) Unfilled(device int) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.devices[device].unfilled
}

// wakeFill returns when the next portion is due, zero for never.
func (p *Poller) wakeFill() time.Time {
	if !p.link.up || len(p.fills.list) == 0 {
		return time.Time{}
	}
	return p.fills.due
}

// dated takes the source times of what was pushed: the first values of a subscription say where the history before it ends at the earliest, and fresh ones what clock they are stamped by.
func (p *Poller) dated(g *group, readings []telemetry.Reading, now time.Time) {
	last := int64(0)
	for i := range readings {
		last = max(last, readings[i].Time)
	}
	first := g.first()
	g.sees(readings)
	switch skew := time.UnixMicro(last).Sub(now.Round(0)); {
	case last == 0:
	case first:
		g.latest = max(g.latest, last)
	case !g.fresh || skew > g.skew:
		g.fresh, g.skew = true, skew
	}
}

// backfill reads one portion of history when that is due. What a lost link leaves is read after the next connect.
func (p *Poller) backfill(ctx context.Context) error {
	due := p.wakeFill()
	if due.IsZero() || time.Now().Before(due) {
		return nil
	}
	f := &p.fills.list[0]
	if f.read() {
		p.filled(f)
		p.fills.list = append(p.fills.list[:0], p.fills.list[1:]...)
		return nil
	}
	begin := time.Now()
	wanted, err, full := p.past(ctx, f)
	end := time.Now()
	p.held(hold{of: f.group, end: end, took: end.Sub(begin)})
	p.fills.due = end.Add(fillPause)
	switch {
	case full != nil:
		return full
	case ctx.Err() != nil:
		return nil
	case err != nil && !errors.Is(err, drivers.ErrDevice):
		f.span = max(f.span/64, minSpan) // it may be so much that the device does not bear
		p.linkDown(err)
		return nil
	case !wanted:
		p.fills.list = nil
		return nil
	}
	if f.refused == nil {
		f.refused = err
	}
	switch took := end.Sub(begin); {
	case took < quickFill:
		f.span = min(2*f.span, maxSpan)
	case took > slowFill:
		f.span = max(f.span/2, minSpan)
	}
	return nil
}

// past reads the next portion of the history of a group. The last error is the sink's.
func (p *Poller) past(ctx context.Context, f *fill) (wanted bool, err, full error) {
	p.reading.begin(f.group)
	defer p.reading.end()
	err = guard(func() error {
		h := p.driver.(drivers.Historian)
		var least, most time.Duration
		var err error
		if wanted, least, most, err = h.Backfill(ctx); err != nil || !wanted {
			return err
		}
		f.place(least, most)
		if f.group.events == f.group.tags {
			f.left = f.end
			return nil
		}
		to := min(f.left+f.span.Microseconds(), f.end)
		err = h.History(ctx, f.group.ref, f.left, to, func(readings []telemetry.Reading) error {
			f.readings += len(readings)
			full = f.group.past(time.Now(), readings)
			return full
		})
		if full == nil && (err == nil || errors.Is(err, drivers.ErrDevice)) {
			f.left = to
		}
		return err
	})
	if err == nil {
		p.link.used = time.Now()
	}
	return wanted, err, full
}

// filled says what came of it, a warning once for the same refusal. A moment without anything in it is not worth a line.
func (p *Poller) filled(f *fill) {
	if f.readings == 0 && f.to.Sub(f.from) < time.Second {
		return
	}
	if f.group.events > 0 && p.refusals.changed(f.group.device.name, f.group.name+eventsKey, "events") {
		p.log.Info("events are not in the history that is asked for; those of a time when the device could not be heard are lost", "device", f.group.device.name, "group", f.group.name)
	}
	if f.group.events == f.group.tags {
		return
	}
	log := p.log.With("device", f.group.device.name, "group", f.group.name, "from", f.from.UTC().Format(time.RFC3339), "to", f.to.UTC().Format(time.RFC3339), "readings", f.readings)
	if f.refused != nil {
		level := slog.LevelInfo
		if p.refusals.changed(f.group.device.name, f.group.name, f.refused.Error()) {
			level = slog.LevelWarn
		}
		message := fillFailed
		if f.readings > 0 { // of other tags, or of other hours
			message = fillPartly
		}
		log.Log(context.Background(), level, message, "cause", f.refused)
		return
	}
	log.Info("the device's history of a time when it could not be heard was read")
}

// Refusals remembers what each group's history was refused with, so that a device that keeps none is warned of once and not after
// each outage and reload. The zero value is ready; all pollers of a gateway share one.
type Refusals struct {
	mu   sync.Mutex
	last map[[2]string]string
}

// eventsKey is put behind a group's name, which cannot hold it, for what is said of its events.
const eventsKey = "/events"

// maxRefusals bounds the groups remembered: what is forgotten is warned of once more.
const maxRefusals = 4096

func (r *Refusals) changed(device, group, cause string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := [2]string{device, group}
	if r.last[key] == cause {
		return false
	}
	if r.last == nil || len(r.last) >= maxRefusals {
		r.last = map[[2]string]string{}
	}
	r.last[key] = cause
	return true
}
