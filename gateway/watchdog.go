package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"millrace/gateway/web"
)

// timeLimits is how long each thing may take: far longer than it ever does on a slow card or line, so that what is reported
// does hang.
type timeLimits struct {
	commit  time.Duration // writing the store's files
	poll    time.Duration // a poll with all its retries, a job, an attempt to connect
	session time.Duration // a step of a session
	view    time.Duration // a snapshot for the page
	reload  time.Duration // a reload
	read    time.Duration // a step of reading the store for somebody
	stop    time.Duration // a stop, beyond the grace time; what hangs then is left behind
}

var usualLimits = timeLimits{commit: 10 * time.Second, poll: time.Minute, session: 30 * time.Second, view: 10 * time.Second, reload: time.Minute, read: 10 * time.Minute, stop: 5 * time.Second}

// maxDump bounds the goroutine dump in the log, in bytes.
const maxDump = 64 << 10

// ErrHung is how Run ends when something did not: the process should exit at once.
var ErrHung = errors.New("the stop did not end in time; what is on disk is kept and sent at the next start, what was in memory only is lost")

// watchdog sees what takes longer than it may. It takes no lock that something which hangs could hold.
type watchdog struct {
	limits timeLimits
	runs   atomic.Pointer[running] // as running, for who may not wait
	viewed atomic.Int64            // since when a snapshot is being taken, by Gateway.started; 0 = none is
	dumped atomic.Bool
	told   []string // by tell, of watch alone

	reloading atomic.Int64 // since when a reload goes on, as viewed

	mu      sync.Mutex // of reading: held for a moment only
	reading map[*reading]struct{}
}

// reading is the store being read for somebody.
type reading struct {
	what string
	at   atomic.Int64 // when it began, or made its last step, by Gateway.started
}

// BeginReading tells the watchdog that the store is read for somebody. step says that it goes on: a large store takes longer than
// any limit.
func (g *Gateway) BeginReading(what string) (step, end func()) {
	r, w := &reading{what: what}, &g.watchdog
	step = func() { r.at.Store(int64(time.Since(g.started))) }
	step()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reading == nil {
		w.reading = map[*reading]struct{}{}
	}
	w.reading[r] = struct{}{}
	return step, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.reading, r)
	}
}

// slowest returns what is read longest without a step, and since when; "" for nothing.
func (w *watchdog) slowest() (what string, since time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for r := range w.reading {
		if at := time.Duration(r.at.Load()); what == "" || at < since {
			what, since = r.what, at
		}
	}
	return what, since
}

// show tells the watchdog what runs. mu is held.
func (g *Gateway) show() {
	r := g.running
	g.watchdog.runs.Store(&r)
}

// stalls returns what takes longer than it may.
func (g *Gateway) stalls() (list []web.Stall) {
	add := func(kind, name, what string, lasts, limit time.Duration) {
		if lasts > limit {
			list = append(list, web.Stall{Kind: kind, Name: name, What: what, Since: time.Now().Add(-lasts).Round(time.Millisecond), Limit: limit})
		}
	}
	r, l := g.watchdog.runs.Load(), &g.watchdog.limits
	if r == nil {
		return nil
	}
	add("store", r.cfg.Buffer.Path, "writing its files", g.buf.Busy(), l.commit)
	if what, since := g.watchdog.slowest(); what != "" && len(list) == 0 { // a part hangs once
		add("store", r.cfg.Buffer.Path, "a step of "+what, time.Since(g.started)-since, l.read)
	}
	if since := g.watchdog.reloading.Load(); since > 0 {
		add("config", r.cfg.File, "a reload", time.Since(g.started)-time.Duration(since), l.reload)
	}
	for _, d := range r.destinations {
		add("destination", d.cfg.Name, "a step of its session", d.Busy(), l.session)
	}
	for _, c := range r.connections {
		if what, lasts := c.poller.Busy(); lasts > l.poll {
			add("device", c.devices[0].name, what.String(), lasts, l.poll)
		}
	}
	if since := g.watchdog.viewed.Load(); since > 0 {
		add("process", r.cfg.Gateway, "taking its state", time.Since(g.started)-time.Duration(since), l.view)
	}
	return list
}

// watch looks each second. The first time that something hangs the log gets a dump of all goroutines.
func (g *Gateway) watch(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			g.clock.look()
			list := g.stalls()
			if len(list) > 0 {
				g.dump(fmt.Sprintf("%s %q hangs: %s", list[0].Kind, list[0].Name, list[0].What))
			}
			g.watchdog.tell(g.log, list)
		}
	}
}

// tell logs what hangs while no state can be taken: then nobody else does. Each is said once in a time without a pause.
func (w *watchdog) tell(log *slog.Logger, list []web.Stall) {
	if !slices.ContainsFunc(list, func(s web.Stall) bool { return s.Kind == "process" }) {
		w.told = nil
		return
	}
	for i := range list {
		if key := list[i].Kind + "\x00" + list[i].Name; !slices.Contains(w.told, key) {
			st := list[i].State()
			w.told = append(w.told, key)
			log.Error(st.String())
		}
	}
}

// Stalled returns the name of the gateway and what takes longer than it may. It never waits.
func (g *Gateway) Stalled() (gateway string, list []web.Stall) {
	if r := g.watchdog.runs.Load(); r != nil {
		gateway = r.cfg.Gateway
	}
	return gateway, g.stalls()
}

// dump logs what all goroutines do, once in the life of the process.
func (g *Gateway) dump(why string) {
	if !g.watchdog.dumped.CompareAndSwap(false, true) {
		return
	}
	stacks := make([]byte, maxDump)
	stacks = stacks[:runtime.Stack(stacks, true)]
	g.log.Error(why+"; please report this with the goroutines", "goroutines", string(stacks))
}

// bounded calls stop, which ends the gateway, and returns ErrHung when it does not end within the grace time and a bound, or
// within that bound after hurry has ended.
func (g *Gateway) bounded(hurry context.Context, grace time.Duration, stop func() error) error {
	done := make(chan error, 1)
	go func() { done <- stop() }()
	late := time.NewTimer(grace + g.watchdog.limits.stop)
	defer late.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-hurry.Done():
			late.Reset(g.watchdog.limits.stop)
			hurry = context.Background()
		case <-late.C:
			g.dump("the stop hangs")
			g.log.Error(ErrHung.Error())
			return ErrHung
		}
	}
}
