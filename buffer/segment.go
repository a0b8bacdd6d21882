package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A segment is one bbolt file with one bucket. Its keys are region, sequence number, type, chunk; its
// values are pieces, cut by a leaf. A segment is written by the process that made it and is never opened
// for writing again.
const (
	keySize = 12

	regionDict    = 'd' // sequence number: the stream's number in this segment
	regionInfo    = 'i' // one value: format, store, first sequence number, epoch
	regionRecords = 'r' // blocks under their first record's number, checkpoints under the last number they cover
	regionAgain   = 'y' // the dictionary entries of the last commit again
	regionSummary = 'z' // one value, written when the segment is sealed

	typeBlock      = 0
	typeDict       = 1 // dictionary entries again, so that no single page is worth a segment
	typeCheckpoint = 2

	pageSize   = 4096
	emptyFile  = 4 * pageSize
	growSlack  = 24 * pageSize // branch pages, the root and copies of leaves that a commit rewrites
	openLimit  = 4             // read-only handles open at once
	segPattern = "seg-%016x.db"
)

var bucketName = []byte("m")

// files is every call that changes the directory; tests replace it.
type files struct {
	bolt    func(path string, o *bolt.Options) (*bolt.DB, error)
	rename  func(from, to string) error
	mark    func(path string, p []byte, at int64) error // writes into the file, made when it is not there
	remove  func(path string) error
	syncDir func(dir string) error
}

func osFiles() files {
	return files{
		bolt:    func(path string, o *bolt.Options) (*bolt.DB, error) { return bolt.Open(path, 0o640, o) },
		rename:  os.Rename,
		mark:    writeAt,
		remove:  os.Remove,
		syncDir: syncDir,
	}
}

// segment is one segment file. The fields up to rw are guarded by Buffer.mu.
type segment struct {
	path    string
	epoch   epoch  // of its records
	first   uint64 // in the file's name; every record in it is at or above
	last    uint64 // highest record in it; first-1 when it has none
	size    int64  // of the file
	records uint64 // in it
	special uint64 // of them records that are not addressed to everyone
	minAt   int64  // record times
	maxAt   int64
	holes   where         // what is missing of it and was needed, not told yet
	made    time.Duration // running time of the store at its first commit
	wrote   time.Duration // and at its last
	sealed  bool
	clipped bool   // the next segment has some of its records again
	partly  bool   // its oldest records were given up: see dropPart
	damaged bool   // it is read from what could be salvaged
	gone    bool   // dropped or unlinked
	missed  bool   // its file was seen to be gone, or was set aside, which is told once
	aside   string // the name that its file got when it was set aside, "" = it was not
	end     uint64 // as last was found, whatever of it the next segment has again; no bound in one that this process made
	ended   bool   // found sound at its end: no commit is missing there
	cause   error  // why it is damaged
	was     had    // as far as it was promised, or before it was damaged

	unread struct { // the disk fails to give pages of it: see unread.go
		since time.Time // zero = it does not
		cause error
	}

	// Only the one segment being written has these; commitMu guards them.
	leaf     leaf // where its records end
	ids      map[*Stream]uint32
	again    []dictEntry         // to be written a second time, with the next commit
	totals   map[*account]uint64 // readings addressed to everyone
	base     []uint64            // the ledger as of its first checkpoint
	baseCkpt []byte              // that checkpoint
	baseSeq  uint64

	rw       sync.RWMutex // guards what follows
	db       *handle      // while it is being written
	pages    *pageFile    // while a sealed one is open
	bucket   bucketRoot
	dict     []*Stream // by number in this segment; nil in places that are damaged
	salvaged *salvage  // when it is damaged
}

// had is what a segment had, as far as it is known otherwise than from its records: up to which number, and how many; 0 and 0 when it is not.
type had struct{ last, records uint64 }

func (s *segment) empty() bool { return s.last < s.first }

func makeKey(region byte, seq uint64, typ byte, chunk int) []byte {
	k := make([]byte, keySize)
	return fillKey(k, region, seq, typ, chunk)
}

func fillKey(k []byte, region byte, seq uint64, typ byte, chunk int) []byte {
	k[0] = region
	binary.BigEndian.PutUint64(k[1:], seq)
	k[9] = typ
	binary.BigEndian.PutUint16(k[10:], uint16(chunk))
	return k
}

func keyOf(k []byte) (region byte, seq uint64, typ byte, chunk int) {
	if len(k) != keySize {
		return 0, 0, 0, 0
	}
	return k[0], binary.BigEndian.Uint64(k[1:]), k[9], int(binary.BigEndian.Uint16(k[10:]))
}

// getChunks puts together the value whose first piece the cursor stands on, up to limit bytes, and
// returns the key after it. It stops early, before the value's end, once it has enough bytes.
func getChunks(c cursor, k, v, dst []byte, enough func([]byte) bool, limit int) (value, nextKey, nextValue []byte, err error) {
	region, seq, typ, chunk := keyOf(k)
	if chunk != 0 {
		return dst, nil, nil, fmt.Errorf("value at %d begins with piece %d: %w", seq, chunk, errDamaged)
	}
	dst = append(dst[:0], v...)
	for want := 1; ; want++ {
		if enough != nil && enough(dst) {
			k, v = c.Seek(makeKey(region, seq, typ+1, 0))
			return dst, k, v, c.Err()
		}
		k, v = c.Next()
		r, s, t, n := keyOf(k)
		if k == nil || r != region || s != seq || t != typ {
			return dst, k, v, c.Err()
		}
		if n != want || len(dst)+len(v) > limit {
			return dst, nil, nil, fmt.Errorf("value at %d has a wrong piece: %w", seq, errDamaged)
		}
		dst = append(dst, v...)
	}
}

