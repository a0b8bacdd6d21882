package buffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func appendN(t testing.TB, b *Buffer, s *Stream, n int) (first, last uint64) {
	t.Helper()
	for i := range n {
		seq, err := b.Append(s, fmt.Appendf(nil, "record %d of %s", i, s.Account()), 2, int64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = seq
		}
		last = seq
	}
	return first, last
}

// take reads a record as a publisher does: to send it.
func take(r *Reader, rec *Record) (bool, error) {
	ok, err := r.Next(rec)
	return ok && r.d.Take(rec), err
}

// readAll reads what a destination has, acknowledging it when asked.
func readAll(t testing.TB, d *Destination, ack bool) (out []Record) {
	t.Helper()
	r := d.Reader(0, 0)
	for {
		var rec Record
		ok, err := take(r, &rec)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return out
		}
		rec.Payload = bytes.Clone(rec.Payload)
		out = append(out, rec)
		if ack {
			d.Ack(rec.Seq)
		}
	}
}

func turnNow(b *Buffer) {
	b.mu.Lock()
	b.st.lastTidy, b.st.lastIdle = time.Time{}, time.Time{}
	b.mu.Unlock()
	b.turn(false)
}

// TestReadingChangesNothing: to look is not to take.
func TestReadingChangesNothing(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	s, d := mustStream(t, b, "press"), b.Destination("cloud")
	appendN(t, b, s, 3)
	commitNow(t, b)
	appendN(t, b, s, 4)
	before := fmt.Sprintf("%+v", b.Ledger())
	var recs []Record
	for range 2 {
		r := d.Reader(0, 0)
		recs = recs[:0]
		for {
			var rec Record
			if ok, err := r.Next(&rec); err != nil {
				t.Fatal(err)
			} else if !ok {
				break
			}
			recs = append(recs, rec)
		}
		if got := fmt.Sprintf("%+v", b.Ledger()); len(recs) != 7 || got != before {
			t.Errorf("%d records; the ledger was %s, is %s", len(recs), before, got)
		}
	}
	d.Ack(recs[0].Seq)
	if d.Len() != 7 {
		t.Error("a record that was not taken was acknowledged")
	}
	if !d.Take(&recs[0]) || !d.Take(&recs[0]) || !d.Take(&recs[1]) {
		t.Fatal("not taken")
	}
	if n := b.Stats().Destinations[0].InFlight; n != 2 {
		t.Errorf("%d in flight, want 2", n)
	}
	d.Release(recs[1].Seq)
	d.Ack(recs[1].Seq)
	d.Ack(recs[0].Seq)
	if d.Take(&recs[0]) || d.Len() != 6 || b.Stats().Destinations[0].InFlight != 0 {
		t.Errorf("%d left, %+v", d.Len(), b.Stats().Destinations[0])
	}
	checkLedger(t, b)
}

func TestHealthyPathWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir() + "/store"
		o := testOptions()
		o.CommitInterval = time.Second
		b := mustOpen(t, dir, o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		d := b.Destination("cloud")
		s := mustStream(t, b, "press")
		r := d.Reader(0, 0)
		start := b.Stats().BytesWritten
		// Two hours of 10 records a second, each acknowledged a fifth of a second after it came.
		var inFlight []uint64
		for range 2 * 3600 * 10 / 100 {
			for range 100 {
				appendN(t, b, s, 1)
				var rec Record
				if ok, err := take(r, &rec); !ok || err != nil {
					t.Fatal(ok, err)
				}
				if inFlight = append(inFlight, rec.Seq); len(inFlight) > 2 {
					d.Ack(inFlight[0])
					inFlight = inFlight[1:]
				}
				time.Sleep(100 * time.Millisecond)
			}
		}
		st := b.Stats()
		if st.Segments != 0 || st.Commits != 0 {
			t.Errorf("commits happened: %+v", st)
		}
		written := st.BytesWritten - start
		t.Logf("%d bytes written in two healthy hours, %d MB a day", written, written*12/1e6)
		if written > 16<<20/12 {
			t.Errorf("%d bytes written in two healthy hours", written)
		}
		// The control: one that is not acknowledged in time is committed.
		appendN(t, b, s, 1)
		time.Sleep(1100 * time.Millisecond)
		if st := b.Stats(); st.Commits != 1 || st.DirtyRecords != 0 {
			t.Errorf("a record older than the interval is not on disk: %+v", st)
		}
		cancel()
		<-done
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMaxAgeCountsRunningTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		jump := time.Duration(0)
		o := testOptions()
		o.CommitInterval, o.MaxAge = time.Second, 24*time.Hour
		o.Now = func() time.Time { return time.Now().Add(jump) }
		dir := t.TempDir() + "/store"
		b := mustOpen(t, dir, o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { slowTurns(ctx, b); done <- struct{}{} }()
		s := mustStream(t, b, "press")
		appendN(t, b, s, 10)
		time.Sleep(2 * time.Hour)
		jump = 365 * 24 * time.Hour // the wall clock jumps a year: nothing expires
		time.Sleep(time.Hour)
		if n := b.Destination("cloud").Len(); n != 10 {
			t.Fatalf("%d records after the jump", n)
		}
		cancel()
		<-done
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * 24 * time.Hour) // switched off: no running time
		b = mustOpen(t, dir, o)
		ctx, cancel = context.WithCancel(t.Context())
		go func() { slowTurns(ctx, b); done <- struct{}{} }()
		time.Sleep(20 * time.Hour)
		if n := b.Destination("cloud").Len(); n != 10 {
			t.Fatalf("%d records after 23 hours of running", n)
		}
		time.Sleep(2 * time.Hour)
		l := b.Ledger()[0].Destinations[0]
		if l.Dropped[CauseExpired] != 20 || l.Buffered != 0 {
			t.Errorf("after 25 hours of running: %+v", l)
		}
		recs := readAll(t, b.Destination("cloud"), true)
		if len(recs) != 1 || recs[0].Gap == nil || recs[0].Gap.Cause != CauseExpired || recs[0].Gap.Count != 20 || recs[0].Gap.From != 1 || recs[0].Gap.To != 10 {
			t.Errorf("gap records: %+v", recs)
		}
		cancel()
		<-done
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestMaxSizeDropsOldestWithGaps(t *testing.T) {
	o := testOptions()
	o.MaxSize = 4 << 20
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, o)
	s := mustStream(t, b, "press")
	noise := make([]byte, 2000)
	for i := range 5000 {
		for j := range noise {
			noise[j] = byte(i*j) ^ byte(i>>8) ^ byte(j>>3)*31
		}
		if _, err := b.Append(s, noise, 1, int64(i)); err != nil {
			t.Fatal(err)
		}
		if size := dirSize(t, dir); size > o.MaxSize {
			t.Fatalf("%d bytes in the directory after record %d", size, i)
		}
	}
	commitNow(t, b)
	checkLedger(t, b)
	st := b.Stats()
	if st.Dropped == 0 {
		t.Fatal("nothing was dropped: the payloads compress too well to fill the store")
	}
	l := b.Ledger()[0].Destinations[0]
	var told uint64
	for _, r := range readAll(t, b.Destination("cloud"), true) {
		if r.Gap != nil {
			told += r.Gap.Count
			if r.Gap.Cause != CauseFull || r.Gap.From > r.Gap.To || r.Gap.FirstSeq > r.Gap.LastSeq {
				t.Errorf("gap %+v", r.Gap)
			}
		}
	}
	if told == 0 || told != l.Dropped[CauseFull] {
		t.Errorf("gap records tell of %d, the ledger of %+v", told, l)
	}
}

