package buffer

import (
	"fmt"
	"path/filepath"
	"time"
)

// Stats is the state of the buffer at one moment. It costs the same whatever the backlog.
type Stats struct {
	Epoch        string             `json:"epoch"`
	NextSeq      uint64             `json:"next_seq"`
	Bytes        int64              `json:"bytes"` // of all files
	MaxBytes     int64              `json:"max_bytes"`
	Room         int64              `json:"room"`                   // bytes by which the segments may grow before something is dropped or refused for want of room
	Refusing     time.Time          `json:"refusing"`               // since when new records are refused for want of room; zero when they are not
	RefusedUntil time.Time          `json:"refused_until"`          // Refusing stands a while longer, but there is room again, of the disk or, while Health is not ok, of memory, and this is when the last was refused; zero else
	RefusingDisk bool               `json:"refusing_disk"`          // that is because the memory is full of what the disk does not take, not because of MaxBytes
	RefusingFor  []string           `json:"refusing_for,omitempty"` // the destinations that alone do not get new records, for which the store is full; nil when that is none, or nobody got one lately
	DiskFull     bool               `json:"disk_full"`              // the last write, or one of the last 10 s, found no space left on the disk
	Segments     int                `json:"segments"`
	TailRecords  int                `json:"tail_records"`
	TailBytes    int64              `json:"tail_bytes"`
	DirtyRecords uint64             `json:"dirty_records"` // in memory and not known to be on disk
	Commits      uint64             `json:"commits"`
	CommitErrors uint64             `json:"commit_errors"`
	ReadingBytes float64            `json:"reading_bytes"` // that a reading was seen to take on disk; 0 before enough were
	BytesWritten uint64             `json:"bytes_written"` // since Open, as far as the store knows
	Dropped      uint64             `json:"dropped"`       // segments dropped since Open
	Refused      uint64             `json:"refused"`       // records refused since Open: no room under drop-newest, or too large
	Running      time.Duration      `json:"running_ns"`    // of the store, in all its processes; MaxAge counts by it
	LastCommit   time.Time          `json:"last_commit"`
	Health       string             `json:"health"`        // "ok", or "degraded: " or "failing: " and why
	FailingSince time.Time          `json:"failing_since"` // when that began; zero when it is ok
	Damages      uint64             `json:"damages"`       // found since Open
	Damage       []Damage           `json:"damage"`        // the first of them
	Remade       time.Time          `json:"remade"`        // when the directory, or the lock in it, was last found taken away while in use, and made again; zero: never since Open
	CommitSince  time.Time          `json:"commit_since"`  // when the write to disk that is under way began; zero when none is
	Unclean      bool               `json:"unclean"`       // the process before did not close the store, nobody knows whether it did, the files of the store are gone, or this is a backup or an older copy: what it had not committed is lost, and nobody can count it
	Before       string             `json:"before"`        // which of them: BeforeUnclean, BeforeUnknown, BeforeRestored, BeforeOlder or BeforeGone; "" = none
	LostUnknown  uint64             `json:"lost_unknown"`  // losses that nobody could count, since the store began; the ledger does not have them
	Destinations []DestinationStats `json:"destinations"`
}

// DestinationStats is the state of one destination's cursor.
type DestinationStats struct {
	Name       string `json:"name"`
	Configured bool   `json:"configured"` // false: in the store, but not in use; it keeps what it had until Forget, and gets nothing new

	Backlog     uint64 `json:"backlog"`      // records not acknowledged, those in flight included
	Quarantined int    `json:"quarantined"`  // entries
	Untold      int    `json:"untold"`       // losses that it is still to be told of; they wait while it is not in use
	InFlight    int    `json:"in_flight"`    // records
	OldestSeq   uint64 `json:"oldest_seq"`   // the first one not acknowledged, or the next one when there is none
	OldestAt    int64  `json:"oldest_at_us"` // its time in µs since 1970, interpolated within its segment; 0 when there is none
	Ranges      int    `json:"ranges"`       // of acknowledged records
	Ignored     uint64 `json:"ignored"`      // acknowledgements of records that were not in flight
}

