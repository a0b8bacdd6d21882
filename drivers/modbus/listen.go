package modbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"millrace/drivers"
	"millrace/drivers/callers"
)

// The bounds of what callers may cost that have not said yet which device they are.
const (
	maxPacket  = 64               // bytes of a registration or heartbeat packet
	maxHello   = 4 * maxPacket    // bytes that a caller may send before it is known
	helloTime  = 10 * time.Second // within which it must be known
	helloQuiet = 200 * time.Millisecond
	warnEvery  = time.Minute
)

// absence is why there is nobody to ask on a line whose device calls. To find out costs nothing.
type absence string

const (
	neverCalled absence = "the device has not called yet"
	callEnded   absence = "the call of the device has ended, and no other has come yet"
)

// Error returns the reason.
func (a absence) Error() string { return string(a) }

// Is says that only the devices of this line are concerned, and that a try costs nothing.
func (a absence) Is(target error) bool {
	return target == drivers.ErrDevice || target == drivers.ErrAbsent
}

// slot is where the calls for one line arrive. The listener's mutex guards what changes.
type slot struct {
	registration, heartbeat []byte // nil = none
	allow                   callers.Allowed
	waiting                 net.Conn // the newest call, until the line takes it
	arrived                 time.Time
	taken                   net.Conn // with which the line works
	called                  bool
	contest                 contest
}

// listeners are those of all lines of the process, by address: several lines share one, so none of them owns it.
type listeners struct {
	mu  sync.Mutex
	all map[string]*listener
}

// listener takes the calls for its slots.
type listener struct {
	address string
	net     net.Listener
	wg      sync.WaitGroup // its goroutines

	mu      sync.Mutex
	closed  bool
	slots   []*slot
	callers callers.Waiting // that have not registered yet
	refused int             // since the last warning
	last    string          // the last of them, and why
	warned  time.Time
}

// join opens the listener of an address, or shares it.
func (ls *listeners) join(ctx context.Context, address string, s *slot) (*listener, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.all[address]
	if l != nil {
		return l, l.add(s)
	}
	n, err := callers.Listen(ctx, address, "device", "stop that, or go through it: --config names its config; or choose another port")
	if err != nil {
		return nil, err
	}
	l = &listener{address: address, net: n, slots: []*slot{s}}
	if ls.all == nil {
		ls.all = map[string]*listener{}
	}
	ls.all[address] = l
	l.wg.Go(func() { callers.Accept(n, l.greet) })
	return l, nil
}

// leave hangs up the calls of a slot. The last one to leave closes the listener, which then runs no more.
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

// add lets another line share the listener, if a caller can be told from those of the others.
func (l *listener) add(s *slot) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.slots {
		if len(s.registration) == 0 || len(o.registration) == 0 || o.registrations(s.registration) == 1 || s.registrations(o.registration) == 1 {
			return fmt.Errorf("listen on %q: another device listens there, and nothing tells the two callers apart; give each a registration of its own, or a port", l.address)
		}
	}
	l.slots = append(l.slots, s)
	return nil
}

// remove takes a slot out, and reports whether it was the last.
func (l *listener) remove(s *slot) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	hangUp(&s.waiting)
	hangUp(&s.taken)
	for i, o := range l.slots {
		if o == s {
			l.slots = append(l.slots[:i:i], l.slots[i+1:]...)
			break
		}
	}
	if l.closed = len(l.slots) == 0; l.closed {
		l.callers.Close()
	}
	return l.closed
}

func hangUp(c *net.Conn) {
	if *c != nil {
		_ = (*c).Close()
	}
	*c = nil
}

// greet gives a call to the only line, or has it say whose it is.
func (l *listener) greet(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		_ = c.Close()
	case !slices.ContainsFunc(l.slots, func(s *slot) bool { return s.allow.Takes(c) }):
		l.refuse(c, callers.NotAllowed)
	case len(l.slots) == 1 && len(l.slots[0].registration) == 0:
		l.put(l.slots[0], c)
	case !l.callers.Add(c):
		l.refuse(c, "too many callers have not registered yet")
	default:
		l.wg.Go(func() { l.receive(c) })
	}
}

