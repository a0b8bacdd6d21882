package buffer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// The model test does random things to a buffer and keeps beside it, in plain slices and maps, what must
// come of them. A crash forgets what the model knows was only in memory.

type modelRecord struct {
	epoch    string
	account  string
	payload  []byte
	at       int64
	readings int
	disk     bool // a commit that succeeded had it
}

type modelDest struct {
	name       string
	reader     *Reader
	next       uint64          // the reader hands out nothing below
	flight     []uint64        //
	acked      map[uint64]bool // acknowledged, in any life of the process
	lastAcked  map[uint64]bool // in this life: must not come again
	gaps       map[uint64]Gap  // gap records acknowledged
	gapAccount map[uint64]string
}

type model struct {
	t       *testing.T
	rng     *rand.Rand
	dir     string
	o       Options
	b       *Buffer
	records map[uint64]*modelRecord
	dests   []*modelDest
	high    uint64 // highest sequence number used
	epoch   string
	synced  uint64 // records up to here are known to be on disk
	safe    uint64 // the last checkpoint on disk has everything below
	drops   bool
	away    bool // the second destination hardly ever reads
	disk    disk
	fills   bool           // others fill the disk and free it
	steady  bool           // it does not crash
	unclean bool           // an opening said that nobody can count what was lost
	breakIt func(m *model) // a fault of the test's own, which it must find
}

func newModel(t *testing.T, seed uint64, o Options) *model {
	m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir() + "/store", o: o, records: map[uint64]*modelRecord{}}
	for _, name := range o.Destinations {
		m.dests = append(m.dests, &modelDest{name: name, acked: map[uint64]bool{}, lastAcked: map[uint64]bool{},
			gaps: map[uint64]Gap{}, gapAccount: map[uint64]string{}})
	}
	m.open()
	return m
}

func (m *model) open() {
	m.disk.full = false
	b, err := open(m.dir, m.o, m.disk.files())
	if err != nil {
		m.t.Fatal(err)
	}
	m.b, m.unclean = b, m.unclean || b.Stats().Unclean
	if m.epoch == b.Epoch() {
		m.t.Fatalf("epoch %s twice", m.epoch)
	}
	m.epoch = b.Epoch()
	if b.NextSeq() <= m.high {
		m.t.Fatalf("next sequence number %d, but %d was used", b.NextSeq(), m.high)
	}
	m.synced, m.safe = b.NextSeq()-1, b.NextSeq()
	for _, d := range m.dests {
		d.reader, d.flight, d.next = nil, nil, 0
		clear(d.lastAcked)
	}
	m.invariants()
}

func (m *model) step() {
	if m.fills {
		m.fillOrFree()
	}
	switch n := m.rng.IntN(100); {
	case n < 45:
		for range 1 + m.rng.IntN(20) {
			m.append()
		}
	case n < 70:
		m.read()
	case n < 82:
		m.ack()
	case n < 84:
		d := m.dest()
		m.b.Destination(d.name).Reset()
		d.flight, d.reader = nil, nil
	case n < 87:
		m.sync()
	case n < 93:
		m.commit()
	case n < 95:
		m.b.lockCommit()
		err := errors.Join(m.b.commitOr(true), m.b.reclaim())
		m.b.unlockCommit()
		m.mayBeFull(err)
		m.sync()
	case n < 96:
		m.reject()
	case n < 98:
		m.disk.full = false
		if err := m.b.Close(); err != nil {
			m.t.Fatal(err)
		}
		m.sync()
		m.safe = m.b.NextSeq()
		m.open()
	case m.steady:
	default:
		m.crash()
	}
	m.sync()
	m.invariants()
}

func (m *model) dest() *modelDest {
	if m.away && m.rng.IntN(100) > 0 {
		return m.dests[0]
	}
	return m.dests[m.rng.IntN(len(m.dests))]
}

func (m *model) append() {
	account := fmt.Sprintf("device-%d", m.rng.IntN(5))
	s, err := m.b.Stream(account, []byte("schema of "+account))
	if err != nil {
		m.t.Fatal(err)
	}
	size := m.rng.IntN(200)
	if m.rng.IntN(50) == 0 {
		size = m.rng.IntN(m.b.MaxRecord())
	}
	payload := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.NativeEndian.PutUint64(payload[i:], m.rng.Uint64())
	}
	rec := &modelRecord{epoch: m.epoch, account: account, payload: bytes.Clone(payload), at: m.rng.Int64N(1 << 50), readings: 1 + m.rng.IntN(100)}
	s.Count(rec.readings+3, 3)
	seq, err := m.b.Append(s, payload, rec.readings, rec.at)
	if errors.Is(err, ErrFull) && m.o.WhenFull == DropNewest {
		return
	}
	m.mayBeFull(err)
	if err != nil {
		return
	}
	if seq <= m.high {
		m.t.Fatalf("sequence number %d after %d", seq, m.high)
	}
	clear(payload) // it must have been copied
	m.high = seq
	m.records[seq] = rec
	m.sync()
}

