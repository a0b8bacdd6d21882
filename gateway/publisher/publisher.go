// Package publisher takes the records of one destination out of the buffer, publishes each as one MQTT
// message with QoS 1, and acknowledges it in the buffer when the broker has. It owns sessions, the window
// of messages in flight, the lanes, the throttle and every retry; the client library only speaks MQTT.
//
// It promises that a record is acknowledged in the buffer only after its PUBACK, that the live records and
// the historical records each go out in order, that a message sent again is byte-identical, and that one
// message which the broker refuses does not hold up the others. README.md says how. The gateway runs one
// Publisher for each destination.
package publisher

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"millrace/buffer"
	"millrace/gateway/format/jsonmsg"
)

// Order says what is published first after an outage.
type Order uint8

// The orders.
const (
	LiveFirst   Order = iota // fresh records at once, the backlog beside them
	OldestFirst              // everything in order
)

// Options configure a Publisher. The zero value of each field but the first five means its default.
type Options struct {
	Destination string          // name of the buffer's destination
	URL         string          // mqtt://host:1883, mqtts://host:8883, ws://host/path, wss://host/path
	ClientID    string          // must be unique at the broker
	Format      *jsonmsg.Format // turns records into messages
	Log         *slog.Logger

	Username, Password string
	TLS                TLS // for mqtts and wss

	Window      int // messages in flight; default 100, what AWS IoT Core allows; at most 4096
	WindowBytes int // payload bytes in flight, at least one message; default 1 MiB
	MaxMessage  int // bytes; a larger payload is rejected unsent. 0 = no limit known

	Order           Order
	BacklogMessages float64 // messages a second above which the backlog waits; 0 = no limit
	BacklogBytes    float64 // payload bytes a second, likewise

	KeepAlive      time.Duration // default 15 s, at least 1 s
	ConnectTimeout time.Duration // for each step of connecting; default 5 s
	AckTimeout     time.Duration // without any PUBACK the session is given up; default 10 s
	RetryMin       time.Duration // wait after the first failure; default 200 ms
	RetryMax       time.Duration // longest wait; default 8 s
}

