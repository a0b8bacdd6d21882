// Package buffer is a durable, bounded, segmented queue of opaque records on bbolt, with a cursor per
// destination and an account per device. It knows nothing of readings.
//
// It promises that a record is, at every moment, acknowledged by every destination, or fsynced on disk,
// or younger than the commit interval; that the directory never exceeds its bound; that sequence numbers
// are never reused; and that whatever is dropped is counted and leaves a gap record. The pipeline appends,
// the publisher reads and acknowledges, the gateway opens it, runs it and closes it. DESIGN.md says how.
package buffer

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Policy says what gives way when the directory has reached its bound.
type Policy uint8

// The policies.
const (
	DropOldest Policy = iota // the oldest segment is dropped
	DropNewest               // Append refuses with ErrFull
)

// StartAt says where a destination begins that the store has not seen before.
type StartAt uint8

// The starts.
const (
	StartNow    StartAt = iota // with the next record
	StartOldest                // with the oldest record on disk
)

// Options configure a buffer. MaxSize must be given; defaults that a config has stand there (gateway/config), and nowhere else.
type Options struct {
	MaxSize        int64              // bytes of all files together, never exceeded; at least 4 MiB
	MaxAge         time.Duration      // records older by the store's running time are dropped; 0 = no limit
	CommitInterval time.Duration      // 0 = strict: fsync before a record becomes visible to a reader
	TailBytes      int64              // bound of the memory tail, at most a quarter of a segment; 0 = as much
	SegmentSize    int64              // bytes of one segment file, at most an eighth of MaxSize; 0 = 32 MiB
	WhenFull       Policy             // DropOldest or DropNewest
	Destinations   []string           // at most 16 with those the store still holds; empty = those of the store
	Starts         map[string]StartAt // where those of the destinations begin that the store does not know; others with StartNow
	Traces         []string           // names of files in the directory that are not the store's, and that only who has had it open leaves: see Left.Gone
	Log            *slog.Logger       // nil = no log
	Now            func() time.Time   // the wall clock, for times that people read; nil = time.Now
}

// Bounds of the store.
const (
	MaxDestinations = 16      // destinations of one store, forgotten ones not counted
	MaxInFlight     = 1 << 14 // records handed out to one destination and not yet acknowledged
	MaxAccounts     = 1 << 16 // accounts of one store
	minMaxSize      = 4 << 20
	maxRecord       = 16 << 20

	defaultSegment   = 32 << 20
	maxDefaultRecord = defaultSegment / 8 // what MaxRecord is at most with the default segment size
)

