package poller

import (
	"errors"
	"fmt"
	"time"

	"millrace/drivers"
)

// maxPushes is how many pushes are taken before the polls get their turn, so that a flood does not starve them. What
// waits longer waits in the driver's bounded channel.
const maxPushes = 16

var errPushesEnded = errors.New("the subscription's connection was lost")

// takePushes takes up to most pushes that wait, and returns how many there were.
func (p *Poller) takePushes(most int) (n int, err error) {
	for ; n < most && err == nil; n++ {
		select {
		case push, ok := <-p.link.pushes:
			err = p.push(push, ok)
		default:
			return n, nil
		}
	}
	return n, err
}

// push hands one push on. The channel ends with the link; what had come before it did is still taken.
func (p *Poller) push(push drivers.Push, ok bool) error {
	if !ok {
		p.link.pushes = nil
		if p.link.up {
			p.linkDown(errPushesEnded)
		}
		return nil
	}
	g, err := p.pushed(&push)
	if push.Err != nil {
		err = push.Err
	}
	if err != nil {
		p.link.pushes = nil
		p.linkLost(err, push.Since)
		return nil
	}
	now := time.Now()
	p.heard(g, &push, now)
	p.dated(g, push.Readings, now)
	p.settle(g.ref.Device, now)
	if p.link.up {
		p.answered(g.device)
	}
	p.mu.Lock()
	g.stat.countPush(now, push.Lost)
	p.mu.Unlock()
	p.tell(g, &push, now)
	p.describe(g)
	defer func() { end := time.Now(); p.held(hold{of: g, end: end, stored: end.Sub(now)}) }()
	if len(push.Readings) > 0 {
		if err := g.sink(now, push.Readings); err != nil {
			return err
		}
	}
	return p.unchanged(g, now)
}

// unchangedEvery is how often a sink is told at most that other values are as they were.
const unchangedEvery = time.Second

// unchanged tells the sink that the values which were not pushed are as they were: heartbeats are due for those, too.
func (p *Poller) unchanged(g *group, now time.Time) error {
	if !p.link.up || now.Sub(g.told) < unchangedEvery {
		return nil
	}
	g.told = now
	return g.sink(now, nil)
}

// beats tells the sinks of groups of which nothing has come for their beat: while the link is up, silence means that nothing has changed.
func (p *Poller) beats(now time.Time) error {
	for _, g := range p.groups {
		if at := p.beatAt(g); !at.IsZero() && !now.Before(at) {
			if err := p.unchanged(g, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// beatAt returns when the group's sink is to be told though nothing comes, zero for never. Before anything has come there is nothing to repeat.
func (p *Poller) beatAt(g *group) time.Time {
	if g.beat == 0 || g.told.IsZero() || !p.served(g) {
		return time.Time{}
	}
	return g.told.Add(max(g.beat, unchangedEvery))
}

// tell logs what a person should know of a push.
func (p *Poller) tell(g *group, push *drivers.Push, now time.Time) {
	if push.Lost == 0 && push.Note != "" {
		p.log.Info(push.Note, "device", g.device.name, "group", g.name)
	}
	if push.Lost > 0 {
		g.lost.cause = push.Note
	}
	n, cause := g.lost.add(push.Lost, now), g.lost.cause
	switch {
	case n == 0:
		return
	case cause == "":
		cause = "the device pushes faster than its readings can be taken, and some are lost; sample slower or ask for a longer queue"
	}
	p.log.Warn(cause, "device", g.device.name, "group", g.name, "lost", n)
}

// pushed returns the group that a push is for. No push may reach the sink with a tag that the group does not have.
func (p *Poller) pushed(push *drivers.Push) (*group, error) {
	for _, g := range p.groups {
		if g.ref != push.Group {
			continue
		}
		for i := range push.Readings {
			if int(push.Readings[i].Tag) >= g.tags {
				return nil, fmt.Errorf("BUG: the driver pushed tag %d of the %d of group %q", push.Readings[i].Tag, g.tags, g.name)
			}
		}
		for _, tag := range push.Tags {
			if int(tag) >= g.tags {
				return nil, fmt.Errorf("BUG: the driver lost tag %d of the %d of group %q", tag, g.tags, g.name)
			}
		}
		return g, nil
	}
	return nil, fmt.Errorf("BUG: the driver pushed group %v, which does not exist", push.Group)
}

// lostEvery is how often lost readings of one group are logged at most.
const lostEvery = time.Minute

// damped adds up what is logged once in a while.
type damped struct {
	sum   int
	cause string // of the last of it
	next  time.Time
}

// add returns what to log now, 0 for nothing.
func (d *damped) add(n int, now time.Time) int {
	d.sum += n
	if d.sum == 0 || now.Before(d.next) {
		return 0
	}
	sum := d.sum
	d.sum, d.next = 0, now.Add(lostEvery)
	return sum
}
