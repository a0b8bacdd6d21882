package gateway

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/poller"
)

// ran makes a store in which one device ran until the time returned, with the names of those that push.
func ran(t *testing.T, dir string) (*buffer.Buffer, time.Time) {
	t.Helper()
	b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	newMissing(dir, 0, b.Left(), false, slog.New(slog.DiscardHandler)).runs(pushed("a"))
	s, err := b.Stream("a", nil)
	last := time.Now().Truncate(time.Microsecond).Add(time.Microsecond) // the store was made before
	if err == nil {
		_, err = b.Append(s, []byte("x"), 1, last.UnixMicro())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b, last
}

// missesSince opens a store and returns since when device a misses something.
func missesSince(t *testing.T, dir string, unset bool) time.Time {
	t.Helper()
	b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	at, why := newMissing(dir, 0, b.Left(), unset, slog.New(slog.DiscardHandler)).since([]deviceConfig{{name: "a"}}, "")(0)
	if why != didNotRun {
		t.Errorf("the reason is %q", why)
	}
	return at
}

// touchAll gives all files of a store a time.
func touchAll(t *testing.T, dir string, at time.Time) {
	t.Helper()
	files, _ := filepath.Glob(dir + "/*")
	for _, f := range files {
		if err := os.Chtimes(f, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMissingGoesByWhatIsWritten: a store that was killed, then copied, touched either way, or whose disk took its last writes late, misses what came
// after its newest record, whatever its files' times.
func TestMissingGoesByWhatIsWritten(t *testing.T) {
	running := filepath.Join(t.TempDir(), "store")
	_, last := ran(t, running)
	for name, c := range map[string]struct {
		touched time.Duration // the files' time, from now
	}{"copied": {}, "touched an hour ahead": {time.Hour}, "touched a day back": {-24 * time.Hour}} {
		dir := filepath.Join(t.TempDir(), "store")
		if err := os.CopyFS(dir, os.DirFS(running)); err != nil {
			t.Fatal(err)
		}
		touchAll(t, dir, time.Now().Add(c.touched))
		if got := missesSince(t, dir, false); !got.Equal(last.Add(-poller.Lag)) {
			t.Errorf("%s: since %v, want %v", name, got, last.Add(-poller.Lag))
		}
	}
}

// TestMissingAfterARestore: what came after the backup is missing.
func TestMissingAfterARestore(t *testing.T) {
	began := time.Now()
	b, _ := ran(t, filepath.Join(t.TempDir(), "store"))
	dir := filepath.Join(t.TempDir(), "restored")
	err := buffer.WriteBackup(dir, func(file func(string, int64, io.Reader) error) error { return b.Backup(context.Background(), file) })
	if err != nil {
		t.Fatal(err)
	}
	taken := time.Now()
	touchAll(t, dir, time.Now().Add(time.Hour))
	if got := missesSince(t, dir, false).Add(poller.Lag); got.After(taken) || began.Sub(got) > time.Millisecond {
		t.Errorf("since %v, the backup was taken from %v to %v", got, began, taken)
	}
}

// TestMissingOfATimeToCome: it is not believed, unless today's clock is not set; then since when is not known.
func TestMissingOfATimeToCome(t *testing.T) {
	now := time.Now()
	past, future := now.Add(-time.Hour), now.Add(time.Hour)
	for name, c := range map[string]struct {
		left  buffer.Left
		unset bool
		want  time.Time
	}{
		"a new store":                 {buffer.Left{New: true}, false, time.Time{}},
		"nothing is known":            {buffer.Left{}, false, poller.NotKnown()},
		"a store of an earlier build": {buffer.Left{Newest: past}, false, past},
		"the checkpoint is ahead":     {buffer.Left{Until: future, Newest: past}, false, past},
		"a record is ahead":           {buffer.Left{Until: past, Newest: future}, false, past},
		"both are":                    {buffer.Left{Until: future, Newest: future}, false, poller.NotKnown()},
		"today's clock is not set":    {buffer.Left{Until: future, Newest: past}, true, future},
		"the later of two":            {buffer.Left{Until: past, Newest: past.Add(time.Minute)}, false, past.Add(time.Minute)},
	} {
		if got := safeUntil(c.left, now, c.unset); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestMissingOfAStoreThatHung: the note of a stop says nothing of readings that the store could not keep before it; that of an earlier build's clean stop holds.
func TestMissingOfAStoreThatHung(t *testing.T) {
	b := newMissingBed(t)
	stopped := time.Now().Add(-time.Minute).Truncate(time.Second)
	m := b.start()
	m.by = map[string]time.Time{"a": stopped}
	if err := m.save(pushed("a", "b")); err != nil {
		t.Fatal(err)
	}
	for _, left := range []buffer.Left{{Until: b.written, Unclean: true}, {Until: b.written}, {Newest: b.written, Unclean: true}, {Newest: b.written, Unknown: true}} {
		b.left = left
		if got := b.since(b.start(), "a"); got.After(b.written) {
			t.Errorf("%+v: since %v, the store was safe last at %v", left, got, b.written)
		}
	}
	b.left = buffer.Left{Newest: b.written}
	if got := b.since(b.start(), "a"); !got.Equal(stopped) {
		t.Errorf("after a clean stop of an earlier build: since %v, want %v", got, stopped)
	}
}