// complete returns the options with what was left out filled in, or what is wrong with them.
func (o Options) complete() (Options, error) {
	if o.MaxSize < minMaxSize {
		return o, fmt.Errorf("max size %d bytes is too small; give at least %d (4 MiB)", o.MaxSize, minMaxSize)
	}
	if o.MaxAge < 0 || o.CommitInterval < 0 || o.TailBytes < 0 || o.SegmentSize < 0 {
		return o, fmt.Errorf("max age, commit interval, tail bound and segment size must not be negative")
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = defaultSegment
	}
	o.SegmentSize = max(min(o.SegmentSize, o.MaxSize/8), 256<<10)
	if o.TailBytes == 0 {
		o.TailBytes = o.SegmentSize
	}
	o.TailBytes = max(min(o.TailBytes, o.SegmentSize/4), 64<<10)
	if len(o.Destinations) > MaxDestinations {
		return o, fmt.Errorf("%d destinations are too many; at most %d can share a buffer", len(o.Destinations), MaxDestinations)
	}
	seen := map[string]bool{}
	for _, name := range o.Destinations {
		if name == "" || len(name) > 255 || seen[name] {
			return o, fmt.Errorf("destination name %q is empty, too long or given twice", name)
		}
		seen[name] = true
	}
	for name := range o.Starts {
		if !seen[name] {
			return o, fmt.Errorf("a start is given for %q, which is not among the destinations", name)
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, nil
}

// Buffer is the store. All methods may be called from any goroutine.
type Buffer struct {
	dir          string
	o            Options
	log          *slog.Logger
	fs           files
	lock         *os.File
	lockInfo     os.FileInfo   // of lock; both are changed with commitMu and mu held
	dirInfo      os.FileInfo   // of the directory that lock is in; guarded by commitMu
	looked       time.Time     // whether the files are still under their names; guarded by commitMu
	stateLooked  time.Time     // at state.db; likewise
	lookedSegs   time.Time     // whether the segments are there; likewise
	reserveTried time.Time     // when the reserve was last made, or tried to be; guarded by commitMu
	awaySince    time.Time     // the directory was found moved away; zero = it is not; likewise
	movedIn      bool          // the directory was made or taken again, and has no checkpoint yet; likewise
	asked        time.Time     // for pages that the disk fails to give; likewise
	readPatience time.Duration // a constant but for tests
	awayPatience time.Duration // likewise
	stallWait    time.Duration // likewise
	store        uint64        // the store's own number, made when it was created; ties the files of it together
	epoch        epoch         // of the records that this process takes
	readOnly     bool          // it is only looked at
	old          *stateData    // what state.db had, when readOnly
	start        time.Time     // when this process opened the store; its monotonic part measures age

	// commitMu is held by whoever writes files; it is taken before mu. mu guards everything below.
	commitMu sync.Mutex
	mu       sync.Mutex

	tail     tail
	next     uint64    // sequence number of the next record
	durable  uint64    // every record up to here is on disk or needs no disk
	left     Left      // by the process before
	until    []byte    // as it stood in state.db; holds until a record comes
	lost     time.Time // when a loss was counted last, also by a process before; zero = none was
	took     bool      // a record came
	reserved uint64    // sequence numbers below are promised on disk to be used once
	running  bool      // Run is at work
	closed   bool
	done     chan struct{} // closed and renewed after every turn of commitMu
	kick     chan struct{} // asks Run for an early commit

	slots      [MaxDestinations]*Destination
	all        mask // the slots in use
	accounts   map[string]*account
	accountSeq []*account // in order of appearance; checkpoints refer to it
	streams    map[string]*Stream
	dictBytes  int64           // what all their dictionary entries take
	gaps       map[gapKey]*Gap // lost, but not yet told by a gap record
	gapOrder   []gapKey
	waiting    []*waitingGap
	met        []foundDamage   // while opening: not told yet
	empties    map[uint64]bool // likewise: segments that hold nothing, and whether they are whole files
	toldOf     map[uint64]bool // likewise: segments whose damage an earlier process told of
	unsure     bool            // likewise: records may be lost that nobody knows of
	blind      bool            // likewise: no checkpoint says who has what
	promised   uint64          // the highest number that ever was durable
	segs       []*segment      // in order of sequence number; the active one is the last
	active     *segment
	segBytes   int64         // size of all segment files
	aside      int64         // bytes of files set aside
	stateSize  int64         // bytes of state.db
	ageBase    time.Duration // running time of the store before this process
	gen        uint64        // of the last checkpoint taken
	changed    bool          // since the last checkpoint written
	st         counters

	beside       bool  // drop-newest: the last record taken was refused for some, see admit
	seen         seen  // by the process before
	leftTold     bool  // by MissedBy: a process that has not, such as a command, leaves it for the next to tell
	closing      bool  // Close is under way: a full disk is not waited for
	waitingBytes int64 // of waiting in a checkpoint

	busySince atomic.Int64 // when commitMu was taken, by start; 0 = it is free

	boot       string                    // guarded by commitMu, as the following
	marks      uint64                    // written
	markFailed bool                      // the last time
	losses     []losses                  // by cause, what the log is told of them; guarded by commitMu
	repeats    []repeat                  // likewise, of what a disk in trouble repeats
	trouble    trouble                   // likewise, of commits
	warnedOf   map[string]string         // what the log was told of a segment, and of which, since a commit last worked
	spares     bool                      // there is a spare segment
	written    atomic.Int64              // bytes of pages that bbolt wrote
	state      *stateFile                // guarded by commitMu
	held       atomic.Pointer[stateData] // what it holds, for who does not want to wait
	coder      blockCoder                // guarded by commitMu
	decoder    *zstd.Decoder
	handles    handleCache
}

// Epoch returns the epoch of the records that are appended now: 16 hex digits, drawn at random at each Open. Records of
// earlier processes keep theirs (Record.Epoch), so nothing new can have the (epoch, number) of a record that a copy of this
// store wrote. Numbers ascend over all epochs of a store, but are not contiguous: after a crash they jump by up to 2^20,
// after the loss of state.db by 2^40. A consumer that removes duplicates keeps ranges for each epoch.
func (b *Buffer) Epoch() string { return b.epoch.name }

// epoch is the number that the records of one process have in common, and its name.
type epoch struct {
	n    uint64
	name string
}

func newEpoch(n uint64) epoch { return epoch{n, fmt.Sprintf("%016x", n)} }

// random returns a number that nobody else has.
func random() (uint64, error) {
	var raw [8]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return 0, fmt.Errorf("make epoch: %w", err)
	}
	return max(binary.BigEndian.Uint64(raw[:]), 1), nil
}

// NextSeq returns the sequence number that the next record will get.
func (b *Buffer) NextSeq() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next
}

