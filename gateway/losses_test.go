package gateway

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/web"
)

// TestLossesStay: what was lost is said over a restart, until a person acknowledges it, and anew with the next loss.
func TestLossesStay(t *testing.T) {
	dir := t.TempDir()
	var n uint64
	ledger := func() []buffer.Account {
		d := buffer.DestinationAccount{Name: "cloud"}
		d.Dropped[buffer.CauseFull] = n
		return []buffer.Account{{Name: "press-1", Destinations: []buffer.DestinationAccount{d}}}
	}
	now := judged
	open := func() (*buffer.Buffer, *losses) {
		b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
		if err != nil {
			t.Fatal(err)
		}
		l := newLosses(b, dir, slog.New(slog.DiscardHandler))
		l.now = func() time.Time { return now }
		return b, l
	}
	b, l := open()
	said := func(when string, readings uint64, from time.Time, losing bool) {
		t.Helper()
		got := l.look(ledger(), false)
		if readings == 0 && len(got) == 0 {
			return
		}
		if len(got) != 1 || got[0].Readings != readings || !got[0].From.Equal(from) || got[0].Losing != losing {
			t.Errorf("%s: %+v; want %d readings from %v, losing %v", when, got, readings, from, losing)
		}
	}
	said("at first", 0, time.Time{}, false)
	n = 70
	said("a loss", 70, judged, true)
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	said("later", 70, judged, false)
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b, l = open()
		said("after a restart", 70, judged, false)
	}
	if seen, err := l.acknowledge(ledger(), "anna"); err != nil || len(seen) != 1 {
		t.Fatal(seen, err)
	}
	said("acknowledged", 0, time.Time{}, false)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b, l = open()
	defer b.Close()
	said("acknowledged, after a restart", 0, time.Time{}, false)
	n = 71
	said("the next loss", 1, now, true)
	n = 0
	said("taken out of quarantine", 0, time.Time{}, false)
	n = 2
	said("and others put into it", 2, now, true)
	n, l.unknown = 0, func() uint64 { return 1 }
	if got := l.look(ledger(), false); len(got) != 1 || got[0].Destination != "" || got[0].Causes != "1 damage to the store's files" {
		t.Errorf("a loss that nobody could count: %+v", got)
	}
	if seen, err := l.acknowledge(ledger(), "anna"); err != nil || len(seen) != 1 {
		t.Fatal(seen, err)
	}
	said("acknowledged", 0, time.Time{}, false)
}

// lostFull is a ledger with so many readings lost for want of room.
func lostFull(n uint64) []buffer.Account {
	d := buffer.DestinationAccount{Name: "cloud"}
	d.Dropped[buffer.CauseFull] = n
	return []buffer.Account{{Name: "press-1", Destinations: []buffer.DestinationAccount{d}}}
}

// leftFull is what a process has left that had counted so many, and kept the store until then.
func leftFull(n uint64, until time.Time) buffer.Left {
	var dropped [buffer.Causes]uint64
	dropped[buffer.CauseFull] = n
	return buffer.Left{Until: until, Dropped: map[string][buffer.Causes]uint64{"cloud": dropped}}
}

// TestLossesAfterAKill: what the process before had noticed is not noticed anew at a start, with or without the note of it; what comes then is.
func TestLossesAfterAKill(t *testing.T) {
	dir, now := t.TempDir(), judged
	b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	open := func() *losses {
		l := newLosses(b, dir, slog.New(slog.DiscardHandler))
		l.now = func() time.Time { return now }
		return l
	}
	is := func(when string, l *losses, n uint64, to time.Duration, losing bool) {
		t.Helper()
		got := l.look(lostFull(n), false)
		if len(got) != 1 || got[0].Readings != n || !got[0].To.Equal(judged.Add(to)) || got[0].Losing != losing {
			t.Errorf("%s: %+v; want %d readings, the last %v after the first, losing %v", when, got, n, to, losing)
		}
	}
	at := func(after time.Duration, l *losses, n uint64) {
		t.Helper()
		now = judged.Add(after)
		l.look(lostFull(n), false)
		if err := l.save(); err != nil {
			t.Fatal(err)
		}
	}
	l := open()
	at(0, l, 70)
	at(5*time.Second, l, 75)
	at(6*time.Second, l, 75)

	now = judged.Add(time.Hour)
	killed := open()
	killed.begin(lostFull(75), leftFull(75, judged.Add(8*time.Second)), false)
	is("not in the note", killed, 75, 8*time.Second, false)
	unknown := open()
	unknown.begin(lostFull(75), leftFull(75, time.Time{}), false)
	is("not in the note, and nobody knows when", unknown, 75, time.Hour, false)

	at(16*time.Second, l, 75)
	now = judged.Add(time.Hour)
	killed = open()
	killed.begin(lostFull(75), leftFull(75, judged.Add(20*time.Second)), false)
	is("in the note once it has ended", killed, 75, 5*time.Second, false)
	now = now.Add(time.Minute)
	is("after the start", killed, 75, 5*time.Second, false)
	is("the next loss", killed, 76, time.Hour+time.Minute, true)
}