// put lets a call wait until the line has none, or that has turned out to be silent. mu is held.
func (l *listener) put(s *slot, c net.Conn) {
	hangUp(&s.waiting)
	s.waiting, s.arrived, s.called = c, time.Now(), true
}

// refuse ends a call. mu is held.
func (l *listener) refuse(c net.Conn, why string) {
	l.refused++
	l.last = fmt.Sprintf("%s: %s", c.RemoteAddr(), why)
	_ = c.Close()
}

// receive waits for the registration of a call. TCP has no packets: it is whole when it stood for a moment whatever followed, so
// that "meter-1" is not seen in "meter-12".
func (l *listener) receive(c net.Conn) {
	var hello [maxHello]byte
	var known *slot
	until, settled := time.Now().Add(helloTime), time.Time{}
	for n := 0; ; {
		s, end := l.slotOf(hello[:n]), until
		if s != nil && s != known {
			known, settled = s, time.Now().Add(helloQuiet)
		}
		if s != nil && settled.Before(until) {
			end = settled
		}
		if s != nil && (n == len(hello) || !time.Now().Before(end)) {
			l.registered(c, hello[:n])
			return
		}
		_ = c.SetReadDeadline(end)
		m, err := c.Read(hello[n:])
		n += m
		waited := m == 0 && s != nil && errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !waited || n == len(hello) && l.slotOf(hello[:n]) == nil {
			l.unknown(c, hello[:n])
			return
		}
	}
}

// slotOf returns whose registration was sent; nil = nobody's, not yet, or that of several. One registration counts more than a repeated one.
func (l *listener) slotOf(hello []byte) (found *slot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.slots {
		switch s.registrations(hello) {
		case 1:
			return s
		case 2:
			if found != nil {
				return nil
			}
			found = s
		}
	}
	return found
}

// registrations takes apart what a caller sent into registrations, heartbeats and line ends. It returns 1 when that can be done with one
// registration, else 2 when with several, else 0.
func (s *slot) registrations(hello []byte) int {
	registration := bytes.TrimRight(s.registration, "\r\n")
	if len(registration) == 0 || len(hello) > maxHello {
		return 0
	}
	const none, one, more = 1, 2, 4
	var ways [maxHello + 1]uint8 // to take apart what stands before
	ways[0] = none
	for i, c := range hello {
		w := ways[i]
		if w == 0 {
			continue
		}
		if c == '\r' || c == '\n' {
			ways[i+1] |= w
		}
		if len(s.heartbeat) > 0 && bytes.HasPrefix(hello[i:], s.heartbeat) {
			ways[i+len(s.heartbeat)] |= w
		}
		if bytes.HasPrefix(hello[i:], registration) {
			ways[i+len(registration)] |= w<<1&(one|more) | w&more
		}
	}
	switch w := ways[len(hello)]; {
	case w&one != 0:
		return 1
	case w&more != 0:
		return 2
	}
	return 0
}

func (l *listener) registered(c net.Conn, hello []byte) {
	s := l.slotOf(hello)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.callers.Remove(c)
	switch {
	case s == nil || l.closed: // its line has left meanwhile
		_ = c.Close()
	case !s.allow.Takes(c):
		l.refuse(c, fmt.Sprintf("registers as %q and %s", s.registration, callers.NotAllowed))
	default:
		l.put(s, c)
	}
}

func (l *listener) unknown(c net.Conn, hello []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.callers.Remove(c)
	if l.closed {
		_ = c.Close()
		return
	}
	if len(hello) == 0 {
		l.refuse(c, "sent no registration")
		return
	}
	l.refuse(c, fmt.Sprintf("sent %q, which is the registration of no device", hello[:min(len(hello), maxPacket)]))
}

// take returns the newest call of a line, nil for none, and whether it was ever called.
func (l *listener) take(s *slot) (c net.Conn, called bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.waiting != nil {
		s.taken, s.waiting = s.waiting, nil
		return s.taken, true
	}
	return nil, s.called
}

// warning says which callers were refused, once a minute at most.
func (l *listener) warning(now time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused == 0 || now.Sub(l.warned) < warnEvery {
		return ""
	}
	text := fmt.Sprintf("callers refused on %q: %d, the last from %s; look for who calls there, or mend registration or allow_from", l.address, l.refused, l.last)
	l.refused, l.warned = 0, now
	return text
}
