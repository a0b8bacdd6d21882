package poller

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"millrace/drivers"
	"millrace/drivers/peer"
)

// device is one of those that share the connection.
type device struct {
	name   string
	spoken spoken
	retry  backoff // demotion of this device alone
	reason string  // why its readings are bad; "" = it answers
	since  time.Time
	outage outage // of what it pushes
	heard  bool   // it has answered, maybe before Run
	tries  int    // made in vain since then

	patience time.Duration // see Begins

	unfilled time.Time // see Unfilled; guarded by the poller's mu
}

func (d *device) set(reason string) {
	if (d.reason == "") != (reason == "") {
		d.since = time.Now()
	}
	d.reason = reason
}

// answered notes that a device has sent readings.
func (p *Poller) answered(d *device) {
	p.link.used = time.Now()
	p.link.retry.succeed()
	p.alive(d)
}

// alive ends the demotion of a device.
func (p *Poller) alive(d *device) {
	if d.reason == "" {
		return
	}
	if d.reason != NotYet {
		p.sameCause(d)
	}
	d.heard, d.tries = true, 0
	d.retry.succeed()
	p.say(d, slog.LevelInfo, "device answers")
	p.mu.Lock()
	d.set("")
	p.mu.Unlock()
}

// sameCause lets those be tried at their next tick that fell silent when this one did, where none on the line has answered
// since: the line was the cause, and it is back. Those that were dead before stay demoted.
func (p *Poller) sameCause(d *device) {
	if slices.ContainsFunc(p.devices, func(o *device) bool { return o.reason == "" }) {
		return
	}
	for _, o := range p.devices {
		if o.since.Sub(d.since).Abs() < remembered {
			o.retry.succeed()
		}
	}
}

// demote lets a device that does not answer wait, because each try costs the others on its line a timeout. One that is
// alone costs nobody anything.
func (p *Poller) demote(d *device, err error, now time.Time) {
	limits := p.limits.after(true)
	if len(p.devices) > 1 {
		limits = p.limits.demoted(time.Since(now), slices.ContainsFunc(p.devices, func(o *device) bool { return o.reason == "" }), d.heard)
		p.probed = time.Now()
	}
	d.tries++
	wait := d.retry.fail(now, limits)
	if errors.Is(err, drivers.ErrAbsent) {
		d.retry.succeed() // it costs nothing to ask at each tick
		wait = 0
	}
	reason := peer.Text(err)
	if d.reason != reason {
		p.say(d, slog.LevelWarn, "device gives no usable answer; the others on its line go on", "cause", reason, "next_attempt_in", wait.Round(time.Millisecond))
	}
	p.mu.Lock()
	d.set(reason)
	p.mu.Unlock()
}
