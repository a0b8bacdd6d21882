// Package poller reads the groups of one connection on time: it connects, backs off, polls each group
// at its interval by the monotonic clock, and marks the readings bad of what does not answer.
//
// gateway starts one Run per connection, so a dead device costs nobody else's time. On a shared line a
// device that does not answer is demoted on its own and probed again ever more slowly.
package poller

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// Sink takes the readings of one poll. The slice is valid only during the call and may be changed by it.
type Sink func(readings []telemetry.Reading) error

// Poller serves one connection with one driver.
type Poller struct {
	driver  drivers.Driver
	devices []*device
	groups  []*group
	log     *slog.Logger
	enter   func() (leave func(), err error)
	link    link
	scratch []telemetry.Reading
	ending  chan struct{} // closed by Stop
	end     sync.Once

	mu    sync.Mutex // guards what Stats reads: devices' and groups' stat fields, and link.up
	stats struct{ connects, connectErrors uint64 }
}

// link is the state of the connection. While connecting is not nil the driver belongs to that goroutine.
type link struct {
	up         bool
	connecting chan error
	retry      backoff
	reason     string // why it is down
}

type device struct {
	name   string
	retry  backoff // demotion of this device alone
	reason string  // why its readings are bad; "" = it answers
	since  time.Time
}

type group struct {
	ref      drivers.Ref
	device   *device
	tags     int
	interval time.Duration
	name     string
	sink     Sink
	base     time.Time // ticks are base + n*interval
	next     time.Time
	stat     GroupStats
}

// New returns a poller for the connection. sinks[device][group] takes the readings of that group. Each attempt to
// connect begins with enter, which may refuse it, and ends with leave; a nil enter refuses none. New starts nothing.
func New(c *drivers.Connection, d drivers.Driver, sinks [][]Sink, enter func() (leave func(), err error), log *slog.Logger) *Poller {
	if enter == nil {
		enter = func() (func(), error) { return func() {}, nil }
	}
	p := &Poller{driver: d, log: log, enter: enter, link: link{reason: "not connected yet"}, ending: make(chan struct{})}
	for i := range c.Devices {
		dev := &device{name: c.Devices[i].Name, reason: "not connected yet"}
		p.devices = append(p.devices, dev)
		for j := range c.Devices[i].Groups {
			g := &c.Devices[i].Groups[j]
			p.groups = append(p.groups, &group{ref: drivers.Ref{Device: i, Group: j}, device: dev, name: g.Name,
				tags: len(g.Tags), interval: g.Interval, sink: sinks[i][j]})
		}
	}
	return p
}

// firstConnect is how long the first tick waits for the first connection, so that a start does not
// begin with bad readings of devices that are well.
const firstConnect = time.Second

// Stop tells Run to return once the poll in flight has been handed on; nothing that a device has answered is lost. It
// does not wait, and may be called at any time and more than once.
func (p *Poller) Stop() { p.end.Do(func() { close(p.ending) }) }