// MaxRecord returns how many bytes one payload may have.
func (b *Buffer) MaxRecord() int { return int(min(b.o.TailBytes/2, maxRecord)) }

// sizeOf says how large a record is.
func sizeOf(bytes, readings int) string {
	if readings == 1 {
		return fmt.Sprintf("1 reading of %d bytes", bytes)
	}
	return fmt.Sprintf("%d readings of together %d bytes", readings, bytes)
}

// roomFor says in the words of the config what a record of so many bytes needs, as complete and MaxRecord have it.
func roomFor(bytes, readings int) string {
	var ways []string
	if n := (int64(bytes) + 1<<10 - 1) >> 10; n <= maxDefaultRecord>>10 {
		ways = append(ways, fmt.Sprintf("raise buffer.max_size to %dMiB at least, and buffer.memory to %dKiB", (n*64+1023)>>10, 2*n))
	}
	if readings != 1 {
		ways = append(ways, "split the poll group")
	}
	if ways == nil {
		return "no setting makes room for it: have the device's text or array in parts"
	}
	return strings.Join(ways, ", or ")
}

// Append accepts one record and returns its sequence number. payload is copied. readings is how many
// readings it holds, for the ledger; at is the record's time in microseconds since 1970. The record
// becomes visible to readers at once, in strict mode after its fsync, for which Append waits. In the
// other mode it waits only when the producers outrun the disk, for at most two seconds.
// Errors: ErrFull and ErrTooLarge, both counted as dropped{full} and told by a gap record; ErrClosed; in strict mode ErrNotDurable.
func (b *Buffer) Append(s *Stream, payload []byte, readings int, at int64) (uint64, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return 0, ErrClosed
	}
	var err error
	var refused mask
	if len(payload) > b.MaxRecord() || readings < 0 || readings > 1<<24 {
		err = fmt.Errorf("append a record of %q with %s: %w, which is %d bytes; %s", s.account.name, sizeOf(len(payload), readings), ErrTooLarge, b.MaxRecord(), roomFor(len(payload), readings))
	} else {
		refused, err = b.makeRoom(entryCost(payload))
	}
	b.tally(s.account)
	if err != nil {
		b.refuse(s.account, readings, at)
		if errors.Is(err, ErrFull) {
			b.st.full.refused(time.Now(), b.fitsAll(b.dirty()+entryCost(payload)), entryCost(payload))
			b.st.full.forAll = time.Now()
		}
		if errors.Is(err, ErrTooLarge) && !s.warned {
			s.warned = true
			b.log.Error("record refused; so will be all that are as large", "error", err)
		}
		b.mu.Unlock()
		return 0, err
	}
	seq := b.push(entry{payload: b.tail.copy(payload), stream: s, at: at, readings: uint32(readings), to: everyone})
	b.st.full.over, b.took = refused == 0, true
	if refused != 0 {
		b.refuseFor(refused, seq)
	}
	strict := b.o.CommitInterval == 0
	if !strict {
		b.notify()
		if b.dirty() > b.o.TailBytes/2 {
			b.kickRun()
		}
	}
	if b.reserved-b.next < reserveStep/4 {
		b.kickRun()
	}
	b.mu.Unlock()
	if strict {
		return seq, b.waitDurable(seq)
	}
	return seq, nil
}