// view runs f with a cursor over the segment's bucket, opening the file when needed. pc is the cursor's
// memory, kept by the caller from call to call, or nil.
func (b *Buffer) view(s *segment, pc *pageCursor, f func(cursor) error) error {
	for {
		s.rw.RLock()
		h := s.db
		if h == nil && s.pages != nil {
			defer s.rw.RUnlock()
			return viewPages(s.pages, s.bucket, pc, f)
		}
		s.rw.RUnlock()
		if h != nil {
			if err := viewActive(h, pc, f); !errors.Is(err, errHandleClosed) { // else it was sealed in the meantime
				return err
			}
		} else if err := b.openSealed(s); err != nil {
			return err
		}
	}
}

func viewPages(p *pageFile, root bucketRoot, pc *pageCursor, f func(cursor) error) error {
	if pc == nil {
		pc = new(pageCursor)
	}
	pc.reset(p, root)
	if err := f(pc); err != nil {
		return err
	}
	return pc.err
}

// viewActive is view of a segment that is being written: its pages may be others at the next call.
func viewActive(h *handle, pc *pageCursor, f func(cursor) error) error {
	return h.view(func(p *pageFile) error {
		root, err := p.bucket(bucketName)
		if err != nil {
			return err
		}
		return viewPages(p, root, pc, f)
	})
}

// openSealed opens a sealed segment and closes the one opened longest ago when too many are open.
func (b *Buffer) openSealed(s *segment) error {
	s.rw.Lock()
	if s.db != nil || s.pages != nil {
		s.rw.Unlock()
		return nil
	}
	pages, err := openPages(s.path)
	if err == nil {
		if s.bucket, err = pages.bucket(bucketName); err == nil {
			err = b.identify(s, pages)
		}
		if err != nil {
			pages.close()
		} else {
			s.pages = pages
		}
	}
	s.rw.Unlock()
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, errDamaged)
	}
	if err != nil {
		return err
	}
	if old := b.handles.opened(s); old != nil {
		b.closeHandle(old)
	}
	return nil
}

// identify reports as damage a file that is another segment than the one of its name: it was copied or moved there. s.rw is held.
func (b *Buffer) identify(s *segment, pages *pageFile) error {
	return viewPages(pages, s.bucket, nil, func(c cursor) error {
		own, err := infoAt(c)
		if errors.Is(err, ErrNotFound) {
			return fmt.Errorf("it does not say which segment it is: %w", errDamaged)
		}
		if err != nil {
			return err
		}
		return own.misfit(info{b.store, s.first, s.epoch.n})
	})
}

// closeHandle closes a sealed segment.
func (b *Buffer) closeHandle(s *segment) {
	b.handles.closed(s)
	s.rw.Lock()
	defer s.rw.Unlock()
	s.pages.close()
	s.pages = nil
}

// trim takes from a sealed file what bbolt made it grow by and did not use. It is no loss when that fails.
func (s *segment) trim() {
	if p, err := openPages(s.path); err == nil {
		size := int64(p.hwm) * pageSize
		p.close()
		_ = os.Truncate(s.path, size)
	}
}

// closeActive closes the file being written.
func (s *segment) closeActive() {
	s.rw.Lock()
	h := s.db
	s.db, s.ids, s.totals, s.base, s.baseCkpt = nil, nil, nil, nil, nil
	s.rw.Unlock()
	_ = h.close() // every commit was fsynced
}

// handleCache is the list of sealed segments that are open, the one opened last at the end.
type handleCache struct {
	mu   sync.Mutex
	open []*segment
}

// opened adds a segment, once: one that was closed as it was noted may still be listed, and would be closed for itself.
func (h *handleCache) opened(s *segment) (tooMany *segment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = append(slices.DeleteFunc(h.open, func(o *segment) bool { return o == s }), s)
	if len(h.open) > openLimit {
		return h.open[0]
	}
	return nil
}

func (h *handleCache) closed(s *segment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = slices.DeleteFunc(h.open, func(o *segment) bool { return o == s })
}

// fileSize returns the size of a file, or what it was when that cannot be learned.
func fileSize(path string, was int64) int64 {
	if info, err := os.Stat(path); err == nil {
		return info.Size()
	}
	return was
}

// setSize notes a segment's size. mu is held.
func (b *Buffer) setSize(s *segment, size int64) {
	if !s.gone {
		b.segBytes += size - s.size
	}
	s.size = size
}

// forgetSegment takes a segment off the list. mu is held.
func (b *Buffer) forgetSegment(s *segment) {
	s.gone = true
	b.segBytes -= s.size
	for i, o := range b.segs {
		if o == s {
			b.segs = append(b.segs[:i:i], b.segs[i+1:]...)
			return
		}
	}
}

// seal writes the active segment's summary and closes it. A summary that cannot be written is no loss:
// the segment is then scanned when the store is next opened.
func (b *Buffer) seal() {
	s := b.active
	b.mu.Lock()
	summary := appendSummary(nil, s)
	b.mu.Unlock()
	err := b.update(s.db, func(tx *bolt.Tx) error {
		bkt := tx.Bucket(bucketName)
		bkt.FillPercent = 1
		return errors.Join(b.putAgain(bkt, s, regionAgain, 0), putValue(bkt, regionSummary, 0, summary))
	})
	if err != nil {
		b.tell("segment summary not written", err, "file", s.path)
	}
	s.closeActive()
	s.trim()
	size := fileSize(s.path, s.size)
	b.mu.Lock()
	b.st.seen.add(0, size-s.size)
	b.setSize(s, size)
	s.sealed = true
	b.active = nil
	b.mu.Unlock()
}
