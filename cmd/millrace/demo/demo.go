// Package demo is `millrace demo`: the whole line in one process on loopback. It owns a simulated plant, a
// broker, an uplink that can be cut, and a subscriber in the cloud's place; between plant and uplink runs
// the real gateway, started as `millrace run` starts it. At the end three accounts that know nothing of each
// other are compared: what the simulators served, the gateway's ledger, and what the subscriber received.
//
// Only cmd/millrace calls it. Nothing that `run` executes imports it, so neither the broker nor the
// simulators are reachable in a gateway at work.
package demo

import (
	"context"
	_ "embed" // the plant's config
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/gateway"
	"millrace/gateway/config"
	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/web"
)

//go:embed plant.yaml
var plantYAML []byte

// Options say what a demo does and where it shows it.
type Options struct {
	For    time.Duration // how long; 0 = until ctx ends or a key is pressed
	Outage time.Duration // how long the uplink is cut in the middle; 0 = not
	JSON   bool          // print only the result, as one JSON object

	Out       io.Writer // a terminal is redrawn in place
	In        *os.File  // where keys come from
	Log       *slog.Logger
	Protocols []drivers.Protocol
	Version   string

	lose func(n int) bool // tests: the cloud does not get message number n
}

// Check returns what is wrong with the options, nil for nothing.
func (o *Options) Check() error {
	switch {
	case o.For < 0 || o.Outage < 0:
		return errors.New("a time may not be negative; write it as 20s or 2m")
	case o.Outage > 0 && o.For > 0 && o.Outage >= o.For:
		return fmt.Errorf("an outage of %v does not fit into a demo of %v; make --for longer", o.Outage, o.For)
	}
	return nil
}

// demo is one run.
type demo struct {
	options Options
	log     *slog.Logger
	started time.Time
	dir     string // removed at the end
	plant   *plant
	broker  *brokersim.Broker
	uplink  *uplink
	cloud   *cloud
	gateway *gateway.Gateway
	cfg     *config.Config
	shown   []config.Device   // of cfg, which the gateway takes over
	served  map[string]uint64 // what the plant served until it fell silent, by device
	page    string            // where the operator's page is served
	client  *web.Client       // of the page: it outlives the gateway, whose socket goes with it
	final   *web.Snapshot     // of the gateway that has ended
	peak    uint64            // the most readings seen in the buffer
	display display
}

// Run runs a demo and returns its result, which it has also printed. The error wraps ErrLost when the
// result is bad; any other error means that the demo could not run.
func Run(ctx context.Context, o Options) (*Result, error) {
	d := &demo{options: o, log: o.Log, started: time.Now()}
	d.openDisplay()
	defer d.display.close()
	defer d.release()
	if err := d.prepare(ctx); err != nil {
		return nil, err
	}
	if err := d.run(ctx); err != nil {
		return nil, err
	}
	result := d.settle()
	d.display.close()
	if err := d.print(result); err != nil {
		return result, fmt.Errorf("print the result: %w", err)
	}
	return result, result.Err()
}

// prepare builds everything and starts the simulators; the gateway does not run yet.
func (d *demo) prepare(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "millrace-demo-"); err != nil {
		return fmt.Errorf("make a directory for the demo's data: %w", err)
	}
	if d.plant, err = startPlant(); err != nil {
		return err
	}
	d.broker = brokersim.New(brokersim.Options{})
	if err := d.broker.Start(); err != nil {
		return fmt.Errorf("start the demo's broker: %w", err)
	}
	if d.uplink, err = newUplink(d.broker.Addr()); err != nil {
		return err
	}
	if d.cloud, err = subscribe(d.broker.Addr(), d.options.lose, d.log); err != nil {
		return err
	}
	if err := d.load(); err != nil {
		return err
	}
	if err := d.plant.expect(d.cfg); err != nil {
		return err
	}
	d.gateway, err = gateway.New(ctx, d.cfg, gateway.Options{Version: d.options.Version, Log: d.log})
	return err
}

// load writes the plant's config to a file and loads it as `millrace run` loads one.
func (d *demo) load() (err error) {
	file := filepath.Join(d.dir, "millrace.yaml")
	if err := os.WriteFile(file, plantYAML, 0o600); err != nil {
		return fmt.Errorf("write the demo's config: %w", err)
	}
	env := map[string]string{
		"DEMO_DATA": filepath.Join(d.dir, "data"), "DEMO_UPLINK": d.uplink.addr(), "DEMO_METER": d.plant.meter.Addr(),
		"DEMO_PRESS": d.plant.press.Addr(), "DEMO_TANK": d.plant.tank.Addr(), "DEMO_CNC": d.plant.cnc.Addr(),
	}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	d.cfg, err = config.Load(file, d.options.Protocols, config.Options{LookupEnv: lookup})
	if err == nil {
		d.shown = slices.Clone(d.cfg.Devices)
	}
	return err
}

