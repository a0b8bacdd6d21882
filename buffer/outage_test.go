package buffer

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A month without an uplink: five devices with a record each half minute, links that come up for a minute and go again,
// restarts and crashes, and at the end an uplink that stays. Time is synctest's; files and bbolt are real.
const (
	outageDevices = 5
	outagePeriod  = 30 * time.Second
	outagePart    = 3 // readings a record
	outageBacklog = 2000
)

type outage struct {
	t   *testing.T
	o   Options
	dir string
	rng *rand.Rand

	b       *Buffer
	streams [outageDevices]*Stream
	stop    func()

	n             int      // records appended, of all devices in turn
	recent        []uint64 // sequence numbers of the last of them, while they may be lost in a crash
	refused       [outageDevices]int
	refusedLately int    // of each device, at most, in the time before a crash that no checkpoint knows of
	state         []byte // of each record, by number
	gaps          [outageDevices]uint64
	lastSeq       map[string]uint64 // by lane, of this connection
	peak          int64
	heap          [2]uint64
	restarts      int
}

const (
	outageDelivered = 1 << iota
	outageSent      // handed out and not acknowledged
	outageExcused   // in memory only when the process was killed, or refused
)

func (u *outage) open() {
	fs := osFiles()
	fs.bolt = func(path string, o *bolt.Options) (*bolt.DB, error) {
		db, err := bolt.Open(path, 0o640, o)
		if err == nil {
			db.NoSync = true // processes are killed here, and no power is cut; 60,000 fsyncs take a while
		}
		return db, err
	}
	b, err := open(u.dir, u.o, fs)
	if err != nil {
		u.t.Fatal(err)
	}
	u.b = b
	for i := range u.streams {
		u.streams[i] = mustStream(u.t, b, string(rune('a'+i)))
	}
	ctx, cancel := context.WithCancel(u.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); slowTurns(ctx, b) }()
	u.stop = func() { cancel(); <-done }
}

// slowTurns is Run with a turn each 10 s, for tests of days: a million looks at all the files, one each second, took nine tenths of their time.
func slowTurns(ctx context.Context, b *Buffer) {
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.kick:
			b.turn(true)
		case <-ticker.C:
			b.turn(false)
		}
	}
}

// poll is one period of the devices.
func (u *outage) poll() {
	var p [60]byte
	for device := range outageDevices {
		binary.BigEndian.PutUint64(p[:], uint64(u.n))
		for i := 8; i+8 <= len(p); i += 8 {
			binary.BigEndian.PutUint64(p[i:], u.rng.Uint64())
		}
		seq, err := u.b.Append(u.streams[device], p[:], outagePart, time.Now().UnixMicro())
		switch {
		case errors.Is(err, ErrFull) && u.o.WhenFull == DropNewest:
			u.refused[device]++
			u.state[u.n] |= outageExcused
			seq = 0
		case err != nil:
			u.t.Fatal(err)
		}
		u.n++
		if u.recent = append(u.recent, seq); len(u.recent) > 4000 {
			u.recent = append(u.recent[:0], u.recent[2000:]...)
		}
	}
}

// look checks what must hold at every moment.
func (u *outage) look() {
	checkLedger(u.t, u.b)
	size := dirSize(u.t, u.dir)
	if u.peak = max(u.peak, size); size > u.o.MaxSize {
		u.t.Fatalf("%d bytes in the directory, more than %d", size, u.o.MaxSize)
	}
	if st := u.b.Stats(); st.Health != "ok" || st.Damages != 0 || st.TailBytes > u.b.o.TailBytes {
		u.t.Fatalf("%+v", st)
	}
}

func (u *outage) restart(kill bool) {
	u.stop()
	u.restarts++
	if kill {
		if u.o.WhenFull == DropNewest {
			u.refusedLately += int(3 * time.Minute / outagePeriod)
		}
		st := u.b.Stats()
		durable := st.NextSeq - 1 - st.DirtyRecords
		for i, seq := range u.recent {
			if seq > durable {
				u.state[u.n-len(u.recent)+i] |= outageExcused
			}
		}
		crash(u.b)
	} else if err := u.b.Close(); err != nil {
		u.t.Fatal(err)
	}
	u.recent = u.recent[:0]
	u.open()
}

// read takes up to n records from one lane and acknowledges those that ack says.
func (u *outage) read(lane string, r *Reader, n int, ack func() bool) (got int) {
	var rec Record
	for ; got < n; got++ {
		ok, err := take(r, &rec)
		if err != nil {
			u.t.Fatal(err)
		}
		if !ok {
			break
		}
		if rec.Seq <= u.lastSeq[lane] {
			u.t.Fatalf("%s: record %d after %d", lane, rec.Seq, u.lastSeq[lane])
		}
		u.lastSeq[lane] = rec.Seq
		acked := ack() && u.ack(rec.Seq)
		switch {
		case rec.Gap == nil && acked:
			u.state[u.number(&rec)] |= outageDelivered
		case rec.Gap == nil:
			u.state[u.number(&rec)] |= outageSent
		case acked:
			u.gaps[rec.Stream.Account()[0]-'a'] += rec.Gap.Count
		}
	}
	return got
}

