package buffer

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// loadState reads state.db. One that is damaged, or of another store, is set aside, and the store goes on from its segments.
func (b *Buffer) loadState() (*stateData, error) {
	path := filepath.Join(b.dir, stateName)
	data, err := readState(path)
	v := b.hear()
	switch {
	case errors.Is(err, os.ErrNotExist):
		b.store = v.elect(0)
		return &stateData{lost: true}, nil
	case err == nil:
		if b.store = v.elect(data.store); b.store == data.store {
			b.epoch = newEpoch(data.epoch)
			return data, nil
		}
		err = fmt.Errorf("state.db is of another store (%016x): by %s here this is store %016x", data.store, v.words(b.store), b.store)
	case !errors.Is(err, errDamaged) && !errors.Is(err, errEmpty):
		return nil, err
	default:
		b.store = v.elect(0)
	}
	b.setAside(path, 0, Damage{Reason: reasonOf(err)})
	return &stateData{lost: true, damaged: true}, nil
}

// loadSegments finds the segments and the newest checkpoint in them or in state.db. The damaged ones come last: what
// they are is told by the others, when they do not tell it themselves.
func (b *Buffer) loadSegments(old *stateData, m *mark) (*checkpoint, error) {
	best, err := parseCheckpoint(old.ckpt, b.decoder)
	if err != nil {
		best = nil
	}
	if m != nil && m.ckpt != nil {
		best = m.ckpt // or it would not have been taken
	}
	names, err := filepath.Glob(filepath.Join(b.dir, "seg-*.db"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var spoiled []spoiledSegment
	take := func(s *segment, ckpt *checkpoint) {
		if s.wrote == 0 && ckpt != nil { // a crash left it without a summary
			s.made, s.wrote = ckpt.elapsed, ckpt.elapsed
		}
		b.segs = append(b.segs, s)
		b.segBytes += s.size
		m.met(ckpt)
		if ckpt != nil && (best == nil || ckpt.gen > best.gen) {
			best = ckpt
		}
	}
	for _, path := range names {
		s, ckpt, err := b.loadSegment(path)
		switch {
		case err == nil:
			take(s, ckpt)
			continue
		case s != nil:
			b.closeHandle(s)
		}
		switch {
		case errors.Is(err, errEmpty):
			b.empties[s.first] = s.size > 0
		case s == nil && errors.Is(err, errDamaged):
			b.setAside(path, 0, Damage{Reason: reasonOf(err)})
		case errors.Is(err, errDamaged) || errors.Is(err, ErrNotFound):
			spoiled = append(spoiled, spoiledSegment{s, err})
		default:
			return nil, err
		}
	}
	for _, bad := range spoiled {
		s := bad.segment
		ckpt, err := b.loadDamaged(s, bad.cause, old)
		switch {
		case err == nil:
			take(s, ckpt)
		case errors.Is(err, errDamaged) && unborn(s, old, m):
			b.empties[s.first] = true
		case errors.Is(err, errDamaged):
			b.setAside(s.path, s.first, Damage{Reason: reasonOf(err)})
		default:
			return nil, err
		}
	}
	for _, s := range b.segs {
		s.end = s.last
	}
	slices.SortFunc(b.segs, func(x, y *segment) int { return cmp.Compare(x.first, y.first) })
	for i, s := range b.segs[:max(len(b.segs)-1, 0)] {
		if next := b.segs[i+1].first; s.last >= next { // that is written again in the next one
			s.last, s.clipped = next-1, true
		}
	}
	return best, nil
}

// unborn reports whether a file in which nothing can be read is a segment whose creation a power cut has ended: file systems may know of a
// file and its size before they have its contents (ext4 with delayed allocation has zeros then). Nothing is promised of a segment before
// state.db names it, which comes later, and one with a commit is larger.
func unborn(s *segment, old *stateData, m *mark) bool {
	named := func(p promise) bool { return p.first == s.first }
	return s.size <= emptyFile && !old.lost && !slices.ContainsFunc(old.segments, named) && (m == nil || m.first != s.first)
}

// spoiledSegment is a segment that failed to be read.
type spoiledSegment struct {
	*segment
	cause error
}

// removeEmpty removes segments that hold nothing, now that state.db does not name them.
func (b *Buffer) removeEmpty() error {
	for first := range b.empties {
		if err := b.fs.remove(filepath.Join(b.dir, fmt.Sprintf(segPattern, first))); err != nil {
			return fmt.Errorf("remove empty segment: %w", err)
		}
	}
	b.empties = nil
	return nil
}

// loadSpares looks after segments that a process was about to write again: what it did not come to is read from them.
func (b *Buffer) loadSpares() {
	spares, _ := filepath.Glob(filepath.Join(b.dir, "*"+spareSuffix)) // the patterns are sound
	names, _ := filepath.Glob(filepath.Join(b.dir, "seg-*.db"))
	for _, spare := range spares {
		path := strings.TrimSuffix(spare, spareSuffix)
		if slices.ContainsFunc(names, func(name string) bool { return name >= path && !isEmpty(name) }) {
			b.renameAside(spare, path)
		} else if err := b.fs.rename(spare, path); err != nil {
			b.log.Error("damaged segment not looked after", "file", spare, "error", err)
		}
	}
}

// isEmpty reports whether nothing was ever committed to a segment file.
func isEmpty(path string) bool {
	pages, err := openPages(path)
	if err != nil {
		return errors.Is(err, errDamaged) && fileSize(path, emptyFile+1) <= emptyFile // its creation was cut short
	}
	defer pages.close()
	_, err = pages.bucket(bucketName)
	return errors.Is(err, errEmpty)
}

// loadSegment reads what a segment says of itself: never the records, but for the index of one without a summary. The
// segment is nil when the file has no segment's name.
func (b *Buffer) loadSegment(path string) (*segment, *checkpoint, error) {
	hex, _ := strings.CutSuffix(strings.TrimPrefix(filepath.Base(path), "seg-"), ".db")
	var first uint64
	if n, err := fmt.Sscanf(hex, "%16x", &first); n != 1 || err != nil || fmt.Sprintf(segPattern, first) != filepath.Base(path) {
		return nil, nil, fmt.Errorf("%q is not the name of a segment: %w", filepath.Base(path), errDamaged)
	}
	file, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	s := &segment{path: path, first: first, last: first - 1, size: file.Size(), sealed: true}
	if s.size == 0 {
		return s, nil, errEmpty
	}
	ckpt, err := b.loadSound(s)
	return s, ckpt, err
}

// loadSound reads the figures of a segment that is not damaged, as far as can be seen from them.
func (b *Buffer) loadSound(s *segment) (ckpt *checkpoint, err error) {
	err = b.view(s, nil, func(c cursor) error {
		own, err := infoAt(c)
		if err != nil {
			return err
		}
		if err := own.misfit(info{store: b.store, first: s.first}); err != nil {
			return err
		}
		b.store, s.epoch = own.store, newEpoch(own.epoch)
		if s.pages != nil && s.pages.torn {
			return fmt.Errorf("a meta page is not valid: %w", errDamaged)
		}
		if ckpt, err = b.lastCheckpoint(c); err != nil {
			return err
		}
		s.ended = true
		v, err := valueAt(c, regionSummary, 0, 0)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		sum, err := parseSummary(v)
		if err == nil {
			s.take(sum)
		}
		return err
	})
	if err != nil || !s.empty() {
		return ckpt, err
	}
	return ckpt, b.scanFigures(s)
}

func (s *segment) take(sum *summary) {
	s.last, s.records, s.special = sum.last, sum.records, sum.special
	s.minAt, s.maxAt, s.made, s.wrote = sum.minAt, sum.maxAt, sum.made, sum.wrote
}

// loadDamaged reads what can be salvaged of a segment. errDamaged means that nothing in it can be read.
func (b *Buffer) loadDamaged(s *segment, cause error, old *stateData) (*checkpoint, error) {
	sv, err := salvageFile(s.path, info{store: b.store, first: s.first, epoch: s.epoch.n}, b.epochs(old), b.decoder)
	if err != nil {
		return nil, err
	}
	if len(sv.blocks) == 0 {
		return nil, fmt.Errorf("%w: nothing in it can be read: %w", cause, errDamaged)
	}
	if b.store == 0 {
		b.store = sv.store
	}
	s.epoch = newEpoch(sv.epochs[0])
	s.rw.Lock()
	s.salvaged = sv
	s.rw.Unlock()
	s.damaged = true
	s.last, s.records, s.special = s.first-1, 0, 0
	if err := b.scanFigures(s); err != nil {
		return nil, err
	}
	if sv.sum != nil && sv.sum.last >= s.last {
		s.was = had{sv.sum.last, sv.sum.records}
		s.last, s.made, s.wrote, s.minAt, s.maxAt = sv.sum.last, sv.sum.made, sv.sum.wrote, sv.sum.minAt, sv.sum.maxAt
	}
	s.cause = cause
	return sv.ckpt, nil
}

// epochs returns those that a segment may be of that does not say.
func (b *Buffer) epochs(old *stateData) (list []uint64) {
	list = append(list, b.epoch.n, b.store)
	for i := range old.segments {
		list = append(list, old.segments[i].epoch)
	}
	for _, s := range b.segs {
		list = append(list, s.epoch.n)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// lastCheckpoint returns the newest checkpoint of a segment.
func (b *Buffer) lastCheckpoint(c cursor) (*checkpoint, error) {
	k, _ := c.Seek(makeKey(regionRecords+1, 0, 0, 0))
	if k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	region, seq, typ, _ := keyOf(k)
	if region != regionRecords || typ != typeCheckpoint {
		return nil, errors.Join(c.Err(), fmt.Errorf("no checkpoint at the end: %w", errDamaged))
	}
	v, err := valueAt(c, regionRecords, seq, typeCheckpoint)
	if err != nil {
		return nil, err
	}
	ckpt, err := parseCheckpoint(v, b.decoder)
	if err != nil || ckpt.base == 0 {
		return ckpt, err
	}
	if v, err = valueAt(c, regionRecords, ckpt.base-1, typeCheckpoint); err != nil {
		return nil, err
	}
	base, err := parseCheckpoint(v, b.decoder)
	if err != nil {
		return nil, err
	}
	return ckpt, ckpt.apply(base)
}

// scanFigures finds out from the indexes what a segment without a summary holds.
func (b *Buffer) scanFigures(s *segment) error {
	var h head
	return b.eachBlock(s, func(info *blockInfo, _ []byte) error {
		for r := info.heads(); r.next(&h); {
			if s.records == 0 {
				s.minAt, s.maxAt = h.at, h.at
			}
			s.minAt, s.maxAt = min(s.minAt, h.at), max(s.maxAt, h.at)
			s.records++
			s.last = max(s.last, h.seq)
			if h.flags&headAddressed != 0 {
				s.special++
			}
		}
		return nil
	})
}