func TestQuarantine(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	o.Destinations = []string{"cloud", "other site"}
	b := mustOpen(t, dir, o)
	d := b.Destination("other site")
	appendN(t, b, mustStream(t, b, "press"), 5)
	commitNow(t, b)
	recs := readAll(t, d, false)
	if err := d.Reject(recs[2].Seq, "too large for the broker"); err != nil {
		t.Fatal(err)
	}
	if err := d.Reject(recs[2].Seq, "again"); !errors.Is(err, ErrNotFound) {
		t.Errorf("rejected twice: %v", err)
	}
	for _, i := range []int{0, 1, 3, 4} {
		d.Ack(recs[i].Seq)
	}
	commitNow(t, b)
	crash(b)
	b = mustOpen(t, dir, o)
	d = b.Destination("other site")
	gap := readAll(t, d, true)
	if len(gap) != 1 || gap[0].Gap == nil || gap[0].Gap.Cause != CauseRejected || gap[0].Gap.FirstSeq != recs[2].Seq {
		t.Fatalf("gap %+v", gap)
	}
	if n := len(readAll(t, b.Destination("cloud"), false)); n != 5 {
		t.Errorf("the other destination has %d records: it was told of a gap that is not its own", n)
	}
	list, err := b.Quarantine()
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	q := list[0]
	if q.Reason != "too large for the broker" || string(q.Payload) != string(recs[2].Payload) || q.Account != "press" || q.Readings != 2 || q.Destination != "other site" || q.Epoch == "" || q.Epoch != recs[2].Epoch {
		t.Errorf("entry %+v of %+v", q, recs[2])
	}
	seq, err := b.Retry(q.ID)
	if err != nil {
		t.Fatal(err)
	}
	checkLedger(t, b)
	again := readAll(t, d, true)
	if len(again) != 1 || again[0].Seq != seq || string(again[0].Payload) != string(q.Payload) || !again[0].Retried || recs[2].Retried || gap[0].Retried {
		t.Errorf("after the retry: %+v", again)
	}
	if l := b.Ledger()[0].Destinations[1]; l.Lost() != 0 || l.Delivered != 10 {
		t.Errorf("after the retry: %+v", l)
	}
	if _, err := b.Retry(q.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("retried twice: %v", err)
	}
	checkLedger(t, b)
}