// release stops what prepare started, in the reverse order, and removes the data.
func (d *demo) release() {
	if d.client != nil {
		_ = d.client.Close()
	}
	if d.cloud != nil {
		d.cloud.close()
	}
	if d.uplink != nil {
		d.uplink.close()
	}
	if d.broker != nil {
		d.broker.Stop()
	}
	if d.plant != nil {
		d.plant.hangUp()
	}
	if err := os.RemoveAll(d.dir); err != nil {
		d.log.Warn("the demo's data stays", "directory", d.dir, "cause", err)
	}
}

// run lets everything run until the demo is over, then drains the gateway and waits for the last message.
func (d *demo) run(ctx context.Context) error {
	works, stopWorks := context.WithCancel(context.WithoutCancel(ctx))
	plantEnds, stopGateway := context.WithCancel(works)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopWorks()
	defer stopGateway()
	wg.Go(func() { d.plant.run(works) })
	wg.Go(func() { d.uplink.run(works) })
	if err := d.servePage(works, &wg); err != nil {
		return err
	}
	ended := make(chan error, 1)
	wg.Go(func() { ended <- d.gateway.Run(plantEnds, works) })

	if err := d.watch(ctx, ended); err != nil {
		return err
	}
	drained := make(chan error, 1)
	wg.Go(func() { drained <- d.finish(stopGateway, ended) })
	return d.attend(drained)
}

func (d *demo) servePage(ctx context.Context, wg *sync.WaitGroup) error {
	l, err := web.Listen(ctx, "127.0.0.1:0", web.Bounds{}, d.log)
	if err != nil {
		return err
	}
	d.page = "http://" + l.Addr().String() + "/"
	wg.Go(func() {
		if err := web.Run(ctx, l, web.Handler(d.gateway, l.Most()), d.log); err != nil {
			d.log.Warn("the operator's page ended", "cause", err)
		}
	})
	d.client, err = web.DialPage(ctx, l.Addr().String())
	return err
}

// ask returns the state of the gateway, as every command asks for it. The client has time limits of its own.
func (d *demo) ask() (*web.Snapshot, error) { return d.client.Snapshot(context.Background()) }

// untilState asks for the state until it is as it should be, at most for so long, and returns whether it was.
func (d *demo) untilState(most time.Duration, is func(*web.Snapshot) bool) (was bool) {
	until(most, func() bool {
		s, err := d.ask()
		was = err == nil && is(s)
		return was
	})
	return was
}

const (
	patience = 10 * time.Second // how long the end waits for what should take milliseconds, on a busy machine
	mending  = 30 * time.Second // and for the gateway to find its way back: its pauses between attempts grow to 15 s
	caughtUp = 50               // readings waiting, of those that flow: less than a second's worth
)

// finish ends the day in the order of a reading, so that the accounts can be compared exactly: the backlog
// drains, the plant falls silent, what it served is polled and delivered, the gateway stops, the last message
// arrives.
func (d *demo) finish(stopGateway func(), ended <-chan error) error {
	d.uplink.set(false)
	d.untilState(mending, func(s *web.Snapshot) bool { return waiting(s) <= caughtUp })
	d.plant.quiet()
	d.untilState(patience, func(s *web.Snapshot) bool { return polled(s) >= d.plant.total() })
	d.untilState(patience, func(s *web.Snapshot) bool { return waiting(s) == 0 })
	d.served = d.plant.account()
	stopGateway()
	d.plant.hangUp()
	if err := <-ended; err != nil {
		return fmt.Errorf("run the gateway: %w", err)
	}
	now := time.Now().Round(0) // what the page has may be a fifth of a second old
	if !d.untilState(patience, func(s *web.Snapshot) bool { d.final = s; return !s.Now.Before(now) }) {
		return fmt.Errorf("the page at %s does not say how the gateway ended", d.page)
	}
	want := delivered(d.final)
	until(patience, func() bool { t := d.cloud.account.totals(); return t.good+t.bad >= want || d.cloud.still() })
	return nil
}

// until waits for a condition, at most for so long.
func until(most time.Duration, condition func() bool) {
	for end := time.Now().Add(most); !condition() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

func polled(s *web.Snapshot) (n uint64) {
	for i := range s.Devices {
		n += s.Devices[i].Polled
	}
	return n
}

// waiting is the readings that the gateway still has for the cloud.
func waiting(s *web.Snapshot) (n uint64) {
	for i := range s.Destinations {
		n += s.Destinations[i].BacklogReadings
	}
	return n
}

func delivered(s *web.Snapshot) (n uint64) {
	for i := range s.Devices {
		for j := range s.Devices[i].Accounts {
			n += s.Devices[i].Accounts[j].Delivered
		}
	}
	return n
}

func (d *demo) settle() *Result {
	r := settle(d.served, d.final, d.cloud.account)
	r.PeakBacklog = d.peak
	r.Outages, r.OutageSeconds = d.uplink.cuts, d.uplink.outage().Seconds()
	if first := d.cloud.account.first; !first.IsZero() {
		r.FirstReading = first.Sub(d.started).Seconds()
	}
	return r
}

func (d *demo) print(r *Result) error {
	if d.options.JSON {
		return r.WriteJSON(d.options.Out)
	}
	return r.WriteText(d.options.Out, colourful(d.options.Out))
}
