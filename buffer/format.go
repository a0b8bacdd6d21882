package buffer

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"
)

// info is what a segment says of itself; the head of state.db has the same form.
type info struct {
	store, first, epoch uint64
}

// infoAt reads what a segment's file says of itself.
func infoAt(c cursor) (info, error) {
	v, err := valueAt(c, regionInfo, 0, 0)
	if err != nil {
		return info{}, err
	}
	return parseInfo(v)
}

// misfit says why the file that says this is not the one that is wanted, nil when it is; 0 is not known.
func (i info) misfit(want info) error {
	switch {
	case want.store != 0 && i.store != want.store:
		return fmt.Errorf("segment of another store (%016x, epoch %016x, first %d): %w", i.store, i.epoch, i.first, errDamaged)
	case i.first != want.first:
		return fmt.Errorf("another segment of this store stands in its place, the one that begins with record %d: %w", i.first, errDamaged)
	case want.epoch != 0 && i.epoch != want.epoch:
		return fmt.Errorf("a segment of another process stands in its place (epoch %016x): %w", i.epoch, errDamaged)
	}
	return nil
}

// appendInfo encodes an info.
func appendInfo(dst []byte, i info) []byte {
	v := append(dst, make([]byte, 8)...)
	v = append(v, formatMajor)
	v = binary.BigEndian.AppendUint64(v, i.store)
	v = binary.BigEndian.AppendUint64(v, i.first)
	v = binary.BigEndian.AppendUint64(v, i.epoch)
	return sealValue(v)
}

// parseInfo reads what appendInfo wrote. In format 1 the store's number was the epoch of all its records. A newer format is
// ErrNewer.
func parseInfo(v []byte) (i info, err error) {
	body, err := openValue(v)
	if err != nil {
		return i, err
	}
	if len(body) > 0 && body[0] > formatMajor {
		return i, fmt.Errorf("format %d, this binary reads up to %d; run the newer millrace, or drain the store with it first: %w",
			body[0], formatMajor, ErrNewer)
	}
	switch {
	case len(body) == 17 && body[0] == 1:
	case len(body) == 25 && body[0] == 2:
		i.epoch = binary.BigEndian.Uint64(body[17:])
	default:
		return i, fmt.Errorf("segment info: %w", errDamaged)
	}
	i.store, i.first = binary.BigEndian.Uint64(body[1:]), binary.BigEndian.Uint64(body[9:])
	if body[0] == 1 {
		i.epoch = i.store
	}
	return i, nil
}

// dictEntry is one stream as a segment's dictionary has it.
type dictEntry struct {
	id            uint32
	account, dict string
}

// appendDict encodes dictionary entries.
func appendDict(enc *zstd.Encoder, entries ...dictEntry) []byte {
	var plain []byte
	for _, e := range entries {
		plain = binary.AppendUvarint(plain, uint64(e.id))
		plain = appendBytes(appendBytes(plain, e.account), e.dict)
	}
	v := binary.AppendUvarint(make([]byte, 8), uint64(len(plain)))
	return sealValue(enc.EncodeAll(plain, v))
}

// parseDict reads what appendDict wrote.
func parseDict(v []byte, dec *zstd.Decoder) (list []dictEntry, err error) {
	body, err := openValue(v)
	if err != nil {
		return nil, err
	}
	p := parser{src: body}
	raw := p.uvarint()
	if p.bad || raw > maxBlock {
		return nil, fmt.Errorf("dictionary entry: %w", errDamaged)
	}
	plain, err := unpack(p.src, true, int(raw), dec, nil)
	if err != nil {
		return nil, err
	}
	for p = (parser{src: plain}); len(p.src) > 0; {
		id := p.uvarint()
		e := dictEntry{uint32(id), string(p.bytes()), string(p.bytes())}
		if p.bad || id >= maxStreams || e.account == "" || len(e.account) > maxAccountName || len(e.dict) > maxDict {
			return nil, fmt.Errorf("dictionary entry: %w", errDamaged)
		}
		list = append(list, e)
	}
	return list, nil
}

const summaryVersion = 1

// summary is what a sealed segment says of what it holds.
type summary struct {
	last, records, special uint64
	minAt, maxAt           int64
	made, wrote            time.Duration
	totals                 map[string]uint64 // readings of each account
}

// appendSummary encodes an active segment's summary. mu is held.
func appendSummary(dst []byte, s *segment) []byte {
	v := append(dst, make([]byte, 8)...)
	v = append(v, summaryVersion)
	v = binary.AppendUvarint(v, s.last)
	v = binary.AppendUvarint(v, s.records)
	v = binary.AppendUvarint(v, s.special)
	v = binary.AppendVarint(v, s.minAt)
	v = binary.AppendVarint(v, s.maxAt)
	v = binary.AppendUvarint(v, uint64(s.made))
	v = binary.AppendUvarint(v, uint64(s.wrote))
	v = binary.AppendUvarint(v, uint64(len(s.totals)))
	for a, n := range s.totals {
		v = appendBytes(v, a.name)
		v = binary.AppendUvarint(v, n)
	}
	return sealValue(v)
}

func parseSummary(v []byte) (*summary, error) {
	body, err := openValue(v)
	if err != nil {
		return nil, err
	}
	p := parser{src: body}
	if version := p.byte(); version != summaryVersion {
		return nil, fmt.Errorf("segment summary of version %d: %w", version, errDamaged)
	}
	s := &summary{last: p.uvarint(), records: p.uvarint(), special: p.uvarint(), minAt: p.varint(), maxAt: p.varint(),
		made: time.Duration(p.uvarint() & math.MaxInt64), wrote: time.Duration(p.uvarint() & math.MaxInt64), totals: map[string]uint64{}}
	for range p.count(2) {
		name := string(p.bytes())
		s.totals[name] = p.uvarint()
	}
	if p.bad || len(p.src) != 0 {
		return nil, fmt.Errorf("segment summary: %w", errDamaged)
	}
	return s, nil
}