func TestQuarantineIsBounded(t *testing.T) {
	b := mustOpen(t, t.TempDir()+"/store", testOptions())
	d, s := b.Destination("cloud"), mustStream(t, b, "press")
	big := make([]byte, 100<<10)
	for i := range 30 {
		if _, err := b.Append(s, big, 1, int64(i)); err != nil {
			t.Fatal(err)
		}
		for _, r := range readAll(t, d, false) {
			if r.Gap != nil {
				d.Ack(r.Seq)
			} else if err := d.Reject(r.Seq, "no"); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, err := b.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for _, q := range list {
		size += len(q.Payload)
	}
	if size > b.o.quarantineBytes() || len(list) == 0 || len(list) == 30 {
		t.Errorf("%d entries of %d bytes", len(list), size)
	}
	if err := b.DeleteQuarantined(list[0].ID); err != nil {
		t.Fatal(err)
	}
	if after, _ := b.Quarantine(); len(after) != len(list)-1 {
		t.Errorf("%d entries after one was deleted", len(after))
	}
}

func TestDestinationsComeAndGo(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	b := mustOpen(t, dir, o)
	s := mustStream(t, b, "press")
	appendN(t, b, s, 10)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	o.Destinations = []string{"now"}
	b = mustOpen(t, dir, o)
	if n := b.Destination("now").Len(); n != 0 {
		t.Errorf("a new destination has %d records", n)
	}
	if b.Destination("cloud") != nil {
		t.Error("a destination that is not configured is handed out")
	}
	appendN(t, b, mustStream(t, b, "press"), 5)
	checkLedger(t, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	o.Destinations, o.Starts = []string{"now", "oldest"}, map[string]StartAt{"oldest": StartOldest}
	b = mustOpen(t, dir, o)
	recs := readAll(t, b.Destination("oldest"), true)
	if len(recs) != 15 {
		t.Errorf("a destination that starts with the oldest has %d records", len(recs))
	}
	checkLedger(t, b)
	if n := len(readAll(t, b.Destination("now"), true)); n != 5 {
		t.Errorf("%d records", n)
	}
	turnNow(b)
	if st := b.Stats(); st.Segments == 0 || len(st.Destinations) != 3 || st.Destinations[0].Configured {
		t.Errorf("the destination that is gone does not hold its records: %+v", st)
	}
	if _, err := b.Forget("now"); err == nil {
		t.Error("a configured destination was forgotten")
	}
	if _, err := b.Forget("cloud"); err != nil {
		t.Fatal(err)
	}
	checkLedger(t, b)
	if st := b.Stats(); st.Segments != 0 {
		t.Errorf("segments after the destination was forgotten: %+v", st)
	}
	crash(b)
	o.Destinations, o.Starts = nil, nil
	b = mustOpen(t, dir, o)
	if st := b.Stats(); len(st.Destinations) != 2 || !st.Destinations[0].Configured {
		t.Errorf("opened with those of the store: %+v", st.Destinations)
	}
}

func TestTooManyDestinations(t *testing.T) {
	dir := t.TempDir() + "/store"
	o := testOptions()
	for round := range 3 {
		o.Destinations = nil
		for i := range 8 {
			o.Destinations = append(o.Destinations, fmt.Sprintf("d%d", round*8+i))
		}
		b, err := Open(dir, o)
		if round < 2 {
			if err != nil {
				t.Fatal(err)
			}
			appendN(t, b, mustStream(t, b, "press"), 1) // which each keeps
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "forget") {
			t.Errorf("24 destinations: %v", err)
		}
	}
}

func TestDropNewestRefuses(t *testing.T) {
	o := testOptions()
	o.MaxSize, o.WhenFull = 4<<20, DropNewest
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, o)
	s := mustStream(t, b, "press")
	noise := make([]byte, 4000)
	accepted, refused := 0, 0
	for i := 0; refused < 100; i++ {
		for j := range noise {
			noise[j] = byte((i*7919 + j*104729) * (i ^ j) >> 7)
		}
		_, err := b.Append(s, noise, 1, int64(i))
		if errors.Is(err, ErrFull) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		} else {
			accepted++
		}
		if size := dirSize(t, dir); size > o.MaxSize {
			t.Fatalf("%d bytes in the directory", size)
		}
	}
	commitNow(t, b)
	a := b.Ledger()[0]
	if a.Accepted != uint64(accepted+refused) || a.Destinations[0].Dropped[CauseFull] != uint64(refused) {
		t.Errorf("%d taken, %d refused: %+v", accepted, refused, a)
	}
	d := b.Destination("cloud")
	recs := readAll(t, d, true)
	turnNow(b)
	if _, err := b.Append(s, noise, 1, 1); err != nil {
		t.Errorf("after the drain: %v", err)
	}
	turnNow(b)
	recs = append(recs, readAll(t, d, true)...)
	var told uint64
	for _, r := range recs {
		if r.Gap != nil {
			told += r.Gap.Count
		}
	}
	if told != uint64(refused) {
		t.Errorf("gap records tell of %d, %d were refused", told, refused)
	}
}

// TestReadingBytes: what a reading costs on disk is learned from what was written, and outlives a restart.
func TestReadingBytes(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	s := mustStream(t, b, "press")
	feed, readings := make([]byte, 1000), 0
	for range 5000 {
		for i := range feed {
			feed[i] = byte(readings * i >> 3)
		}
		if _, err := b.Append(s, feed, 100, 1); err != nil {
			t.Fatal(err)
		}
		readings += 100
	}
	commitNow(t, b)
	each := b.Stats().ReadingBytes
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, dir, testOptions())
	var size int64
	for _, seg := range b.Segments() {
		size += seg.Bytes
	}
	if want := float64(size) / float64(readings); each < want*0.7 || each > want*1.4 {
		t.Errorf("%.3f bytes a reading, the files say %.3f", each, want)
	}
	if again := b.Stats().ReadingBytes; again < each*0.7 || again > each*1.4 {
		t.Errorf("%.3f bytes a reading after a restart, %.3f before", again, each)
	}
}
