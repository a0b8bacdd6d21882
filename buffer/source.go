package buffer

import (
	"errors"
	"fmt"
)

// blockReader is the memory for reading blocks, kept from block to block.
type blockReader struct {
	cursor pageCursor
	stored []byte
	index  []byte
}

// blockAt reads the first block of a segment that ends at or after seq, complete, and returns its info.
// It returns ErrNotFound when there is none. The block stays in r.stored.
func (b *Buffer) blockAt(s *segment, seq uint64, r *blockReader) (info blockInfo, err error) {
	if sv := s.salvage(); sv != nil {
		return b.salvagedAt(s, sv, seq, r)
	}
	err = b.view(s, &r.cursor, func(c cursor) error {
		k, v := seekBlock(c, seq)
		for k != nil && k[0] == regionRecords {
			_, at, typ, _ := keyOf(k)
			if typ != typeBlock {
				k, v = c.Next()
				continue
			}
			var nextKey, nextValue []byte
			if r.stored, nextKey, nextValue, err = getChunks(c, k, v, r.stored, nil, maxBlock); err != nil {
				return err
			}
			if info, err = parseBlock(r.stored, s.epoch.n, b.decoder, r.index); err != nil {
				return err
			}
			r.index = info.index
			if info.first != at {
				return fmt.Errorf("block %d stands at %d: %w", info.first, at, errDamaged)
			}
			if info.last >= seq {
				return nil
			}
			k, v = nextKey, nextValue
		}
		if err := c.Err(); err != nil {
			return err
		}
		return ErrNotFound
	})
	return info, err
}

// eachBlock calls f with every block of a segment in order: the index, and the complete block when it
// has gap records, whose payloads the ledger needs.
func (b *Buffer) eachBlock(s *segment, f func(info *blockInfo, stored []byte) error) error {
	var r blockReader
	if sv := s.salvage(); sv != nil {
		return b.eachSalvaged(s, sv, &r, f)
	}
	return b.view(s, &r.cursor, func(c cursor) error {
		k, v := c.Seek(makeKey(regionRecords, 0, 0, 0))
		for k != nil && k[0] == regionRecords {
			_, at, typ, _ := keyOf(k)
			if typ != typeBlock {
				k, v = c.Next()
				continue
			}
			var err error
			if r.stored, k, v, err = getChunks(c, k, v, r.stored, enoughForLedger, maxBlock); err != nil {
				return err
			}
			info, err := parseBlock(r.stored, s.epoch.n, b.decoder, r.index)
			if err != nil {
				return err
			}
			r.index = info.index
			if info.first != at || at < s.first {
				return fmt.Errorf("block %d stands at %d, in a segment that begins with %d: %w", info.first, at, s.first, errDamaged)
			}
			if err := f(&info, r.stored); err != nil {
				return err
			}
		}
		return c.Err()
	})
}

// seekBlock moves the cursor to the first piece of the last block that begins at or before seq, or of
// the first one after it. A page that cannot be read is the end, as Err tells: what lies behind it must not stand for what is on it.
func seekBlock(c cursor, seq uint64) (k, v []byte) {
	start := makeKey(regionRecords, seq, typeBlock, 0)
	if k, v = c.Seek(start); string(k) == string(start) {
		return k, v
	}
	switch {
	case c.Err() != nil:
		return nil, nil
	case k == nil:
		k, _ = c.Last()
	default:
		k, _ = c.Prev()
	}
	for ; k != nil && k[0] == regionRecords; k, _ = c.Prev() {
		if _, at, typ, chunk := keyOf(k); typ == typeBlock && chunk == 0 {
			return c.Seek(makeKey(regionRecords, at, typeBlock, 0))
		}
	}
	if c.Err() != nil {
		return nil, nil
	}
	return c.Seek(start)
}

