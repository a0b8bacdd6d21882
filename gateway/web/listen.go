package web

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// MaxConnections is how many connections the page's address has at once. A browser opens six; whoever opens hundreds would
// take the descriptors that the store, the brokers and the devices need.
const MaxConnections = 64

// Bounds are what a listener takes.
type Bounds struct {
	Most  int         // connections at once; 0 = MaxConnections
	Admit func() bool // whether one more may stay, as far as the process is concerned; nil = always
}

// Listener listens at the page's address. It has a bound of connections at once. Beyond it a new one takes the place of that which
// has asked nothing for longest, so that who opens many and leaves them does not shut out a health check; where all are at work it is closed.
type Listener struct {
	net.Listener
	bounds  Bounds
	refused atomic.Uint64
	warn    *damped

	mu   sync.Mutex
	open map[*counted]struct{}
}

// leastIdle is how long a connection that asks nothing keeps its place at least.
const leastIdle = time.Second

// Listen opens the address "host:port" for Run. What goes wrong with it later is logged, at most a line a minute.
func Listen(ctx context.Context, address string, b Bounds, log *slog.Logger) (*Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the web page on %q: %w; choose another address or port", address, err)
	}
	return limit(l, b, log), nil
}

func limit(l net.Listener, b Bounds, log *slog.Logger) *Listener {
	if b.Most == 0 {
		b.Most = MaxConnections
	}
	if b.Admit == nil {
		b.Admit = func() bool { return true }
	}
	return &Listener{Listener: l, bounds: b, warn: &damped{log: log}, open: map[*counted]struct{}{}}
}

// Most returns how many connections there may be.
func (l *Listener) Most() int { return l.bounds.Most }

// Open returns how many connections there are.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// Refused returns how many connections were closed, new or idle ones, because there were as many as there may be, or no descriptor could be spared.
func (l *Listener) Refused() uint64 { return l.refused.Load() }

// Accept returns the next connection for which there is space. One goroutine calls it.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		full := l.Open() >= l.bounds.Most || !l.bounds.Admit()
		if !full {
			return l.count(c), nil
		}
		l.refused.Add(1)
		idle := l.idlest(time.Now())
		if idle != nil {
			_ = idle.Close()
		} else {
			_ = c.Close()
		}
		l.warn.say("connections closed at once: there are as many as there may be, or the last file descriptors are kept for the store and the brokers; see who opens them", "at", l.Addr().String(), "most", l.bounds.Most, "refused", l.Refused())
		if idle != nil {
			return l.count(c), nil
		}
	}
}

func (l *Listener) count(c net.Conn) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := &counted{Conn: c, of: l}
	l.open[x] = struct{}{}
	return x
}

// idlest returns the connection that has asked nothing for longest, nil when none has for leastIdle.
func (l *Listener) idlest(now time.Time) (best *counted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		if !c.idle.IsZero() && now.Sub(c.idle) >= leastIdle && (best == nil || c.idle.Before(best.idle)) {
			best = c
		}
	}
	return best
}

// note takes what the HTTP server says of a connection: new and between two requests it is idle.
func (l *Listener) note(c net.Conn, state http.ConnState) {
	x, ok := c.(*counted)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if x.idle = (time.Time{}); state == http.StateNew || state == http.StateIdle {
		x.idle = time.Now()
	}
}

// counted is a connection that is counted until it is closed.
type counted struct {
	net.Conn
	of   *Listener
	idle time.Time // since when it asks nothing; zero = it does. Guarded by of.mu
}

func (c *counted) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// errorLog is where the HTTP server writes. Peers cause most of its lines, so they are damped.
func errorLog(to *slog.Logger) *log.Logger {
	return log.New(&serverLines{accept: damped{log: to}, other: damped{log: to}}, "", 0)
}

// serverLines takes the HTTP server's lines. That it cannot accept must not hide what else it has to say, nor the other way round.
type serverLines struct{ accept, other damped }

func (s *serverLines) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if cause, is := strings.CutPrefix(text, "http: Accept error: "); is {
		s.accept.say("the web page takes no connections for the moment", "cause", cause)
	} else {
		s.other.say("web page", "cause", text)
	}
	return len(line), nil
}

// quiet is how long a damped log says nothing after a line.
const quiet = time.Minute

// damped logs at most one line a minute, and with it how many it left out.
type damped struct {
	log *slog.Logger

	mu   sync.Mutex
	last time.Time
	left int
}

func (d *damped) say(text string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.last.IsZero() && time.Since(d.last) < quiet {
		d.left++
		return
	}
	d.log.Warn(text, append(args, "left_out", d.left)...)
	d.last, d.left = time.Now(), 0
}
