// Package gateway assembles the rooms: it opens the store, builds the drivers, starts every goroutine
// and stops them in the order of a reading. cmd/millrace calls New and Run; nothing else does.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"millrace/buffer"
	"millrace/gateway/config"
	"millrace/gateway/pipeline"
	"millrace/gateway/poller"
	"millrace/gateway/publisher"
	"millrace/gateway/web"
)

// Gateway is one running instance. Run may be called once.
type Gateway struct {
	cfg     *config.Config
	log     *slog.Logger
	version string
	started time.Time

	buf      *buffer.Buffer
	lines    []*line
	uplinks  []*publisher.Publisher
	listener net.Listener // nil = no pages
}

// line is one connection to the plant.
type line struct {
	conn   config.Connection
	poller *poller.Poller
}

// New opens the store and builds everything that cfg describes. It touches neither the plant nor a
// broker, and starts nothing. Every error says what to do; the store is closed again then.
func New(ctx context.Context, cfg *config.Config, version string, log *slog.Logger) (*Gateway, error) {
	g := &Gateway{cfg: cfg, log: log, version: version, started: time.Now()}
	if err := g.open(ctx); err != nil {
		g.release()
		return nil, err
	}
	return g, nil
}

func (g *Gateway) open(ctx context.Context) (err error) {
	if g.buf, err = buffer.Open(g.cfg.Buffer.Path, bufferOptions(g.cfg, g.log)); err != nil {
		return fmt.Errorf("open buffer: %w", err)
	}
	for i := range g.cfg.Destinations {
		d := &g.cfg.Destinations[i]
		p, err := newUplink(g.cfg, d, g.buf, g.log)
		if err != nil {
			return fmt.Errorf("prepare destination %q: %w", d.Name, err)
		}
		g.uplinks = append(g.uplinks, p)
	}
	for _, c := range g.cfg.Connections() {
		l, err := newLine(c, g.buf, g.log)
		if err != nil {
			return err
		}
		g.lines = append(g.lines, l)
	}
	if g.cfg.Web.Enabled {
		if g.listener, err = web.Listen(ctx, g.cfg.Web.Listen); err != nil {
			return err
		}
	}
	return nil
}

func (g *Gateway) release() {
	if g.listener != nil {
		_ = g.listener.Close()
	}
	if g.buf != nil {
		_ = g.buf.Close()
	}
}

func newLine(c config.Connection, b *buffer.Buffer, log *slog.Logger) (*line, error) {
	d, err := c.Protocol.New(c.Connection)
	if err != nil {
		return nil, fmt.Errorf("prepare device %q: %w", c.Devices[0].Name, err)
	}
	sinks := make([][]poller.Sink, len(c.Devices))
	for i, dev := range c.Devices {
		for j := range dev.Groups {
			s, err := newSink(dev, &dev.Groups[j], b)
			if err != nil {
				return nil, fmt.Errorf("prepare device %q group %q: %w", dev.Name, dev.Groups[j].Name, err)
			}
			sinks[i] = append(sinks[i], pipeline.New(dev.Groups[j].Tags, reports(dev.Groups[j].Report), s).Take)
		}
	}
	log = log.With("url", PublicURL(c.Connection.URL))
	return &line{conn: c, poller: poller.New(&c.Connection, d, sinks, log)}, nil
}

func reports(rs []config.TagReport) []pipeline.Report {
	if rs == nil {
		return nil
	}
	out := make([]pipeline.Report, len(rs))
	for i, r := range rs {
		out[i] = pipeline.Report{OnChange: r.OnChange, Deadband: r.Deadband, Percent: r.DeadbandPercent, Silence: r.Heartbeat}
	}
	return out
}

// Run runs the gateway until ctx ends and then drains: pollers end, publishers go on for the grace time,
// the buffer commits and closes. It returns nil after a clean stop, else the first error that stopped it.
// When hurry ends too, the grace time is cut short.
func (g *Gateway) Run(ctx, hurry context.Context) error {
	store, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStore()
	plant, stopPlant := context.WithCancelCause(ctx)
	defer stopPlant(nil)
	uplink, stopUplink := context.WithCancel(store)
	defer stopUplink()

	var keeping, publishing, polling crew
	keeping.start(stopPlant, func() error { return g.buf.Run(store) })
	for _, p := range g.uplinks {
		publishing.start(stopPlant, func() error { return p.Run(uplink) })
	}
	if g.listener != nil {
		publishing.start(stopPlant, func() error { return web.Run(uplink, g.listener, web.Handler(g.Snapshot)) })
	}
	publishing.start(stopPlant, func() error { return g.serveControl(uplink) })
	for _, l := range g.lines {
		polling.start(stopPlant, func() error { return l.poller.Run(plant) })
	}
	g.log.Info("gateway runs", "gateway", g.cfg.Gateway, "version", g.version, "devices", len(g.cfg.Devices),
		"destinations", len(g.uplinks), "epoch", g.buf.Epoch())

	<-plant.Done()
	polling.wait()
	g.drain(hurry)
	stopUplink()
	publishing.wait()
	stopStore()
	keeping.wait()
	err := g.buf.Close()
	if cause := context.Cause(plant); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	g.log.Info("gateway stopped")
	return err
}

// drain waits until every destination that is connected has acknowledged what is live, the grace time is over,
// or hurry ends. What stays behind is in the store.
func (g *Gateway) drain(hurry context.Context) {
	ctx, cancel := context.WithTimeout(hurry, g.cfg.GraceTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range g.uplinks {
		wg.Go(func() {
			if err := p.Drain(ctx); err != nil {
				g.log.Info("not everything was delivered before the stop", "cause", err)
			}
		})
	}
	wg.Wait()
}

// crew is a set of goroutines that end together.
type crew struct{ wg sync.WaitGroup }

// start runs f; when f fails, stop is told why and the whole gateway stops.
func (c *crew) start(stop context.CancelCauseFunc, f func() error) {
	c.wg.Go(func() {
		if err := f(); err != nil && !errors.Is(err, context.Canceled) {
			stop(err)
		}
	})
}

func (c *crew) wait() { c.wg.Wait() }
