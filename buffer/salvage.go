package buffer

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// A damaged segment is read without its tree: every page of the file that looks like a leaf is searched
// for our keys, and the blocks that can be put together and have a sound checksum are served. Pages that
// an older transaction left behind do no harm: a key is only ever written with one value.
type salvage struct {
	blocks []salvagedBlock // in order
	dict   []dictEntry
	ckpt   *checkpoint
	sum    *summary
	store  uint64   // 0 when the file does not say
	epochs []uint64 // that its blocks may be of; one, when it is known
}

type salvagedBlock struct {
	first, last uint64
	pieces      []piece
	part        bool // only some of its records are sound
}

// piece is where a piece of a value stands in the file.
type piece struct {
	at   int64
	size int32
}

type pieceKey struct {
	seq         uint64
	region, typ byte
	chunk       uint16
}

const (
	maxCopies   = 4 // copies of one piece looked at
	maxPieces   = 1 << 22
	maxLeaf     = 8 // pages of a leaf
	maxElements = (pageSize - pageHead) / elementSize
	regions     = string(regionDict) + string(regionInfo) + string(regionRecords) + string(regionAgain) + string(regionSummary)
)

func (s *segment) salvage() *salvage {
	s.rw.RLock()
	defer s.rw.RUnlock()
	return s.salvaged
}

// salvageFile searches a file. It fails only when the file cannot be opened, is of another store or of a
// newer format. want says what the file should be, 0 what is not known; others are the epochs that it may have.
func salvageFile(path string, want info, others []uint64, dec *zstd.Decoder) (*salvage, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	pieces := findPieces(f)
	sv := &salvage{epochs: others}
	if want.epoch != 0 {
		sv.epochs = []uint64{want.epoch}
	}
	if value := tryValues(f, pieces, pieceKey{region: regionInfo}, func(v []byte) bool { return infoIs(v) }); value != nil {
		own, err := parseInfo(value)
		if err != nil {
			return nil, err
		}
		if err := own.misfit(want); err != nil {
			return nil, err
		}
		sv.store, sv.epochs = own.store, []uint64{own.epoch}
	}
	keys := make([]pieceKey, 0, len(pieces))
	for k := range pieces {
		if below := k.region == regionRecords && k.typ == typeBlock && k.seq < want.first; k.chunk == 0 && !below {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b pieceKey) int {
		switch {
		case a.seq < b.seq:
			return -1
		case a.seq > b.seq:
			return 1
		}
		return int(a.typ) - int(b.typ)
	})
	for _, k := range keys {
		sv.take(f, pieces, k, dec)
	}
	return sv, nil
}

func infoIs(v []byte) bool {
	_, err := parseInfo(v)
	return err == nil || errors.Is(err, ErrNewer)
}

// take puts one value together and keeps it when it is sound.
func (sv *salvage) take(f io.ReaderAt, pieces map[pieceKey][]piece, k pieceKey, dec *zstd.Decoder) {
	switch {
	case k.region == regionDict, k.typ == typeDict:
		value := tryValues(f, pieces, k, func(v []byte) bool { _, err := parseDict(v, dec); return err == nil })
		list, err := parseDict(value, dec)
		if err != nil {
			return
		}
		for _, e := range list {
			for uint32(len(sv.dict)) <= e.id {
				sv.dict = append(sv.dict, dictEntry{})
			}
			sv.dict[e.id] = e
		}
	case k.region == regionSummary:
		value := tryValues(f, pieces, k, func(v []byte) bool { _, err := parseSummary(v); return err == nil })
		if sum, err := parseSummary(value); err == nil {
			sv.sum = sum
		}
	case k.region == regionRecords && k.typ == typeCheckpoint:
		sv.takeCheckpoint(f, pieces, k, dec)
	case k.region == regionRecords && k.typ == typeBlock:
		sv.takeBlock(f, pieces, k, dec)
	}
}

func (sv *salvage) takeCheckpoint(f io.ReaderAt, pieces map[pieceKey][]piece, k pieceKey, dec *zstd.Decoder) {
	sound := func(v []byte) bool { _, err := openValue(v); return err == nil }
	ckpt, err := parseCheckpoint(tryValues(f, pieces, k, sound), dec)
	if err != nil || (sv.ckpt != nil && ckpt.gen <= sv.ckpt.gen) {
		return
	}
	if ckpt.base != 0 {
		base, err := parseCheckpoint(tryValues(f, pieces, pieceKey{seq: ckpt.base - 1, region: regionRecords, typ: typeCheckpoint}, sound), dec)
		if err != nil || ckpt.apply(base) != nil {
			return
		}
	}
	sv.ckpt = ckpt
}

func (sv *salvage) takeBlock(f io.ReaderAt, pieces map[pieceKey][]piece, k pieceKey, dec *zstd.Decoder) {
	var info blockInfo
	behind := func(first uint64) bool { return len(sv.blocks) == 0 || sv.blocks[len(sv.blocks)-1].last < first }
	for copy := range maxCopies {
		list := chain(pieces, k, copy)
		value, err := readPieces(f, list, nil)
		if err != nil {
			continue
		}
		if info, err = sv.parse(value, dec); err != nil || info.first != k.seq {
			continue
		}
		if _, err = info.payloads(value, dec, nil); err != nil {
			continue
		}
		if behind(info.first) {
			sv.blocks = append(sv.blocks, salvagedBlock{info.first, info.last, list, false})
		}
		return
	}
	list, err := chainPart(f, pieces, k)
	if err != nil {
		return
	}
	value, err := readPieces(f, list, nil)
	if err != nil {
		return
	}
	if info, err = sv.parse(value, dec); err != nil || info.first != k.seq {
		return
	}
	if info, err = parseBlock(soundPart(value, sv.epochs[0], dec), sv.epochs[0], dec, nil); err == nil && behind(info.first) {
		sv.blocks = append(sv.blocks, salvagedBlock{info.first, info.last, list, true})
	}
}

