package poller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"millrace/drivers"
	"millrace/drivers/peer"
)

// link is the state of the connection.
type link struct {
	up         bool
	connecting chan dialled // not nil while a goroutine connects
	pushes     <-chan drivers.Push
	retry      backoff
	reason     string    // why it is down
	used       time.Time // when the device was last heard
	accepted   time.Time // when it last took a connection
}

// dialled is how an attempt to connect ended.
type dialled struct {
	err    error
	ended  bool   // by a stop, which is no fault of the device
	pushed []bool // by group: the device pushes it
	pushes <-chan drivers.Push
}

// connect starts a connection attempt when the link is down and the back-off has passed. It runs
// beside the ticks, so that a device that is down still yields its bad readings on time.
func (p *Poller) connect(ctx context.Context) {
	if p.link.up || p.link.connecting != nil || !p.link.retry.due(time.Now()) {
		return
	}
	done := make(chan dialled, 1)
	p.link.connecting = done
	go func() {
		r := p.dial(ctx)
		r.ended = r.err != nil && ctx.Err() != nil
		done <- r
	}()
}

// dial connects and subscribes.
func (p *Poller) dial(ctx context.Context) (r dialled) {
	p.dialling.begin(nil)
	defer p.dialling.end()
	r.err = guard(func() error {
		leave, err := p.enter()
		if err != nil {
			return err
		}
		defer leave()
		if err := p.driver.Connect(ctx); err != nil {
			return err
		}
		return p.subscribe(ctx, &r)
	})
	return r
}

// subscribe asks for each group to be pushed, where the driver can.
func (p *Poller) subscribe(ctx context.Context, r *dialled) error {
	s, ok := p.driver.(drivers.Subscriber)
	if !ok {
		return nil
	}
	r.pushed = make([]bool, len(p.groups))
	for i, g := range p.groups {
		var err error
		if r.pushed[i], err = s.Subscribe(ctx, g.ref); err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
	}
	r.pushes = s.Pushed()
	return nil
}

// connected takes the outcome of an attempt to connect.
func (p *Poller) connected(r dialled) {
	p.link.connecting = nil
	if r.ended {
		return
	}
	p.mu.Lock()
	p.stats.connects++
	if r.err != nil {
		p.stats.connectErrors++
	}
	p.mu.Unlock()
	if r.err != nil {
		p.linkDown(r.err)
		return
	}
	now := time.Now()
	p.link.used, p.link.accepted, p.link.pushes = now, now, r.pushes
	p.mu.Lock()
	for i, g := range p.groups {
		if !p.link.up || g.stat.Pushed {
			g.skip(now)
		}
		pushed := r.pushed != nil && r.pushed[i]
		if g.stat.Pushed && !pushed { // what changes until its first poll is missing
			g.next = now
		}
		if g.stat.Pushed = pushed; pushed {
			g.stat.inTime()
		}
	}
	p.link.up, p.link.reason = true, ""
	p.stats.connected = now
	p.mu.Unlock()
	p.resumed(now)
	p.welcome()
	p.warn()
}

// welcome says that devices answer which have let us subscribe: nothing else will until one of their values changes.
func (p *Poller) welcome() {
	for _, g := range p.groups {
		if g.stat.Pushed {
			p.alive(g.device)
		}
	}
}

// linkDown closes the driver and waits before the next attempt.
func (p *Poller) linkDown(err error) { p.linkLost(err, time.Time{}) }

// linkLost is linkDown when readings may be missing since a moment; zero = since the last push.
func (p *Poller) linkLost(err error, since time.Time) {
	_ = guard(p.driver.Close)
	reason := peer.Text(err)
	if p.link.up {
		p.cut(reason, since)
	}
	now := time.Now()
	wait := p.link.retry.fail(now, p.limits.after(p.accepts(err, now)))
	if p.link.up || p.link.reason != reason {
		p.say(p.devices[0], slog.LevelWarn, "connection is down", "cause", reason, "next_attempt_in", wait.Round(time.Millisecond))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link.up {
		p.resume(now)
	}
	p.link.up, p.link.reason = false, reason
	for _, d := range p.devices {
		d.set(p.link.reason)
	}
}

// resume gives the groups that were pushed a tick to come, at which they yield bad readings.
func (p *Poller) resume(now time.Time) {
	for _, g := range p.groups {
		if g.stat.Pushed && g.next.Before(now) {
			g.advance(now)
		}
	}
}

// remembered is how long a peer that took a connection counts as one that does: a freeze or a restart passes within it.
const remembered = time.Minute

// accepts reports whether the peer takes connections, as far as was seen: it is there, or will be soon, and an attempt
// costs it little, or nothing where it has to make the connection itself. A refusal in words, such as of a password, does not count: accounts are locked for haste.
func (p *Poller) accepts(err error, now time.Time) bool {
	if p.link.up || drivers.IsClosed(err) || timedOutLater(err) || errors.Is(err, drivers.ErrAbsent) {
		p.link.accepted = now
	}
	return !p.link.accepted.IsZero() && now.Sub(p.link.accepted) < remembered
}

// close ends the connection at the end of Run.
func (p *Poller) close() {
	if c := p.link.connecting; c != nil {
		<-c // Connect respects ctx, which has ended
	}
	_ = guard(p.driver.Close)
	p.tellOutages()
}

// errPanic marks what guard made of a panic: nobody knows the driver's state then.
var errPanic = errors.New("driver panicked")

// guard turns a panic of a protocol library into an error: one bad device never costs the others.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errPanic, r)
		}
	}()
	return f()
}
