package gateway

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/drivers"
	"millrace/drivers/telemetry"
	"millrace/gateway/poller"
)

// missingBed is a store in which devices a and b ran, and that was safe last an hour ago.
type missingBed struct {
	t       *testing.T
	dir     string
	written time.Time
	left    buffer.Left
	log     strings.Builder
	reason  string // of what since has said last
}

func newMissingBed(t *testing.T) *missingBed {
	t.Helper()
	b := &missingBed{t: t, dir: t.TempDir(), written: time.Now().Add(-time.Hour).Truncate(time.Second), left: buffer.Left{New: true}}
	if m := b.start(); !m.last.IsZero() {
		t.Errorf("an empty store was safe last at %v", m.last)
	}
	b.start().runs(pushed("a", "b"))
	b.left = buffer.Left{Until: b.written, Unclean: true}
	return b
}

// pushed are connections of devices that are to push, and of one that is polled.
func pushed(names ...string) []*connection {
	c := &connection{}
	at := &drivers.Connection{}
	for _, name := range append(names, "polled") {
		c.devices = append(c.devices, deviceConfig{name: name})
		at.Devices = append(at.Devices, drivers.Device{Name: name, Groups: []drivers.Group{{Name: "g"}}})
	}
	sinks := make([][]poller.Sink, len(at.Devices))
	for i := range sinks {
		sinks[i] = make([]poller.Sink, 1)
	}
	c.poller = poller.New(at, pushes{len(names)}, poller.Options{Sinks: sinks, RetryMin: time.Second, RetryMax: time.Second})
	return []*connection{c}
}

// pushes is a driver of so many devices that push.
type pushes struct{ n int }

func (pushes) Connect(context.Context) error                        { return nil }
func (pushes) Close() error                                         { return nil }
func (pushes) Subscribe(context.Context, drivers.Ref) (bool, error) { return true, nil }
func (pushes) Pushed() <-chan drivers.Push                          { return nil }
func (pushes) Plan(drivers.Ref) []string                            { return nil }
func (p pushes) Requests(g drivers.Ref) int                         { return max(0, g.Device-p.n+1) }
func (pushes) Read(context.Context, drivers.Ref, []telemetry.Reading) ([]telemetry.Reading, error) {
	return nil, nil
}

func isWell() bool { return true }

func (b *missingBed) start() *missing {
	b.log.Reset()
	return newMissing(b.dir, time.Second, b.left, false, slog.New(slog.NewTextHandler(&b.log, nil)))
}

// since asks for a device.
func (b *missingBed) since(m *missing, name string) (from time.Time) {
	from, b.reason = m.since([]deviceConfig{{name: name}}, reloaded)(0)
	return from
}

// isNew fails unless nothing is missing of a device.
func (b *missingBed) isNew(m *missing, what, name string) {
	b.t.Helper()
	if got := b.since(m, name); time.Since(got) > time.Minute || b.reason != "" {
		b.t.Errorf("%s misses something since %v: %s", what, got, b.reason)
	}
}

// TestMissingAfterAKillInSilence: a server that became silent shortly before a kill, while other devices went on, was heard last before that.
func TestMissingAfterAKillInSilence(t *testing.T) {
	const silence, push = 15 * time.Second, 6 * time.Second // until the first is noticed; in which a push takes all that was sampled
	b := newMissingBed(t)
	heard := b.written.Add(-silence)
	if got := b.since(b.start(), "a"); got.After(heard.Add(-push)) {
		t.Errorf("it is missing since %v, and was heard last at %v", got, heard)
	}
}

