package buffer

import (
	"fmt"
	"testing"
	"time"
)

func testOptions() Options {
	return Options{MaxSize: 64 << 20, CommitInterval: time.Hour, Destinations: []string{"cloud"}}
}

func mustOpen(t testing.TB, dir string, o Options) *Buffer {
	t.Helper()
	b, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// mustFail runs a check of the tests on something that is broken, and fails when the check does not see it.
func mustFail(t *testing.T, what string, check func(t *testing.T)) {
	t.Helper()
	other := &testing.T{}
	done := make(chan struct{})
	go func() { defer close(done); check(other) }()
	<-done
	if !other.Failed() {
		t.Errorf("%s: not noticed", what)
	}
}

func mustStream(t testing.TB, b *Buffer, account string) *Stream {
	t.Helper()
	s, err := b.Stream(account, []byte("dict of "+account))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// commitNow does what Run does at a tick.
func commitNow(t testing.TB, b *Buffer) {
	t.Helper()
	b.lockCommit()
	defer b.unlockCommit()
	if err := b.commit(); err != nil {
		t.Fatal(err)
	}
}

// emptyTail leaves the records on disk only.
func emptyTail(b *Buffer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.tail.n > 0 {
		b.tail.pop()
	}
}

func checkLedger(t testing.TB, b *Buffer) {
	t.Helper()
	for _, a := range b.Ledger() {
		for _, d := range a.Destinations {
			if sum := d.Before + d.Delivered + d.Buffered + d.InFlight + d.Lost(); sum != a.Accepted {
				t.Fatalf("account %q, destination %q: accepted %d, accounted for %d: %+v", a.Name, d.Name, a.Accepted, sum, d)
			}
		}
	}
}

func TestAppendReadAck(t *testing.T) {
	for _, mode := range []string{"memory", "disk", "reopened", "crashed"} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			b := mustOpen(t, dir, testOptions())
			s := mustStream(t, b, "press-1")
			const n = 5000
			for i := range n {
				if _, err := b.Append(s, fmt.Appendf(nil, "payload %d", i), 3, int64(i)); err != nil {
					t.Fatal(err)
				}
			}
			if mode != "memory" {
				commitNow(t, b)
			}
			if mode == "reopened" {
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if mode == "crashed" {
				crash(b)
			}
			if mode == "reopened" || mode == "crashed" {
				b = mustOpen(t, dir, testOptions())
			}
			d := b.Destination("cloud")
			if d.Len() != n {
				t.Fatalf("backlog %d, want %d", d.Len(), n)
			}
			r := d.Reader(0, 0)
			var rec Record
			for i := range n {
				ok, err := take(r, &rec)
				if !ok || err != nil {
					t.Fatalf("record %d: %v %v", i, ok, err)
				}
				if string(rec.Payload) != fmt.Sprintf("payload %d", i) || rec.At != int64(i) || rec.Readings != 3 || rec.Stream.Account() != "press-1" || string(rec.Stream.Dict()) != "dict of press-1" {
					t.Fatalf("record %d: %+v", i, rec)
				}
				d.Ack(rec.Seq)
			}
			if ok, err := take(r, &rec); ok || err != nil {
				t.Fatalf("at the end: %v %v", ok, err)
			}
			checkLedger(t, b)
			l := b.Ledger()[0]
			if l.Accepted != 3*n || l.Destinations[0].Delivered != 3*n {
				t.Fatalf("ledger %+v", l)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b = mustOpen(t, dir, testOptions())
			if got := b.Stats(); got.Segments != 0 || b.Destination("cloud").Len() != 0 {
				t.Fatalf("after the drain: %+v", got)
			}
		})
	}
}

// crash lets go of a store as a killed process does: nothing more is written.
func crash(b *Buffer) {
	b.lockCommit()
	defer b.unlockCommit()
	b.mu.Lock()
	b.closed = true
	segs := b.segs
	b.mu.Unlock()
	for _, s := range segs {
		if s.db != nil {
			_ = s.db.close()
		}
	}
	_ = b.state.close()
	_ = b.lock.Close()
}
