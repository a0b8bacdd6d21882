// Package record owns the binary form of Schema and Record: what the buffer stores and what every consumer of the
// store decodes. It promises that whatever a version wrote is read for ever, bit for bit, and that damaged bytes give
// an error, never a panic or memory without bound. The pipeline writes records; publisher, formats and commands read them.
package record

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"millrace/drivers/telemetry"
)

// Record is the readings of one device from one poll or one notification. Its binary form (FORMAT.md) is
// what the buffer stores; one record becomes one message.
type Record struct {
	Time       int64 // of the poll by the gateway's clock: microseconds since 1970-01-01 UTC
	Readings   []telemetry.Reading
	ClockUnset bool // the gateway knew at the poll that its clock was not set
	Backfill   bool // the readings are what the device had kept of the past, and Time is when it was asked
}

// ErrRecord means that bytes are not a record this version can read.
var ErrRecord = errors.New("not a record: damaged or of a newer version")

// The flags of a record. They share the first byte with the version.
const (
	flagBitmap    = 1 << iota // tags: strictly ascending, as a bitmap
	flagDeltas                // tags: in any order, as differences. Neither flag: 0..n-1
	flagKindArray             // kinds: one nibble a reading. Not set: as runs
	flagTimes                 // some reading's time differs from the record's
	flagQualities             // some reading is not good or has a reason
	flagLongTime              // the record's time has 8 bytes. Not set: 7, enough for a thousand years
	version1      = 1 << iota // the version is in the two bits above
	version2      = 2 * version1
	versionMask   = 3 * version1
)

// The marks of a record: a byte after the first, in version 2 only. A record without any is stored as version 1.
const (
	markClockUnset = 1 << iota
	markBackfill
	marksKnown = markBackfill<<1 - 1
)

// Append appends the record's binary form to dst. It keeps every bit of every reading, with these
// limits: at most MaxTags readings, each Tag below MaxTags, Values as the constructors of this package
// make them (a Value of unknown Kind is stored as KindNone). It allocates nothing but dst.
func Append(dst []byte, r *Record) []byte {
	rs := r.Readings
	s := survey(r)
	if marks := marksOf(r); marks != 0 {
		dst = append(dst, version2|s.flags, marks)
	} else {
		dst = append(dst, version1|s.flags)
	}
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.Time))
	if s.flags&flagLongTime == 0 {
		dst = dst[:len(dst)-1]
	}
	dst = binary.AppendUvarint(dst, uint64(len(rs)))
	switch {
	case s.flags&flagBitmap != 0:
		dst = appendTagBitmap(dst, rs)
	case s.flags&flagDeltas != 0:
		dst = appendTagDeltas(dst, rs)
	}
	if s.flags&flagKindArray != 0 {
		dst = appendKindArray(dst, rs)
	} else {
		dst = appendKindRuns(dst, rs)
	}
	if s.flags&flagTimes != 0 {
		dst = appendTimes(dst, r)
	}
	if s.flags&flagQualities != 0 {
		dst = appendQualities(dst, rs)
	}
	return appendColumns(dst, r, &s.counts)
}

// Decode reads what Append wrote into r and reuses r.Readings. Texts and reasons alias src:
// they are valid only while src is neither changed nor reused. It returns ErrRecord for damaged bytes
// and for those of a newer version, and leaves r.Readings empty then. A record of any content takes at
// most MaxTags readings of memory.
func Decode(src []byte, r *Record) error {
	r.Readings = r.Readings[:0]
	d := decoder{src: src}
	flags := d.byte()
	marks := d.marks(flags)
	r.ClockUnset, r.Backfill = marks&markClockUnset != 0, marks&markBackfill != 0
	r.Time = d.time(flags)
	n := d.count(MaxTags)
	if d.bad {
		return ErrRecord
	}
	if cap(r.Readings) < n {
		r.Readings = make([]telemetry.Reading, 0, n)
	}
	rs := r.Readings[:n]
	d.tags(rs, flags, r.Time)
	counts := d.kinds(rs, flags)
	if flags&flagTimes != 0 {
		d.times(rs, r.Time)
	}
	if flags&flagQualities != 0 {
		d.qualities(rs)
	}
	d.columns(rs, r.Time, &counts)
	if d.bad || len(d.src) != 0 {
		return ErrRecord
	}
	r.Readings = rs
	return nil
}

