package main

import (
	"context"
	"fmt"
	"os"
	"time"
)

// bed is everything one run needs besides the gateway.
type bed struct {
	o       options
	dir     string
	broker  *broker
	relay   *relay // between gateway and broker when the uplink is to be cut
	sim     *simProcess
	sub     *subscriber
	account *account
	target  *target
	result  *result
}

// runScenario starts everything, measures, stops everything and accounts for every reading.
func runScenario(ctx context.Context, o options) (*result, error) {
	if o.Scenario == "saturate" {
		return saturate(ctx, o)
	}
	b, err := lay(o)
	if b != nil {
		defer b.clear()
	}
	if err != nil {
		return nil, err
	}
	if err := b.target.start(); err != nil {
		return nil, err
	}
	if err := b.first(ctx); err != nil {
		return nil, err
	}
	if err := b.measure(ctx); err != nil {
		return nil, err
	}
	if err := b.reloads(ctx); err != nil {
		return nil, err
	}
	return b.result, b.finish()
}

func lay(o options) (b *bed, err error) {
	b = &bed{o: o, account: newAccount(o.Tags), result: &result{Settings: o}}
	b.account.pushed = o.Driver == "opcua" && o.Mode == "subscribe"
	if b.dir, err = os.MkdirTemp("", "millrace-bench-"); err != nil {
		return b, err
	}
	if b.broker, err = startBroker(b.dir); err != nil {
		return b, err
	}
	if b.sim, err = startSim(o, b.dir); err != nil {
		return b, err
	}
	if b.sub, err = subscribe(b.broker.address, "bench-subscriber"); err != nil {
		return b, err
	}
	go func() { _ = b.sub.run(b.account.take) }()
	uplink := b.broker.address
	if o.Outage > 0 {
		if b.relay, err = startRelay(uplink); err != nil {
			return b, err
		}
		uplink = b.relay.address()
	}
	b.target, err = newTarget(b.dir, o, b.sim.addresses, uplink)
	return b, err
}

func (b *bed) clear() {
	if b.target != nil && b.target.cmd != nil {
		b.target.kill()
	}
	if b.sub != nil {
		b.sub.close()
	}
	if b.sim != nil {
		b.sim.stop()
	}
	if b.broker != nil {
		b.broker.stop()
	}
	_ = os.RemoveAll(b.dir)
}

