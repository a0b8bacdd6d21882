// Package publisher takes the records of one destination out of the buffer, has them encoded, sends them over a link, and
// acknowledges them in the buffer when the receiver has. It owns sessions, the window of units in flight, the lanes, the
// throttle, the circuit breakers and every retry; it knows no protocol and no format.
//
// It promises that a record is acknowledged in the buffer only after the receiver's answer, that live records and the
// backlog each go out in order, that a record sent again has the same epoch, number, readings and times, that a stream
// which the receiver refuses holds up no other, and that nothing is given up unless another message was acknowledged
// meanwhile. README.md says how. The gateway runs one Publisher for each destination.
package publisher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"millrace/buffer"
	"millrace/gateway/format"
	"millrace/gateway/link"
	"millrace/gateway/record"
)

// Order says what is published first after an outage.
type Order string

// The orders, in the words of the config.
const (
	LiveFirst   Order = "live-first"   // fresh records at once, the backlog beside them
	OldestFirst Order = "oldest-first" // everything in order
)

// Options configure a Publisher. All but Log, Schema and OnEvent are needed; the config has the defaults.
type Options struct {
	Destination string      // name of the buffer's destination
	Receiver    string      // where the dialer leads, without credentials, for the log
	Dialer      link.Dialer // makes sessions
	Format      format.Format
	Open        func(waiting []*record.Schema) format.Encoder // opens an encoder for a session
	Log         *slog.Logger
	Schema      func(*buffer.Stream) *record.Schema // of a stream whose schema is in memory already; nil = it is read each time
	OnEvent     func(format.Event)                  // what the receiver asks for, but for rebirths; nil = nobody listens

	Window      int // units in flight, >= 1
	WindowBytes int // payload bytes in flight, at least one message; >= 1
	MaxMessage  int // bytes; a larger payload is rejected unsent. 0 = no limit known

	Order           Order
	BacklogMessages float64 // messages a second above which the backlog waits; 0 = no limit
	BacklogBytes    float64 // payload bytes a second, likewise

	AckTimeout         time.Duration // without any acknowledgement the session is given up
	RetryMin, RetryMax time.Duration // wait after the first failure, and the longest
}

// Publisher serves one destination. Run may be called once.
type Publisher struct {
	o    Options
	buf  *buffer.Buffer
	dest *buffer.Destination
	log  *slog.Logger

	// What follows belongs to Run and to the one session that lives.
	schemas  map[*buffer.Stream]*record.Schema
	lanes    lanes
	breakers breakers
	messages bucket // the throttle of the backlog lane
	bytes    bucket
	retry    backoff
	outage   outage
	short    int    // sessions in a row that the receiver ended soon
	careful  bool   // the receiver closed the last session
	first    uint64 // careful, and of several records this was the first without an answer: the next session begins with it
	passed   int    // records tried before an older one of their stream: see session.idle
	unfiled  []unfiled

	born time.Time
	busy atomic.Int64 // since when a step of the session is at work, by born; 0 = it waits

	mu    sync.Mutex
	shown Stats // guarded by mu; Run's goroutine brings it up to date
}

// New checks the options and returns a Publisher for a destination of the buffer. It does not connect.
func New(buf *buffer.Buffer, o Options) (*Publisher, error) {
	dest := buf.Destination(o.Destination)
	switch {
	case dest == nil:
		return nil, fmt.Errorf("open publisher: the buffer has no destination %q", o.Destination)
	case o.Dialer == nil || o.Format == nil || o.Open == nil:
		return nil, errors.New("BUG: open publisher without a dialer or a format")
	case o.Window < 1 || o.WindowBytes < 1 || o.AckTimeout <= 0 || o.RetryMin <= 0 || o.RetryMax < o.RetryMin:
		return nil, fmt.Errorf("BUG: open publisher of %q with a window of %d, %d bytes, an ack timeout of %v, retries after %v to %v",
			o.Destination, o.Window, o.WindowBytes, o.AckTimeout, o.RetryMin, o.RetryMax)
	}
	log := cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	p := &Publisher{o: o, buf: buf, dest: dest, log: log.With("destination", o.Destination), schemas: map[*buffer.Stream]*record.Schema{}}
	p.born = time.Now()
	p.lanes = lanes{p: p, live: lane{dest: dest}, backlog: lane{dest: dest}}
	p.messages.rate, p.bytes.rate = o.BacklogMessages, o.BacklogBytes
	p.retry = backoff{min: o.RetryMin, max: o.RetryMax}
	p.shown = Stats{State: Stopped, Since: time.Now()}
	return p, nil
}

