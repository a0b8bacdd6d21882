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

// maxConnections is how many connections the page's address has at once. A browser opens six; whoever opens hundreds would
// take the descriptors that the store, the brokers and the devices need.
const maxConnections = 64

// Listener listens at the page's address. It has at most 64 connections at once and closes further ones as they come.
type Listener struct {
	net.Listener
	open    atomic.Int64
	refused atomic.Uint64
	warn    *damped
}

// Listen opens the address "host:port" for Run. What goes wrong with it later is logged, at most a line a minute.
func Listen(ctx context.Context, address string, log *slog.Logger) (*Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the web page on %q: %w; choose another address or port", address, err)
	}
	return limit(l, log), nil
}

func limit(l net.Listener, log *slog.Logger) *Listener {
	return &Listener{Listener: l, warn: &damped{log: log}}
}

// Open returns how many connections there are, at most 64.
func (l *Listener) Open() int { return int(l.open.Load()) }

// Refused returns how many connections were closed because there were 64 already.
func (l *Listener) Refused() uint64 { return l.refused.Load() }

// Accept returns the next connection for which there is space. One goroutine calls it.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Load() < maxConnections {
			l.open.Add(1)
			return &counted{Conn: c, open: &l.open}, nil
		}
		l.refused.Add(1)
		_ = c.Close()
		l.warn.say("connections to the web page closed at once: it has as many as it may have; see who opens them", "most", maxConnections, "refused", l.Refused())
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