// ack acknowledges a record, and reports whether that counts: not when the record was given up while it was in flight, at this same moment.
func (u *outage) ack(seq uint64) bool {
	d := u.b.Destination("cloud")
	ignored := func() uint64 {
		u.b.mu.Lock()
		defer u.b.mu.Unlock()
		return d.skipped
	}
	before := ignored()
	d.Ack(seq)
	return ignored() == before
}

// number is which of the records appended this one is.
func (u *outage) number(rec *Record) int {
	i := int(binary.BigEndian.Uint64(rec.Payload))
	if i >= u.n || i%outageDevices != int(rec.Stream.Account()[0]-'a') || len(rec.Payload) != 60 {
		u.t.Fatalf("record %d is none of ours: %x", rec.Seq, rec.Payload)
	}
	return i
}

// connect returns the two lanes of a connection.
func (u *outage) connect() (live, backlog *Reader) {
	d := u.b.Destination("cloud")
	u.lastSeq = map[string]uint64{}
	from := u.b.NextSeq()
	return d.Reader(from, 0), d.Reader(0, from)
}

// moment is a link that holds for a minute, acknowledges in no order and forgets the rest.
func (u *outage) moment() {
	live, backlog := u.connect()
	for range 6 {
		u.poll()
		u.read("backlog", backlog, 40, func() bool { return u.rng.IntN(3) > 0 })
		if got := u.read("live", live, 100, func() bool { return u.rng.IntN(3) > 0 }); got < outageDevices && u.o.WhenFull == DropOldest {
			u.t.Fatalf("%d fresh records on the live lane", got)
		}
		time.Sleep(outagePeriod)
	}
	d := u.b.Destination("cloud")
	d.Reset()
}

// drain is the uplink that stays: the live lane beside the backlog, until nothing is left.
func (u *outage) drain() (periods int) {
	all := func() bool { return true }
	live, backlog := u.connect()
	for left := true; left; periods++ {
		if periods > 100_000 {
			u.t.Fatal("the backlog does not end")
		}
		u.poll()
		left = u.read("backlog", backlog, outageBacklog, all) > 0
		if got := u.read("live", live, 1000, all); got < outageDevices && u.o.WhenFull == DropOldest {
			u.t.Fatalf("%d fresh records on the live lane beside the backlog", got)
		}
		time.Sleep(outagePeriod)
		u.look()
	}
	time.Sleep(time.Minute) // the last gap records
	u.read("live", live, 1000, all)
	return periods
}

