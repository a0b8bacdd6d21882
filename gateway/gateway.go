// Package gateway assembles the parts: it opens the store, builds the drivers, starts every goroutine, exchanges
// those that a new config changes, and stops them all in the order of a reading. cmd/millrace calls New, Run and
// Reload; nothing else does. README.md says how a reload goes.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"millrace/buffer"
	"millrace/gateway/command"
	"millrace/gateway/config"
	"millrace/gateway/link"
	"millrace/gateway/poller"
	"millrace/gateway/values"
)

// Options are what a gateway runs with besides its config.
type Options struct {
	Version string
	Log     *slog.Logger

	// Load loads the config again, for Reload; nil = Reload is refused.
	Load func() (*config.Config, error)
	// SetLogLevel puts another log.level into force; nil = it needs a restart.
	SetLogLevel func(level string)

	dialer func(*config.Destination) (link.Dialer, error) // of tests; nil = newDialer
}

// Gateway is one running instance. Run may be called once.
type Gateway struct {
	o           Options
	log         *slog.Logger
	started     time.Time
	buf         *buffer.Buffer
	values      *values.Table
	descriptors *descriptors
	commands    *command.Router
	buffers     poller.Buffers // of all connections
	refusals    poller.Refusals
	schemas     sync.Map // of the streams in use: *buffer.Stream → *record.Schema
	judge       *judge
	losses      *losses
	learned     *learned
	selections  *selections
	watchdog    watchdog
	acts        atomic.Uint64         // what people have had done: see web.Gateway
	free        atomic.Pointer[int64] // bytes of the store's file system, as keepNotes saw last; nil = not known
	noInodes    atomic.Bool           // likewise: it can have no further file
	clock       *clock
	begun       chan struct{} // closed when Run has started everything
	missing     *missing

	acceptedBefore, seqBefore uint64 // readings accepted and the next number when the store was opened

	reloading sync.Mutex // one reload at a time; taken before mu

	mu                  sync.Mutex // guards what follows
	running             running    // what runs, or will when Run begins
	ending              ending     // connections that were told to end and may still be at work
	polling, publishing *tasks     // nil before Run and once it is ending: then nothing is started any more
	reloads             reloads
	remadeSeen          time.Time   // the store's directory, taken away before that: a person knows
	settle              *time.Timer // see giveBack
}

// StoreError is why New could not open the store; cfg is then as it was.
type StoreError struct{ error }

// Unwrap returns what the store says.
func (e StoreError) Unwrap() error { return e.error }

// New opens the store and builds everything that cfg describes. It touches neither the plant nor a
// broker, and starts nothing. It takes cfg over: the groups of its devices are gone afterwards. Every error says what
// to do; the store is closed again then. Errors: StoreError.
func New(ctx context.Context, cfg *config.Config, o Options) (*Gateway, error) {
	if o.dialer == nil {
		o.dialer = newDialer
	}
	g := &Gateway{o: o, log: o.Log, started: time.Now(), values: values.New(), descriptors: newDescriptors(), commands: command.New(o.Log), begun: make(chan struct{}), ending: ending{}, watchdog: watchdog{limits: usualLimits}, clock: newClock()}
	var err error
	if g.buf, err = buffer.Open(cfg.Buffer.Path, bufferOptions(cfg, g.log)); err != nil {
		return nil, StoreError{err}
	}
	g.judge, g.losses = &judge{log: g.log, states: map[string]*standing{}}, newLosses(g.buf, cfg.Buffer.Path, g.log)
	g.missing = newMissing(cfg.Buffer.Path, cfg.Buffer.CommitInterval, g.buf.Left(), g.clock.unset.Load(), g.log)
	g.missing.opened()
	g.learned = newLearned(cfg.Buffer.Path, g.log)
	g.selections = newSelections(cfg.Buffer.Path, g.log)
	for _, file := range []*kept{&g.losses.file, &g.missing.file, &g.learned.file, &g.selections.file} {
		file.holds = g.buf.Holds
	}
	warnAbsent(g.buf, func(string) bool { return true }, g.log)
	g.tellLeft(cfg)
	safe := safeUntil(g.buf.Left(), time.Now(), g.clock.unset.Load())
	g.losses.begin(g.buf.Ledger(), g.buf.Left(), g.clock.unset.Load())
	g.losses.noteLeft(g.buf.Left(), safe)
	if err := g.losses.write(true); err != nil { // before tellLost has it told
		g.log.Debug("not kept yet; trying again", "cause", err) // the store's own state says why
	}
	if room, short := Capacity(cfg.Buffer.Path, cfg.Buffer.MaxSize); short {
		free, _ := FreeBytes(cfg.Buffer.Path)
		given := "the oldest readings are given up"
		if cfg.Buffer.WhenFull == config.DropNewest {
			given = "new readings are refused"
		}
		g.log.Warn("the file system has less room for the store than max_size; in an outage "+given+" when it is full: lower max_size or free space",
			"path", cfg.Buffer.Path, "room", room, "free", free, "max_size", cfg.Buffer.MaxSize) // room: with what its own files take
	}
	ledger := g.buf.Ledger()
	g.acceptedBefore, g.seqBefore = acceptedReadings(ledger), g.buf.NextSeq()
	first, err := g.prepare(ctx, cfg)
	if err != nil {
		_ = g.buf.Close()
		return nil, err
	}
	g.running = *first
	g.tellLost(accountsOf(ledger))
	g.warn(cfg)
	g.reloads = reloads{since: g.started}
	return g, nil
}

