package poller

import (
	"slices"
	"time"

	"millrace/drivers"
)

// Gap says that readings of a device which pushes what changes are missing, or may be. What is polled has none: a failed
// poll is a bad reading.
type Gap struct {
	Device, Group int       // Group -1 = any of the device's
	Tags          []uint32  // of the group, one for each of Lost; nil = any. Valid during the call
	From, To      time.Time // by today's clock of the gateway; From may be NotKnown
	Lost          int       // readings known to be missing; there may be more
	Outage        bool      // the device was not heard
	Reason        string
}

// Lag is how long before a moment at which a device counted as heard a reading may be from that it never pushed, at most: it may have been silent for a while that
// nobody had noticed yet; before that it may have had no room for the reading in its last push, or sampled it while that was under way.
const (
	travel    = time.Second
	publish   = 5 * time.Second  // between two pushes, at most, of a device that has more
	unnoticed = 15 * time.Second // of silence: drivers/opcua, unless the server insists on longer times between two signs of life
	Lag       = travel + publish + unnoticed
)

// NotKnown is from when an outage lasts of which nobody knows that: 1970.
func NotKnown() time.Time { return time.Unix(0, 0) }

// outage is a time in which nothing was pushed.
type outage struct {
	from   time.Time // zero = there is none; NotKnown, or a time to come: nobody knows
	reason string    // "" = nobody is told
	cut    bool      // since Run something was pushed
	until  time.Time // subscriptions stand again, and this is when it is over at the latest; zero = they do not
}

// pushes reports whether a driver will have a group pushed, as far as its config tells.
func pushes(d drivers.Driver, g drivers.Ref) bool {
	if _, ok := d.(drivers.Subscriber); !ok {
		return false
	}
	planner, ok := d.(drivers.Planner)
	return !ok || planner.Requests(g) == 0
}

// begin begins the outages that last since before Run: nobody heard the devices.
func (p *Poller) begin() {
	if p.before == nil {
		return
	}
	for i, d := range p.devices {
		if p.Pushes(i) {
			d.outage.from, d.outage.reason = p.before(i)
		}
	}
	p.before = nil
	p.tellOutages()
}

// Pushes reports whether the config has some group of a device pushed.
func (p *Poller) Pushes(device int) bool {
	return p.ofDevice(p.devices[device], func(g *group) bool { return g.pushes })
}

// ofDevice reports whether some group of a device is as asked.
func (p *Poller) ofDevice(d *device, is func(*group) bool) bool {
	return slices.ContainsFunc(p.groups, func(g *group) bool { return g.device == d && is(g) })
}

// heard notes a sign of life of a group that is pushed, and says what is missing before it.
func (p *Poller) heard(g *group, push *drivers.Push, now time.Time) {
	if push.Lost > 0 {
		reason := push.Note
		if reason == "" {
			reason = "a queue of the device overflowed"
		}
		p.tellGap(&Gap{Device: g.ref.Device, Group: g.ref.Group, Tags: push.Tags, From: g.since(), To: now, Lost: push.Lost, Reason: reason})
		if now.Sub(g.heard) > travel+2*min(g.interval, publish) { // it was not heard for a while; a device that always overflows is not read twice
			p.fillGroup(g, g.since(), now)
		}
	}
	at := push.At
	if at.IsZero() {
		at = now
	}
	if at.After(g.heard) {
		g.heard = at
	}
}

// since returns from when on readings of a group may be missing when the next push does not come.
func (g *group) since() time.Time { return g.heard.Add(-min(g.interval, publish) - travel) }

// cut begins the outage of each device of which something was pushed, at since where that is earlier. The link is up.
func (p *Poller) cut(reason string, since time.Time) {
	for _, g := range p.groups {
		if !g.stat.Pushed {
			continue
		}
		from := g.since()
		if !since.IsZero() && since.Before(from) {
			from = since
		}
		o := &g.device.outage
		if o.cut = true; o.reason == "" { // nobody has been told of one that lasts
			o.reason = reason
		}
		if o.from.IsZero() || from.Before(o.from) {
			o.from, o.reason = from, reason
		}
	}
	for _, d := range p.devices {
		d.outage.until = time.Time{}
	}
	p.tellOutages()
}

// settling is how long the first values of a subscription may take, which a server samples when it likes.
const settling = 2 * publish

// resumed is called when subscriptions stand again. The outages end when the first value of each tag has come: what changed before that may be missing.
func (p *Poller) resumed(now time.Time) {
	for _, g := range p.groups {
		g.heard = now
		g.begun()
	}
	for i, d := range p.devices {
		switch {
		case p.ofDevice(d, func(g *group) bool { return g.stat.Pushed }):
			d.outage.until = now.Add(settling)
			p.settle(i, now)
		case !d.outage.cut: // else what was pushed is polled now: the first poll ends it
			d.outage = outage{}
		}
	}
}

// settle ends the outage of a device when all that is pushed of it has come once, or has had its time. What the device kept meanwhile is asked for.
func (p *Poller) settle(device int, now time.Time) {
	d := p.devices[device]
	o := &d.outage
	if o.until.IsZero() || now.Before(o.until) && p.ofDevice(d, func(g *group) bool { return g.stat.Pushed && g.first() }) {
		return
	}
	if !o.from.IsZero() {
		p.tellOutage(device)
		from := o.from
		if from.After(now) {
			from = NotKnown()
		}
		p.fill(d, from, now)
	}
	*o = outage{}
	for _, g := range p.groups {
		if g.device == d {
			g.seen = g.tags // what comes later is no first value
		}
	}
}

// settleAll ends the outages that have had their time.
func (p *Poller) settleAll(now time.Time) {
	for _, i := range p.pushers {
		p.settle(i, now)
	}
}

// wakeSettle returns when the next outage has had its time, zero for never.
func (p *Poller) wakeSettle() (next time.Time) {
	for _, i := range p.pushers {
		next = earlier(next, p.devices[i].outage.until)
	}
	return next
}

// tellOutages says from when until now readings may be missing: when that begins, so that a crash in between does not hide it,
// and once more when it is over.
func (p *Poller) tellOutages() {
	for i := range p.devices {
		p.tellOutage(i)
	}
}

func (p *Poller) tellOutage(device int) {
	if o := &p.devices[device].outage; o.reason != "" {
		p.tellGap(&Gap{Device: device, Group: -1, From: o.from, To: time.Now(), Outage: true, Reason: o.reason})
	}
}

// polled ends the outage of a device that was pushed and now has been polled.
func (p *Poller) polled(g *group) {
	if o := &g.device.outage; !o.from.IsZero() && o.until.IsZero() {
		p.tellOutage(g.ref.Device)
		*o = outage{}
	}
}

// tellGap hands a gap on. The clock may have been set since it began: its end is by the clock of now, and its length is right.
func (p *Poller) tellGap(g *Gap) {
	now := time.Now()
	length := g.To.Sub(g.From)
	g.To = now.Add(-now.Sub(g.To)).Round(0)
	if length >= 0 && g.From.After(NotKnown()) {
		g.From = g.To.Add(-length)
	} else { // the clock is behind the one of the run before: it is not set yet, or that one was wrong
		g.From = NotKnown()
	}
	if p.gaps != nil {
		p.gaps(g)
	}
}
