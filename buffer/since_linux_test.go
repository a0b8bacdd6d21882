package buffer

import (
	"testing"
	"time"
)

// TestFailingSince: it is when the first commit that failed began, and stays that until one works.
func TestFailingSince(t *testing.T) {
	f := &faulty{kind: "write"}
	b, err := open(t.TempDir()+"/store", faultOptions(), f.files())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	if !b.Stats().FailingSince.IsZero() {
		t.Errorf("a sound store fails since %v", b.Stats().FailingSince)
	}
	appendN(t, b, mustStream(t, b, "press"), 10)
	f.mu.Lock()
	f.count, f.failAt, f.forever, f.hits = 0, 1, true, 0
	f.mu.Unlock()
	fail := func() (began, ended time.Time) {
		b.lockCommit()
		defer b.unlockCommit()
		began = b.commitSince()
		if b.commit() == nil {
			t.Fatal("a commit works on a disk that fails")
		}
		return began, time.Now()
	}
	began, ended := fail()
	if since := b.Stats().FailingSince; since.Before(began) || since.After(ended) {
		t.Errorf("it fails since %v, the commit was from %v to %v", since, began, ended)
	}
	if fail(); !b.Stats().FailingSince.Before(ended) {
		t.Error("a second failure moves it")
	}
	f.mu.Lock()
	f.failAt = 0
	f.mu.Unlock()
	commitNow(t, b)
	if turnNow(b); b.Stats().Health != "ok" || !b.Stats().FailingSince.IsZero() {
		t.Errorf("%s since %v on a disk that works again", b.Stats().Health, b.Stats().FailingSince)
	}
}