// eachHead calls f for each record of a segment that this store may serve, in order; gap is set for gap records.
func (b *Buffer) eachHead(s *segment, dict []*Stream, f func(h *head, st *Stream, gap *Gap)) error {
	return b.eachBlock(s, func(info *blockInfo, stored []byte) error {
		var payloads []byte
		var h head
		offset := 0
		for r := info.heads(); r.next(&h); offset += h.size {
			if h.seq > s.last || int(h.stream) >= len(dict) || dict[h.stream] == nil {
				continue
			}
			if h.flags&headGap == 0 {
				f(&h, dict[h.stream], nil)
				continue
			}
			var err error
			if payloads == nil {
				if payloads, err = info.payloads(stored, b.decoder, nil); err != nil {
					return err
				}
			}
			if offset+h.size > len(payloads) {
				return fmt.Errorf("gap record %d: %w", h.seq, errDamaged)
			}
			if gap, err := parseGap(payloads[offset : offset+h.size]); err == nil {
				f(&h, dict[h.stream], gap)
			}
		}
		return nil
	})
}

// dictValues reads a segment's dictionary. Entries of a damaged segment that are lost are zero.
func (b *Buffer) dictValues(s *segment) (out []dictEntry, err error) {
	if sv := s.salvage(); sv != nil {
		return sv.dict, nil
	}
	err = b.view(s, nil, func(c cursor) error {
		var raw []byte
		k, v := c.Seek(makeKey(regionDict, 0, 0, 0))
		for k != nil && k[0] == regionDict {
			_, n, _, _ := keyOf(k)
			if n != uint64(len(out)) {
				return fmt.Errorf("dictionary entry %d stands at %d: %w", n, len(out), errDamaged)
			}
			if raw, k, v, err = getChunks(c, k, v, raw, nil, maxDict+maxAccountName+64); err != nil {
				return err
			}
			list, err := parseDict(raw, b.decoder)
			if err != nil {
				return err
			}
			if len(list) != 1 || list[0].id != uint32(len(out)) {
				return fmt.Errorf("dictionary entry %d: %w", n, errDamaged)
			}
			out = append(out, list[0])
		}
		return c.Err()
	})
	return out, err
}

// dictOf returns the segment's dictionary, reading it when it is not in memory. It holds no lock while it reads.
func (b *Buffer) dictOf(s *segment) ([]*Stream, error) {
	if dict, known := s.dictKnown(); known {
		return dict, nil
	}
	entries, err := b.dictValues(s)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dictFrom(s, entries)
}

// dictHeld is dictOf with mu held.
func (b *Buffer) dictHeld(s *segment) ([]*Stream, error) {
	if dict, known := s.dictKnown(); known {
		return dict, nil
	}
	entries, err := b.dictValues(s)
	if err != nil {
		return nil, err
	}
	return b.dictFrom(s, entries)
}

func (s *segment) dictKnown() ([]*Stream, bool) {
	s.rw.RLock()
	defer s.rw.RUnlock()
	return s.dict, s.dict != nil || s.db != nil
}

// dictFrom finds the streams of a dictionary and keeps them. mu is held.
func (b *Buffer) dictFrom(s *segment, entries []dictEntry) (dict []*Stream, err error) {
	dict = make([]*Stream, len(entries))
	for i, e := range entries {
		if e.account == "" {
			continue
		}
		if dict[i], err = b.stream(e.account, e.dict); err != nil {
			return nil, err
		}
	}
	s.rw.Lock()
	s.dict = dict
	s.rw.Unlock()
	return dict, nil
}

// valueAt reads one value of a segment, for instance its summary. It returns ErrNotFound when there is none.
func valueAt(c cursor, region byte, seq uint64, typ byte) ([]byte, error) {
	key := makeKey(region, seq, typ, 0)
	k, v := c.Seek(key)
	if string(k) != string(key) {
		return nil, errors.Join(c.Err(), ErrNotFound)
	}
	value, _, _, err := getChunks(c, k, v, nil, nil, maxBlock)
	return value, err
}
