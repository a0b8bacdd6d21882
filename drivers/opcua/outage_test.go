package opcua

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// journal is a poller in short: it connects, subscribes, takes what is pushed, and connects again. It notes the values of tag 0, and
// from when to when it would tell a gap.
type journal struct {
	mu     sync.Mutex
	lines  []line
	starts int
	heard  time.Time // up to then nothing is missing
	open   *line     // the outage that is not over

	interval time.Duration // of the group; 0 = 50 ms
}

// line is a value, or a gap with its name.
type line struct {
	at       time.Time
	value    int64
	gap      string
	from, to time.Time
}

// margin is what the poller allows for the way of a push.
func (j *journal) margin() time.Duration {
	return time.Second + cmp.Or(j.interval, 50*time.Millisecond)
}

func (j *journal) add(l line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l.at = time.Now()
	j.lines = append(j.lines, l)
}

func (j *journal) run(ctx context.Context, d *driver, watch bool) {
	for ctx.Err() == nil {
		since, err := j.session(ctx, d, watch)
		if j.cut(since, err); ctx.Err() == nil {
			time.Sleep(100 * time.Millisecond)
		}
		d.Close()
	}
}

// cut begins an outage, unless there is one.
func (j *journal) cut(since time.Time, err error) {
	if j.open != nil || j.heard.IsZero() || err == nil {
		return
	}
	j.open = &line{gap: err.Error(), from: j.heard.Add(-j.margin()), to: time.Now()}
	if !since.IsZero() && since.Before(j.open.from) {
		j.open.from = since
	}
	j.add(*j.open)
}

// resumed ends it.
func (j *journal) resumed() {
	j.heard = time.Now()
	if l := j.open; l != nil {
		l.to = j.heard
		j.add(*l)
		j.open = nil
	}
	j.mu.Lock()
	j.starts++
	j.mu.Unlock()
}

func (j *journal) session(ctx context.Context, d *driver, watch bool) (since time.Time, err error) {
	if err := d.Connect(ctx); err != nil {
		return since, err
	}
	d.feed.off = !watch
	pushed, err := d.Subscribe(ctx, drivers.Ref{})
	if err != nil {
		return since, err
	}
	if j.resumed(); !pushed {
		return since, j.poll(ctx, d)
	}
	pushes := d.Pushed()
	for {
		select {
		case <-ctx.Done():
			return since, nil
		case p, ok := <-pushes:
			if err := j.take(&p, ok); err != nil {
				return p.Since, err
			}
		}
	}
}