// Keeps reports whether the store keeps anything for the destination: one that is not in use and keeps nothing takes no place.
func (d *DestinationStats) Keeps() bool { return d.Backlog > 0 || d.Quarantined > 0 || d.Untold > 0 }

// Waiting is how many records wait for that destination which has most.
func (s *Stats) Waiting() (n uint64) {
	for i := range s.Destinations {
		n = max(n, s.Destinations[i].Backlog)
	}
	return n
}

// Stats returns the state of the buffer.
func (b *Buffer) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Stats{Epoch: b.Epoch(), NextSeq: b.next, Bytes: b.segBytes + b.aside + b.stateSize, MaxBytes: b.o.MaxSize,
		Room: max(b.segmentLimit()+b.aside-b.segBytes, 0), Refusing: b.st.full.standing(time.Now()), RefusedUntil: b.refusedUntil(), RefusingDisk: b.st.full.disk, RefusingFor: b.refusingFor(), DiskFull: b.diskFull(), Segments: len(b.segs), TailRecords: b.tail.n, TailBytes: b.tail.bytes(), DirtyRecords: b.next - 1 - b.durable,
		Commits: b.st.commits, CommitErrors: b.st.commitErrors, BytesWritten: uint64(b.written.Load()), Dropped: b.st.dropped,
		Refused: b.st.refused, Running: b.elapsed(), LastCommit: b.st.lastCommit, Health: b.health(), FailingSince: b.failingSince(),
		Damages: b.st.damages, ReadingBytes: b.st.seen.each(), LostUnknown: b.st.unknown, Unclean: b.left.Before() != "", Before: b.left.Before(), Remade: b.st.remade, CommitSince: b.commitSince(), Damage: append([]Damage{}, b.st.damage...)}
	aside := b.quarantined()
	for _, d := range b.slots {
		if d != nil {
			s.Destinations = append(s.Destinations, DestinationStats{Name: d.name, Configured: d.known,
				Backlog: d.backlog, Quarantined: aside[d.name], Untold: b.untoldTo(d.slot), InFlight: len(d.flight), OldestSeq: d.acked.next(0), OldestAt: b.oldestAt(d), Ranges: len(d.acked.s), Ignored: d.skipped})
		}
	}
	return s
}

// refusal is a time in which new records are refused for want of room.
type refusal struct {
	since, last time.Time
	over        bool      // one was taken after the last that was refused
	disk        bool      // there was room in the store, and none in memory
	cost        int64     // bytes of memory that the last would have taken
	forAll      time.Time // the last that nobody got
}

// refusalHolds is how long after the last record refused the time goes on at least: where it is full, small ones may still fit.
const refusalHolds = 10 * time.Second

func (r *refusal) refused(now time.Time, disk bool, cost int64) {
	if r.standing(now).IsZero() {
		r.since = now
	}
	r.last, r.over, r.disk, r.cost = now, false, disk, cost
}

// standing returns since when it lasts, zero when it does not.
func (r *refusal) standing(now time.Time) time.Time {
	if r.over && now.Sub(r.last) >= refusalHolds {
		return time.Time{}
	}
	return r.since
}

// refusedUntil returns when the last record was refused, zero when none was lately or one as large still would be. While the disk takes nothing, one
// must have been taken since: memory that has room now may have none for the next. mu is held.
func (b *Buffer) refusedUntil() time.Time {
	if b.st.full.standing(time.Now()).IsZero() {
		return time.Time{}
	}
	room, bytes := b.st.full.over, b.dirty()+b.st.full.cost
	if b.o.WhenFull == DropNewest { // as admit has it
		well := b.st.commitErr == nil && !b.stuck()
		room = b.fitsAll(bytes) && (well || b.st.full.over && (bytes <= b.o.TailBytes || b.frontYields()))
	}
	if !room {
		return time.Time{}
	}
	return b.st.full.last
}

