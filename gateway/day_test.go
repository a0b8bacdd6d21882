package gateway

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/gateway/config"
	"millrace/gateway/link"
	"millrace/gateway/web"
)

var long = flag.Bool("long", os.Getenv("FAULTS") == "long", "run the long form of TestDay: 24 hours; also FAULTS=long")

// A day (three hours in the short form) of a gateway by synctest's clock: devices are polled each second, and every minute the uplink goes, a device falls silent, the config is reloaded with
// something changed, and people look. The devices and the broker are ours, in memory; the store is of real files. What the process holds must not grow.
type day struct {
	t      *testing.T
	plant  *plant
	broker *dayBroker
	g      *Gateway
	page   func(path string, wait time.Duration) string
	file   string
	store  string
	log    dayLog
	hours  []dayHour
	silent string // the device that gives no answer; plant.mu guards it
	stop   func()
}

// dayHour is what the process held at the end of an hour.
type dayHour struct {
	heap, disk               uint64
	goroutines, files, lines int
}

func dayHours() int {
	if *long {
		return 24
	}
	return 3
}

var dayDevices = []string{"d0", "d1", "d2", "d3", "d4"}

// dayBroker answers what it gets 5 ms later, in order, and knows what came of each device.
type dayBroker struct {
	mu       sync.Mutex
	away     bool
	sessions map[*dayLink]bool
	seen     map[string][]byte // how often each reading came, by device and what was read
	messages int
	strange  []string // messages that nobody can have sent
}

// dayDialer is the way to the broker of one destination; only what "cloud" gets is looked at.
type dayDialer struct {
	broker *dayBroker
	looked bool
}

func (d dayDialer) Dial(context.Context, *link.Message) (link.Link, error) {
	b := d.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.away {
		return nil, fmt.Errorf("dial: no route to host")
	}
	l := &dayLink{dialer: d, changed: make(chan struct{}, 1)}
	b.sessions[l] = true
	return l, nil
}

// leave takes the broker away, with what it has not answered, or brings it back.
func (b *dayBroker) leave(away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = away
	for l := range b.sessions {
		l.end(link.ErrPeerClosed)
	}
}

// take notes a message. mu is held.
func (b *dayBroker) take(m link.Message) {
	b.messages++
	_, value, good := bytes.Cut(m.Payload, []byte(`"values":{"n":`))
	if !good {
		return // bad readings, gaps
	}
	digits, _, _ := bytes.Cut(value, []byte("}"))
	n, err := strconv.Atoi(string(digits))
	seen := b.seen[strings.Split(m.Topic, "/")[2]]
	if err != nil || n < 1 || n >= len(seen) {
		b.strange = append(b.strange, m.Topic+" "+string(m.Payload))
		return
	}
	seen[n]++
}

type dayLink struct {
	dialer  dayDialer
	changed chan struct{}
	sent    uint64     // by the publisher's goroutine only
	acks    []link.Ack // guarded by the broker's mu, as is err
	err     error
}

func (l *dayLink) Send(m link.Message) error {
	b := l.dialer.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if l.dialer.looked {
		b.take(m)
	}
	n := l.sent
	l.sent++
	time.AfterFunc(5*time.Millisecond, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if l.err == nil {
			l.acks = append(l.acks, link.Ack{N: n, At: time.Now()})
			l.signal()
		}
	})
	return nil
}

func (l *dayLink) Acked(dst []link.Ack) []link.Ack {
	b := l.dialer.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	dst, l.acks = append(dst, l.acks...), l.acks[:0]
	return dst
}

func (l *dayLink) Err() error {
	b := l.dialer.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.err
}

func (l *dayLink) Close() error {
	b := l.dialer.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	l.end(link.ErrClosed)
	return nil
}

// end ends the session. The broker's mu is held.
func (l *dayLink) end(err error) {
	if l.err == nil {
		l.err = err
	}
	delete(l.dialer.broker.sessions, l)
	l.signal()
}

