package gateway

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/gateway/config"
	"millrace/gateway/link"
	"millrace/gateway/web"
)

// bubble is a whole gateway by synctest's clock. Its devices and its broker are ours, in memory; the store is of real files.
type bubble struct {
	t      *testing.T
	plant  *plant
	broker *bubbleBroker
	g      *Gateway
	pages  http.Handler
	file   string
	store  string
	log    bubbleLog
	silent map[string]bool // the devices that give no answer; plant.mu guards it
	more   []drivers.Protocol
	stop   func()
}

func newBubble(t *testing.T) *bubble {
	time.Sleep(time.Until(made.AddDate(1, 0, 0))) // synctest begins in 2000
	b := &bubble{t: t, plant: newPlant(), broker: &bubbleBroker{sessions: map[*bubbleLink]bool{}}, silent: map[string]bool{}}
	dir := t.TempDir()
	b.file = filepath.Join(dir, "millrace.yaml")
	b.store = filepath.Join(dir, strings.Repeat("long", 30)) // longer than the path of a socket may be: synctest's clock stands while anybody waits for the network
	b.plant.silent = func(device string) bool { return b.silent[device] }
	return b
}

func (b *bubble) write(config string) {
	if err := os.WriteFile(b.file, []byte(config), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bubble) load() (*config.Config, error) {
	return config.Load(b.file, append(b.plant.protocols(), b.more...), config.Options{})
}

// begin starts a gateway with the config as it is written.
func (b *bubble) begin() {
	cfg, err := b.load()
	if err != nil {
		b.t.Fatal(err)
	}
	b.g, err = New(b.t.Context(), cfg, Options{Version: "test", Log: slog.New(slog.NewTextHandler(&b.log, nil)), Load: b.load,
		dialer: func(d *config.Destination) (link.Dialer, error) { return bubbleDialer{b.broker, d.Name}, nil }})
	if err != nil {
		b.t.Fatal(err)
	}
	b.pages = web.Handler(b.g, 0)
	g, done := b.g, make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- g.Run(ctx, context.Background()) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("run: %v", err)
		}
	})
}

func (b *bubble) reload() {
	if _, err := b.g.Reload(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// page returns what a page has within so long.
func (b *bubble) page(path string, wait time.Duration) string {
	ctx, cancel := context.WithTimeout(b.t.Context(), wait)
	defer cancel()
	w := httptest.NewRecorder()
	b.pages.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "http://127.0.0.1"+path, nil))
	return w.Body.String()
}

func (b *bubble) hush(device string, silent bool) {
	b.plant.mu.Lock()
	defer b.plant.mu.Unlock()
	b.silent[device] = silent
}

// end stops the gateway, and shows the end of its log when something went wrong.
func (b *bubble) end() {
	b.stop()
	if b.t.Failed() {
		b.t.Logf("the log ends:\n%s", bytes.Join(b.log.last, nil))
	}
}

// bubbleBroker takes what it gets and answers 5 ms later.
type bubbleBroker struct {
	take     func(destination string, m link.Message) // mu is held
	promptly bool                                     // what is not answered was not taken

	mu       sync.Mutex
	away     bool
	mute     bool // take messages, and answer none
	deaf     bool // take none, and answer none
	sessions map[*bubbleLink]bool
}

// leave takes the broker away, with what it has not answered, or brings it back.
func (b *bubbleBroker) leave(away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = away
	for l := range b.sessions {
		l.end(link.ErrPeerClosed)
	}
}

// hang makes the broker answer nothing any more; takes says whether it takes messages all the same. When that is over, what it has not answered
// it never will, and each session that saw it ends.
func (b *bubbleBroker) hang(hung, takes bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mute, b.deaf = hung, hung && !takes
	if !hung {
		for l := range b.sessions {
			l.end(link.ErrPeerClosed)
		}
	}
}

type bubbleDialer struct {
	broker      *bubbleBroker
	destination string
}

var errNoRoute = errors.New("dial: no route to host")

func (d bubbleDialer) Dial(context.Context, *link.Message) (link.Link, error) {
	b := d.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return nil, errNoRoute
	}
	l := &bubbleLink{dialer: d, changed: make(chan struct{}, 1)}
	b.sessions[l] = true
	return l, nil
}

type bubbleLink struct {
	dialer  bubbleDialer
	changed chan struct{}
	sent    uint64     // by the publisher's goroutine only
	acks    []link.Ack // guarded by the broker's mu, as is err
	err     error
}

func (l *bubbleLink) Send(m link.Message) error {
	b := l.dialer.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	n := l.sent
	l.sent++
	if b.deaf {
		return nil
	}
	if !b.promptly {
		b.take(l.dialer.destination, m)
	}
	if b.mute {
		return nil
	}
	m.Payload = bytes.Clone(m.Payload)
	time.AfterFunc(5*time.Millisecond, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if l.err == nil {
			if b.promptly {
				b.take(l.dialer.destination, m)
			}
			l.acks = append(l.acks, link.Ack{N: n, At: time.Now()})
			l.signal()
		}
	})
	return nil
}

func (l *bubbleLink) Acked(dst []link.Ack) []link.Ack {
	b := l.dialer.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	dst, l.acks = append(dst, l.acks...), l.acks[:0]
	return dst
}

func (l *bubbleLink) Err() error {
	b := l.dialer.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.err
}

func (l *bubbleLink) Close() error {
	b := l.dialer.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	l.end(link.ErrClosed)
	return nil
}

// end ends the session. The broker's mu is held.
func (l *bubbleLink) end(err error) {
	if l.err == nil {
		l.err = err
	}
	delete(l.dialer.broker.sessions, l)
	l.signal()
}

func (l *bubbleLink) signal() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *bubbleLink) Flush()                     {}
func (l *bubbleLink) Changed() <-chan struct{}   { return l.changed }
func (l *bubbleLink) Subscribe(...string) error  { return nil }
func (l *bubbleLink) Inbox() <-chan link.Message { return nil }
func (l *bubbleLink) Stats() link.Stats          { return link.Stats{} }

// bubbleLog counts the lines of a log and keeps the last of them.
type bubbleLog struct {
	mu    sync.Mutex
	lines int
	last  [][]byte
}

func (l *bubbleLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines++
	l.last = append(l.last, bytes.Clone(p))
	if len(l.last) > 400 {
		l.last = append(l.last[:0], l.last[200:]...)
	}
	return len(p), nil
}

func (l *bubbleLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines
}
