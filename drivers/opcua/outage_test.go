package opcua

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// journal is a poller in short: it connects, subscribes, takes what is pushed, and connects again. It notes values of tag 0 and what is said to be missing.
type journal struct {
	mu     sync.Mutex
	lines  []line
	starts int
}

// line is a value, or the name of a gap behind the last one.
type line struct {
	at    time.Time
	value int64
	gap   string
}

func (j *journal) add(l line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l.at = time.Now()
	j.lines = append(j.lines, l)
}

func (j *journal) run(ctx context.Context, d *driver, watch bool) {
	for ctx.Err() == nil {
		if err := j.session(ctx, d, watch); ctx.Err() == nil {
			j.add(line{gap: err.Error()})
			time.Sleep(100 * time.Millisecond)
		}
		d.Close()
	}
}

func (j *journal) session(ctx context.Context, d *driver, watch bool) error {
	if err := d.Connect(ctx); err != nil {
		return err
	}
	d.feed.off = !watch
	if _, err := d.Subscribe(ctx, drivers.Ref{}); err != nil {
		return err
	}
	j.mu.Lock()
	j.starts++
	j.mu.Unlock()
	pushes := d.Pushed()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p, ok := <-pushes:
			if err := j.take(&p, ok); err != nil {
				return err
			}
		}
	}
}

func (j *journal) take(p *drivers.Push, ok bool) error {
	switch {
	case !ok:
		return errors.New("the channel of pushes is closed without a cause")
	case p.Err != nil:
		return p.Err
	case p.Lost > 0:
		j.add(line{gap: fmt.Sprintf("%d lost: %s", p.Lost, p.Note)})
	}
	for _, r := range p.Readings {
		if r.Tag == 0 && r.Quality == telemetry.Good {
			j.add(line{value: int64(r.Value.Bits)})
		}
	}
	return nil
}

// since returns the first line behind a moment that is wanted.
func (j *journal) since(at time.Time, want func(line) bool) (line, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.lines {
		if l.at.After(at) && want(l) {
			return l, true
		}
	}
	return line{}, false
}

func isGap(l line) bool   { return l.gap != "" }
func isValue(l line) bool { return l.gap == "" }

// silentLosses returns how many numbers are missing where no gap was named.
func (j *journal) silentLosses() (silent, values int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	named, last := true, int64(0)
	for _, l := range j.lines {
		if l.gap != "" {
			named = true
			continue
		}
		if values++; !named && l.value > last+1 {
			silent += l.value - last - 1
		}
		named, last = false, l.value
	}
	return silent, values
}

// outage is one fault of F22. begin breaks the server at a moment; mend, where there is one, is called when the gap was named.
type outage struct {
	name        string
	begin, mend func(s *opcuasim.Server)
	gap         string // what is said of it; "" = nothing is missing
	verify      string // verify_interval
	silent      bool   // only the watchdog finds it
}

func outages() []outage {
	return []outage{
		{name: "restart", begin: func(s *opcuasim.Server) { _ = s.Restart() }, gap: "connection"},
		{name: "lost session", begin: (*opcuasim.Server).DropSessions, gap: "no answer", silent: true},
		{name: "deleted subscription, told", begin: drop(opcuasim.DropTold), gap: "BadTimeout"},
		{name: "deleted subscription, refused", begin: drop(opcuasim.DropRefused), gap: "BadNoSubscription"},
		{name: "deleted subscription, untold", begin: drop(opcuasim.DropQuietly), gap: "no answer", silent: true},
		{name: "silent while connected", begin: func(s *opcuasim.Server) { s.SetSilent(true) }, mend: func(s *opcuasim.Server) { s.SetSilent(false) }, gap: "no answer", silent: true},
		{name: "answers all but Publish", begin: func(s *opcuasim.Server) { s.SetUnpublished(true) }, mend: func(s *opcuasim.Server) { s.SetUnpublished(false) }, gap: "no answer", silent: true},
		{name: "one item silent", begin: func(s *opcuasim.Server) { s.SetMute("n", true) }, mend: func(s *opcuasim.Server) { s.SetMute("n", false) }, gap: `does not report changes of "ns=2;s=n"`, verify: "1s"},
		{name: "sequence gap, republished", begin: func(s *opcuasim.Server) { s.SkipMessages(3, false) }},
		{name: "sequence gap, forgotten", begin: func(s *opcuasim.Server) { s.SkipMessages(3, true) }, gap: "lost"},
		{name: "many messages forgotten", begin: func(s *opcuasim.Server) { s.SkipMessages(40, true) }, gap: "lost"},
	}
}

