package record

import (
	"encoding/binary"
	"math/bits"

	"millrace/drivers/telemetry"
)

// The frame of a record: which tags, kinds, times and qualities its readings have. In steady state all
// of it is the same from poll to poll.

// appendTagBitmap writes the first tag, the number of bytes and one bit for each tag from the first on.
// The tags ascend.
func appendTagBitmap(dst []byte, rs []telemetry.Reading) []byte {
	first := rs[0].Tag
	size := int(rs[len(rs)-1].Tag-first)/8 + 1
	dst = binary.AppendUvarint(dst, uint64(first))
	dst = binary.AppendUvarint(dst, uint64(size))
	at := len(dst)
	dst = appendZeros(dst, size)
	for i := range rs {
		bit := rs[i].Tag - first
		dst[at+int(bit/8)] |= 1 << (bit % 8)
	}
	return dst
}

// appendTagDeltas writes each tag as the signed difference from its predecessor plus one.
func appendTagDeltas(dst []byte, rs []telemetry.Reading) []byte {
	next := int64(0)
	for i := range rs {
		tag := int64(rs[i].Tag)
		dst = binary.AppendUvarint(dst, zigzag(tag-next))
		next = tag + 1
	}
	return dst
}

// tags sets each reading to its tag and the record's time, everything else zero.
func (d *decoder) tags(rs []telemetry.Reading, flags byte, at int64) {
	switch flags & (flagBitmap | flagDeltas) {
	case 0:
		for i := range rs {
			rs[i] = telemetry.Reading{Tag: uint32(i), Time: at}
		}
	case flagBitmap:
		d.tagBitmap(rs, at)
	case flagDeltas:
		next := int64(0)
		for i := range rs {
			// A hostile difference may wrap around; the check of the sum catches all that leave the range.
			tag := next + unzigzag(d.uvarint())
			if uint64(tag) >= MaxTags {
				d.fail()
				return
			}
			rs[i] = telemetry.Reading{Tag: uint32(tag), Time: at}
			next = tag + 1
		}
	default:
		d.fail()
	}
}

func (d *decoder) tagBitmap(rs []telemetry.Reading, at int64) {
	first := d.count(MaxTags - 1)
	bitmap := d.bytes(d.count((MaxTags-first-1)/8 + 1))
	i := 0
	for byteAt, b := range bitmap {
		for ; b != 0; b &= b - 1 {
			tag := first + byteAt*8 + bits.TrailingZeros8(b)
			if i == len(rs) || tag >= MaxTags {
				d.fail()
				return
			}
			rs[i] = telemetry.Reading{Tag: uint32(tag), Time: at}
			i++
		}
	}
	if i != len(rs) {
		d.fail()
	}
}

// appendKindRuns writes runs of equal kinds: length<<4 | kind. The last has the length 0: to the end.
func appendKindRuns(dst []byte, rs []telemetry.Reading) []byte {
	for i := 0; i < len(rs); {
		kind, start := stored(rs[i].Value.Kind), i
		for i < len(rs) && stored(rs[i].Value.Kind) == kind {
			i++
		}
		if i == len(rs) {
			start = i
		}
		dst = binary.AppendUvarint(dst, uint64(i-start)<<4|uint64(kind))
	}
	return dst
}

// appendKindArray writes one nibble a reading, the low one first.
func appendKindArray(dst []byte, rs []telemetry.Reading) []byte {
	at := len(dst)
	dst = appendZeros(dst, (len(rs)+1)/2)
	for i := range rs {
		dst[at+i/2] |= byte(stored(rs[i].Value.Kind)) << (i % 2 * 4)
	}
	return dst
}

func (d *decoder) kinds(rs []telemetry.Reading, flags byte) (counts kindCounts) {
	if flags&flagKindArray != 0 {
		packed := d.bytes((len(rs) + 1) / 2)
		for i := range rs {
			if d.bad {
				return counts
			}
			kind := telemetry.Kind(packed[i/2] >> (i % 2 * 4) & 15)
			if kind >= kindEnd {
				d.fail()
				return counts
			}
			rs[i].Value.Kind = kind
			counts[kind]++
		}
		return counts
	}
	for i := 0; i < len(rs); {
		u := d.uvarint()
		kind, n := telemetry.Kind(u&15), u>>4
		if kind >= kindEnd || n > uint64(len(rs)-i) {
			d.fail()
			return counts
		}
		if n == 0 {
			n = uint64(len(rs) - i)
		}
		counts[kind] += int(n)
		for end := i + int(n); i < end; i++ {
			rs[i].Value.Kind = kind
		}
	}
	return counts
}

// appendTimes writes runs of readings with equal time: length, signed difference from the run before
// (the first: from the record's time). A run is what one request of a poll read.
func appendTimes(dst []byte, r *Record) []byte {
	rs, last := r.Readings, r.Time
	for i := 0; i < len(rs); {
		at, start := rs[i].Time, i
		for i < len(rs) && rs[i].Time == at {
			i++
		}
		dst = binary.AppendUvarint(dst, uint64(i-start))
		dst = binary.AppendUvarint(dst, zigzag(at-last))
		last = at
	}
	return dst
}

func (d *decoder) times(rs []telemetry.Reading, at int64) {
	for i := 0; i < len(rs); {
		n := d.count(len(rs) - i)
		at += unzigzag(d.uvarint())
		if n == 0 || d.bad {
			d.fail()
			return
		}
		for end := i + n; i < end; i++ {
			rs[i].Time = at
		}
	}
}

// maxReasons bounds the reasons of a record that are stored once; those beyond are stored with each run.
const maxReasons = 16

// appendQualities writes runs of equal quality and reason: length, quality byte, reason. A reason is its number
// (0 for none), and where the number is new, its text. The number maxReasons+1 is never entered and always has
// its text. Good readings at the end are left out: the run of length 0 ends the list.
func appendQualities(dst []byte, rs []telemetry.Reading) []byte {
	var reasons [maxReasons]string
	known := 0
	for i := 0; i < len(rs); {
		first, start := &rs[i], i
		for i++; i < len(rs) && rs[i].Quality == first.Quality && rs[i].Reason == first.Reason; i++ {
		}
		if i == len(rs) && first.Quality == telemetry.Good && first.Reason == "" {
			break
		}
		dst = binary.AppendUvarint(dst, uint64(i-start))
		dst = append(dst, byte(first.Quality))
		if first.Reason == "" {
			dst = append(dst, 0)
			continue
		}
		k := 0
		for k < known && reasons[k] != first.Reason {
			k++
		}
		dst = append(dst, byte(k+1))
		if k == known {
			dst = appendText(dst, first.Reason)
			if known < maxReasons {
				reasons[known] = first.Reason
				known++
			}
		}
	}
	return append(dst, 0)
}

func (d *decoder) qualities(rs []telemetry.Reading) {
	var reasons [maxReasons]string
	known := 0
	for i := 0; ; {
		n := d.count(len(rs) - i)
		if n == 0 {
			return
		}
		head := d.bytes(2)
		if d.bad {
			return
		}
		quality, k, reason := telemetry.Quality(head[0]), int(head[1])-1, ""
		switch {
		case k > known:
			d.fail()
			return
		case k == known:
			reason = d.text(d.count(len(d.src)))
			if known < maxReasons {
				reasons[known] = reason
				known++
			}
		case k >= 0:
			reason = reasons[k]
		}
		for end := i + n; i < end; i++ {
			rs[i].Quality, rs[i].Reason = quality, reason
		}
	}
}

func appendZeros(dst []byte, n int) []byte {
	return append(dst, make([]byte, n)...)
}
