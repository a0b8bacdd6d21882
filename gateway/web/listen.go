package web

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
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

// Listener listens at the page's address. It has a bound of connections at once and closes further ones as they come.
type Listener struct {
	net.Listener
	bounds  Bounds
	open    atomic.Int64
	refused atomic.Uint64
	warn    *damped
}

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
	return &Listener{Listener: l, bounds: b, warn: &damped{log: log}}
}

// Most returns how many connections there may be.
func (l *Listener) Most() int { return l.bounds.Most }

// Open returns how many connections there are.
func (l *Listener) Open() int { return int(l.open.Load()) }

// Refused returns how many connections were closed because there were as many as there may be, or no descriptor could be spared.
func (l *Listener) Refused() uint64 { return l.refused.Load() }

// Accept returns the next connection for which there is space. One goroutine calls it.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Load() < int64(l.bounds.Most) && l.bounds.Admit() {
			l.open.Add(1)
			return &counted{Conn: c, open: &l.open}, nil
		}
		l.refused.Add(1)
		_ = c.Close()
		l.warn.say("connections closed at once: there are as many as there may be, or the last file descriptors are kept for the store and the brokers; see who opens them", "at", l.Addr().String(), "most", l.bounds.Most, "refused", l.Refused())
	}
}

// counted is a connection that is counted until it is closed.
type counted struct {
	net.Conn
	open *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	defer c.once.Do(func() { c.open.Add(-1) })
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