// diskFull reports whether others have filled the disk, as far as writing has shown lately. mu is held.
func (b *Buffer) diskFull() bool {
	return IsDiskFull(b.st.commitErr) || !b.st.fullAt.IsZero() && time.Since(b.st.fullAt) < refusalHolds
}

// health says in words how the store is. mu is held.
func (b *Buffer) health() string {
	switch {
	case b.st.takenErr != nil:
		return "failing: " + b.st.takenErr.Error()
	case b.stuck():
		return fmt.Sprintf("failing: the disk has not answered since %s; "+inMemory, b.commitSince().Format(time.TimeOnly))
	case b.unread() != nil:
		s := b.unread()
		return fmt.Sprintf("failing: the disk gives an error for pages of %s since %s; they are asked for again for %v, then what stands on them is given up", filepath.Base(s.path), s.unread.since.Format(time.TimeOnly), b.readPatience)
	case b.st.commitErr != nil:
		return "degraded: records cannot be written; " + inMemory + ": " + b.st.commitErr.Error()
	case b.st.stateErr != nil:
		return "degraded: " + b.st.stateErr.Error()
	}
	return healthOK
}

const healthOK = "ok"

// inMemory is what a disk means that takes no records.
const inMemory = "what is not delivered stays in memory, as far as it goes, and is lost if the process ends"

// badSince returns since when something fails that failed since before, or zero, and of which the try that began at began gave err.
func badSince(before, began time.Time, err error) time.Time {
	switch {
	case err == nil:
		return time.Time{}
	case before.IsZero():
		return began
	}
	return before
}

// failingSince returns when that began which health tells of, zero when it is well. mu is held.
func (b *Buffer) failingSince() (since time.Time) {
	earliest := func(t time.Time) {
		if !t.IsZero() && (since.IsZero() || t.Before(since)) {
			since = t
		}
	}
	earliest(b.st.takenBad)
	earliest(b.st.commitBad)
	earliest(b.st.stateBad)
	if b.stuck() {
		earliest(b.commitSince())
	}
	if s := b.unread(); s != nil {
		earliest(s.unread.since)
	}
	return since
}

// stuckAfter is how long a turn with the disk may take before health says so.
const stuckAfter = 5 * time.Second

// stuck reports whether the disk does not answer. mu is held.
func (b *Buffer) stuck() bool { return b.Busy() > stuckAfter }

// cost is what readings were seen to take on disk. It forgets by halves, so that it follows what changes.
type cost struct{ readings, bytes uint64 }

const (
	costProven = 1 << 20 // bytes, before which a file's beginning weighs too much
	costForget = 1 << 30 // bytes
)

func (c *cost) add(readings uint64, bytes int64) {
	c.readings += readings
	c.bytes = uint64(max(int64(c.bytes)+bytes, 0)) // a file is trimmed when it is sealed
	if c.bytes > costForget {
		c.bytes, c.readings = c.bytes/2, c.readings/2
	}
}

func (c *cost) each() float64 {
	if c.bytes < costProven || c.readings == 0 {
		return 0
	}
	return float64(c.bytes) / float64(c.readings)
}

// oldestAt is the time of the first record that the destination has not acknowledged. mu is held.
func (b *Buffer) oldestAt(d *Destination) int64 {
	if d.backlog == 0 {
		return 0
	}
	return b.timeOf(d.acked.next(0))
}

// timeOf is the time of a record, interpolated where it is on disk; 0 when there is none of that number. mu is held.
func (b *Buffer) timeOf(seq uint64) int64 {
	if e := b.tail.at(seq); e != nil {
		return e.at
	}
	for _, s := range b.segs {
		if s.records > 0 && seq <= s.last {
			span := max(s.last-s.first, 1)
			return s.minAt + int64(float64(s.maxAt-s.minAt)*float64(max(seq, s.first)-s.first)/float64(span))
		}
	}
	return 0
}
