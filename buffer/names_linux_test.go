package buffer

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func emptyDir(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) < 3 {
		t.Fatalf("%q: %v", names, err)
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDirectoryTakenAway: what is in memory goes into a new store of the same number.
func TestDirectoryTakenAway(t *testing.T) {
	for _, what := range []string{"files", "directory"} {
		t.Run(what, func(t *testing.T) {
			o := testOptions()
			o.CommitInterval = 20 * time.Millisecond
			b := mustOpen(t, t.TempDir()+"/store", o)
			s := mustStream(t, b, "press")
			appendN(t, b, s, 50)
			commitNow(t, b)
			emptyDir(t, b.dir)
			if what == "directory" {
				if err := os.Remove(b.dir); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- b.Run(ctx) }()
			appendN(t, b, s, 5)
			for b.Stats().Commits < 2 {
				time.Sleep(time.Millisecond)
			}
			if b.Stats().Damages == 0 || b.Stats().Health != "ok" {
				t.Errorf("%+v", b.Stats())
			}
			checkLedger(t, b)
			cancel()
			<-ended
			store := b.store
			crash(b)
			b = mustOpen(t, b.dir, o)
			if got := len(readAll(t, b.Destination("cloud"), true)); got != 55 || b.store != store {
				t.Errorf("%d records of store %x, want 55 of %x", got, b.store, store)
			}
			checkLedger(t, b)
		})
	}
}

// TestDirectoryTakenOver: a second gateway began a store in the directory: the first writes nothing there, and says so.
func TestDirectoryTakenOver(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	s := mustStream(t, b, "press")
	appendN(t, b, s, 50)
	commitNow(t, b)
	emptyDir(t, b.dir)
	other := mustOpen(t, b.dir, testOptions())
	for range 2 { // while the other runs, and after it
		appendN(t, b, s, 1)
		b.lockCommit()
		err := b.commit()
		b.unlockCommit()
		if h := b.Stats().Health; err == nil || !strings.HasPrefix(h, "failing: directory") {
			t.Errorf("commit: %v; health: %s", err, h)
		}
		if names, _ := filepath.Glob(b.dir + "/seg-*"); len(names) > 0 {
			t.Errorf("wrote into a foreign store: %q", names)
		}
		_ = other.Close()
	}
	before, err := os.ReadFile(filepath.Join(b.dir, stateName))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err == nil {
		t.Error("closed as if all were well")
	}
	if after, err := os.ReadFile(filepath.Join(b.dir, stateName)); err != nil || string(after) != string(before) {
		t.Errorf("the foreign state.db was changed: %v", err)
	}
}

// TestFileInPlaceOfDirectory: what stands in the place of the directory is none: said as that, and not as another gateway's doing; it is left alone.
func TestFileInPlaceOfDirectory(t *testing.T) {
	a := moveAway(t)
	if err := os.WriteFile(a.dir, []byte("a note"), 0o640); err != nil {
		t.Fatal(err)
	}
	a.more(t)
	if h := a.b.Stats().Health; !strings.Contains(h, "was replaced by what is none") || strings.Contains(h, "stop one") || strings.Contains(h, "writable by this user") {
		t.Errorf("health %q", h)
	}
	if text, err := os.ReadFile(a.dir); err != nil || string(text) != "a note" {
		t.Errorf("what stands there is %q now: %v", text, err)
	}
	if err := os.Remove(a.dir); err != nil {
		t.Fatal(err)
	}
	a.move(t, a.x, a.dir)
	a.more(t)
	if st := a.b.Stats(); st.Health != healthOK || a.dropped() != 0 {
		t.Errorf("%s, %d readings lost", st.Health, a.dropped())
	}
}
