package buffer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

// A block is up to about 64 KiB of records, compressed together: a header, then the index (what the
// ledger and the cursors need to know of each record), then the payloads. Index and payloads are
// compressed and checked apart, so that an index can be read without its payloads and survives damage to them.
const (
	blockTarget = 64 << 10 // bytes of payload after which a block is closed
	blockHeader = 44
	blockMagic  = 0x4d42 // "MB"
	blockFormat = 1      // of blocks
	formatMajor = 2      // of segments and state.db; raised when an older binary could not read them
	maxBlock    = maxRecord + blockTarget + 1<<20
)

const (
	packedIndex   = 1 << 0 // the index is zstd, else plain
	packedPayload = 1 << 1 // the payloads are zstd, else plain
	blockGaps     = 1 << 2 // there are gap records in it
	blockSums     = 1 << 3 // a CRC-32C of each KiB of the payloads stands behind the index's entries
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// head is the index entry of one record.
type head struct {
	seq      uint64
	stream   uint32 // number in the segment's dictionary
	readings uint32
	at       int64
	to       mask // when addressed
	flags    uint8
	size     int
}

const (
	headGap       = 1 << 0 // the payload is a Gap
	headAddressed = 1 << 1 // only the destinations of a mask that follows
	headLate      = 1 << 2 // a mask follows that older versions wrote; it says nothing any more
	headFlags     = 3      // bits
)

// blockCoder packs blocks. It is used by one goroutine at a time.
type blockCoder struct {
	enc      *zstd.Encoder
	index    []byte
	payloads []byte
	packed   []byte
	out      []byte
	count    uint32
	first    uint64
	prev     uint64
	prevAt   int64
	flags    byte
	seed     uint32
}

// epochSeed begins every checksum of a block, so that a block of another store, or of another epoch, never fits.
func epochSeed(epoch uint64) uint32 {
	return crc32.Checksum(binary.BigEndian.AppendUint64(nil, epoch), castagnoli)
}

func newBlockCoder() (blockCoder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(128<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return blockCoder{}, fmt.Errorf("make encoder: %w", err)
	}
	return blockCoder{enc: enc}, nil
}

// add appends one record; its sequence number is above those before it.
func (c *blockCoder) add(h *head, payload []byte) {
	if c.count == 0 {
		c.first, c.prev, c.prevAt = h.seq, h.seq-1, 0
	}
	c.index = binary.AppendUvarint(c.index, h.seq-c.prev-1)
	c.index = binary.AppendUvarint(c.index, uint64(h.stream)<<headFlags|uint64(h.flags))
	c.index = binary.AppendVarint(c.index, h.at-c.prevAt)
	c.index = binary.AppendUvarint(c.index, uint64(h.readings))
	if h.flags&headAddressed != 0 {
		c.index = binary.AppendUvarint(c.index, uint64(h.to))
	}
	c.index = binary.AppendUvarint(c.index, uint64(len(payload)))
	if h.flags&headGap != 0 {
		c.flags |= blockGaps
	}
	c.payloads = append(c.payloads, payload...)
	c.prev, c.prevAt = h.seq, h.at
	c.count++
}

// reset forgets records of a transaction that failed.
func (c *blockCoder) reset() {
	c.index, c.payloads, c.count, c.flags = c.index[:0], c.payloads[:0], 0, 0
}

func (c *blockCoder) isFull() bool { return len(c.payloads)+len(c.index) >= blockTarget }

// finish returns the block and starts the next. The bytes are valid until the next call.
func (c *blockCoder) finish() []byte {
	out := append(c.out[:0], make([]byte, blockHeader)...)
	flags := c.flags
	var packed bool
	if c.packed, packed = c.pack(c.packed[:0], c.payloads); packed {
		flags |= packedPayload
	} else {
		flags |= blockSums
		c.index = appendSums(c.index, c.payloads)
	}
	if out, packed = c.pack(out, c.index); packed {
		flags |= packedIndex
	}
	indexStored := len(out) - blockHeader
	out = append(out, c.packed...)
	payloadStored := len(out) - blockHeader - indexStored
	binary.BigEndian.PutUint16(out, blockMagic)
	out[2], out[3] = blockFormat, flags
	binary.BigEndian.PutUint64(out[4:], c.first)
	binary.BigEndian.PutUint32(out[12:], uint32(c.prev-c.first))
	binary.BigEndian.PutUint32(out[16:], c.count)
	binary.BigEndian.PutUint32(out[20:], uint32(len(c.index)))
	binary.BigEndian.PutUint32(out[24:], uint32(indexStored))
	binary.BigEndian.PutUint32(out[28:], uint32(len(c.payloads)))
	binary.BigEndian.PutUint32(out[32:], uint32(payloadStored))
	binary.BigEndian.PutUint32(out[36:], crc32.Checksum(out[blockHeader+indexStored:], castagnoli))
	sum := crc32.Update(c.seed, castagnoli, out[:40])
	binary.BigEndian.PutUint32(out[40:], crc32.Update(sum, castagnoli, out[blockHeader:blockHeader+indexStored]))
	c.out, c.index, c.payloads, c.count = out, c.index[:0], c.payloads[:0], 0
	c.flags = 0
	return out
}

// pack appends src compressed, or as it is when that does not pay.
func (c *blockCoder) pack(dst, src []byte) ([]byte, bool) {
	if c.enc == nil {
		return append(dst, src...), false
	}
	n := len(dst)
	dst = c.enc.EncodeAll(src, dst)
	if len(dst)-n < len(src)-len(src)/32 {
		return dst, true
	}
	return append(dst[:n], src...), false
}

// blockInfo is the header of a block whose header and index are sound.
type blockInfo struct {
	first, last uint64
	count       uint32
	flags       byte
	index       []byte // plain
	payloadRaw  uint32
	payloadSize uint32
	payloadSum  uint32
	payloadAt   int // where the payloads begin in the block
}

// parseBlock checks the header and the index of a block and unpacks the index into scratch. src may end
// after the index.
func parseBlock(src []byte, epoch uint64, dec *zstd.Decoder, scratch []byte) (blockInfo, error) {
	var i blockInfo
	if len(src) < blockHeader || binary.BigEndian.Uint16(src) != blockMagic {
		return i, fmt.Errorf("block header: %w", errDamaged)
	}
	i.flags, i.first = src[3], binary.BigEndian.Uint64(src[4:])
	i.last, i.count = i.first+uint64(binary.BigEndian.Uint32(src[12:])), binary.BigEndian.Uint32(src[16:])
	raw, stored := binary.BigEndian.Uint32(src[20:]), binary.BigEndian.Uint32(src[24:])
	i.payloadRaw, i.payloadSize = binary.BigEndian.Uint32(src[28:]), binary.BigEndian.Uint32(src[32:])
	i.payloadSum, i.payloadAt = binary.BigEndian.Uint32(src[36:]), blockHeader+int(stored)
	if raw > maxBlock || stored > maxBlock || i.payloadRaw > maxBlock || i.payloadSize > maxBlock || len(src) < i.payloadAt {
		return i, fmt.Errorf("block lengths: %w", errDamaged)
	}
	sum := crc32.Update(epochSeed(epoch), castagnoli, src[:40])
	sum = crc32.Update(sum, castagnoli, src[blockHeader:i.payloadAt])
	if sum != binary.BigEndian.Uint32(src[40:]) || src[2] != blockFormat {
		return i, fmt.Errorf("block index checksum: %w", errDamaged)
	}
	index, err := unpack(src[blockHeader:i.payloadAt], i.flags&packedIndex != 0, int(raw), dec, scratch)
	i.index = index
	return i, err
}

// enoughForLedger reports whether the beginning of a block tells all that the ledger needs of it.
func enoughForLedger(src []byte) bool {
	if len(src) < blockHeader || src[3]&blockGaps != 0 {
		return false
	}
	return uint64(len(src)) >= blockHeader+uint64(binary.BigEndian.Uint32(src[24:]))
}

// payloads checks and unpacks the payloads of a complete block into scratch.
func (i *blockInfo) payloads(src []byte, dec *zstd.Decoder, scratch []byte) ([]byte, error) {
	if len(src) != i.payloadAt+int(i.payloadSize) {
		return nil, fmt.Errorf("block length: %w", errDamaged)
	}
	if crc32.Checksum(src[i.payloadAt:], castagnoli) != i.payloadSum {
		return nil, fmt.Errorf("block payload checksum: %w", errDamaged)
	}
	return unpack(src[i.payloadAt:], i.flags&packedPayload != 0, int(i.payloadRaw), dec, scratch)
}

func unpack(src []byte, packed bool, raw int, dec *zstd.Decoder, scratch []byte) ([]byte, error) {
	if !packed {
		if len(src) != raw {
			return nil, fmt.Errorf("block length: %w", errDamaged)
		}
		return append(scratch[:0], src...), nil
	}
	if cap(scratch) < raw {
		scratch = make([]byte, 0, raw)
	}
	out, err := dec.DecodeAll(src, scratch[:0:raw])
	if err != nil || len(out) != raw {
		return nil, fmt.Errorf("unpack block: %w", errDamaged)
	}
	return out, nil
}

// headReader walks the index of a block.
type headReader struct {
	p      parser
	prev   uint64
	prevAt int64
	left   uint32
}

func (i *blockInfo) heads() headReader {
	return headReader{p: parser{src: i.index}, prev: i.first - 1, left: i.count}
}

// next reads the next entry. It returns false at the end, and when the index is damaged in spite of its checksum.
func (r *headReader) next(h *head) bool {
	if r.left == 0 {
		return false
	}
	r.left--
	h.seq = r.prev + 1 + r.p.uvarint()
	word := r.p.uvarint()
	h.stream, h.flags = uint32(word>>headFlags), uint8(word&(1<<headFlags-1))
	h.at = r.prevAt + r.p.varint()
	h.readings = uint32(r.p.uvarint())
	h.to = everyone
	if h.flags&headAddressed != 0 {
		h.to = mask(r.p.uvarint())
	}
	if h.flags&headLate != 0 {
		r.p.uvarint()
	}
	size := r.p.uvarint()
	if r.p.bad || size > maxRecord || h.stream >= maxStreams {
		r.left = 0
		return false
	}
	h.size = int(size)
	r.prev, r.prevAt = h.seq, h.at
	return true
}