// poll reads until the link is lost.
func (j *journal) poll(ctx context.Context, d *driver) error {
	for ctx.Err() == nil {
		readings, err := d.Read(ctx, drivers.Ref{}, nil)
		if err != nil {
			return err
		}
		if err := j.take(&drivers.Push{Readings: readings}, true); err != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func (j *journal) take(p *drivers.Push, ok bool) error {
	switch {
	case !ok:
		return errors.New("the channel of pushes is closed without a cause")
	case p.Err != nil:
		return p.Err
	case p.Lost > 0:
		j.add(line{gap: fmt.Sprintf("%d lost of %v: %s", p.Lost, p.Tags, p.Note), from: j.heard.Add(-j.margin()), to: time.Now()})
	}
	if p.At.IsZero() {
		p.At = time.Now()
	}
	if p.At.After(j.heard) {
		j.heard = p.At
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

func (j *journal) values() (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.lines {
		if isValue(l) {
			n++
		}
	}
	return n
}

// account says of every number of a tally between the first that came and the last what has become of it: it came, or it was sampled within a gap
// that was told, or it is a silent loss.
func (j *journal) account(c *counted) (silent, named []int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	came := map[int64]bool{}
	first, last := int64(math.MaxInt64), int64(0)
	for _, l := range j.lines {
		if isValue(l) {
			came[l.value] = true
			first, last = min(first, l.value), max(last, l.value)
		}
	}
	for n := first; n <= last; n++ {
		switch at := c.sampled(n); {
		case came[n]:
		case slices.ContainsFunc(j.lines, func(l line) bool { return isGap(l) && !at.Before(l.from) && !at.After(l.to) }):
			named = append(named, n)
		default:
			silent = append(silent, n)
		}
	}
	return silent, named
}

// story tells what came about the values that are missing in no gap, and the gaps.
func (j *journal) story(c *counted, silent []int64) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	begin := j.lines[0].at
	var b strings.Builder
	for _, l := range j.lines {
		switch near := func(n int64) bool { return l.value-n >= -3 && l.value-n <= 3 }; {
		case isGap(l):
			fmt.Fprintf(&b, "%.3f gap %q from %.3f to %.3f\n", l.at.Sub(begin).Seconds(), l.gap, l.from.Sub(begin).Seconds(), l.to.Sub(begin).Seconds())
		case slices.ContainsFunc(silent, near):
			fmt.Fprintf(&b, "%.3f value %d, sampled %.3f\n", l.at.Sub(begin).Seconds(), l.value, c.sampled(l.value).Sub(begin).Seconds())
		}
	}
	for _, n := range silent {
		fmt.Fprintf(&b, "value %d was sampled %.3f and did not come\n", n, c.sampled(n).Sub(begin).Seconds())
	}
	return b.String()
}

// told returns how many gaps there are, and how long they are together.
func (j *journal) told() (n int, length time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range j.lines {
		if isGap(l) {
			n++
			length = max(length, l.to.Sub(l.from))
		}
	}
	return n, length
}

// outage is one fault of F22. begin breaks the server at a moment; mend, where there is one, is called when the gap was named.
type outage struct {
	name        string
	begin, mend func(p *plant)
	gap         string // what is said of it; "" = nothing is missing
	told        string // or this, where a request was under way and the server says it itself
	verify      string // verify_interval
	silent      bool   // only the watchdog finds it
	secured     bool
	quiet       time.Duration // in place of testQuiet
	renews      bool          // the token, all the time; the simulated server's library spoils one in four renewals while it publishes
}

// tells reports whether a gap was noticed because the server said why.
func (o *outage) tells(gap string) bool { return o.told != "" && strings.Contains(gap, o.told) }

// plant is a server, behind a proxy.
type plant struct {
	*opcuasim.Server
	proxy *opcuasim.Proxy
	n     *counted
}

func outages() []outage {
	restart := func(p *plant) { _ = p.Restart() }
	hold := func(p *plant) { p.proxy.Hold(true); time.Sleep(5 * time.Second) } // what the server sent at its beginning comes at its end
	garble := func(kind string, at int) func(*plant) { return func(p *plant) { p.proxy.Garble(kind, at) } }
	return []outage{
		{name: "restart", begin: restart, gap: "connection"},
		{name: "killed for a while", begin: (*plant).Close, mend: func(p *plant) { time.Sleep(2 * time.Second); _ = p.Start() }, gap: "connection"},
		{name: "lost session", begin: (*plant).DropSessions, gap: "no answer", told: "BadSessionIdInvalid", silent: true},
		{name: "deleted subscription, told", begin: drop(opcuasim.DropTold), gap: "BadTimeout"},
		{name: "deleted subscription, refused", begin: drop(opcuasim.DropRefused), gap: "BadNoSubscription"},
		{name: "deleted subscription, untold", begin: drop(opcuasim.DropQuietly), gap: "no answer", silent: true},
		{name: "silent while connected", begin: func(p *plant) { p.SetSilent(true) }, mend: func(p *plant) { p.SetSilent(false) }, gap: "no answer", silent: true},
		{name: "answers all but Publish", begin: func(p *plant) { p.SetUnpublished(true) }, mend: func(p *plant) { p.SetUnpublished(false) }, gap: "no answer", silent: true},
		{name: "nothing gets through", begin: func(p *plant) { p.proxy.Silence(true) }, mend: func(p *plant) { p.proxy.Silence(false) }, gap: "no answer", silent: true},
		{name: "one item silent", begin: func(p *plant) { p.SetMute("n", true) }, mend: func(p *plant) { p.SetMute("n", false) }, gap: `does not report changes of "ns=2;s=n"`, verify: "1s"},
		{name: "sequence gap, republished", begin: func(p *plant) { p.SkipMessages(3, false) }},
		{name: "sequence gap, forgotten", begin: func(p *plant) { p.SkipMessages(3, true) }, gap: "lost"},
		{name: "many messages forgotten", begin: func(p *plant) { p.SkipMessages(40, true) }, gap: "lost"},
		{name: "expired token", begin: garble("MSG", 12), gap: "another secure channel"},
		{name: "expired token, secured", begin: garble("MSG", 12), gap: "another secure channel", secured: true},
		{name: "spoilt message, secured", begin: garble("MSG", 40), gap: "signature", secured: true},
		{name: "spoilt renewal of the token, secured", begin: garble("OPN", 1000), gap: "renew the secure channel", secured: true, renews: true},
		{name: "held up", begin: func(p *plant) { hold(p); p.proxy.Hold(false) }, gap: "lost of [0]", quiet: minQuiet},
		{name: "held up, then restarted", begin: func(p *plant) { hold(p); restart(p); p.proxy.Hold(false) }, gap: "connection", quiet: minQuiet},
		{name: "wrong nonce, secured", begin: func(p *plant) { p.SetWrongNonce(true); restart(p) }, mend: func(p *plant) { time.Sleep(2 * time.Second); p.SetWrongNonce(false) }, gap: "connection", secured: true},
	}
}

func drop(how opcuasim.Drop) func(*plant) {
	return func(p *plant) { p.DropSubscriptions(how) }
}

// counted is a variable that is another number each time it is sampled: one that is missing is a loss.
type counted struct {
	mu sync.Mutex
	at []time.Time
}

func (c *counted) next() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = append(c.at, time.Now())
	return int64(len(c.at))
}

// sampled returns when a number was.
func (c *counted) sampled(n int64) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[n-1]
}

// tally adds a variable that counts.
func tally(s *opcuasim.Server, name string) *counted {
	c := new(counted)
	s.AddVariable(name, c.next)
	return c
}

// testQuiet stands for minQuiet, so that the tests end sooner.
const testQuiet = 3 * time.Second

// watched subscribes to a server that counts.
func watched(t *testing.T, o *outage, watch bool) (*plant, *journal) {
	options := opcuasim.Options{OneClient: true}
	if o.secured {
		options.Identity, options.Policies = identity(t), uris("basic256sha256")
	}
	s := start(t, options, 0)
	proxy, err := opcuasim.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	p := &plant{s, proxy, tally(s, "n")}
	c := connection(proxy.Endpoint(), time.Second, "ns=2;s=n")
	if o.secured {
		c, _ = securedConnection(t, proxy.Endpoint(), nil, "ns=2;s=n")
		c.Devices[0].Timeout = time.Second
	}
	c.Devices[0].Groups[0].Interval = 50 * time.Millisecond
	if watch {
		c.Devices[0].Options["verify_interval"] = o.verify
	}
	made, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	d := made.(*driver)
	d.set.quiet = cmp.Or(o.quiet, testQuiet)
	if o.renews {
		d.set.lifetime = 2 * time.Second
	}
	j := &journal{}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		j.run(ctx, d, watch)
	}()
	t.Cleanup(func() { cancel(); <-over })
	return p, j
}

