// Package poller reads the groups of one connection on time: it connects, backs off, polls each group at its interval by
// the monotonic clock, takes what the device pushes, runs jobs between two polls, and marks the readings bad of what does
// not answer.
//
// gateway starts one Run per connection, so a dead device costs nobody else's time. On a shared line a
// device that does not answer is demoted on its own and probed again ever more slowly.
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

// Sink takes the readings of one poll or push; at is when Read returned or the push was taken, with its monotonic part.
// No readings say that the device still pushes, and that what it has not pushed is as it was.
// A reading's Time is 0 where the driver said none. The slice is valid only during the call and may be changed by it.
type Sink func(at time.Time, readings []telemetry.Reading) error

// Options say how a connection is polled.
type Options struct {
	Sinks   [][]Sink          // Sinks[device][group] takes the readings of that group
	Pasts   [][]Sink          // likewise takes what the device has kept of a time when it could not be heard; nil = it is not asked
	Beats   [][]time.Duration // likewise says after how long the sink of a group that is pushed is told that its values are as they were, when nothing comes; nil or 0 = never
	Buffers *Buffers          // shared with other pollers; nil = of its own

	Refusals *Refusals // shared likewise; nil = of its own

	// Details is told what a device says of the tags of a group; nil = nobody wants to know.
	Details func(g drivers.Ref, details []telemetry.Details)

	// Each attempt to connect begins with Enter, which may refuse it, and ends with leave. Nil refuses none.
	Enter func() (leave func(), err error)

	// Bounds of the wait before the next attempt, > 0.
	RetryMin, RetryMax time.Duration

	// Since returns from when on what a device pushes may be missing, because it was not heard before Run, and why, in words. That is told and asked for; without
	// words it is asked for only. Run calls it when it begins. Nil, or a zero time = nothing is missing.
	Since func(device int) (from time.Time, reason string)

	Answered []bool // by device: it did so before Run, so that it is asked before those of which nothing is known; nil = nothing is known of any

	Gaps func(*Gap) // is told what devices that push have, or may have, and nobody got; nil = nobody asks

	Log *slog.Logger
}

// Poller serves one connection with one driver. While a connection is being made the driver belongs to that goroutine,
// otherwise to Run's.
type Poller struct {
	driver   drivers.Driver
	devices  []*device
	groups   []*group
	pushers  []int // devices that Pushes
	log      *slog.Logger
	enter    func() (leave func(), err error)
	gaps     func(*Gap)
	fills    fills
	refusals *Refusals
	before   func(device int) (time.Time, string) // see Options.Since
	limits   limits
	details  func(g drivers.Ref, details []telemetry.Details)
	link     link
	buffers  *Buffers
	scratch  []telemetry.Reading // lent during a poll
	jobs     chan *job
	jobLast  bool          // a job ran since the last poll
	free     time.Time     // when the last poll, push or job ended
	probed   time.Time     // when a device of a shared line last gave no answer
	holds    []hold        // since the line was idle, each with none as long behind it: so the first after a tick is the longest since then
	ending   chan struct{} // closed by Stop, or when Run's ctx ends
	end      sync.Once
	over     chan struct{} // closed when Run ends

	reading, dialling busy

	mu    sync.Mutex // guards what Stats, Do and Unfilled read: devices' and groups' stat fields, link.up and link.reason
	stats struct {
		connects, connectErrors, idleCloses uint64
		connected                           time.Time // last
	}
}

