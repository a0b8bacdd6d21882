package modbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"millrace/drivers"
	"millrace/drivers/peer"
)

// dialTime is the most that a dial may take.
const dialTime = 5 * time.Second

// link is the line: at most one connection at a time, and the manners that its peer wants.
type link struct {
	endpoint
	tls      *peer.TLS       // of a tcp+tls connection
	secured  *peer.Handshake // of the connection, nil = none
	pace     pace
	wire     *wire  // nil = closed
	number   uint16 // of the last transaction of the connection before: a gateway may answer it on this one
	opened   time.Time
	last     time.Time     // when something was last sent or received
	took     time.Duration // from the last request to its answer
	heard    time.Time     // when something last answered, or the connection was made
	answered bool          // on this connection
	owing    *unit         // that has not answered a request on this connection, nil = none
	watch    watch
	trace    atomic.Pointer[func(*drivers.Exchange)] // nil = nobody looks

	mute        int  // telling requests in a row that nothing answered, over whatever connection
	calls       int  // of the device, that were taken
	several     bool // unit ids: a gateway
	connections int  // to be open at once
	closeAfter  bool // close the connection after each poll
	away        bool // it was, and may be made again without Connect

	dialer    dialer
	spares    spares
	strays    strays
	listeners *listeners // that the lines of a process share
	slot      struct {
		slot
		address  string    // of the listener
		listener *listener // nil = closed
	}
}

// open dials anew. It ends with ctx, and after 5 s.
func (l *link) open(ctx context.Context) error {
	l.close()
	short, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	w, err := l.dialPath(short)
	if end := ended(ctx); err != nil && end != nil {
		return end
	}
	if err != nil {
		return err
	}
	l.watch.set(w)
	w.strays = &l.strays
	l.wire, l.opened, l.answered, l.away = w, time.Now(), false, false
	l.owing, l.wire.number = nil, l.number
	l.heard = l.opened
	return nil
}

// ended is why a context ended, or has to: a dial that uses its deadline may be a little before it.
func ended(ctx context.Context) error {
	if at, ok := ctx.Deadline(); ok && !time.Now().Before(at) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

func (l *link) dial(ctx context.Context) (*wire, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if l.network == netListen {
		return l.pick()
	}
	w := &wire{framing: l.framing, packets: l.network == netUDP}
	if l.network == netSerial {
		p, err := openSerial(l.address, l.serial)
		if err != nil {
			return nil, err
		}
		w.port, w.drain = p, p.drain
		return w, nil
	}
	name := "tcp"
	if l.network == netUDP {
		name = "udp"
	}
	c, drain, err := l.dialer(ctx, name, l.address)
	if err != nil {
		return nil, err
	}
	if l.network != netTLS {
		w.port, w.drain, w.prompt = c, drain, promptOf(c, w.packets)
		return w, nil
	}
	w.port, err = l.secure(ctx, c)
	return w, err
}

// dialer makes a connection, and what throws away the bytes that lie unread in it. It is a seam: tests without a network have their own.
type dialer func(ctx context.Context, network, address string) (net.Conn, drain, error)

func dialSocket(ctx context.Context, network, address string) (net.Conn, drain, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, nil, err
	}
	return c, drainOf(c, network == "udp"), nil
}

// secure makes the TLS session on a connection.
func (l *link) secure(ctx context.Context, c net.Conn) (port, error) {
	host, _, err := net.SplitHostPort(l.address)
	if err == nil {
		l.secured, err = l.tls.Begin(host)
	}
	if err == nil {
		t := tls.Client(c, l.secured.Config)
		if err = l.secured.Failed(t.HandshakeContext(ctx)); err == nil {
			return t, nil
		}
	}
	c.Close()
	return nil, fmt.Errorf("secure connection to %q: %w", l.address, err)
}

// reopen replaces a connection that is of no more use: whatever still comes on the old one finds nobody.
func (l *link) reopen(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, max(timeout, time.Second)) // the first repetition of a lost packet comes after one second
	defer cancel()
	return l.open(ctx)
}

func (l *link) close() error {
	if l.wire == nil {
		return nil
	}
	l.watch.set(nil)
	l.number = l.wire.number
	err := l.wire.Close()
	l.wire = nil
	if errors.Is(err, net.ErrClosed) || l.network == netTLS {
		return nil // a farewell that the peer did not wait for
	}
	return err
}

// ask makes one exchange in the pace of the line.
func (l *link) ask(ctx context.Context, q *request, timeout time.Duration) ([]byte, error) {
	if l.wire == nil {
		return nil, errNotConnected
	}
	l.watch.follow(ctx)
	if err := wait(ctx, l.pace.next(l, q.writes || q.brief || q.fenced)); err != nil {
		return nil, err
	}
	sent := time.Now()
	l.pace.sends(l, sent)
	pdu, err := l.wire.exchange(ctx, q, timeout)
	l.last = time.Now()
	l.took = l.last.Sub(sent)
	l.besides(q, pdu, err)
	if f := l.trace.Load(); f != nil {
		l.show(*f, q, pdu, err, sent, timeout)
	}
	if _, refused := err.(exception); err == nil || refused {
		l.pace.answers(l, l.last)
		l.answered, l.heard, l.mute, l.spares.futile = true, l.last, 0, 0
		if l.network == netListen {
			l.slot.listener.answered(&l.slot.slot, sent)
		}
	} else if e := asLoss(err); e != nil {
		if q.telling {
			l.mute++
		}
		if e.kind == lossClosed && !l.answered {
			e.cause = l.secured.Failed(e.cause)
		}
	}
	return pdu, err
}

// wait sleeps until a moment or the end of ctx.
func wait(ctx context.Context, until time.Time) error {
	d := time.Until(until)
	if until.IsZero() || d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watch ends a read under way when a context does. It follows the same context over many requests, because to follow
// another costs allocations.
type watch struct {
	mu   sync.Mutex
	wire *wire
	done <-chan struct{}
	stop func() bool
}

// set says which connection to interrupt; nil = none.
func (w *watch) set(c *wire) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wire, w.done = c, nil
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// follow says whose end interrupts.
func (w *watch) follow(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done == ctx.Done() {
		return
	}
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
	if w.done = ctx.Done(); w.done != nil {
		done := w.done
		w.stop = context.AfterFunc(ctx, func() { w.interrupt(done) })
	}
}

func (w *watch) interrupt(done <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wire != nil && w.done == done {
		_ = w.wire.SetReadDeadline(time.Unix(1, 0))
	}
}

// leave closes the connection after a poll, for a peer that has one slot for many clients.
func (l *link) leave() {
	_ = l.close()
	l.away = true
}

// back makes the connection again that leave closed. Without one that was left or is there, it fails.
func (l *link) back(ctx context.Context, timeout time.Duration) error {
	if l.network == netListen {
		return l.incoming(ctx)
	}
	if l.wire != nil {
		return nil
	}
	if !l.away {
		return errNotConnected
	}
	return l.reopen(ctx, timeout)
}