// TestMissingAfterAKill: it is since the store was safe last, also after a start that fails; a device that is new has missed nothing.
func TestMissingAfterAKill(t *testing.T) {
	b := newMissingBed(t)
	before := b.written.Add(-time.Second - poller.Lag)
	m := b.start()
	if got := b.since(m, "a"); !got.Equal(before) || b.reason != didNotRun {
		t.Errorf("after a kill %v (%s), want %v", got, b.reason, before)
	}
	b.isNew(m, "a new device", "new")
	b.isNew(m, "a device that was polled", "polled")
	m.opened()
	if got := b.since(b.start(), "b"); !got.Equal(before) {
		t.Errorf("after a kill and a start that failed %v, want %v", got, before)
	}
	m = b.start()
	m.runs(pushed("a", "new"))
	b.isNew(m, "a device that a reload adds", "b")
	m.by["b"] = before
	if got := b.since(m, "b"); !got.Equal(before) || b.reason != reloaded {
		t.Errorf("a device that a reload changes misses something since %v: %s", got, b.reason)
	}
	if got := b.since(b.start(), "new"); !got.Equal(before) {
		t.Errorf("after two kills in a row %v, want %v", got, before)
	}
	b.isNew(b.start(), "a device that has come back", "b")
	m.ran = m.ran.Add(-m.settle)
	m.settled(func() bool { return false })
	if got := b.since(b.start(), "new"); !got.Equal(before) {
		t.Errorf("settled on a store that fails: %v", got)
	}
	m.settled(isWell)
	b.left.Until = time.Now()
	if got := b.since(b.start(), "new"); time.Since(got) > time.Minute || b.reason != didNotRun {
		t.Errorf("after a kill at some time %v (%s), want some seconds ago", time.Since(got), b.reason)
	}
}

// TestMissingAfterAKillInAnOutage: an outage that had lasted, and history that was not read to the end, begin where they began; what is over or has been read is
// forgotten when the store has been written since.
func TestMissingAfterAKillInAnOutage(t *testing.T) {
	b := newMissingBed(t)
	b.left = buffer.Left{New: true}
	m := b.start()
	m.opened()
	m.runs(pushed("a", "b"))
	b.left = buffer.Left{Until: time.Now(), Unclean: true}
	lag := b.left.Until.Add(-time.Second - poller.Lag)
	begin, now := time.Now().Add(-24*time.Hour).Truncate(time.Second), time.Now()
	for _, c := range []struct {
		what  string
		is    time.Time // of a; zero = nothing
		after time.Duration
		sick  bool
		want  time.Time
	}{
		{"a short outage", now.Add(-time.Second), 0, false, lag},
		{"a time to come", now.Add(time.Hour), 0, false, lag},
		{"nobody knows since when", poller.NotKnown(), 0, false, poller.NotKnown()},
		{"a store that fails is as if nothing had been read", begin, m.settle, true, poller.NotKnown()},
		{"and what counts is how it was when it is well", begin, m.settle, false, poller.NotKnown()},
		{"an outage of a day", begin, m.settle, false, begin},
		{"history has been read", begin.Add(time.Hour), m.settle, false, begin},
		{"and the store written", begin.Add(2 * time.Hour), m.settle, false, begin.Add(time.Hour)},
		{"another one within", begin.Add(time.Minute), rewrite, false, begin.Add(time.Minute)},
		{"all has been read", time.Time{}, m.settle, false, begin.Add(time.Minute)},
		{"and written", time.Time{}, m.settle, false, lag},
	} {
		is := map[string]time.Time{}
		if !c.is.IsZero() {
			is["a"] = c.is
		}
		now = now.Add(c.after)
		m.note(is, now, func() bool { return !c.sick })
		if got := b.since(b.start(), "a"); !got.Equal(c.want) || b.reason != didNotRun {
			t.Errorf("%s: a kill then, and something is missing since %v (%s), want %v", c.what, got, b.reason, c.want)
		}
		if got := b.since(b.start(), "b"); !got.Equal(lag) {
			t.Errorf("%s: another device misses something since %v, want %v", c.what, got, lag)
		}
	}
}