func (l *dayLink) signal() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *dayLink) Flush()                     {}
func (l *dayLink) Changed() <-chan struct{}   { return l.changed }
func (l *dayLink) Subscribe(...string) error  { return nil }
func (l *dayLink) Inbox() <-chan link.Message { return nil }
func (l *dayLink) Stats() link.Stats          { return link.Stats{} }

// dayLog counts the lines of a log and keeps the last of them.
type dayLog struct {
	mu    sync.Mutex
	lines int
	last  [][]byte
}

func (l *dayLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines++
	l.last = append(l.last, bytes.Clone(p))
	if len(l.last) > 400 {
		l.last = append(l.last[:0], l.last[200:]...)
	}
	return len(p), nil
}

func (l *dayLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines
}

// write writes the config as it is in that minute of the day: one device has another interval in every other minute, another one is there in two minutes
// of three, and a second destination for half an hour each hour.
func (d *day) write(minute int) {
	text := fmt.Sprintf("gateway: shop\ngrace_time: 5s\nweb: {enabled: false}\nbuffer: {path: %s, max_size: 64MiB, commit_interval: 10s}\ndestinations:\n  - {name: cloud, url: \"mqtt://127.0.0.1\"}\n", d.store)
	if minute%60 >= 30 {
		text += "  - {name: lake, url: \"mqtt://127.0.0.1\", client_id: lake}\n"
	}
	text += "devices:\n"
	for i, name := range dayDevices {
		interval := "1s"
		if i == 1 && minute%2 == 1 {
			interval = "500ms"
		}
		if i != 2 || minute%3 > 0 {
			text += fmt.Sprintf("  - {name: %s, driver: fake, url: \"fake://%s\", groups: [{name: g, interval: %s, tags: [{name: n, address: a}]}]}\n", name, name, interval)
		}
	}
	if err := os.WriteFile(d.file, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// begin starts the gateway.
func (d *day) begin() {
	t, dir := d.t, d.t.TempDir()
	d.file = filepath.Join(dir, "millrace.yaml")
	d.store = filepath.Join(dir, strings.Repeat("long", 30)) // longer than the path of a socket may be: synctest's clock stands while anybody waits for the network
	d.plant.silent = func(device string) bool { return device == d.silent }
	for _, name := range dayDevices {
		d.broker.seen[name] = make([]byte, 2*3600*dayHours()*3/2) // polled each half second at most, and an hour has 65 minutes
	}
	d.write(0)
	load := func() (*config.Config, error) { return config.Load(d.file, d.plant.protocols(), config.Options{}) }
	cfg, err := load()
	if err != nil {
		t.Fatal(err)
	}
	d.g, err = New(t.Context(), cfg, Options{Version: "test", Log: slog.New(slog.NewTextHandler(&d.log, nil)), Load: load,
		dialer: func(c *config.Destination) (link.Dialer, error) { return dayDialer{d.broker, c.Name == "cloud"}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	handler := web.Handler(d.g, 0)
	d.page = func(path string, wait time.Duration) string {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "http://127.0.0.1"+path, nil))
		return w.Body.String()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.g.Run(ctx, context.Background()) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

// minute is one minute of ordinary trouble; one in an hour lasts six.
func (d *day) minute(minute int) {
	part := 10 * time.Second
	time.Sleep(time.Duration(minute%8)*125*time.Millisecond + 2*time.Millisecond) // devices are polled at such moments: answers are on their way
	d.broker.leave(true)
	time.Sleep(part)
	if minute%60 == 40 {
		time.Sleep(5 * time.Minute)
	}
	d.broker.leave(false)
	time.Sleep(part)
	d.fallSilent("d3")
	time.Sleep(part)
	d.fallSilent("")
	d.write(minute + 1)
	if _, err := d.g.Reload(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	time.Sleep(part)
	for _, path := range []string{"/", "/metrics", "/readyz", "/healthz", "/api/v1/snapshot", "/api/v1/values", "/api/v1/store"} {
		if body := d.page(path, part); body == "" {
			d.t.Errorf("minute %d: %s is empty", minute, path)
		}
	}
	if body := d.page("/api/v1/values?watch=1", part/2); strings.Count(body, "\n") < 5 {
		d.t.Errorf("minute %d: who watches saw %q", minute, body)
	}
	time.Sleep(part * 3 / 2)
}

func (d *day) fallSilent(device string) {
	d.plant.mu.Lock()
	defer d.plant.mu.Unlock()
	d.silent = device
}

// look notes what the process holds.
func (d *day) look() {
	var h dayHour
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what is in a sync.Pool outlives the first
	runtime.ReadMemStats(&m)
	open, _ := os.ReadDir("/proc/self/fd") // none elsewhere
	h.heap, h.goroutines, h.files, h.lines = m.HeapAlloc, runtime.NumGoroutine(), len(open), d.log.count()
	if err := filepath.WalkDir(d.store, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			h.disk += uint64(info.Size())
		}
		return err
	}); err != nil {
		d.t.Error(err)
	}
	d.hours = append(d.hours, h)
}

// judge compares the last third of the hours with the third before; in the first, caches and pools fill.
func (d *day) judge() {
	end := len(d.hours) - 1
	third := max(end/3, 1)
	from, middle, last := d.hours[end-2*third], d.hours[end-third], d.hours[end]
	early, late := middle.lines-from.lines, last.lines-middle.lines
	d.t.Logf("FIGURES %s: %d hours; heap %d KiB, then %d; %d goroutines, then %d; %d files open, then %d; %d KiB on disk, then %d; %d lines of log, then %d in the same time",
		d.t.Name(), len(d.hours), from.heap>>10, last.heap>>10, from.goroutines, last.goroutines, from.files, last.files, from.disk>>10, last.disk>>10, early, late)
	if last.heap > from.heap+512<<10 {
		d.t.Errorf("the heap grew from %d to %d KiB", from.heap>>10, last.heap>>10)
	}
	if last.goroutines > from.goroutines || last.files > from.files+2 {
		d.t.Errorf("%d goroutines and %d files, %d and %d before", last.goroutines, last.files, from.goroutines, from.files)
	}
	if late > early*11/10+10 {
		d.t.Errorf("%d lines of log, %d in the same time before", late, early)
	}
	if last.disk > from.disk+1<<20 {
		d.t.Errorf("the store grew from %d to %d KiB", from.disk>>10, last.disk>>10)
	}
}

// account looks whether all that was read has come.
func (d *day) account() {
	b, again := d.broker, 0
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, given := range d.plant.count(d.plant.given) {
		came := 0
		for _, times := range b.seen[name] {
			if times > 0 {
				came++
				again += int(times) - 1
			}
		}
		if came != given {
			d.t.Errorf("device %s: %d readings, %d came", name, given, came)
		}
	}
	if len(b.strange) > 0 {
		d.t.Errorf("%d strange messages, such as %q", len(b.strange), b.strange[0])
	}
	d.t.Logf("FIGURES %s: %d messages, of which %d came twice, as they were not answered", d.t.Name(), b.messages, again)
}

func TestDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(made.AddDate(1, 0, 0))) // synctest begins in 2000
		d := &day{t: t, plant: newPlant(), broker: &dayBroker{sessions: map[*dayLink]bool{}, seen: map[string][]byte{}}}
		defer func() {
			if t.Failed() {
				t.Logf("the log ends:\n%s", bytes.Join(d.log.last, nil))
			}
		}()
		d.begin()
		defer d.stop()
		for minute := range dayHours() * 60 {
			d.minute(minute)
			if minute%60 == 59 {
				d.look()
			}
			if t.Failed() {
				return
			}
		}
		d.judge()
		d.stop()
		d.account()
	})
}