// TestLosingSince: readings are being lost since the present stretch began, and what is lost since the first of it.
func TestLosingSince(t *testing.T) {
	dir, now := t.TempDir(), judged
	b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	l := newLosses(b, dir, slog.New(slog.DiscardHandler))
	l.now = func() time.Time { return now }
	l.look(lostFull(0), false)
	for _, c := range []struct {
		at, n int
		want  string
		since int
	}{{0, 1, web.StateLosing, 0}, {8, 2, web.StateLosing, 0}, {16, 3, web.StateLosing, 0}, {26, 3, web.StateLost, 0}, {40, 4, web.StateLosing, 40}, {48, 5, web.StateLosing, 40}, {58, 5, web.StateLost, 0}} {
		now = judged.Add(time.Duration(c.at) * time.Second)
		s := wellSnapshot()
		s.Losses = l.look(lostFull(uint64(c.n)), false)
		if s.Judge(); len(s.States) != 1 || s.States[0].State != c.want || !s.States[0].Since.Equal(judged.Add(time.Duration(c.since)*time.Second)) {
			t.Errorf("after %d s: %+v; want %q since %d s", c.at, s.States, c.want, c.since)
		}
	}
}

// TestLossIsSaid: a running gateway says a loss first, in /readyz, on the page and in the log, within five seconds, and stops
// when a person has acknowledged it.
func TestLossIsSaid(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{device("a")}})
	b.polled(2, "a")
	s, err := b.g.buf.Stream("a", []byte("other"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.g.buf.Append(s, make([]byte, b.g.buf.MaxRecord()+1), 7, time.Now().UnixMicro()); err == nil {
		t.Fatal("a record of any size is taken")
	}
	began := time.Now()
	page := web.Handler(b.g, 0)
	var h web.Health
	var snap struct{ Summary web.Summary }
	said := func() bool {
		unpack(t, page, "/readyz", &h)
		unpack(t, page, "/api/v1/snapshot", &snap)
		const what = `destination "cloud": los`
		return h.Status == "failing" && strings.HasPrefix(h.Problems[0], what) && strings.HasPrefix(snap.Summary.Text, what) &&
			strings.Contains(snap.Summary.Text, "7 readings (7 full)") && strings.Contains(b.log.String(), `destination \"cloud\": los`)
	}
	for !said() && time.Since(began) < 30*time.Second {
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("said after %v", time.Since(began))
	if !said() {
		t.Fatalf("%+v, %q", h, snap.Summary)
	}
	if _, err := b.g.Ack("anna"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // a snapshot is served for so long
	if unpack(t, page, "/readyz", &h); said() || strings.Contains(strings.Join(h.Problems, ""), "los") {
		t.Errorf("after the acknowledgement: %+v", h)
	}
	if !strings.Contains(b.log.String(), "by=anna") {
		t.Error("the log does not say who has acknowledged")
	}
}

// TestVerifyEndsWithAck: of damage that was mended Verify tells until a person has acknowledged it, and not only until a restart.
func TestVerifyEndsWithAck(t *testing.T) {
	b := newGatewayBed(t, plan{devices: []string{device("a")}})
	b.polled(2, "a")
	if err := os.Truncate(filepath.Join(b.g.config().Buffer.Path, "state.db"), 0); err != nil {
		t.Fatal(err)
	}
	problems := func() int {
		v, err := b.g.buf.Verify(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(v.Problems)
	}
	for began := time.Now(); b.g.buf.Stats().Damages == 0 && time.Since(began) < time.Minute; {
		time.Sleep(50 * time.Millisecond)
	}
	if n := problems(); n != 1 {
		t.Errorf("%d problems after state.db was spoiled and written anew, want 1", n)
	}
	if _, err := b.g.Ack("anna"); err != nil {
		t.Fatal(err)
	}
	if n := problems(); n != 0 {
		t.Errorf("%d problems after the acknowledgement, with sound files", n)
	}
	by := func(cause buffer.Cause, unknown uint64) []string {
		lost := buffer.DestinationAccount{Name: "cloud"}
		lost.Dropped[cause] = 70
		return UnseenDamage(t.TempDir(), nil, []buffer.Account{{Name: "a", Destinations: []buffer.DestinationAccount{lost}}}, unknown)
	}
	if got := by(buffer.CauseDamaged, 1); len(got) != 2 || !strings.HasPrefix(got[0], `70 readings of destination "cloud", by damage`) || !strings.HasPrefix(got[1], "readings that nobody can count, by 1 damage") {
		t.Errorf("unseen %q", got)
	}
	if got := by(buffer.CauseFull, 0); got != nil {
		t.Errorf("a full store is no damage: %q", got)
	}
}

// TestAckOutlastsState: what a person has acknowledged stays acknowledged when state.db, which has it, is spoiled or lost while nothing runs.
func TestAckOutlastsState(t *testing.T) {
	dir := t.TempDir()
	lost := buffer.DestinationAccount{Name: "cloud"}
	lost.Dropped[buffer.CauseFull] = 70
	ledger := []buffer.Account{{Name: "press-1", Destinations: []buffer.DestinationAccount{lost}}}
	for i, spoil := range []func(path string) error{
		func(string) error { return nil },
		os.Remove,
		func(path string) error { return os.WriteFile(path, make([]byte, 64<<10), 0o600) },
	} {
		b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
		if err != nil {
			t.Fatal(err)
		}
		l := newLosses(b, dir, slog.New(slog.DiscardHandler))
		l.unknown = func() uint64 { return 0 }
		got := l.look(ledger, false)
		if (len(got) > 0) != (i == 0) {
			t.Errorf("start %d: %+v", i, got)
		}
		if _, err := l.acknowledge(ledger, "anna"); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Close(), spoil(filepath.Join(dir, "state.db"))); err != nil {
			t.Fatal(err)
		}
	}
	b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	l := newLosses(b, dir, slog.New(slog.DiscardHandler))
	l.unknown = func() uint64 { return 0 }
	if got := l.look(ledger, false); len(got) > 0 {
		t.Errorf("spoiled: %+v", got)
	}
}

// TestAbsentSince: since when a destination is not in the config is known over a restart, until it is back.
func TestAbsentSince(t *testing.T) {
	dir, now := t.TempDir(), judged
	st := buffer.Stats{Destinations: []buffer.DestinationStats{{Name: "cloud", Configured: true, Backlog: 1}, {Name: "old", Backlog: 1}}}
	accounts := []buffer.Account{{Name: "a", Destinations: []buffer.DestinationAccount{{Name: "cloud"}, {Name: "old"}}}}
	since := func(back bool) time.Time {
		b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		l := newLosses(b, dir, slog.New(slog.DiscardHandler))
		l.now = func() time.Time { now = now.Add(time.Hour); return now }
		st.Destinations[1].Configured = back
		l.look(accounts, false)
		at := l.absent(&st)["old"]
		if err := l.save(); err != nil {
			t.Fatal(err)
		}
		return at
	}
	first := since(false)
	if again := since(false); first.IsZero() || !again.Equal(first) {
		t.Errorf("absent since %v, after a restart since %v", first, again)
	}
	if back := since(true); !back.IsZero() {
		t.Errorf("in the config, and absent since %v", back)
	}
	if anew := since(false); !anew.After(first) {
		t.Errorf("absent anew since %v", anew)
	}
}

// TestLossOfAStart: what a start has found or given up was noticed then, whatever the process before has kept; what that had counted and not noted, when it counted
// a loss last, also where nothing was taken after that.
func TestLossOfAStart(t *testing.T) {
	const start = time.Hour
	for name, c := range map[string]struct {
		noted, had, total uint64
		lost, from, to    time.Duration // after the first; lost 0 = not known
	}{
		"nothing new":                         {70, 70, 70, 0, 0, 0},
		"counted before, not noted":           {70, 75, 75, 0, 0, 8 * time.Second},
		"given up by the start":               {70, 70, 75, 0, 0, start},
		"both":                                {70, 75, 80, 0, 0, start},
		"both, and none was noted":            {0, 75, 80, 0, 8 * time.Second, start},
		"given up by the start alone":         {0, 0, 5, 0, start, start},
		"given up by the start before":        {70, 75, 75, time.Minute, 0, time.Minute},
		"the same, and none was noted":        {0, 75, 75, time.Minute, time.Minute, time.Minute},
		"counted at a time to come":           {70, 75, 75, 2 * start, 0, 8 * time.Second},
		"taken out of quarantine, and others": {70, 60, 75, 0, 0, start},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			now := judged
			open := func() *losses {
				l := newLosses(b, dir, slog.New(slog.DiscardHandler))
				l.now = func() time.Time { return now }
				return l
			}
			l := open()
			l.look(lostFull(c.noted), false)
			if err := l.write(true); err != nil {
				t.Fatal(err)
			}
			now = judged.Add(start)
			left := leftFull(c.had, judged.Add(8*time.Second))
			if c.lost > 0 {
				left.Lost = judged.Add(c.lost)
			}
			l = open()
			l.begin(lostFull(c.total), left, false)
			now = now.Add(time.Minute)
			got := l.look(lostFull(c.total), false)
			if len(got) != 1 || got[0].Readings != c.total || !got[0].From.Equal(judged.Add(c.from)) || !got[0].To.Equal(judged.Add(c.to)) || got[0].Losing {
				t.Errorf("%+v; want %d readings noticed from %v to %v after the first", got, c.total, c.from, c.to)
			}
		})
	}
}