// first waits for the first message: the start-up time.
func (b *bed) first(ctx context.Context) error {
	for b.account.count().messages == 0 {
		if err := b.target.alive(); err != nil {
			return err
		}
		if time.Since(b.target.started) > 60*time.Second {
			return fmt.Errorf("no message within 60 s of the start")
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	b.result.FirstMessage = time.Since(b.target.started).Seconds()
	b.result.StartPeakRSS = b.target.usage().PeakRSS
	return pause(ctx, b.o.Warm)
}

// measure runs the measured part and fills the result's figures.
func (b *bed) measure(ctx context.Context) error {
	b.account.resetLatency()
	before, from, start := b.target.usage(), b.account.count(), time.Now()
	plan := []func(context.Context) error{b.watch(b.o.For)}
	switch {
	case b.o.Kills > 0:
		plan = []func(context.Context) error{b.kills}
	case b.o.Outage > 0:
		plan = []func(context.Context) error{b.watch(b.o.For / 2), b.cut(true), b.watch(b.o.Outage), b.cut(false), b.drained, b.watch(b.o.For / 2)}
	}
	for _, step := range plan {
		if err := step(ctx); err != nil {
			return err
		}
	}
	after, to, took := b.target.usage(), b.account.count(), time.Since(start).Seconds()
	r := b.result
	r.Seconds = took
	r.Delivered = to.readings - from.readings
	r.Rate = float64(r.Delivered) / took
	if b.o.Kills == 0 { // what a killed process has used, nobody can ask any more
		r.CPU = after.CPU - before.CPU
		r.CPUPerMillion = r.CPU / float64(r.Delivered) * 1e6
		r.CPUShare = r.CPU / took
		r.Written = after.Written - before.Written
		r.Wakeups = float64(after.Switches-before.Switches) / took
	}
	r.RSS, r.PeakRSS = after.RSS, after.PeakRSS
	r.P50, r.P99, r.Max = b.account.percentiles()
	r.Jitter = b.account.jitter(b.o.Interval)
	return nil
}

// watch records a point of the plot each second.
func (b *bed) watch(length time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		for end := time.Now().Add(length); time.Now().Before(end); {
			if err := pause(ctx, min(time.Second, time.Until(end))); err != nil {
				return err
			}
			b.sample()
			if err := b.target.alive(); err != nil {
				return err
			}
		}
		return nil
	}
}

func (b *bed) sample() {
	u := b.target.usage()
	b.result.Points = append(b.result.Points, point{
		At: time.Since(b.target.started).Seconds(), Delivered: b.account.count().readings, RSS: u.RSS, Disk: dirSize(b.dir + "/data"), P99: b.account.recentP99()})
	b.result.PeakDisk = max(b.result.PeakDisk, b.result.Points[len(b.result.Points)-1].Disk)
}

func (b *bed) cut(down bool) func(context.Context) error {
	return func(context.Context) error {
		b.relay.set(down)
		b.result.Marks = append(b.result.Marks, time.Since(b.target.started).Seconds())
		return nil
	}
}

// drained waits until everything the simulators served has arrived but for the last scans. It times the back-off
// until the first message and, from there, the drain.
func (b *bed) drained(ctx context.Context) error {
	mended, before := time.Now(), b.account.count().readings
	start := mended
	for {
		served, err := b.sim.report()
		if err != nil {
			return err
		}
		if b.account.count().readings == before {
			start = time.Now() // not connected yet: the back-off runs
		} else if b.account.behind(served.Scans) <= 3*uint64(b.o.Devices) {
			break
		}
		if time.Since(start) > 10*time.Minute {
			return fmt.Errorf("not drained after 10 minutes")
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
		if len(b.result.Points) == 0 || time.Since(b.target.started).Seconds()-b.result.Points[len(b.result.Points)-1].At > 0.5 {
			b.sample()
		}
	}
	b.result.Reconnect = start.Sub(mended).Seconds()
	b.result.Drain = time.Since(start).Seconds()
	b.result.DrainRate = float64(b.account.count().readings-before) / b.result.Drain
	return nil
}

// kills kills the gateway at moments that shift against its ticks, and starts it again.
func (b *bed) kills(ctx context.Context) error {
	for i := range b.o.Kills {
		if err := b.watch(b.o.For + time.Duration(i*37)*time.Millisecond)(ctx); err != nil {
			return err
		}
		b.target.kill()
		if err := b.target.start(); err != nil {
			return err
		}
	}
	return b.watch(b.o.For)(ctx)
}

// reloads has the config loaded again and looks at the memory of the gateway when old connections have ended and it has
// come to rest. At every other one each device has another timeout, so that all connections are made anew.
func (b *bed) reloads(ctx context.Context) error {
	for i := range b.o.Reloads {
		if i%2 == 1 {
			b.target.timeout++
		}
		if err := b.target.reload(ctx); err != nil {
			return err
		}
		if err := b.watch(3 * time.Second)(ctx); err != nil {
			return err
		}
		b.result.ReloadRSS = append(b.result.ReloadRSS, b.target.usage().RSS)
	}
	b.result.PeakRSS = b.target.usage().PeakRSS
	return nil
}

// finish stops the gateway cleanly, so that everything accepted is delivered, and balances the account.
func (b *bed) finish() error {
	if err := b.target.stop(); err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond) // what the broker still hands to the subscriber
	served, err := b.sim.report()
	if err != nil {
		return err
	}
	b.result.balance(b.account, served, b.o)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