// Busy returns for how long the present step of the session has been at work, 0 when it waits for something to do. It never
// waits itself, so that a watchdog sees a step that does not end.
func (p *Publisher) Busy() time.Duration {
	since := p.busy.Load()
	if since == 0 {
		return 0
	}
	return time.Since(p.born) - time.Duration(since)
}

// Run connects and publishes, again and again, until ctx ends. It then waits up to a second for what is in
// flight, says farewell to the receiver and returns nil. Call Drain before to take along what is in the buffer.
func (p *Publisher) Run(ctx context.Context) error {
	p.dest.Reset()
	for ctx.Err() == nil {
		p.setState(Connecting)
		e := p.serve(ctx)
		if ctx.Err() != nil || errors.Is(e.err, buffer.ErrClosed) || errors.Is(e.err, buffer.ErrNoDestination) {
			break
		}
		wait := p.retry.next(&e)
		p.failed(&e, wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	p.setState(Stopped)
	return nil
}

// ending is how a session ended, or the attempt at one.
type ending struct {
	err       error
	connected bool
	lived     time.Duration
	acked     int  // units acknowledged
	progress  bool // its end was put down to a stream that was not known to be refused
}

// begins notes for the watchdog that a step of the session begins; busy is 0 again when it has ended.
func (p *Publisher) begins() { p.busy.Store(max(int64(time.Since(p.born)), 1)) }

// serve opens one session and uses it until it ends.
func (p *Publisher) serve(ctx context.Context) ending {
	start := time.Now()
	p.begins()
	defer p.busy.Store(0)
	l, err := p.o.Dialer.Dial(ctx, p.o.Format.Will()) // it has a time limit of its own: one that outlasts the watchdog's hangs
	if err != nil {
		return ending{err: err}
	}
	s := newSession(p, l, time.Since(start))
	p.connected()
	if filters := p.o.Format.Subscriptions(); len(filters) > 0 {
		err = l.Subscribe(filters...)
	}
	if err == nil {
		p.busy.Store(0)
		err = s.run(ctx)
		p.begins()
	}
	e := s.end(err)
	_ = l.Close()
	return e
}

// schema returns the schema of a stream. Gap records belong to the device as a whole.
func (p *Publisher) schema(of *buffer.Stream) (*record.Schema, error) {
	s := p.schemas[of]
	if s != nil {
		return s, nil
	}
	if p.o.Schema != nil {
		s = p.o.Schema(of)
	}
	if dict := of.Dict(); s == nil && len(dict) == 0 {
		s = &record.Schema{Device: of.Account()}
	} else if s == nil {
		var err error
		if s, err = record.ParseSchema(dict); err != nil {
			return nil, fmt.Errorf("read the schema of %q: %w", of.Account(), err)
		}
	}
	if len(p.schemas) >= maxSchemas {
		clear(p.schemas)
	}
	p.schemas[of] = s
	return s, nil
}

// maxSchemas bounds the schemas that are remembered.
const maxSchemas = 1 << 16

// Drain waits until the records that are live now have been acknowledged, or ctx ends. With OldestFirst it
// waits for the whole buffer. It returns an error that says what stays behind; at once if the link is down.
func (p *Publisher) Drain(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s := p.Stats()
		switch up := s.State == Connected || s.State == Unanswered; {
		case up && p.live(&s) == 0:
			return nil
		case !up && s.State != Connecting:
			return fmt.Errorf("drain destination %q: the link is down; unacknowledged records: %d", p.o.Destination, s.Unacknowledged)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("drain destination %q: the time for it is over; unacknowledged records: %d", p.o.Destination, s.Unacknowledged)
		}
	}
}