// Run polls until Stop is called or ctx ends, which also ends the poll in flight, then closes the driver and returns
// nil. It returns an error only when a sink refuses for good.
func (p *Poller) Run(ctx context.Context) error {
	defer p.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(firstConnect)
	defer timer.Stop()
	p.connect(ctx)
	select {
	case <-ctx.Done():
	case <-p.ending:
	case err := <-p.link.connecting:
		p.connected(err)
	case <-timer.C:
	}
	p.start(time.Now())
	for ctx.Err() == nil && !p.stopped() {
		g := p.soonest()
		p.connect(ctx)
		timer.Reset(time.Until(p.wake(g)))
		select {
		case <-ctx.Done():
			return nil
		case <-p.ending:
			return nil
		case err := <-p.link.connecting:
			p.connected(err)
			continue
		case <-timer.C:
		}
		if time.Now().Before(g.next) {
			continue // woken to connect again
		}
		if err := p.poll(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

func (p *Poller) stopped() bool {
	select {
	case <-p.ending:
		return true
	default:
		return false
	}
}

// wake returns when there is something to do: the group's tick, or the next attempt to connect.
func (p *Poller) wake(g *group) time.Time {
	if !p.link.up && p.link.connecting == nil && p.link.retry.at.Before(g.next) {
		return p.link.retry.at
	}
	return g.next
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
		g.base = onGrid(now.Add(time.Duration(phase%uint64(g.interval))), g.interval)
		g.next = onGrid(now.Add(time.Duration(phase%uint64(first))), g.interval)
	}
}

// onGrid moves a tick up to a twentieth of its interval and 50 ms forward, to where other connections have theirs
// too: a wake-up of the process costs more than a poll, and this way a thousand connections share twenty a second.
func onGrid(t time.Time, interval time.Duration) time.Time {
	grid := min(50*time.Millisecond, interval/20)
	return t.Add(grid - time.Duration(t.UnixNano()%int64(max(grid, 1))))
}

func (p *Poller) soonest() *group {
	best := p.groups[0]
	for _, g := range p.groups[1:] {
		if g.next.Before(best.next) {
			best = g
		}
	}
	return best
}

// connect starts a connection attempt when the link is down and the back-off has passed. It runs
// beside the ticks, so that a device that is down still yields its bad readings on time.
func (p *Poller) connect(ctx context.Context) {
	if p.link.up || p.link.connecting != nil || !p.link.retry.due(time.Now()) {
		return
	}
	done := make(chan error, 1)
	p.link.connecting = done
	go func() { done <- guard(func() error { return p.dial(ctx) }) }()
}

func (p *Poller) dial(ctx context.Context) error {
	leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	return p.driver.Connect(ctx)
}

func (p *Poller) connected(err error) {
	p.link.connecting = nil
	p.mu.Lock()
	p.stats.connects++
	if err != nil {
		p.stats.connectErrors++
	}
	p.mu.Unlock()
	if err != nil {
		p.linkDown(err)
		return
	}
	p.setLink(true, "")
}

// linkDown closes the driver and waits before the next attempt.
func (p *Poller) linkDown(err error) {
	_ = guard(p.driver.Close)
	wait := p.link.retry.fail(time.Now())
	if p.link.up || p.link.reason != err.Error() {
		p.log.Warn("connection is down", "device", p.devices[0].name, "cause", err, "next_attempt_in", wait.Round(time.Millisecond))
	}
	p.setLink(false, err.Error())
}

func (p *Poller) setLink(up bool, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link.up, p.link.reason = up, reason
	if up {
		return
	}
	for _, d := range p.devices {
		d.set(reason)
	}
}

func (d *device) set(reason string) {
	if (d.reason == "") != (reason == "") {
		d.since = time.Now()
	}
	d.reason = reason
}

// poll reads one group once and hands its readings on, bad ones if need be.
func (p *Poller) poll(ctx context.Context, g *group) error {
	now := time.Now()
	late := now.Sub(g.next)
	readings, err := p.read(ctx, g, now)
	if ctx.Err() != nil {
		return nil
	}
	end := time.Now()
	missed := g.advance(end)
	p.mu.Lock()
	g.stat.count(end, late, end.Sub(now), missed, err)
	p.mu.Unlock()
	if err != nil {
		readings = p.bad(g, now.UnixMicro(), err.Error())
	}
	p.scratch = readings
	return g.sink(readings)
}

// read asks the driver, unless the link or the device is known to be down.
func (p *Poller) read(ctx context.Context, g *group, now time.Time) ([]telemetry.Reading, error) {
	d := g.device
	if !p.link.up {
		return nil, errors.New(p.link.reason)
	}
	if d.reason != "" && !d.retry.due(now) {
		return nil, errors.New(d.reason)
	}
	var readings []telemetry.Reading
	err := guard(func() (err error) {
		readings, err = p.driver.Read(ctx, g.ref, p.scratch[:0])
		return err
	})
	switch {
	case err == nil:
		p.answered(d)
	case ctx.Err() != nil:
	case errors.Is(err, drivers.ErrDevice):
		p.demote(d, err, now)
	default:
		p.linkDown(err)
	}
	return readings, err
}

func (p *Poller) answered(d *device) {
	p.link.retry.succeed()
	if d.reason == "" {
		return
	}
	d.retry.succeed()
	p.log.Info("device answers", "device", d.name)
	p.mu.Lock()
	d.set("")
	p.mu.Unlock()
}

func (p *Poller) demote(d *device, err error, now time.Time) {
	wait := d.retry.fail(now)
	if d.reason != err.Error() {
		p.log.Warn("device does not answer; the others on its line go on", "device", d.name, "cause", err, "next_attempt_in", wait.Round(time.Millisecond))
	}
	p.mu.Lock()
	d.set(err.Error())
	p.mu.Unlock()
}

func (p *Poller) bad(g *group, at int64, reason string) []telemetry.Reading {
	readings := p.scratch[:0]
	for i := range g.tags {
		readings = append(readings, telemetry.BadReading(i, at, reason))
	}
	return readings
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

func (p *Poller) close() {
	if c := p.link.connecting; c != nil {
		<-c // Connect respects ctx, which has ended
	}
	_ = guard(p.driver.Close)
}

// guard turns a panic of a protocol library into an error: one bad device never costs the others.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("driver panicked: %v", r)
		}
	}()
	return f()
}