// kindEnd is one beyond the last kind that this version stores.
const kindEnd = telemetry.KindArray + 1

// kindCounts is how many readings of each kind a record has.
type kindCounts [kindEnd]int

// outline is what one pass over the readings tells about the form to choose.
type outline struct {
	flags  byte
	counts kindCounts
}

func survey(r *Record) outline {
	var s outline
	rs := r.Readings
	ascending, runs, next := true, 0, uint32(0)
	otherTime, notGood := int64(0), 0
	for i := 0; i < len(rs); runs++ {
		kind, start := rs[i].Value.Kind, i
		for ; i < len(rs) && rs[i].Value.Kind == kind; i++ {
			rd := &rs[i]
			ascending = ascending && rd.Tag >= next
			next = rd.Tag + 1
			otherTime |= rd.Time ^ r.Time
			notGood |= int(rd.Quality) | len(rd.Reason)
		}
		s.counts[stored(kind)] += i - start
	}
	n := uint32(len(rs))
	switch {
	case ascending && next == n:
	case ascending && (next-rs[0].Tag)/8 < n:
		s.flags |= flagBitmap
	default:
		s.flags |= flagDeltas
	}
	if otherTime != 0 {
		s.flags |= flagTimes
	}
	if notGood != 0 {
		s.flags |= flagQualities
	}
	if r.Time<<8>>8 != r.Time {
		s.flags |= flagLongTime
	}
	if runs > len(rs)/2+1 {
		s.flags |= flagKindArray
	}
	return s
}

// stored returns the kind under which a value is stored.
func stored(k telemetry.Kind) telemetry.Kind {
	if k >= kindEnd {
		return telemetry.KindNone
	}
	return k
}

// decoder reads from src and remembers the first damage: after it everything reads as zero.
type decoder struct {
	src []byte
	bad bool
}

func (d *decoder) fail() {
	d.bad, d.src = true, nil
}

func (d *decoder) byte() byte {
	if len(d.src) == 0 {
		d.fail()
		return 0
	}
	b := d.src[0]
	d.src = d.src[1:]
	return b
}

// marks checks the version and reads the marks. Those that this version does not know are refused, like a newer version:
// what they say of the readings must not get lost.
func (d *decoder) marks(flags byte) byte {
	switch flags & versionMask {
	case version1:
		return 0
	case version2:
		if marks := d.byte(); marks > 0 && marks <= marksKnown {
			return marks
		}
	}
	d.fail()
	return 0
}

func marksOf(r *Record) (marks byte) {
	if r.ClockUnset {
		marks |= markClockUnset
	}
	if r.Backfill {
		marks |= markBackfill
	}
	return marks
}

func (d *decoder) time(flags byte) int64 {
	var b [8]byte
	if flags&flagLongTime != 0 {
		copy(b[:], d.bytes(8))
		return int64(binary.LittleEndian.Uint64(b[:]))
	}
	copy(b[1:], d.bytes(7))
	return int64(binary.LittleEndian.Uint64(b[:])) >> 8
}

func (d *decoder) uvarint() uint64 {
	if len(d.src) > 0 && d.src[0] < 0x80 {
		n := d.src[0]
		d.src = d.src[1:]
		return uint64(n)
	}
	n, w := binary.Uvarint(d.src)
	if w <= 0 {
		d.fail()
		return 0
	}
	d.src = d.src[w:]
	return n
}

// count reads a number of things, at most limit.
func (d *decoder) count(limit int) int {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail()
		return 0
	}
	return int(n)
}

// bytes returns the next n bytes, or nil when there are fewer.
func (d *decoder) bytes(n int) []byte {
	if n > len(d.src) {
		d.fail()
		return nil
	}
	b := d.src[:n]
	d.src = d.src[n:]
	return b
}

// text returns the next n bytes as a string that aliases src.
func (d *decoder) text(n int) string {
	b := d.bytes(n)
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