func (u *outage) run() {
	periods := int(24 * time.Hour / outagePeriod)
	for day := range outageDays {
		for i := range periods {
			u.poll()
			time.Sleep(outagePeriod)
			if i%120 == 0 {
				u.look()
			}
		}
		switch day % 6 {
		case 1:
			u.restart(false)
		case 3:
			u.restart(true)
		case 4:
			u.moment()
		}
		if day == 4 {
			u.heap[0] = heap()
		}
	}
	if u.heap[1] = heap(); u.heap[1] > u.heap[0]+4<<20 {
		u.t.Errorf("%d bytes of heap after %d days, %d after 5", u.heap[1], outageDays, u.heap[0])
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what is in a sync.Pool outlives the first
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// account checks that every record was delivered, or is counted and told of.
func (u *outage) account() (lost [Causes]uint64) {
	st := u.b.Stats()
	if n := u.b.Destination("cloud").Len(); n != 0 {
		u.t.Fatalf("%d records are left: %+v", n, st)
	}
	var missing [outageDevices]uint64
	for i, s := range u.state[:u.n] {
		if s&^outageSent == 0 {
			missing[i%outageDevices] += outagePart
		}
	}
	for device, a := range u.b.Ledger() {
		d := a.Destinations[0]
		dropped := int(d.Lost()) - u.refused[device]*outagePart
		forgotten := int(missing[device]) - dropped // refusals since the last checkpoint before a crash
		if forgotten < 0 || forgotten > u.refusedLately*outagePart || u.gaps[device] != d.Lost() || d.Buffered != 0 || d.InFlight != 0 {
			u.t.Errorf("device %s: %d readings never came; gap records tell of %d, %d were refused, the ledger says %+v",
				a.Name, missing[device], u.gaps[device], u.refused[device]*outagePart, d)
		}
		for cause := range lost {
			lost[cause] += d.Dropped[cause]
		}
	}
	return lost
}

// TestInFlightIsNotGivenUp: what is being sent is not told as lost while it may still arrive. An expiry waits for it, and room is made by another segment.
func TestInFlightIsNotGivenUp(t *testing.T) {
	for name, cause := range map[string]Cause{"full": CauseFull, "expired": CauseExpired} {
		t.Run(name, func(t *testing.T) {
			o := testOptions()
			o.MaxAge = time.Hour
			b := mustOpen(t, t.TempDir()+"/store", o)
			s := mustStream(t, b, "press")
			for range 3 {
				appendN(t, b, s, 10)
				commitNow(t, b)
				b.lockCommit()
				b.seal()
				b.unlockCommit()
			}
			give := func(over time.Duration) {
				b.lockCommit()
				defer b.unlockCommit()
				if cause == CauseFull {
					v, sent := b.victim()
					if _, err := b.drop(v, CauseFull, sent); err != nil {
						t.Fatal(err)
					}
					return
				}
				for _, s := range b.segs {
					s.wrote = b.elapsed() - o.MaxAge - over
				}
				if err := b.expire(); err != nil {
					t.Fatal(err)
				}
			}
			d := b.Destination("cloud")
			r := d.Reader(0, 0)
			var recs [2]Record
			for i := range recs {
				if ok, err := take(r, &recs[i]); !ok || err != nil {
					t.Fatal(ok, err)
				}
			}
			give(time.Minute)
			first := b.segs[0].first
			if first != recs[0].Seq {
				t.Fatalf("the segment of the records in flight is gone: the first record is %d", first)
			}
			d.Ack(recs[0].Seq)
			l := b.Ledger()[0].Destinations[0]
			if want := map[Cause]uint64{CauseFull: 20, CauseExpired: 40}[cause]; l.Delivered != 2 || l.Dropped[cause] != want {
				t.Errorf("while one is in flight: %+v, want %d dropped", l, want)
			}
			if cause == CauseFull { // there is no other left but the last, and then it
				give(0)
				give(0)
			} else {
				give(time.Minute) // the second is still waited for
				if b.segs[0].first != first {
					t.Fatal("given up before its answer")
				}
				give(o.MaxAge/8 + time.Second)
			}
			d.Ack(recs[1].Seq)
			if l := b.Ledger()[0].Destinations[0]; l.Delivered != 2 || l.Dropped[cause] != 58 || l.Buffered != 0 {
				t.Errorf("at last: %+v", l)
			}
			checkLedger(t, b)
		})
	}
}

func TestOutage(t *testing.T) {
	maxAge := outageDays * 24 * time.Hour * 4 / 15 // longer than the time between two restarts
	for name, c := range map[string]struct {
		o    Options
		lost Cause
		days float64 // of records, that the backlog may have at the end
	}{
		"max_size":    {Options{MaxSize: 4 << 20}, CauseFull, 4.5},
		"max_age":     {Options{MaxSize: 128 << 20, MaxAge: maxAge}, CauseExpired, maxAge.Hours() / 24 * 1.15},
		"drop-newest": {Options{MaxSize: 4 << 20, WhenFull: DropNewest}, CauseFull, 4.5},
	} {
		if os.Getenv("MILLRACE_LONG") == "" && (name == "drop-newest" || name == "max_size" && raceShare > 1) {
			continue
		}
		t.Run(name, func(t *testing.T) { // one after another: the heap is that of all
			synctest.Test(t, func(t *testing.T) {
				c.o.CommitInterval, c.o.Destinations = 10*time.Minute, []string{"cloud"}
				seed := seeds(t, 1, 1)[0]
				t.Logf("MILLRACE_SEED=%d", seed)
				u := &outage{t: t, o: c.o, dir: t.TempDir() + "/store", rng: rand.New(rand.NewPCG(seed, 30)),
					state: make([]byte, outageDevices*(outageDays+5)*24*120)}
				u.open()
				u.run()
				backlog := u.b.Destination("cloud").Len()
				periods := u.drain()
				u.stop()
				lost := u.account()
				st := u.b.Stats()
				t.Logf("%d days; %d records; %d restarts; backlog %d, drained in %v; at most %d kB on disk; %d kB of heap; %d MB written; readings lost %v",
					outageDays, u.n, u.restarts, backlog, time.Duration(periods)*outagePeriod, u.peak>>10, u.heap[1]>>10, st.BytesWritten>>20, lost)
				if days := float64(backlog) * outagePeriod.Hours() / 24 / outageDevices; days > c.days || days < 0.2 {
					t.Errorf("the backlog is of %.1f days, at most %.1f are wanted", days, c.days)
				}
				for cause, n := range lost {
					if (n > 0) != (Cause(cause) == c.lost) {
						t.Errorf("%d readings lost as %v", n, Cause(cause))
					}
				}
				if err := u.b.Close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
