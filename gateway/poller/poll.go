package poller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace/drivers"
	"millrace/drivers/peer"
	"millrace/drivers/telemetry"
)

// poll reads one group once and hands its readings on, bad ones if need be.
func (p *Poller) poll(ctx context.Context, g *group) error {
	p.jobLast = false
	p.reading.begin(g)
	defer p.reading.end()
	now, due := time.Now(), g.next
	t := p.waited(due, now)
	p.scratch = p.buffers.lend(g.tags)
	asked := p.link.up
	readings, err := p.read(ctx, g, now)
	if ctx.Err() != nil {
		return nil
	}
	end := time.Now()
	missed := g.advance(end)
	if !asked { // what the connection costs makes no poll late
		missed = 0
	}
	t.poll = end.Sub(now)
	var late Delay
	if missed > 0 && err == nil && !p.unanswered(g, due) {
		late = p.delay(due, t)
	}
	p.mu.Lock()
	g.stat.count(end, t, late, missed, err)
	p.mu.Unlock()
	h := hold{of: g, took: t.poll, failed: err != nil}
	if err != nil {
		readings = p.bad(g, peer.Text(err))
	} else {
		p.polled(g)
	}
	p.warn()
	err = g.sink(end, readings)
	h.end = time.Now()
	h.stored = h.end.Sub(end)
	p.held(h)
	p.buffers.giveBack(readings)
	p.scratch = nil
	p.describe(g)
	return err
}

// describe hands on what the device says of the group's tags, once it is known.
func (p *Poller) describe(g *group) {
	d, ok := p.driver.(drivers.Describer)
	if !ok || p.details == nil || !p.link.up {
		return
	}
	if details := d.Details(g.ref); details != nil {
		p.details(g.ref, details)
	}
}

// warn logs what the driver has learned that no reading tells.
func (p *Poller) warn() {
	w, ok := p.driver.(drivers.Warner)
	if !ok || !p.link.up {
		return
	}
	if text := w.Warning(); text != "" {
		p.log.Warn(text, "device", p.devices[0].name)
	}
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
	readings, err := p.ask(ctx, g)
	if drivers.IsClosed(err) && !errors.Is(err, drivers.ErrDevice) && now.Sub(p.link.used) > idle && ctx.Err() == nil {
		readings, err = p.again(ctx, g)
	}
	switch {
	case err == nil:
		p.answered(d)
	case ctx.Err() != nil:
	case errors.Is(err, drivers.ErrDevice):
		p.demote(d, err, now)
	case p.link.up:
		p.linkDown(err)
	}
	return readings, err
}

func (p *Poller) ask(ctx context.Context, g *group) (readings []telemetry.Reading, err error) {
	err = guard(func() (err error) {
		readings, err = p.driver.Read(ctx, g.ref, p.scratch[:0])
		return err
	})
	return readings, err
}

// Servers and firewalls close a connection that was idle for some seconds. That costs a try, not a poll: on the first use
// after a pause the poller connects again and reads once more within the same tick. The device sees one try more.
const (
	idle      = time.Second
	againTime = 2 * time.Second // for the new connection; every other poll of this link waits for it
)

// again connects anew under a poll and reads.
func (p *Poller) again(ctx context.Context, g *group) ([]telemetry.Reading, error) {
	p.cut("the device had closed the idle connection", time.Time{})
	_ = guard(p.driver.Close)
	p.mu.Lock()
	p.stats.idleCloses++
	first := p.stats.idleCloses == 1
	p.mu.Unlock()
	if first {
		p.log.Info("the device closes idle connections; each is made again when needed", "device", p.devices[0].name)
	}
	short, cancel := context.WithTimeout(ctx, againTime)
	defer cancel()
	r := p.dial(short)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errors.Is(r.err, context.DeadlineExceeded) {
		r.err = fmt.Errorf("no connection within %v", againTime)
	}
	if p.connected(r); !p.link.up {
		return nil, errors.New(p.link.reason)
	}
	return p.ask(ctx, g)
}

// bad returns the group's readings when none could be read.
func (p *Poller) bad(g *group, reason string) []telemetry.Reading {
	readings := p.scratch[:0]
	for i := range g.tags {
		readings = append(readings, telemetry.BadReading(i, 0, reason))
	}
	return readings
}
