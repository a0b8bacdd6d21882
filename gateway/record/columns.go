package record

import (
	"encoding/binary"

	"millrace/drivers/telemetry"
)

// The columns of a record: the values of each kind together, in the order of the kinds' numbers and,
// within a kind, of the readings.

func appendColumns(dst []byte, r *Record, counts *kindCounts) []byte {
	rs := r.Readings
	if n := counts[telemetry.KindBool]; n > 0 {
		dst = appendBools(dst, rs, n)
	}
	if counts[telemetry.KindInt]+counts[telemetry.KindUint]+counts[telemetry.KindFloat32]+counts[telemetry.KindFloat64]+counts[telemetry.KindTime] > 0 {
		var c chunk
		for kind := telemetry.KindInt; kind <= telemetry.KindTime; kind++ {
			if isNumber(kind) && counts[kind] > 0 {
				dst = c.appendColumn(dst, r, kind)
			}
		}
	}
	if counts[telemetry.KindString] > 0 {
		dst = appendTexts(dst, rs, telemetry.KindString)
	}
	if counts[telemetry.KindArray] > 0 {
		for i := range rs {
			if rs[i].Value.Kind == telemetry.KindArray {
				dst = binary.AppendUvarint(dst, rs[i].Value.Bits)
			}
		}
		dst = appendTexts(dst, rs, telemetry.KindArray)
	}
	return dst
}

// isNumber says which of the kinds from KindInt to KindTime are stored as numbers.
func isNumber(k telemetry.Kind) bool { return k != telemetry.KindString }

func (d *decoder) columns(rs []telemetry.Reading, at int64, counts *kindCounts) {
	if d.bad {
		return
	}
	if n := counts[telemetry.KindBool]; n > 0 {
		d.bools(rs, n)
	}
	if counts[telemetry.KindInt]+counts[telemetry.KindUint]+counts[telemetry.KindFloat32]+counts[telemetry.KindFloat64]+counts[telemetry.KindTime] > 0 {
		var c chunk
		for kind := telemetry.KindInt; kind <= telemetry.KindTime; kind++ {
			if isNumber(kind) && counts[kind] > 0 {
				d.column(&c, rs, at, kind, counts[kind])
			}
		}
	}
	if counts[telemetry.KindString] > 0 {
		d.texts(rs, telemetry.KindString)
	}
	if counts[telemetry.KindArray] > 0 {
		for i := range rs {
			if rs[i].Value.Kind == telemetry.KindArray {
				rs[i].Value.Bits = d.uvarint()
			}
		}
		d.texts(rs, telemetry.KindArray)
		d.checkArrays(rs)
	}
}

// appendBools writes one bit a reading, the lowest first.
func appendBools(dst []byte, rs []telemetry.Reading, n int) []byte {
	at := len(dst)
	dst = appendZeros(dst, (n+7)/8)
	k := 0
	for i := range rs {
		if rs[i].Value.Kind == telemetry.KindBool {
			dst[at+k/8] |= byte(rs[i].Value.Bits&1) << (k % 8)
			k++
		}
	}
	return dst
}

func (d *decoder) bools(rs []telemetry.Reading, n int) {
	packed := d.bytes((n + 7) / 8)
	if d.bad {
		return
	}
	k := 0
	for i := range rs {
		if rs[i].Value.Kind == telemetry.KindBool {
			rs[i].Value.Bits = uint64(packed[k/8] >> (k % 8) & 1)
			k++
		}
	}
}

// appendTexts writes the lengths of all texts, then all texts.
func appendTexts(dst []byte, rs []telemetry.Reading, kind telemetry.Kind) []byte {
	for i := range rs {
		if rs[i].Value.Kind == kind {
			dst = binary.AppendUvarint(dst, uint64(len(rs[i].Value.Text)))
		}
	}
	for i := range rs {
		if rs[i].Value.Kind == kind {
			dst = append(dst, rs[i].Value.Text...)
		}
	}
	return dst
}

func (d *decoder) texts(rs []telemetry.Reading, kind telemetry.Kind) {
	lengths := decoder{src: d.src}
	for i := range rs {
		if rs[i].Value.Kind == kind {
			d.uvarint()
		}
	}
	for i := range rs {
		if rs[i].Value.Kind == kind {
			rs[i].Value.Text = d.text(lengths.count(len(d.src)))
			d.bad = d.bad || lengths.bad
		}
	}
}

// checkArrays refuses arrays that a reader could not walk.
func (d *decoder) checkArrays(rs []telemetry.Reading) {
	for i := range rs {
		if v := &rs[i].Value; v.Kind == telemetry.KindArray && !v.Whole() {
			d.fail()
		}
	}
}
