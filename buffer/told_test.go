package buffer

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace/drivers/drivertest"
)

// TestStoreGone: a store of which nothing is left is no new one where something lies beside it that only who has had it open leaves, until that was told; a
// directory in which a first start failed is.
func TestStoreGone(t *testing.T) {
	for beside, want := range map[string]string{"": "", "lock": "", "lock of a store": BeforeGone, stateNew: "", "lost+found": "", "beside.json": BeforeGone, markName: BeforeGone, "state.db.corrupt": BeforeGone} {
		dir := t.TempDir() + "/store"
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		if beside != "" {
			name, content := beside, make([]byte, 100)
			if beside == "lock of a store" {
				name, content = lockName, []byte("7\nstore 00000000000000af generation 12\n")
			}
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if beside != "beside.json" { // who only looks does not know what the gateway keeps beside it
			words := map[bool]string{true: "there was a store here, and its files are gone", false: "there is no store"}[want == BeforeGone]
			if _, err := OpenReadOnly(dir); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), words) {
				t.Errorf("%q, looked at: %v, want %q", beside, err, words)
			}
		}
		o := testOptions()
		o.Traces = []string{"beside.json"}
		for i, want := range []string{want, want, ""} {
			b := mustOpen(t, dir, o)
			if l := b.Left(); l.Before() != want || want != "" && (l.New || !l.Unknown) || i == 0 && want == "" && !l.New {
				t.Errorf("%q, start %d: %+v, want %q", beside, i, l, want)
			}
			if i == 1 {
				b.MissedBy(func(string) bool { return true }, Gap{To: 1, Cause: CauseOutage})
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestRestoredIsToldOnce: once it was told that the store was restored, and that is on disk, a kill is a kill, though state.db was not written for anything else.
func TestRestoredIsToldOnce(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	appendN(t, b, mustStream(t, b, "press"), 3)
	dir := t.TempDir() + "/restored"
	if err := WriteBackup(dir, func(file func(string, int64, io.Reader) error) error { return b.Backup(t.Context(), file) }); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	for i, want := range []string{BeforeRestored, BeforeRestored, BeforeUnclean, BeforeUnclean} {
		b = mustOpen(t, dir, testOptions())
		if got := b.Stats().Before; got != want {
			t.Errorf("start %d: %q, want %q", i, got, want)
		}
		appendN(t, b, mustStream(t, b, "press"), 3)
		if i > 0 { // the first is killed before it has told anything
			b.MissedBy(func(string) bool { return true }, Gap{To: 1, Cause: CauseOutage})
		}
		commitNow(t, b)
		crash(b)
	}
}

// TestForgetSaysWhat: Forget returns how much was waiting for the destination, and from when to when.
func TestForgetSaysWhat(t *testing.T) {
	dir, o := t.TempDir()+"/store", testOptions()
	o.Destinations = []string{"cloud", "old"}
	b := mustOpen(t, dir, o)
	s := mustStream(t, b, "press")
	for i := range 10 {
		s.Count(3, 0)
		if _, err := b.Append(s, []byte("x"), 3, int64(1000+i)); err != nil {
			t.Fatal(err)
		}
	}
	ackSome(t, b.Destination("old"), 2)
	commitNow(t, b)
	_ = b.Close()
	o.Destinations = []string{"cloud"}
	b = mustOpen(t, dir, o)
	s = mustStream(t, b, "press")
	s.Count(10, 0)
	appendN(t, b, s, 5) // none of these is for it
	gone, err := b.Forget("old")
	want := Forgotten{Records: 8, Readings: 24, From: 1002, To: 1009}
	if err != nil || gone != want {
		t.Errorf("%+v, %v; want %+v", gone, err, want)
	}
	if text := gone.String(); !strings.Contains(text, ": 8, with 24 readings, from about 1970-01-01T00:00:00Z to ") {
		t.Error(text)
	}
	balanced(t, b)
	_ = b.Close()
	if text := (&Forgotten{Untold: 2}).String(); text != "losses that it was to be told of: 2" {
		t.Error(text)
	}
}

// TestNothingCopied: a copy of which nothing came leaves no directory that was not there; where the source is no store, the error names that.
func TestNothingCopied(t *testing.T) {
	empty, to := t.TempDir(), t.TempDir()+"/to"
	err := WriteBackup(to, func(file func(string, int64, io.Reader) error) error { return BackupDir(t.Context(), empty, file) })
	if err == nil || !strings.Contains(err.Error(), "it has no state.db") || strings.Contains(err.Error(), "delete it") {
		t.Error(err)
	}
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was left: %v", err)
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
		t.Error(entries, err)
	}
}

// TestInside: a path lies in a directory, or is it, also by a link and when it is not there.
func TestInside(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "store")
	if err := errors.Join(os.Mkdir(dir, 0o750), os.Symlink(dir, filepath.Join(top, "link"))); err != nil {
		drivertest.Lacks(t, "no links here: %v", err)
	}
	for path, want := range map[string]bool{dir: true, dir + "/sub/x": true, top + "/link/sub": true, dir + "2": false, top: false, dir + "/../other": false} {
		if Inside(path, dir) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
	if Inside(top+"/x", top+"/none") {
		t.Error("in a directory that is not there")
	}
}

// copyFiles copies the files of these patterns.
func copyFiles(t *testing.T, from, to string, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		found, _ := filepath.Glob(filepath.Join(from, pattern))
		for _, path := range found {
			raw, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(filepath.Join(to, filepath.Base(path)), raw, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestOlderStore: a store, or its state.db, of before that was put back by hand is known as that, by what the lock says, until it was told; neither a kill nor a
// command, a backup or a look makes it one.
func TestOlderStore(t *testing.T) {
	dir, o := t.TempDir()+"/store", testOptions()
	run := func(clean bool) {
		t.Helper()
		b := mustOpen(t, dir, o)
		if b.Left().Older {
			t.Errorf("older: %+v", b.Left())
		}
		appendN(t, b, mustStream(t, b, "press"), 3)
		commitNow(t, b)
		if !clean {
			crash(b)
		} else if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	old := t.TempDir()
	all := []string{"state.db", "promised", "seg-*.db"}
	run(true)
	copyFiles(t, dir, old, all...)
	run(false)
	run(false)
	run(true)
	if err := BackupDir(t.Context(), dir, func(string, int64, io.Reader) error { return nil }); err != nil {
		t.Fatal(err)
	}
	run(true)
	for name, c := range map[string]struct {
		put  []string
		want bool
	}{"all": {all, true}, "state.db": {all[:1], true}, "nothing": {nil, false}} {
		segments, _ := filepath.Glob(dir + "/seg-*.db")
		if len(c.put) > 1 {
			for _, path := range segments {
				_ = os.Remove(path)
			}
		}
		copyFiles(t, old, dir, c.put...)
		r, err := OpenReadOnly(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Stats().Before == BeforeOlder; got != c.want {
			t.Errorf("%s put back, looked at: %q", name, r.Stats().Before)
		}
		r.Close()
		for i, want := range []bool{c.want, c.want, false} {
			b := mustOpen(t, dir, o)
			if b.Left().Older != want {
				t.Errorf("%s put back, start %d: %+v", name, i, b.Left())
			}
			if i == 1 {
				b.MissedBy(func(string) bool { return true }, Gap{To: 1, Cause: CauseOutage})
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestOlderByOneRun: also what the last process found, when it was killed, and what it had before it stopped, are older than what was here last.
func TestOlderByOneRun(t *testing.T) {
	for i, stop := range []func(*Buffer){crash, func(b *Buffer) { _ = b.Close() }} {
		dir, o := t.TempDir()+"/store", testOptions()
		b := mustOpen(t, dir, o)
		_ = b.Close()
		state := filepath.Join(dir, stateName)
		before, err := os.ReadFile(state)
		b = mustOpen(t, dir, o)
		if i == 1 && err == nil {
			before, err = os.ReadFile(state)
		}
		if err != nil || b.Left().Older {
			t.Fatal(err, b.Left())
		}
		stop(b)
		if err := os.WriteFile(state, before, 0o600); err != nil {
			t.Fatal(err)
		}
		if b = mustOpen(t, dir, o); !b.Left().Older {
			t.Errorf("case %d: %+v", i, b.Left())
		}
		_ = b.Close()
	}
}

// ackSome takes and acknowledges so many records.
func ackSome(t *testing.T, d *Destination, n int) {
	t.Helper()
	r := d.Reader(0, 0)
	defer r.Close()
	for range n {
		var rec Record
		if ok, err := take(r, &rec); !ok || err != nil {
			t.Fatal(ok, err)
		}
		d.Ack(rec.Seq)
	}
}
