package buffer

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// reopened opens the store after a kill.
func reopened(t *testing.T, b *Buffer, dir string) (*Buffer, Left) {
	t.Helper()
	crash(b)
	b = mustOpen(t, dir, testOptions())
	return b, b.Left()
}

// TestLeft: the store says itself until when all that was taken is safe: as of the moment at which that was so, not of the write; a start
// without a record says nothing new; a clean stop all.
func TestLeft(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	if l := b.Left(); !l.New || l.Unclean || !l.Until.IsZero() || !l.Newest.IsZero() {
		t.Errorf("a new store: %+v", l)
	}
	took := func(b *Buffer) (d *draft) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.takeCheckpoint(nil)
	}
	save := func(b *Buffer, d *draft) {
		b.lockCommit()
		defer b.unlockCommit()
		if err := b.saveCheckpoint(d); err != nil {
			t.Fatal(err)
		}
	}
	s := mustStream(t, b, "press")
	before := time.Now()
	appendN(t, b, s, 3)
	time.Sleep(2 * time.Millisecond)
	unsafeSince := time.Now()
	time.Sleep(2 * time.Millisecond)
	save(b, took(b)) // the records are in memory only
	b, l := reopened(t, b, dir)
	if l.New || !l.Unclean || l.Until.Before(before.Truncate(time.Microsecond)) || l.Until.After(unsafeSince) {
		t.Errorf("with records in memory: %+v, they came between %v and %v", l, before, unsafeSince)
	}
	b, again := reopened(t, b, dir)
	if !again.Until.Equal(l.Until) {
		t.Errorf("a start that took nothing: %v, was %v", again.Until, l.Until)
	}
	appendN(t, b, mustStream(t, b, "press"), 3)
	commitNow(t, b)
	late := took(b)
	taken := time.Now()
	time.Sleep(2 * time.Millisecond) // the disk hangs
	save(b, late)
	b, l = reopened(t, b, dir)
	if l.Until.After(taken) || l.Until.Before(unsafeSince) || l.Newest.IsZero() {
		t.Errorf("a write that came late: %+v, it was taken at %v", l, taken)
	}
	appendN(t, b, mustStream(t, b, "press"), 1)
	b.MissedBy(func(string) bool { return true }, Gap{To: 1, Cause: CauseOutage})
	stopped := time.Now().Truncate(time.Microsecond)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, dir, testOptions())
	if l := b.Left(); l.Unclean || l.Until.Before(stopped) {
		t.Errorf("a clean stop at %v: %+v", stopped, l)
	}
	_ = b.Close()
}