func (o Options) withDefaults() Options {
	setDefault(&o.Window, 100)
	setDefault(&o.WindowBytes, 1<<20)
	setDefault(&o.KeepAlive, 15*time.Second)
	setDefault(&o.ConnectTimeout, 5*time.Second)
	setDefault(&o.AckTimeout, 10*time.Second)
	setDefault(&o.RetryMin, 200*time.Millisecond)
	setDefault(&o.RetryMax, 8*time.Second)
	o.Window = min(max(o.Window, 1), 4096)
	o.WindowBytes = max(o.WindowBytes, 1)
	o.KeepAlive = max(o.KeepAlive, time.Second)
	o.RetryMax = max(o.RetryMax, o.RetryMin)
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Publisher serves one destination. Run may be called once.
type Publisher struct {
	o      Options
	buf    *buffer.Buffer
	dest   *buffer.Destination
	target target
	log    *slog.Logger
	dial   func(context.Context) (net.Conn, error) // seam for tests

	// What follows belongs to Run and to the one session that lives.
	encoder  encoder
	retry    backoff
	poison   suspicion
	suspects suspects
	toldFull time.Time // when it was last said that too much is held back
	throttle throttle
	owed     []span              // live records of sessions that were lost, in order
	started  bool                // a session of this process has been live
	firm     uint64              // records below are on disk: to look at them does not make them live
	lost     map[uint64]struct{} // in flight when a session ended
	short    int                 // sessions in a row that the broker ended soon

	mu      sync.Mutex // guards what follows
	state   status
	current *session
	n       counters
}

// New checks the options and returns a Publisher for a destination of the buffer. It does not connect.
func New(buf *buffer.Buffer, o Options) (*Publisher, error) {
	o = o.withDefaults()
	dest := buf.Destination(o.Destination)
	if dest == nil {
		return nil, fmt.Errorf("open publisher: the buffer has no destination %q", o.Destination)
	}
	t, err := parseTarget(o.URL)
	if err != nil {
		return nil, fmt.Errorf("open publisher of destination %q: %w", o.Destination, err)
	}
	if o.ClientID == "" || o.Format == nil {
		return nil, fmt.Errorf("open publisher of destination %q: client id or format is missing", o.Destination)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Publisher{o: o, buf: buf, dest: dest, target: t, firm: buf.NextSeq(), log: o.Log.With("destination", o.Destination)}
	p.dial = func(ctx context.Context) (net.Conn, error) { return dial(ctx, t, o.TLS) }
	p.encoder = encoder{format: o.Format, maxMessage: o.MaxMessage, streams: map[*buffer.Stream]*jsonmsg.Stream{}}
	p.retry = backoff{min: o.RetryMin, max: o.RetryMax}
	p.poison = suspicion{window: o.Window, quiet: quietTime}
	p.throttle = newThrottle(o.BacklogMessages, o.BacklogBytes)
	p.lost = map[uint64]struct{}{}
	p.state = status{state: Stopped, since: time.Now()}
	return p, nil
}

// Run connects and publishes, again and again, until ctx ends. It then waits up to a second for what is in
// flight, says good-bye to the broker and returns nil. Call Drain before to take along what is in the buffer.
func (p *Publisher) Run(ctx context.Context) error {
	p.recall(ctx)
	for ctx.Err() == nil {
		p.setState(Connecting)
		e := p.serve(ctx)
		if ctx.Err() != nil {
			break
		}
		p.judge(&e)
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
	err        error
	refused    bool // the broker answered the login with no
	byPeer     bool // the broker, or something on the way, closed the connection
	connected  bool
	lived      time.Duration
	acked      int            // messages acknowledged
	inFlight   int            // messages not acknowledged
	front      uint64         // the oldest of them, if there is one
	frontOf    *buffer.Stream // its stream
	frontFor   time.Duration  // how long it had been in flight
	frontSize  int            // its payload, in bytes
	trial      bool           // it is of a stream held back, and was sent alone
	suspicious bool           // it may be what the broker does not take
	held       bool           // the session's end was put down to a stream, which is held back from now on
	note       string         // what else there is to say
}

// serve makes one connection and uses it until it ends.
func (p *Publisher) serve(ctx context.Context) ending {
	client, c, err := p.connect(ctx)
	if err != nil {
		return ending{err: err, refused: isRefusal(err)}
	}
	s := p.newSession(client, c)
	p.setCurrent(s)
	p.setState(Connected)
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	select {
	case err = <-done:
	case <-c.lost: // run may still sit in Publish, up to its time-out: not waited for
		err = c.err
	}
	if err == nil {
		client.Disconnect(uint(closeTimeout.Milliseconds()))
	}
	e, left, any := s.end(err)
	c.fail(errClosed)
	go client.Disconnect(0) // returns at once, but may wait for a lock of its own
	p.setCurrent(nil)
	if err := p.dest.SetLive(false); err != nil {
		p.log.Warn("mark destination as down", "err", err)
	}
	p.dest.Reset()
	if any {
		p.owe(left, p.buf.NextSeq())
	}
	return e
}

// Drain waits until the records that are live now have been acknowledged, or ctx ends. With OldestFirst it
// waits for the whole buffer. It returns an error that says what stays behind; at once if the link is down.
func (p *Publisher) Drain(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		s := p.Stats()
		switch {
		case s.State == Connected && s.LiveLag == 0 && s.LiveInFlight == 0:
			return nil
		case s.State != Connected && s.State != Connecting:
			return fmt.Errorf("drain destination %q: the link is down; %d records stay in the buffer", p.o.Destination, s.Unacked)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("drain destination %q: %w; %d records stay in the buffer", p.o.Destination, ctx.Err(), s.Unacked)
		}
	}
}
