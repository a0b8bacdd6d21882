package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// Of a block that a bad page has hit, and whose payloads are plain, the records on the other pages are served: sums of
// each KiB of the payloads tell which they are. Packed payloads are sound as a whole or not at all.
const sumChunk = 1 << 10

func appendSums(dst, payloads []byte) []byte {
	for at := 0; at < len(payloads); at += sumChunk {
		dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(payloads[at:min(at+sumChunk, len(payloads))], castagnoli))
	}
	return dst
}

// soundPart makes a block of those records of a damaged one that are sound, nil when there are none. What is missing of value is zero.
func soundPart(value []byte, epoch uint64, dec *zstd.Decoder) []byte {
	info, err := parseBlock(value, epoch, dec, nil)
	if err != nil || info.flags&blockSums == 0 || info.flags&packedPayload != 0 || len(value) != info.payloadAt+int(info.payloadRaw) {
		return nil
	}
	payloads := value[info.payloadAt:]
	sums := (len(payloads) + sumChunk - 1) / sumChunk * 4
	if len(info.index) < sums {
		return nil
	}
	listed := info.index[len(info.index)-sums:]
	actual := appendSums(nil, payloads)
	c := blockCoder{seed: epochSeed(epoch)}
	offset := 0
	var h head
	for r := info.heads(); r.next(&h); offset += h.size {
		if offset+h.size > len(payloads) {
			break
		}
		from, to := offset/sumChunk*4, (offset+h.size+sumChunk-1)/sumChunk*4
		if h.size == 0 || string(listed[from:to]) == string(actual[from:to]) {
			h.flags &^= headLate
			c.add(&h, payloads[offset:offset+h.size])
		}
	}
	if c.count == 0 {
		return nil
	}
	return c.finish()
}

// holePiece is a piece that was not found: its bytes are taken as zero.
const holePiece = -1

// chainPart returns the pieces of a block in which one run of them is missing, with a hole in its place.
func chainPart(f io.ReaderAt, pieces map[pieceKey][]piece, k pieceKey) (list []piece, err error) {
	list = chain(pieces, k, 0)
	head, err := readPieces(f, list, nil)
	if err != nil || len(head) < blockHeader {
		return nil, errDamaged
	}
	total := blockHeader + int64(binary.BigEndian.Uint32(head[24:])) + int64(binary.BigEndian.Uint32(head[32:]))
	missing := total - int64(len(head))
	if missing <= 0 || total > maxBlock {
		return list, nil
	}
	var rest []piece
	first := 0 // behind the hole
	for chunk := len(list) + 1; chunk <= 0xffff && chunk <= len(list)+int(total/16); chunk++ {
		k.chunk = uint16(chunk)
		switch copies := pieces[k]; {
		case len(copies) > 0 && (first == 0 || first+len(rest) == chunk):
			if first == 0 {
				first = chunk
			}
			rest = append(rest, copies[0])
			missing -= int64(copies[0].size)
		case len(copies) > 0:
			return nil, errDamaged // a second hole
		}
	}
	if missing < 0 {
		return nil, errDamaged
	}
	list = append(list, piece{holePiece, int32(missing)})
	return append(list, rest...), nil
}

// readSome is ReadAt, but pages that cannot be read are zero, and what the file is too short for is errDamaged.
func readSome(f io.ReaderAt, p []byte, at int64) (int, error) {
	n, err := f.ReadAt(p, at)
	if !errors.Is(err, syscall.EIO) {
		return n, short(err)
	}
	clear(p[n:])
	for off := int64(0); off < int64(len(p)); {
		end := min((at+off)/pageSize*pageSize+pageSize-at, int64(len(p)))
		if _, err := f.ReadAt(p[off:end], at+off); errors.Is(err, syscall.EIO) {
			clear(p[off:end])
		} else if err != nil {
			return int(off), short(err)
		}
		off = end
	}
	return len(p), nil
}

// short makes errDamaged of the end of a file that was longer.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the file is too short: %w", errDamaged)
	}
	return err
}