// TestMissingAfterAStop: since when a device was not heard goes over a clean stop, once.
func TestMissingAfterAStop(t *testing.T) {
	b := newMissingBed(t)
	m, stopped := b.start(), time.Now().Add(-30*time.Minute)
	m.by = map[string]time.Time{"a": stopped, "gone": stopped}
	if err := m.save(pushed("a", "b")); err != nil {
		t.Fatal(err)
	}
	for _, now := range []time.Time{time.Now(), time.Now().Add(m.settle), time.Now().Add(2 * m.settle)} { // while what is left is sent
		m.note(map[string]time.Time{"b": stopped}, now, isWell)
	}
	b.left = buffer.Left{Until: time.Now()}
	m = b.start()
	if got := b.since(m, "a"); !got.Equal(stopped) || b.reason != didNotRun {
		t.Errorf("after a stop %v (%s), want %v", got, b.reason, stopped)
	}
	b.isNew(m, "a device that was in the config no more", "gone")
	m.opened()
	if got := b.since(b.start(), "a"); !got.Equal(stopped) {
		t.Error("a start that failed has used the file up")
	}
	m.runs(pushed("a", "b"))
	if m.settled(isWell); !b.since(b.start(), "a").Equal(stopped) {
		t.Error("the file is gone before what it says can have been told")
	}
	m.ran = m.ran.Add(-m.settle)
	m.settled(isWell)
	if got := b.since(b.start(), "a"); got.Equal(stopped) {
		t.Error("the file holds for another run")
	}
	if b.log.Len() > 0 {
		t.Errorf("log: %s", b.log.String())
	}
}

// TestMissingIsDamaged: it is then since the store was safe last, of every device, and the log says so. So it is when there are too many devices.
func TestMissingIsDamaged(t *testing.T) {
	b := newMissingBed(t)
	m := b.start()
	sealed := func(body string) string { return m.file.head([]byte(body)) + "\n" + body }
	for _, bad := range []string{"", "{", `{"a":"2026-01-02T03:04:05Z"}`, sealed("{"), sealed(`{"at":1}`), sealed(strings.Repeat(" ", m.file.most))} {
		if err := os.WriteFile(m.file.path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := b.since(b.start(), "x"); got.IsZero() || b.reason != didNotRun || !strings.Contains(b.log.String(), "cannot be read") {
			t.Errorf("%.20q: %v, log %s", bad, got, b.log.String())
		}
	}
	m.file.most = 80
	m.runs(pushed("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"))
	b.since(b.start(), "j")
	if b.reason != didNotRun || b.log.Len() > 0 {
		t.Errorf("%q, log %s", b.reason, b.log.String())
	}
}

// TestMissingOfASelection: what a connection leaves that is exchanged for the tags of a rule is told with that reason; one of a new device that had no tag yet leaves nothing.
func TestMissingOfASelection(t *testing.T) {
	b := newMissingBed(t)
	m := b.start()
	m.runs(pushed("a"))
	left := func(empty bool) bool {
		c := pushed("r")[0]
		c.devices[0].empty = empty
		at := &drivers.Connection{Devices: []drivers.Device{{Name: "r", Groups: []drivers.Group{{Name: "g", Interval: time.Second}}}}}
		c.devices = c.devices[:1]
		c.poller = poller.New(at, pushes{1}, poller.Options{RetryMin: time.Second, RetryMax: time.Second, Sinks: [][]poller.Sink{make([]poller.Sink, 1)}, Since: m.since(c.devices, reselected), Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.poller.Run(ctx); err != nil {
			t.Fatal(err)
		}
		m.ended(c)
		return !m.by["r"].IsZero()
	}
	if left(true) {
		t.Errorf("a device without tags misses something since %v", m.by["r"])
	}
	if !left(false) {
		t.Error("a device with tags misses nothing")
	}
	if _, why := m.since([]deviceConfig{{name: "r"}}, reselected)(0); why != reselected {
		t.Errorf("the reason is %q", why)
	}
	empty := pushed("r", "s")
	empty[0].devices[0].empty = true
	if names := pushingIn(empty); len(names) != 1 || names[0] != "s" {
		t.Errorf("%q push", names)
	}
}