// TestRestoredIsSaid: processes on a restored store are told so until one has told of it, as a command does not; the next is not.
func TestRestoredIsSaid(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	defer func() { _ = b.Close() }()
	dir := t.TempDir() + "/restored"
	if err := WriteBackup(dir, func(file func(string, int64, io.Reader) error) error { return b.Backup(t.Context(), file) }); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false} {
		r := mustOpen(t, dir, testOptions())
		if r.Left().Restored != want {
			t.Errorf("start %d: restored %v, want %v", i, !want, want)
		}
		if i == 1 {
			r.MissedBy(func(string) bool { return true }, Gap{To: 1, Cause: CauseOutage})
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCloseSaysWhatIsLost: records that the last commit cannot write are lost; whether the next start can tell of them depends on the rest of the disk.
func TestCloseSaysWhatIsLost(t *testing.T) {
	for said, noted := range map[string]bool{"3 records that were in memory only are lost; the next start tells of them": true, "the next start cannot count them": false} {
		dir := t.TempDir() + "/store"
		fs, broken := osFiles(), false
		real := fs.bolt
		fs.bolt = func(path string, o *bolt.Options) (*bolt.DB, error) {
			if broken {
				return nil, errors.New("injected")
			}
			return real(path, o)
		}
		b, err := open(dir, testOptions(), fs)
		if err != nil {
			t.Fatal(err)
		}
		appendN(t, b, mustStream(t, b, "press"), 3)
		if broken = true; !noted {
			b.state.failed = true // it is to be made anew, which fails as well
		}
		if err := b.Close(); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("the close says %v, want %q", err, said)
		}
		b = mustOpen(t, dir, testOptions())
		told := uint64(0)
		for _, r := range readAll(t, b.Destination("cloud"), false) {
			if r.Gap != nil {
				told += r.Gap.Count
			}
		}
		commitNow(t, b)
		for _, r := range readAll(t, b.Destination("cloud"), false) {
			if r.Gap != nil {
				told = max(told, r.Gap.Count)
			}
		}
		if (told > 0) != noted || b.Left().Unclean == noted {
			t.Errorf("%s: %d readings told, unclean %v", said, told, b.Left().Unclean)
		}
		_ = b.Close()
	}
}

// TestNewAccountIsKept: the first accounts are in a checkpoint at once, later ones seconds after they were made, though nothing of it needs the disk: after a kill
// there is somebody to tell of a gap.
func TestNewAccountIsKept(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	mustStream(t, b, "press")
	b.turn(false)
	mustStream(t, b, "oven")
	if _, idle := b.due(); idle {
		t.Error("each is written at once")
	}
	b.mu.Lock()
	b.st.lastIdle = b.st.lastIdle.Add(-drainEvery)
	b.mu.Unlock()
	b.turn(false)
	b.mu.Lock()
	b.st.lastIdle = b.st.lastIdle.Add(-drainEvery)
	b.mu.Unlock()
	if _, idle := b.due(); idle {
		t.Error("it is written again")
	}
	b, _ = reopened(t, b, dir)
	if ledger := b.Ledger(); len(ledger) != 2 || ledger[0].Name != "press" {
		t.Errorf("after a kill: %+v", ledger)
	}
	var told []string
	b.MissedBy(func(name string) bool { told = append(told, name); return true }, Gap{To: 1, Cause: CauseOutage})
	if n := b.Stats().Destinations[0].Untold; n != 2 || len(told) != 2 {
		t.Errorf("%d losses to be told, of %q", n, told)
	}
}

// TestOlderStateIsUnclean: a state.db of before, put back, does not hide that the process before did not close the store.
func TestOlderStateIsUnclean(t *testing.T) {
	for _, closed := range []bool{false, true} {
		dir := t.TempDir() + "/store"
		b := mustOpen(t, dir, testOptions())
		appendN(t, b, mustStream(t, b, "press"), 3)
		commitNow(t, b)
		if closed {
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			crash(b)
		}
		old, err := os.ReadFile(filepath.Join(dir, stateName))
		if err != nil {
			t.Fatal(err)
		}
		b = mustOpen(t, dir, testOptions())
		if b.Left().Unclean == closed {
			t.Errorf("closed %v: %+v", closed, b.Left())
		}
		appendN(t, b, mustStream(t, b, "press"), 3)
		commitNow(t, b)
		crash(b)
		if err := os.WriteFile(filepath.Join(dir, stateName), old, 0o600); err != nil {
			t.Fatal(err)
		}
		if b = mustOpen(t, dir, testOptions()); !b.Left().Unclean {
			t.Errorf("closed %v: with the state of before: %+v", closed, b.Left())
		}
		_ = b.Close()
	}
}

// TestLeftOfShortRuns: a process that is killed before it has written anything of its own takes nothing away from what is known: of a new store that nothing is missing from before
// it was made, and of one whose records have been delivered and removed since that they had been on disk.
func TestLeftOfShortRuns(t *testing.T) {
	dir := t.TempDir() + "/store"
	made := time.Now().Truncate(time.Microsecond)
	b, l := reopened(t, mustOpen(t, dir, testOptions()), dir)
	if l.New || l.Until.Before(made) || l.Until.After(time.Now()) {
		t.Errorf("killed when it was new: %+v, it was made at %v", l, made)
	}
	newest := time.Now().Truncate(time.Microsecond)
	if _, err := b.Append(mustStream(t, b, "press"), []byte("x"), 1, newest.UnixMicro()); err != nil {
		t.Fatal(err)
	}
	commitNow(t, b)
	if b, l = reopened(t, b, dir); !l.Newest.Equal(newest) {
		t.Fatalf("killed with a record on disk: %+v, it is of %v", l, newest)
	}
	drainAll(t, b, "cloud")
	turnNow(b)
	if _, l = reopened(t, b, dir); !l.Newest.IsZero() || !l.Until.Equal(newest) {
		t.Errorf("killed when that was delivered: %+v, it was on disk at %v", l, newest)
	}
}

// TestLatest: what is said of a time to come is not believed, unless there is nothing else.
func TestLatest(t *testing.T) {
	now := time.Now()
	none, old, past, next, future := time.Time{}, now.Add(-time.Hour), now.Add(-time.Minute), now.Add(time.Minute), now.Add(time.Hour)
	for _, c := range [][3]time.Time{{none, none, none}, {none, past, past}, {none, future, future}, {old, past, past}, {past, future, past}, {next, future, future}} {
		for _, got := range []time.Time{latest(c[0], c[1], now), latest(c[1], c[0], now)} {
			if !got.Equal(c[2]) {
				t.Errorf("of %v and %v it is %v, want %v", c[0], c[1], got, c[2])
			}
		}
	}
}

// TestUncleanUntilTold: a command that opens the store and closes it hides no kill: the next start is told of it, and the one after that no more.
func TestUncleanUntilTold(t *testing.T) {
	for _, lose := range []bool{false, true} {
		dir := t.TempDir() + "/store"
		b := mustOpen(t, dir, testOptions())
		appendN(t, b, mustStream(t, b, "press"), 3)
		commitNow(t, b)
		crash(b)
		want := BeforeUnclean
		if lose {
			want = BeforeUnknown
			if err := os.Remove(filepath.Join(dir, stateName)); err != nil {
				t.Fatal(err)
			}
		}
		for i, want := range []string{want, want, want, ""} {
			b = mustOpen(t, dir, testOptions())
			if l := b.Left(); l.Before() != want {
				t.Errorf("start %d: %+v, want %q", i, l, want)
			}
			if i == 2 {
				b.MissedBy(func(string) bool { return true }, Gap{To: 1, Cause: CauseOutage})
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
