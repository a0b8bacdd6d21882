package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// The file promised says, after each commit, how far the segment being written goes, with that commit's checkpoint. It is
// not fsynced: a process that is killed leaves it exact, a power cut leaves it older. So it never promises what is not
// there, and costs no flash but when the kernel writes pages back. Two slots take turns.
const (
	markName    = "promised"
	markVersion = 1
	markSlot    = 64 << 10 // bytes of a slot
)

type mark struct {
	promise
	store uint64
	boot  string // of the machine when it was written
	gen   uint64 // of the checkpoint
	ckpt  *checkpoint

	inSegment bool // a segment has that checkpoint, too
}

// exact reports whether nothing was promised after the mark: the kernel that had it in memory still runs.
func (m *mark) exact() bool { return m != nil && m.boot != "" && m.boot == bootID() }

// bootID returns what the system calls this boot, "" where it does not.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(raw) > 64 {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// met notes whether a segment's checkpoint, nil when it has none, is that of the mark.
func (m *mark) met(ckpt *checkpoint) {
	if m != nil && ckpt != nil && ckpt.gen == m.gen {
		m.inSegment = true
	}
}

// merge puts the mark in among what state.db says.
func (m *mark) merge(list []promise) []promise {
	for i := range list {
		if p := &list[i]; p.first == m.first {
			if m.last > p.last {
				p.last, p.records, p.minAt, p.maxAt = m.last, m.records, m.minAt, m.maxAt
			}
			return list
		}
	}
	return append(list, m.promise)
}

func appendMark(dst []byte, store, gen uint64, boot string, p *promise, base, ckpt []byte) []byte {
	v := append(append(dst, make([]byte, 8)...), markVersion)
	v = binary.BigEndian.AppendUint64(v, store)
	v = binary.AppendUvarint(v, gen)
	v = appendBytes(v, boot)
	v = p.append(v)
	return sealValue(appendBytes(appendBytes(v, base), ckpt))
}

// parseMark reads what appendMark wrote at the beginning of src.
func parseMark(src []byte, dec *zstd.Decoder) (*mark, error) {
	if len(src) < 8 || uint64(binary.BigEndian.Uint32(src)) > uint64(len(src)) {
		return nil, errDamaged
	}
	body, err := openValue(src[:binary.BigEndian.Uint32(src)])
	if err != nil {
		return nil, err
	}
	p := parser{src: body}
	if p.byte() != markVersion {
		return nil, fmt.Errorf("mark: %w", errDamaged)
	}
	m := &mark{store: p.uint64(), gen: p.uvarint(), boot: string(p.bytes()), promise: parsePromise(&p)}
	base, ckpt := p.bytes(), p.bytes()
	if p.bad || len(p.src) != 0 {
		return nil, fmt.Errorf("mark: %w", errDamaged)
	}
	m.ckpt = parseBoth(base, ckpt, dec)
	return m, nil
}

// parseBoth reads a checkpoint and what it counts from; nil when there is none that is sound.
func parseBoth(base, ckpt []byte, dec *zstd.Decoder) *checkpoint {
	c, err := parseCheckpoint(ckpt, dec)
	if err != nil {
		return nil
	}
	if c.base != 0 {
		whole, err := parseCheckpoint(base, dec)
		if err != nil || c.apply(whole) != nil {
			return nil
		}
	}
	return c
}

// markCommit notes what a commit has put on disk. commitMu is held.
func (b *Buffer) markCommit(s *segment, batch *batch) {
	b.mu.Lock()
	p := b.promise(s)
	b.mu.Unlock()
	base := s.baseCkpt
	if !batch.draft.isDelta {
		base = nil
	}
	_ = b.writeMark(p, batch.draft.gen, base, batch.ckpt) // the segment says more
	b.leftIsTold(batch.draft)
}

// writeMark writes the mark. That it cannot be written is no loss by itself. commitMu is held.
func (b *Buffer) writeMark(p promise, gen uint64, base, ckpt []byte) error {
	v := appendMark(nil, b.store, gen, b.boot, &p, base, ckpt)
	if len(v) > markSlot { // more accounts than there is room for: then what is lost is not counted by account
		v = appendMark(nil, b.store, gen, b.boot, &p, nil, nil)
	}
	b.marks++
	err := b.fs.mark(filepath.Join(b.dir, markName), v, int64(b.marks%2)*markSlot)
	if err == nil {
		b.written.Add(int64(len(v)))
	} else if !b.markFailed {
		b.tell("how far the segment goes was not noted; what is lost with it, should it be damaged, may not be known", err)
	}
	b.markFailed = err != nil
	return err
}

func writeAt(path string, p []byte, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p, at)
	return errors.Join(err, f.Close())
}

// loadMark reads the mark, when it is of this store and says more than state.db does.
func (b *Buffer) loadMark(old *stateData) *mark {
	var state uint64
	if ckpt, err := parseCheckpoint(old.ckpt, b.decoder); err == nil {
		state = ckpt.gen
	}
	var best *mark
	for _, m := range b.readMarks() {
		if (b.store == 0 || m.store == b.store) && m.gen > state && (best == nil || m.gen > best.gen) {
			best = m
		}
	}
	if best != nil && b.epoch.n == 0 {
		b.store, b.epoch = best.store, newEpoch(best.epoch)
	}
	return best
}

// readMarks reads both slots of the mark, as far as they are sound.
func (b *Buffer) readMarks() (out []*mark) {
	f, err := os.Open(filepath.Join(b.dir, markName))
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // nothing was written
	for slot := range int64(2) {
		raw := make([]byte, markSlot)
		n, err := f.ReadAt(raw, slot*markSlot)
		if err != nil && !errors.Is(err, io.EOF) {
			continue
		}
		if m, err := parseMark(raw[:n], b.decoder); err == nil {
			out = append(out, m)
		}
	}
	return out
}