// sync learns which records are on disk now.
func (m *model) sync() {
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	m.safe = max(m.safe, m.b.st.saved)
	for ; m.synced < m.b.durable; m.synced++ {
		if rec := m.records[m.synced+1]; rec != nil {
			rec.disk = true
		}
	}
}

func (m *model) commit() {
	m.b.lockCommit()
	err := m.b.commit()
	m.b.unlockCommit()
	m.mayBeFull(err)
	m.sync()
}

// mayBeFull ends the test for every error but that of a full disk.
func (m *model) mayBeFull(err error) {
	m.t.Helper()
	if err != nil && !(m.fills && IsDiskFull(err)) {
		m.t.Fatal(err)
	}
}

func (m *model) read() {
	d := m.dest()
	if d.reader == nil || m.rng.IntN(10) == 0 {
		from := uint64(0)
		if m.rng.IntN(3) == 0 {
			from = m.rng.Uint64N(m.high + 2)
		}
		d.reader, d.next = m.b.Destination(d.name).Reader(from, 0), from
	}
	for range m.rng.IntN(40) {
		if !m.readOne(d) {
			return
		}
	}
}

func (m *model) readOne(d *modelDest) bool {
	var rec Record
	ok, err := take(d.reader, &rec)
	if err != nil {
		m.t.Fatal(err)
	}
	if !ok {
		return false
	}
	if rec.Seq < d.next {
		m.t.Fatalf("%s: record %d after %d", d.name, rec.Seq, d.next)
	}
	d.next = rec.Seq + 1
	if d.lastAcked[rec.Seq] {
		m.t.Fatalf("%s: record %d comes again after its acknowledgement", d.name, rec.Seq)
	}
	if rec.Gap != nil {
		d.gaps[rec.Seq], d.gapAccount[rec.Seq] = *rec.Gap, rec.Stream.Account()
		m.high = max(m.high, rec.Seq)
	} else {
		want := m.records[rec.Seq]
		if want == nil || want.epoch != rec.Epoch || want.account != rec.Stream.Account() || !bytes.Equal(want.payload, rec.Payload) || want.at != rec.At || want.readings != rec.Readings ||
			string(rec.Stream.Dict()) != "schema of "+want.account {
			m.t.Fatalf("%s: record %d is %.200v, want %.200v", d.name, rec.Seq, fmt.Sprint(rec), fmt.Sprint(want))
		}
	}
	if !slices.Contains(d.flight, rec.Seq) {
		d.flight = append(d.flight, rec.Seq)
	}
	return true
}

func (m *model) ack() {
	d := m.dest()
	n := m.rng.IntN(len(d.flight) + 1)
	for range n {
		i := 0
		if m.rng.IntN(4) == 0 {
			i = m.rng.IntN(len(d.flight))
		}
		seq := d.flight[i]
		d.flight = append(d.flight[:i], d.flight[i+1:]...)
		m.b.Destination(d.name).Ack(seq)
		if m.rng.IntN(10) == 0 {
			m.b.Destination(d.name).Ack(seq)
		}
		d.acked[seq], d.lastAcked[seq] = true, true
	}
}

func (m *model) reject() {
	d := m.dest()
	if len(d.flight) == 0 {
		return
	}
	seq := d.flight[0]
	err := m.b.Destination(d.name).Reject(seq, "no")
	if errors.Is(err, ErrNotFound) && m.drops {
		return // dropped in the meantime
	}
	if err != nil {
		m.t.Fatal(err)
	}
	d.flight = d.flight[1:]
	d.acked[seq], d.lastAcked[seq] = true, true
	m.high = max(m.high, m.b.NextSeq()-1)
}

func (m *model) crash() {
	crash(m.b)
	for seq, rec := range m.records {
		if !rec.disk {
			delete(m.records, seq)
		}
	}
	for _, d := range m.dests { // gap records that were only in memory: their losses are told again
		for seq := range d.gaps {
			if seq >= m.safe {
				delete(d.gaps, seq)
			}
		}
	}
	m.open()
}

func (m *model) invariants() {
	m.t.Helper()
	checkLedger(m.t, m.b)
	for _, a := range m.b.Ledger() {
		if a.Polled < a.Suppressed {
			m.t.Fatalf("account %+v", a)
		}
		for _, d := range a.Destinations {
			if d.Buffered > 1<<60 || d.InFlight > 1<<60 {
				m.t.Fatalf("account %q went below zero: %+v", a.Name, d)
			}
		}
	}
	if got := dirSize(m.t, m.dir); got > m.o.MaxSize {
		m.t.Fatalf("the directory has %d bytes, more than %d", got, m.o.MaxSize)
	}
}

func dirSize(t testing.TB, dir string) (sum int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size()
	}
	return sum
}

// drain reads and acknowledges until nothing is left and nothing comes after.
func (m *model) drain() {
	for idle := 0; idle < 2; idle++ { // gap records may come once the space is free
		for _, d := range m.dests {
			m.b.Destination(d.name).Reset()
			d.flight, d.reader, d.next = nil, m.b.Destination(d.name).Reader(0, 0), 0
			for m.readOne(d) {
				idle = -1
				m.b.Destination(d.name).Ack(d.flight[0])
				d.acked[d.flight[0]] = true
				d.flight = d.flight[:0]
			}
		}
		m.b.lockCommit()
		err := errors.Join(m.b.commitOr(true), m.b.reclaim())
		m.b.unlockCommit()
		if err != nil {
			m.t.Fatal(err)
		}
	}
}