// push gives an entry its sequence number, puts it into the tail and counts it. mu is held.
func (b *Buffer) push(e entry) uint64 {
	seq := b.next
	b.next++
	e.born = time.Since(b.start)
	if e.to == everyone { // the end of one that is not in use was fixed when it was taken out
		e.passed = b.all &^ b.present()
		e.acked |= e.passed
	}
	b.tail.push(e)
	b.changed = true
	if e.gap == nil && e.to == everyone {
		e.stream.account.accepted += uint64(e.readings)
	}
	n := uint64(e.readings)
	if e.passed != 0 {
		b.missing(e.stream.account, e.passed, &Gap{From: e.at, To: e.at, Count: n, Cause: CauseAbsent, FirstSeq: seq, LastSeq: seq})
	}
	for slot, d := range b.slots {
		if d == nil {
			continue
		}
		if e.to&bit(slot) == 0 {
			d.acked.add(seq, seq+1)
			continue
		}
		if e.passed&bit(slot) != 0 {
			d.acked.add(seq, seq+1)
			e.stream.account.dests[slot].before += n
			continue
		}
		e.stream.account.dests[slot].buffered += n
		d.backlog++
	}
	return seq
}

// waitDurable waits until the record is on disk. The first to come commits for all that wait with it.
func (b *Buffer) waitDurable(seq uint64) error {
	for {
		b.mu.Lock()
		durable, done := b.durable >= seq, b.done
		b.mu.Unlock()
		if durable {
			return nil
		}
		if !b.tryCommitLock() {
			<-done
			continue
		}
		err := b.commit()
		b.unlockCommit()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNotDurable, err)
		}
	}
}

func (b *Buffer) lockCommit() {
	b.commitMu.Lock()
	b.busySince.Store(max(int64(time.Since(b.start)), 1))
}

func (b *Buffer) tryCommitLock() bool {
	ok := b.commitMu.TryLock()
	if ok {
		b.busySince.Store(max(int64(time.Since(b.start)), 1))
	}
	return ok
}

// Busy returns for how long the files have been written without a pause, 0 when they are not. It never waits, so that a
// watchdog sees a disk that does not come back.
func (b *Buffer) Busy() time.Duration {
	since := b.busySince.Load()
	if since == 0 {
		return 0
	}
	return time.Since(b.start) - time.Duration(since)
}

// commitSince is when the present turn with the disk began, zero when there is none.
func (b *Buffer) commitSince() time.Time {
	if since := b.busySince.Load(); since != 0 {
		return b.start.Add(time.Duration(since))
	}
	return time.Time{}
}

// unlockCommit ends a turn and wakes everybody who waits for one to end.
func (b *Buffer) unlockCommit() {
	b.busySince.Store(0)
	b.commitMu.Unlock()
	b.mu.Lock()
	close(b.done)
	b.done = make(chan struct{})
	b.mu.Unlock()
}

func (b *Buffer) kickRun() {
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// notify tells every destination that there is something to read. mu is held.
func (b *Buffer) notify() {
	for _, d := range b.slots {
		if d != nil {
			d.signal()
		}
	}
}

// elapsed is how long the store has been running in all its processes together: a clock that no clock
// jump can fool. Time during which no process ran does not count. mu is held.
func (b *Buffer) elapsed() time.Duration { return b.ageBase + time.Since(b.start) }