// parse is parseBlock with whichever epoch fits; the others are then out of the question.
func (sv *salvage) parse(value []byte, dec *zstd.Decoder) (i blockInfo, err error) {
	err = errDamaged
	for _, e := range sv.epochs {
		if i, err = parseBlock(value, e, dec, nil); err == nil {
			sv.epochs = []uint64{e}
			break
		}
	}
	return i, err
}

// chain returns the pieces of a value, of each the given copy or the last there is.
func chain(pieces map[pieceKey][]piece, k pieceKey, copy int) (list []piece) {
	for chunk := 0; chunk <= 0xffff; chunk++ {
		k.chunk = uint16(chunk)
		copies := pieces[k]
		if len(copies) == 0 {
			break
		}
		list = append(list, copies[min(copy, len(copies)-1)])
	}
	return list
}

func readPieces(f io.ReaderAt, list []piece, dst []byte) ([]byte, error) {
	dst = dst[:0]
	for _, p := range list {
		n := len(dst)
		if n+int(p.size) > maxBlock {
			return dst, errDamaged
		}
		dst = append(dst, make([]byte, p.size)...)
		if p.at == holePiece {
			continue
		}
		if _, err := readSome(f, dst[n:], p.at); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func tryValues(f io.ReaderAt, pieces map[pieceKey][]piece, k pieceKey, sound func([]byte) bool) []byte {
	for copy := range maxCopies {
		value, err := readPieces(f, chain(pieces, k, copy), nil)
		if err == nil && sound(value) {
			return value
		}
	}
	return nil
}

// findPieces looks at every page of the file.
func findPieces(f *os.File) map[pieceKey][]piece {
	pieces := map[pieceKey][]piece{}
	info, err := f.Stat()
	if err != nil {
		return pieces
	}
	buf := make([]byte, 64*pageSize)
	for at := int64(0); at < info.Size() && len(pieces) < maxPieces; at += int64(len(buf)) {
		n, _ := readSome(f, buf, at) // a page that cannot be read is zero, which is no leaf
		for off := 0; off+pageSize <= n; off += pageSize {
			base := at + int64(off)
			data := buf[off : off+pageSize]
			if overflow := int(binary.NativeEndian.Uint32(data[12:])); overflow > 0 && overflow <= maxLeaf {
				whole := make([]byte, (1+overflow)*pageSize)
				m, _ := readSome(f, whole, base) // what is missing fails its checksum
				data = whole[:m]
			}
			addPieces(pieces, data, base, false)
		}
	}
	return pieces
}

// addPieces notes the pieces of a page that may be a leaf, or of the bucket that stands inside it. It
// trusts nothing that the page says of itself: what is put together is checked.
func addPieces(pieces map[pieceKey][]piece, data []byte, base int64, inside bool) {
	p := page{data: data, count: maxElements, leaf: true}
	for i := range p.count {
		k, v, flags, _, ok := p.element(i)
		if !ok {
			continue
		}
		at := base + p.valueOffset(i)
		if flags&bucketFlag != 0 && len(v) > 16+pageHead && !inside {
			addPieces(pieces, v[16:], at+16, true)
			continue
		}
		region, seq, typ, chunk := keyOf(k)
		key := pieceKey{seq, region, typ, uint16(chunk)}
		if len(v) > 0 && len(v) <= largePiece && strings.IndexByte(regions, region) >= 0 && len(pieces[key]) < maxCopies {
			pieces[key] = append(pieces[key], piece{at, int32(len(v))})
		}
	}
}

// salvagedAt is blockAt of a damaged segment.
func (b *Buffer) salvagedAt(s *segment, sv *salvage, seq uint64, r *blockReader) (info blockInfo, err error) {
	i := sort.Search(len(sv.blocks), func(i int) bool { return sv.blocks[i].last >= seq })
	if i == len(sv.blocks) {
		return info, ErrNotFound
	}
	f, err := os.Open(s.path)
	if err != nil {
		return info, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	if r.stored, err = readPieces(f, sv.blocks[i].pieces, r.stored); err != nil {
		return info, err
	}
	if sv.blocks[i].part {
		r.stored = soundPart(r.stored, s.epoch.n, b.decoder)
	}
	info, err = parseBlock(r.stored, s.epoch.n, b.decoder, r.index)
	r.index = info.index
	return info, err
}

// eachSalvaged is eachBlock of a damaged segment.
func (b *Buffer) eachSalvaged(s *segment, sv *salvage, r *blockReader, f func(*blockInfo, []byte) error) error {
	for i := range sv.blocks {
		info, err := b.salvagedAt(s, sv, sv.blocks[i].first, r)
		if err != nil {
			return err
		}
		if err := f(&info, r.stored); err != nil {
			return err
		}
	}
	return nil
}
