package buffer

import (
	"bytes"
	"io"
	"log/slog"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// unused opens a store of ten records, all acknowledged, the last five of them while the segment for them was made: it holds
// nothing. What is logged from then on is returned.
func unused(t *testing.T, dir string) (*Buffer, *bytes.Buffer) {
	fs, log := osFiles(), &bytes.Buffer{}
	made := func() {}
	fs.bolt = func(path string, o *bolt.Options) (*bolt.DB, error) {
		made()
		return osFiles().bolt(path, o)
	}
	o := testOptions()
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	b, err := open(dir, o, fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	s, d := mustStream(t, b, "press"), b.Destination("cloud")
	appendN(t, b, s, 5)
	commitNow(t, b)
	b.lockCommit()
	b.seal()
	b.unlockCommit()
	appendN(t, b, s, 5)
	made = func() {
		made = func() {}
		for _, r := range readAll(t, d, true) {
			d.Ack(r.Seq)
		}
	}
	log.Reset()
	commitNow(t, b)
	if d.Len() != 0 || b.active == nil || !b.active.empty() {
		t.Fatal("the segment is in use: the test shows nothing")
	}
	return b, log
}

// TestBackupBesideUnusedSegment: a segment that holds nothing is not missed in a copy.
func TestBackupBesideUnusedSegment(t *testing.T) {
	b, log := unused(t, t.TempDir()+"/store")
	to := t.TempDir() + "/backup"
	err := WriteBackup(to, func(file func(string, int64, io.Reader) error) error { return b.Backup(t.Context(), file) })
	if n := verified(t, to); err != nil || n != 0 {
		t.Errorf("%v, %d problems in the copy", err, n)
	}
	copied := mustOpen(t, to, testOptions())
	if s := copied.Stats(); s.Damages > 0 || s.Destinations[0].Backlog > 0 {
		t.Errorf("%+v", s)
	}
	appendN(t, b, mustStream(t, b, "press"), 5) // the store itself goes on
	commitNow(t, b)
	if n := verified(t, b.dir); n != 0 || b.Destination("cloud").Len() != 5 || log.Len() > 0 {
		t.Errorf("%d problems, %d records:\n%s", n, b.Destination("cloud").Len(), log)
	}
}

// TestCloseBesideUnusedSegment: it is no failure, of the close and of the start after it.
func TestCloseBesideUnusedSegment(t *testing.T) {
	dir := t.TempDir() + "/store"
	b, log := unused(t, dir)
	if err := b.Close(); err != nil || log.Len() > 0 {
		t.Errorf("%v:\n%s", err, log)
	}
	if n := verified(t, dir); n != 0 {
		t.Errorf("%d problems", n)
	}
	if s := mustOpen(t, dir, testOptions()).Stats(); s.Damages > 0 || s.Destinations[0].Backlog > 0 {
		t.Errorf("%+v", s)
	}
}

// TestUnusedSegmentRemembersNothing: a commit that writes nothing does not count as one that wrote what was acknowledged.
func TestUnusedSegmentRemembersNothing(t *testing.T) {
	b, _ := unused(t, t.TempDir()+"/store")
	b.lockCommit()
	err := b.settleIdle(true) // as Run does it
	b.unlockCommit()
	if err != nil {
		t.Fatal(err)
	}
	ro, err := OpenReadOnly(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	if n := ro.Stats().Destinations[0].Backlog; n != 0 {
		t.Errorf("a process killed now finds %d records to deliver again", n)
	}
}