// New returns a poller for the connection. It starts nothing.
func New(c *drivers.Connection, d drivers.Driver, o Options) *Poller {
	p := &Poller{driver: d, log: o.Log, enter: o.Enter, gaps: o.Gaps, before: o.Since, details: o.Details, buffers: o.Buffers, refusals: o.Refusals, limits: newLimits(o.RetryMin, o.RetryMax), link: link{reason: NotYet},
		jobs: make(chan *job, maxJobs), ending: make(chan struct{}), over: make(chan struct{})}
	if p.buffers == nil {
		p.buffers = new(Buffers)
	}
	if p.refusals == nil {
		p.refusals = new(Refusals)
	}
	p.reading.base, p.dialling.base = time.Now(), time.Now()
	if p.enter == nil {
		p.enter = func() (func(), error) { return func() {}, nil }
	}
	for i := range c.Devices {
		dev := &device{name: c.Devices[i].Name, reason: NotYet}
		dev.heard = o.Answered != nil && o.Answered[i]
		dev.patience = patience(&c.Devices[i])
		p.devices = append(p.devices, dev)
		for j := range c.Devices[i].Groups {
			g := &c.Devices[i].Groups[j]
			p.groups = append(p.groups, &group{ref: drivers.Ref{Device: i, Group: j}, device: dev, name: g.Name,
				tags: len(g.Tags), interval: g.Interval, sink: o.Sinks[i][j], pushes: pushes(d, drivers.Ref{Device: i, Group: j})})
			if e, ok := d.(drivers.Eventful); ok {
				p.groups[len(p.groups)-1].events = len(e.Events(drivers.Ref{Device: i, Group: j}))
			}
			if o.Beats != nil {
				p.groups[len(p.groups)-1].beat = o.Beats[i][j]
			}
			if o.Pasts != nil {
				p.groups[len(p.groups)-1].past = o.Pasts[i][j]
			}
		}
		if p.Pushes(i) {
			p.pushers = append(p.pushers, i)
		}
	}
	return p
}

// NotYet is the reason of a device that was not tried yet.
const NotYet = "not connected yet"

// firstTick is when the first poll of a group comes after the connection stands, at most: see start.
const firstTick = 1250 * time.Millisecond

// maxPatience bounds patience: beyond it what a poll takes is seen elsewhere.
const maxPatience = time.Minute

// patience is what the first poll of a device may take: one request that gets no answer in time, or the shortest of its intervals.
func patience(d *drivers.Device) time.Duration {
	shortest := maxPatience
	for i := range d.Groups {
		shortest = min(shortest, d.Groups[i].Interval)
	}
	return min(max(d.Timeout, shortest), maxPatience)
}

// firstConnect is how long the first tick waits for the first connection, so that a start does not
// begin with bad readings of devices that are well.
const firstConnect = time.Second

// Stop tells Run to return once the poll in flight has been handed on; nothing that a device has answered is lost. It
// does not wait, and may be called at any time and more than once.
func (p *Poller) Stop() { p.end.Do(func() { close(p.ending) }) }

// Run polls until Stop is called or ctx ends, which also ends the poll in flight, then closes the driver and returns
// nil. It returns an error only when a sink refuses for good. It may be called once.
func (p *Poller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, p.Stop)()
	defer close(p.over)
	defer p.close()
	defer cancel() // the attempt to connect that close waits for
	timer := time.NewTimer(firstConnect)
	defer timer.Stop()
	p.begin()
	p.connect(ctx)
	select {
	case <-p.ending:
	case r := <-p.link.connecting:
		p.connected(r)
	case <-timer.C:
	}
	p.start(time.Now())
	for !p.stopped() {
		if err := p.turn(ctx, timer); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	_, err := p.takePushes(cap(p.link.pushes))
	return err
}

func (p *Poller) stopped() bool {
	select {
	case <-p.ending:
		return true
	default:
		return false
	}
}

// turn does what there is to do, at most one job, a few pushes and one poll, so that none starves the others. It waits
// when there is nothing.
func (p *Poller) turn(ctx context.Context, timer *time.Timer) error {
	now := time.Now()
	p.settleAll(now)
	p.sayAllOwed(now)
	p.noteUnfilled()
	p.connect(ctx)
	g := p.soonest(now)
	due := g != nil && !now.Before(g.next)
	if due && p.jobLast {
		return p.poll(ctx, g)
	}
	ran := p.runWaiting()
	n, err := p.takePushes(maxPushes)
	if err == nil {
		err = errors.Join(p.beats(now), p.backfill(ctx))
	}
	switch {
	case err != nil:
		return err
	case due && !p.served(g): // the link may have changed meanwhile
		return p.poll(ctx, g)
	case ran || n > 0:
		return nil
	}
	return p.wait(g, timer)
}

// wait returns when there is something to do, and has done it where it is a job or a push.
func (p *Poller) wait(g *group, timer *time.Timer) error {
	p.noteUnfilled()
	timer.Reset(time.Until(p.wake(g)))
	select {
	case <-p.ending:
	case r := <-p.link.connecting:
		p.connected(r)
	case j := <-p.jobs:
		p.run(j)
	case push, ok := <-p.link.pushes:
		return p.push(push, ok)
	case <-timer.C:
	}
	return nil
}
