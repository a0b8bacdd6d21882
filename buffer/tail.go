package buffer

import (
	"fmt"
	"time"
)

// mask is a set of destinations, one bit for each slot.
type mask uint16

const everyone = ^mask(0)

func bit(slot int) mask { return 1 << slot }

// entry is one record in the memory tail.
type entry struct {
	payload  []byte // aliases a slab, never changed
	stream   *Stream
	gap      *Gap
	at       int64
	born     time.Duration // since the store was opened
	end      uint64        // bytes pushed into the tail up to and with this entry
	readings uint32
	to       mask // destinations it is addressed to
	acked    mask // destinations that need it no more
	rejected mask // destinations that put it into quarantine
	passed   mask // of those in acked: destinations that were not in use when it came
	refused  mask // of those in acked: destinations that it was refused for, see admit
}

const entryOverhead = 80

func entryCost(payload []byte) int64 { return int64(len(payload)) + entryOverhead }

// tail holds the youngest records, first to first+n-1, without holes. Payloads live in append-only
// slabs which the garbage collector frees once no entry and no reader refers to them.
type tail struct {
	ring  []entry // length is a power of two
	head  int
	n     int
	first uint64 // sequence number of ring[head]
	total uint64 // bytes ever pushed
	slab  []byte
	chunk int // size of a slab
}

func (t *tail) copy(p []byte) []byte {
	if len(p) > cap(t.slab)-len(t.slab) {
		if len(p) > t.chunk/4 {
			return append([]byte(nil), p...)
		}
		t.slab = make([]byte, 0, t.chunk)
	}
	from := len(t.slab)
	t.slab = append(t.slab, p...)
	return t.slab[from:len(t.slab):len(t.slab)]
}

func (t *tail) push(e entry) {
	if t.n == len(t.ring) {
		t.grow()
	}
	t.total += uint64(entryCost(e.payload))
	e.end = t.total
	t.ring[(t.head+t.n)&(len(t.ring)-1)] = e
	t.n++
}

func (t *tail) grow() {
	ring := make([]entry, max(256, 2*len(t.ring)))
	for i := range t.n {
		ring[i] = t.ring[(t.head+i)&(len(t.ring)-1)]
	}
	t.ring, t.head = ring, 0
}

func (t *tail) pop() {
	t.ring[t.head] = entry{}
	t.head = (t.head + 1) & (len(t.ring) - 1)
	t.n--
	t.first++
}

// at returns the entry of a record, or nil when the tail does not hold it.
func (t *tail) at(seq uint64) *entry {
	if seq < t.first || seq-t.first >= uint64(t.n) {
		return nil
	}
	return &t.ring[(t.head+int(seq-t.first))&(len(t.ring)-1)]
}

// bytesAfter returns how many bytes the records younger than seq take.
func (t *tail) bytesAfter(seq uint64) int64 {
	if t.n == 0 || seq+1 >= t.first+uint64(t.n) {
		return 0
	}
	if seq < t.first {
		e := t.at(t.first)
		return int64(t.total - e.end + uint64(entryCost(e.payload)))
	}
	return int64(t.total - t.at(seq).end)
}

func (t *tail) bytes() int64 { return t.bytesAfter(t.first - 1) }

// dirty returns how many bytes of the tail are not known to be on disk. mu is held.
func (b *Buffer) dirty() int64 { return b.tail.bytesAfter(b.durable) }

// settled reports whether no destination needs the entry. mu is held.
func (b *Buffer) settled(e *entry) bool { return e.to&^e.acked&b.all == 0 }

// advance moves durable over records that need no disk and frees the front of the tail. mu is held.
func (b *Buffer) advance() {
	for b.durable+1 < b.next {
		e := b.tail.at(b.durable + 1)
		if e != nil && !b.settled(e) {
			break
		}
		b.durable++
	}
	for b.tail.n > 0 && b.tail.first <= b.durable {
		if e := b.tail.at(b.tail.first); !b.settled(e) && b.tail.bytes() <= b.o.TailBytes {
			break
		}
		b.tail.pop()
	}
}

// stallWait is how long Append waits for a commit that is under way before a record gives way.
const stallWait = 2 * time.Second

// makeRoom sees to it that cost bytes fit into the tail: it lets go of what is on disk, then has the rest
// committed, and when that fails drops the oldest, or under drop-newest refuses, unless others have that one; refused are those who do not get the record
// though there is room. mu is held, and let go of while waiting.
func (b *Buffer) makeRoom(cost int64) (refused mask, err error) {
	if refused, err = b.admit(cost); err != nil {
		return 0, err
	}
	if b.next >= b.reserved {
		b.mu.Unlock()
		b.lockCommit()
		err := b.reserve()
		b.unlockCommit()
		b.mu.Lock()
		if err != nil {
			return 0, fmt.Errorf("%w: no sequence numbers are left and more cannot be reserved: %w", ErrFull, err)
		}
	}
	deadline := time.Time{}
	for b.tail.bytes()+cost > b.o.TailBytes {
		if b.tail.first <= b.durable {
			b.tail.pop()
			continue
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(b.stallWait)
		}
		stalled := b.st.commitErr != nil || b.stuck() || !b.waitTurn(deadline)
		switch {
		case b.closed:
			return 0, ErrClosed
		case !stalled || b.tail.n == 0 || b.tail.first <= b.durable: // the commit may have ended as the wait did
		case b.o.WhenFull == DropNewest && !b.frontYields():
			return 0, ErrFull
		default:
			b.dropFront()
		}
	}
	return refused, nil
}

// waitTurn commits, or waits until whoever is committing is done. It reports false at the deadline.
func (b *Buffer) waitTurn(deadline time.Time) bool {
	done, running := b.done, b.running
	b.mu.Unlock()
	defer b.mu.Lock()
	if !running && b.tryCommitLock() {
		_ = b.commit() // its error is kept in the stats; the caller looks there
		b.unlockCommit()
		return true
	}
	b.kickRun()
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// dropFront drops the oldest record of the tail, which is not on disk. mu is held.
func (b *Buffer) dropFront() {
	e, seq := b.tail.at(b.tail.first), b.tail.first
	b.lose(e, seq, CauseFull)
	b.durable = max(b.durable, seq)
	b.tail.pop()
	b.changed = true
}
