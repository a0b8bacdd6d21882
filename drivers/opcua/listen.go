package opcua

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/callers"
	"millrace/drivers/opcua/wire"
)

const (
	helloTime = 10 * time.Second // within which a caller must have said which server it is
	callTime  = 20 * time.Second // that an attempt to connect waits for a call
	holdTime  = 3 * time.Second  // that a call waits for a device: between two attempts it does not listen for up to two seconds
)

// absence is why there is nobody to speak with: the server has to make the connection.
type absence string

// Error returns the reason.
func (a absence) Error() string { return string(a) }

// Is says that a try costs nothing.
func (a absence) Is(target error) bool {
	return target == drivers.ErrDevice || target == drivers.ErrAbsent
}

// call is a connection that a server has made, and the endpoint that it wants to be asked for.
type call struct {
	net.Conn
	endpoint string
}

// slot is where the calls of one server arrive. The listener's mutex guards waiting and called.
type slot struct {
	server  string // its application URI
	allow   callers.Allowed
	waiting *call         // the newest, until it is taken
	called  bool          // ever
	news    chan struct{} // waiting has changed
}

// listeners are those of all devices of the process, by address: several share one, so none of them owns it.
type listeners struct {
	mu  sync.Mutex
	all map[string]*listener
}

// listener takes the calls for its slots.
type listener struct {
	address string
	net     net.Listener
	hello   time.Duration  // see helloTime
	hold    time.Duration  // see holdTime
	wg      sync.WaitGroup // its goroutines

	mu      sync.Mutex
	closed  bool
	slots   []*slot
	changed chan struct{}   // closed, and another in its place, when a slot is added; closed for good with the listener
	callers callers.Waiting // that have not said yet who they are
	refused string          // the last that was, and why
}

// join opens the listener of an address, or shares it.
func (ls *listeners) join(ctx context.Context, address string, hello time.Duration, s *slot) (*listener, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.all[address]
	if l != nil {
		return l, l.add(s)
	}
	n, err := callers.Listen(ctx, address, "server", "stop that for the while, or choose another port")
	if err != nil {
		return nil, err
	}
	l = &listener{address: address, net: n, hello: hello, hold: holdTime, slots: []*slot{s}, changed: make(chan struct{})}
	if ls.all == nil {
		ls.all = map[string]*listener{}
	}
	ls.all[address] = l
	l.wg.Go(func() { callers.Accept(n, l.greet) })
	return l, nil
}

// leave hangs up the call that waits for a slot. The last one to leave closes the listener, which then runs no more.
func (ls *listeners) leave(l *listener, s *slot) {
	ls.mu.Lock()
	last := l.remove(s)
	if last {
		delete(ls.all, l.address)
		_ = l.net.Close()
	}
	ls.mu.Unlock()
	if last {
		l.wg.Wait()
	}
}

// add lets another device share the listener, if its server can be told from the others.
func (l *listener) add(s *slot) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.ContainsFunc(l.slots, func(o *slot) bool { return o.server == s.server }) {
		return fmt.Errorf("listen on %q: another device waits there for the server %q; give each its own server_uri, or a port", l.address, s.server)
	}
	l.slots = append(l.slots, s)
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// remove takes a slot out, and reports whether it was the last.
func (l *listener) remove(s *slot) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.waiting != nil {
		_ = s.waiting.Close()
		s.waiting = nil
	}
	l.slots = slices.DeleteFunc(l.slots, func(o *slot) bool { return o == s })
	if l.closed = len(l.slots) == 0; l.closed {
		l.callers.Close()
		close(l.changed)
	}
	return l.closed
}

// greet has a caller say who it is.
func (l *listener) greet(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		_ = c.Close()
	case !slices.ContainsFunc(l.slots, func(s *slot) bool { return s.allow.Takes(c) }):
		l.refuse(c, callers.NotAllowed)
	case !l.callers.Add(c):
		l.refuse(c, "too many callers have not said yet who they are")
	default:
		l.wg.Go(func() { l.receive(c) })
	}
}

// refuse ends a call. mu is held.
func (l *listener) refuse(c net.Conn, why string) {
	l.refused = callers.Host(c) + ": " + why
	_ = c.Close()
}

// receive waits for the ReverseHello of a call, and hands the call to the device that waits for it.
func (l *listener) receive(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(l.hello))
	server, endpoint, err := wire.ReverseHello(c)
	if err == nil {
		err = checkEndpoint(endpoint)
	}
	_ = c.SetReadDeadline(time.Time{})
	l.mu.Lock()
	defer l.mu.Unlock()
	var s *slot
	if err == nil {
		s = l.awaiting(server)
	}
	l.callers.Remove(c)
	var said wire.ProtocolError
	switch {
	case l.closed:
		_ = c.Close()
	case errors.As(err, &said):
		l.refuse(c, said.Error())
	case err != nil:
		l.refuse(c, "the caller has not said who it is")
	case s == nil:
		l.refuse(c, fmt.Sprintf("the caller is the server %.200q, and no device here waits for it", server))
	case !s.allow.Takes(c):
		l.refuse(c, fmt.Sprintf("the caller says it is the server %.200q and %s", server, callers.NotAllowed))
	default:
		l.put(s, &call{c, endpoint})
	}
}

// awaiting returns the slot of a server; nil when there is none for the time that a call is held. mu is held, but while it waits.
func (l *listener) awaiting(server string) *slot {
	timer := time.NewTimer(l.hold)
	defer timer.Stop()
	for over := false; ; {
		at := slices.IndexFunc(l.slots, func(s *slot) bool { return s.server == server })
		if at >= 0 {
			return l.slots[at]
		}
		if over || l.closed {
			return nil
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-timer.C:
			over = true
		}
		l.mu.Lock()
	}
}

// checkEndpoint refuses what cannot be an endpoint: it is asked for in our messages.
func checkEndpoint(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "opc.tcp" || u.Hostname() == "" || u.User != nil {
		return wire.ProtocolError(fmt.Sprintf("the caller names %.200q, which is no OPC UA endpoint", text))
	}
	return nil
}

// put gives a call to a device. A newer one replaces the older, whose server has mostly gone without a farewell. mu is held.
func (l *listener) put(s *slot, c *call) {
	if s.waiting != nil {
		_ = s.waiting.Close()
	}
	s.waiting, s.called = c, true
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// take waits for a call, and takes the newest.
func (l *listener) take(ctx context.Context, s *slot, wait time.Duration) (*call, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		l.mu.Lock()
		c := s.waiting
		s.waiting = nil
		l.mu.Unlock()
		if c != nil {
			return c, nil
		}
		select {
		case <-s.news:
		case <-timer.C:
			return nil, l.absent(s)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// absent says that no call is there.
func (l *listener) absent(s *slot) absence {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := fmt.Sprintf("the server %q has not called %q yet", s.server, l.address)
	if s.called {
		text = fmt.Sprintf("the last call of the server %q has ended, and no other has come yet", s.server)
	}
	if l.refused != "" {
		text += "; refused: " + l.refused
	}
	return absence(text)
}