func eventually(t *testing.T, what string, within time.Duration, done func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// TestOutages, F22: each fault is noticed and passes, and every change of the value came, or lies in a gap that was told.
func TestOutages(t *testing.T) {
	t.Parallel()
	for _, o := range outages() {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			p, j := watched(t, &o, true)
			eventually(t, "values", time.Minute, func() bool { return j.values() > 20 })
			begin := time.Now()
			o.begin(p)
			noticed := begin
			if o.gap != "" {
				eventually(t, "the gap", time.Minute, func() bool { _, ok := j.since(begin, isGap); return ok })
				l, _ := j.since(begin, isGap)
				if noticed = l.at; !strings.Contains(l.gap, o.gap) && !o.tells(l.gap) {
					t.Errorf("the gap is called %q, want %q in it", l.gap, o.gap)
				}
			}
			if o.mend != nil {
				o.mend(p)
			}
			mended := noticed
			if o.mend != nil {
				mended = time.Now()
			}
			eventually(t, "values again", time.Minute, func() bool { _, ok := j.since(mended, isValue); return ok })
			l, _ := j.since(mended, isValue)
			before := j.values()
			eventually(t, "more values", time.Minute, func() bool { return j.values() > before+40 })
			if l, ok := j.since(begin, isGap); ok && o.gap == "" {
				t.Errorf("a gap %q where nothing is missing", l.gap)
			}
			silent, named := j.account(p.n)
			if len(silent) != 0 {
				t.Errorf("%d values are missing in no gap: %v\n%s", len(silent), silent, j.story(p.n, silent))
			}
			gaps, longest := j.told()
			t.Logf("FIGURES F22 %s: noticed after %.1f s, resumed %.1f s after; %d values, %d more in gaps that were told (%d, the longest %.1f s), %d silent losses, %d sessions",
				o.name, noticed.Sub(begin).Seconds(), l.at.Sub(mended).Seconds(), j.values(), len(named), gaps, longest.Seconds(), len(silent), j.starts)
		})
	}
}

// TestOutagesUnwatched is the control of TestOutages: without the watchdog these are not noticed, and nothing comes any more.
func TestOutagesUnwatched(t *testing.T) {
	t.Parallel()
	for _, o := range outages() {
		if !o.silent && o.verify == "" {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			p, j := watched(t, &o, false)
			eventually(t, "values", time.Minute, func() bool { return j.values() > 20 })
			began := time.Now()
			o.begin(p)
			for last := began; time.Since(last) < 2*testQuiet; time.Sleep(10 * time.Millisecond) {
				if l, ok := j.since(began, isGap); ok && o.tells(l.gap) {
					t.Logf("the server said it itself, because a request was under way: %q", l.gap)
					return
				} else if ok {
					t.Fatalf("without the watchdog it is noticed as well: %+v", l)
				}
				if l, ok := j.since(last, isValue); ok { // that was on its way
					last = l.at
				}
				if time.Since(began) > time.Minute {
					t.Fatalf("values still come after %v", time.Since(began))
				}
			}
		})
	}
}