// Run runs the gateway until ctx ends and then drains: pollers end, publishers go on for the grace time,
// the buffer commits and closes. It returns nil after a clean stop, else the first error that stopped it.
// When hurry ends too, the grace time is cut short.
func (g *Gateway) Run(ctx, hurry context.Context) error {
	alive, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	beyond := context.WithoutCancel(ctx) // what ends in its turn, not with ctx
	keeping, publishing, polling := newTasks(beyond, stop), newTasks(beyond, stop), newTasks(beyond, stop)
	keeping.start(g.buf.Run)
	publishing.start(g.serveLocal)
	publishing.start(g.watchStates)
	publishing.start(g.keepNotes)
	publishing.start(g.watch)
	publishing.start(g.followRules)
	publishing.start(g.lookBeside)
	g.missing.runs(g.running.connections)
	cfg, hash := g.begin(polling, publishing)
	g.giveBack()
	g.log.Info("gateway runs", "gateway", cfg.Gateway, "version", g.o.Version, "devices", len(cfg.Devices),
		"destinations", len(cfg.Destinations), "epoch", g.buf.Epoch(), "config", hash)

	<-alive.Done()
	grace := g.watchdog.runs.Load().cfg.GraceTime
	err := g.bounded(hurry, grace, func() error {
		last := g.finish()
		for _, c := range last.connections {
			c.poller.Stop()
		}
		polling.await(hurry, lastPoll)
		polling.end()
		if err := g.missing.save(last.connections); err != nil {
			g.log.Warn("it cannot be kept since when devices are not heard; a gap will be told, and their history asked for, since the store was safe last", "cause", err)
		}
		g.drain(hurry, &last)
		publishing.end()
		_ = g.keepLearned(true) // said in the log
		keeping.end()
		return errors.Join(g.losses.write(true), g.buf.Close())
	})
	if cause := context.Cause(alive); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	g.log.Info("gateway stopped")
	return err
}

// lastPoll is how long a poll in flight may take at a stop: what a device has answered is not thrown away.
const lastPoll = time.Second

// begin starts what the first config wants and returns that config and the hash of it.
func (g *Gateway) begin(polling, publishing *tasks) (*config.Config, string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.polling, g.publishing = polling, publishing
	if short := g.descriptors.tooFewFor(g.running.cfg); short != "" {
		g.log.Warn(short)
	}
	g.startNew(&running{})
	g.show()
	close(g.begun)
	return g.running.cfg, g.running.hash
}

// finish ends reloading and returns what runs.
func (g *Gateway) finish() running {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.polling, g.publishing = nil, nil
	if g.settle != nil {
		g.settle.Stop()
	}
	return g.running
}

func bufferOptions(cfg *config.Config, log *slog.Logger) buffer.Options {
	o := buffer.Options{
		MaxSize: cfg.Buffer.MaxSize, MaxAge: cfg.Buffer.MaxAge, CommitInterval: cfg.Buffer.CommitInterval, TailBytes: cfg.Buffer.Memory,
		Starts: map[string]buffer.StartAt{}, Traces: []string{lossesFile, missingFile, learnedFile, selectedFile}, Log: log,
	}
	if cfg.Buffer.WhenFull == config.DropNewest {
		o.WhenFull = buffer.DropNewest
	}
	for i := range cfg.Destinations {
		d := &cfg.Destinations[i]
		o.Destinations = append(o.Destinations, d.Name)
		o.Starts[d.Name] = startOf(d)
	}
	return o
}

// drain waits until every destination that is connected has acknowledged what is live, the grace time is over,
// or hurry ends. What stays behind is in the store.
func (g *Gateway) drain(hurry context.Context, last *running) {
	ctx, cancel := context.WithTimeout(hurry, last.cfg.GraceTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, d := range last.destinations {
		wg.Go(func() {
			if err := d.Drain(ctx); err != nil {
				g.log.Info("not everything was delivered before the stop", "cause", err)
			}
		})
	}
	wg.Wait()
}

// config returns the config in force.
func (g *Gateway) config() *config.Config {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running.cfg
}