// finish drains everything and compares the account of it.
func (m *model) finish() {
	if m.breakIt != nil {
		m.breakIt(m)
	}
	m.drain()
	for _, d := range m.dests {
		lost := map[string]uint64{}
		for seq, g := range d.gaps {
			if d.acked[seq] {
				lost[d.gapAccount[seq]] += g.Count
			}
		}
		missing := map[string]uint64{}
		for seq, rec := range m.records {
			if !d.acked[seq] {
				missing[rec.account] += uint64(rec.readings)
			}
		}
		for _, a := range m.b.Ledger() {
			for _, l := range a.Destinations {
				if l.Name != d.name {
					continue
				}
				if l.Buffered != 0 || l.InFlight != 0 {
					m.t.Fatalf("%s, %s: drained, but %+v", d.name, a.Name, l)
				}
				// What was given up in memory while the disk was full, a crash makes forget: the gateway tells of it without a count.
				if forgot := m.fills && m.unclean; missing[a.Name] > l.Lost() && !forgot {
					m.t.Fatalf("%s, %s: %d readings never came, %d are counted as dropped: %+v", d.name, a.Name, missing[a.Name], l.Lost(), l)
				}
				// A gap record whose acknowledgement a crash forgot may be dropped and told again in another one.
				if again := m.drops && lost[a.Name] > l.Lost(); lost[a.Name] != l.Lost() && !again {
					m.t.Fatalf("%s, %s: gap records tell of %d, the ledger of %+v", d.name, a.Name, lost[a.Name], l)
				}
			}
		}
		if n := m.b.Destination(d.name).Len(); n != 0 {
			m.t.Fatalf("%s: drained, but %d records are left", d.name, n)
		}
	}
	if err := m.b.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.open()
	if s := m.b.Stats(); s.Segments != 0 || s.Health != "ok" || s.Damages != 0 {
		m.t.Fatalf("after the drain: %+v", s)
	}
	if err := m.b.Close(); err != nil {
		m.t.Fatal(err)
	}
}

func seeds(t *testing.T, short, long int) []uint64 {
	if s := os.Getenv("MILLRACE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{n}
	}
	n := short
	if os.Getenv("MILLRACE_LONG") != "" {
		n = long
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = rand.Uint64()
	}
	return out
}

// TestModelControl shows that the model can see what it is for: a wrong value, a record that is lost without a word, a
// number used twice, an account that does not add up.
func TestModelControl(t *testing.T) {
	for what, breakIt := range map[string]func(m *model){
		"a wrong value": func(m *model) {
			for _, rec := range m.records {
				rec.payload = append(rec.payload, 0)
			}
		},
		"a lost record": func(m *model) {
			for range 20 {
				m.append()
			}
			d := m.b.Destination("a")
			d.acked.add(m.high-5, m.high-4)
			d.backlog--
		},
		"a number used twice": func(m *model) { m.high = m.b.NextSeq(); m.append() },
		"a wrong account":     func(m *model) { m.append(); m.b.accountSeq[0].accepted++; m.invariants() },
	} {
		m := newModel(t, 1, Options{MaxSize: 64 << 20, CommitInterval: time.Hour, Destinations: []string{"a"}})
		m.breakIt = breakIt
		for range 100 {
			m.step()
		}
		mustFail(t, what, func(t *testing.T) { m.t = t; m.finish() })
		crash(m.b)
	}
}

func TestModel(t *testing.T) {
	for name, o := range map[string]Options{
		"one":    {MaxSize: 64 << 20, CommitInterval: time.Hour, Destinations: []string{"a"}},
		"three":  {MaxSize: 64 << 20, CommitInterval: time.Hour, Destinations: []string{"a", "b", "c"}, SegmentSize: 256 << 10},
		"strict": {MaxSize: 64 << 20, Destinations: []string{"a", "b"}, SegmentSize: 256 << 10},
		"drops":  {MaxSize: 4 << 20, CommitInterval: time.Hour, Destinations: []string{"a", "b"}},
		"newest": {MaxSize: 4 << 20, CommitInterval: time.Hour, Destinations: []string{"a", "b"}, WhenFull: DropNewest},
		"away":   {MaxSize: 4 << 20, CommitInterval: time.Hour, Destinations: []string{"a", "b"}, WhenFull: DropNewest},
	} {
		for _, seed := range seeds(t, max(3/raceShare, 1), 200) {
			t.Run(fmt.Sprintf("%s/seed=%d", name, seed), func(t *testing.T) {
				t.Parallel()
				m := newModel(t, seed, o)
				m.away = name == "away"
				m.drops = name == "drops" || name == "newest" || m.away
				steps := 300
				if m.drops {
					steps = 1000
				}
				for range steps {
					m.step()
				}
				m.finish()
			})
		}
	}
}