func drop(how opcuasim.Drop) func(*opcuasim.Server) {
	return func(s *opcuasim.Server) { s.DropSubscriptions(how) }
}

// tally adds a variable that is another number each time it is sampled: one that is missing is a loss.
func tally(s *opcuasim.Server, name string) {
	var n atomic.Int64
	s.AddVariable(name, func() any { return n.Add(1) })
}

// testQuiet stands for minQuiet, so that the tests end sooner.
const testQuiet = 3 * time.Second

func watched(t *testing.T, verify string, watch bool) (*opcuasim.Server, *journal) {
	s := start(t, opcuasim.Options{}, 0)
	tally(s, "n")
	c := connection(s.Endpoint(), time.Second, "ns=2;s=n")
	c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
	c.Devices[0].Options["verify_interval"] = verify
	d, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	d.(*driver).set.quiet = testQuiet
	j := &journal{}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		j.run(ctx, d.(*driver), watch)
	}()
	t.Cleanup(func() { cancel(); <-over })
	return s, j
}

func eventually(t *testing.T, what string, within time.Duration, done func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// TestOutages, F22: each fault is noticed and passes, and no value is missing where that was not said.
func TestOutages(t *testing.T) {
	for _, o := range outages() {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			s, j := watched(t, o.verify, true)
			eventually(t, "values", time.Minute, func() bool { _, n := j.silentLosses(); return n > 20 })
			begin := time.Now()
			o.begin(s)
			noticed := begin
			if o.gap != "" {
				eventually(t, "the gap", time.Minute, func() bool { _, ok := j.since(begin, isGap); return ok })
				l, _ := j.since(begin, isGap)
				if noticed = l.at; !strings.Contains(l.gap, o.gap) {
					t.Errorf("the gap is called %q, want %q in it", l.gap, o.gap)
				}
			}
			mended := noticed
			if o.mend != nil {
				mended = time.Now()
				o.mend(s)
			}
			eventually(t, "values again", time.Minute, func() bool { _, ok := j.since(mended, isValue); return ok })
			l, _ := j.since(mended, isValue)
			eventually(t, "more values", time.Minute, func() bool { _, n := j.silentLosses(); return n > 60 })
			if l, ok := j.since(begin, isGap); ok && o.gap == "" {
				t.Errorf("a gap %q where nothing is missing", l.gap)
			}
			silent, values := j.silentLosses()
			if silent != 0 {
				t.Errorf("%d values are missing and nothing was said", silent)
			}
			t.Logf("FIGURES F22 %s: noticed after %.1f s, resumed %.1f s after; %d values, %d silent losses, %d sessions",
				o.name, noticed.Sub(begin).Seconds(), l.at.Sub(mended).Seconds(), values, silent, j.starts)
		})
	}
}

// TestOutagesUnwatched is the control of TestOutages: without the watchdog these are not noticed, and nothing comes any more.
func TestOutagesUnwatched(t *testing.T) {
	for _, o := range outages() {
		if !o.silent && o.verify == "" {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			s, j := watched(t, "", false)
			eventually(t, "values", time.Minute, func() bool { _, n := j.silentLosses(); return n > 20 })
			o.begin(s)
			time.Sleep(2 * testQuiet)
			at := time.Now().Add(-testQuiet)
			if l, ok := j.since(at, func(line) bool { return true }); ok {
				t.Errorf("without the watchdog it is noticed as well: %+v", l)
			}
		})
	}
}
