package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// state.db holds what must outlive the segments: the store's number, its epoch, the sequence numbers reserved, the
// checkpoint while nothing is committed, and the quarantine. It is written anew at each Open, so that no
// bbolt file is ever opened for writing that an earlier process left.
const (
	stateName = "state.db"
	stateNew  = "state.db.new"
)

var (
	stateBucket      = []byte("state")
	quarantineBucket = []byte("quarantine")
	segmentsBucket   = []byte("segments")   // the promises, by first number
	keyHead          = []byte("head")       // format, store, numbers reserved, epoch
	keyCheckpoint    = []byte("checkpoint") //
	keyNote          = []byte("note")       // the gateway's, not read here
	keyUntil         = []byte("until")      // see Left.Until
	keyBefore        = []byte("before")     // see untoldLeft
	keyLost          = []byte("lost")       // see Left.Lost
)

// reserveStep is how many sequence numbers are promised at once; they are renewed when half are left.
const reserveStep = 1 << 20

// stateStep is how many bytes state.db grows by at once.
const stateStep = 16 << 10

// stateData is what state.db holds.
type stateData struct {
	lost     bool // there was none, or it was damaged
	damaged  bool // it was
	store    uint64
	epoch    uint64 // of the process that wrote it
	reserved uint64
	ckpt     []byte
	note     []byte
	until    []byte
	before   []byte
	lostAt   []byte
	entries  [][2][]byte        // of the quarantine, as they are
	segments []promise          // as read
	named    map[uint64]promise // to be written
}

type stateFile struct {
	db     *handle
	failed bool // its last write failed
	named  map[uint64]promise
	held   *stateData // checkpoint and quarantine as they are in it; not to be changed
	sum    uint32     // of its pages, after our last write
}

// sound reports as damage whatever somebody else wrote, cut off, or the disk does not give.
func (s *stateFile) sound(p *pageFile) error {
	sum, err := sumAll(p)
	if err == nil && sum != s.sum {
		err = fmt.Errorf("overwritten while in use: %w", errDamaged)
	}
	return err
}

// wrote takes note of what stands in the file after a write of ours.
func (s *stateFile) wrote() error {
	return s.db.view(func(p *pageFile) (err error) { s.sum, err = sumAll(p); return err })
}

// stateLimit is how large state.db may become. Two of it are kept free of segments, because Open writes
// the new one before it removes the old.
func (o *Options) stateLimit() int64 { return min(max(o.MaxSize/16, leastState), 8<<20) }

const leastState = 256 << 10

// stateHead encodes the head of state.db.
func (b *Buffer) stateHead(reserved uint64) []byte {
	return appendInfo(nil, info{b.store, reserved, b.epoch.n})
}

// readState reads an old state.db.
func readState(path string) (*stateData, error) {
	p, err := openPages(path)
	if err != nil {
		return nil, err
	}
	defer p.close()
	data := &stateData{}
	root, err := p.bucket(stateBucket)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	c := pageCursor{file: p, root: root}
	get := func(key []byte) []byte {
		k, v := c.Seek(key)
		if !bytes.Equal(k, key) {
			return nil
		}
		return bytes.Clone(v)
	}
	head, err := parseInfo(get(keyHead))
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	data.store, data.reserved, data.epoch = head.store, head.first, head.epoch
	if p.torn {
		return nil, fmt.Errorf("read %q: a meta page is not valid: %w", path, errDamaged)
	}
	data.ckpt, data.note, data.until, data.before, data.lostAt = get(keyCheckpoint), get(keyNote), get(keyUntil), get(keyBefore), get(keyLost)
	if data.segments, err = p.readPromises(); err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	if root, err = p.bucket(quarantineBucket); err != nil {
		return nil, fmt.Errorf("read quarantine of %q: %w", path, err)
	}
	q := pageCursor{file: p, root: root}
	for k, v := q.Seek(nil); k != nil && len(data.entries) < maxQuarantine; k, v = q.Next() {
		if _, err := openValue(v); err == nil {
			data.entries = append(data.entries, [2][]byte{bytes.Clone(k), bytes.Clone(v)})
		}
	}
	return data, nil
}

// createState writes a new state.db with this content in place of any old one and leaves it open.
func createState(fs files, dir string, limit int64, data *stateData) (*stateFile, error) {
	tmp, path := filepath.Join(dir, stateNew), filepath.Join(dir, stateName)
	if err := fs.remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove %q: %w", tmp, err)
	}
	// No free list on disk: bbolt believes the length in its page without a check, and would count to 2^32 over garbage.
	o := &bolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType, NoStatistics: true, PageSize: pageSize}
	db, err := openHandle(fs, tmp, o)
	if err != nil {
		_ = fs.remove(tmp)
		return nil, fmt.Errorf("create %q: %w", tmp, err)
	}
	db.db.AllocSize, db.db.MaxSize = stateStep, int(limit)
	s := &stateFile{db: db, held: &stateData{ckpt: data.ckpt, note: data.note, until: data.until, before: data.before, lostAt: data.lostAt, entries: data.entries}}
	err = s.db.update(func(tx *bolt.Tx) error {
		bkt, err := tx.CreateBucketIfNotExists(stateBucket)
		if err != nil {
			return err
		}
		if err := bkt.Put(keyHead, appendInfo(nil, info{data.store, data.reserved, data.epoch})); err != nil {
			return err
		}
		if err := bkt.Put(keyCheckpoint, data.ckpt); err != nil {
			return err
		}
		if err := errors.Join(bkt.Put(keyNote, data.note), bkt.Put(keyUntil, data.until), bkt.Put(keyBefore, data.before), bkt.Put(keyLost, data.lostAt)); err != nil {
			return err
		}
		q, err := tx.CreateBucketIfNotExists(quarantineBucket)
		if err != nil {
			return err
		}
		for _, kv := range data.entries {
			if err := q.Put(kv[0], kv[1]); err != nil {
				return err
			}
		}
		if err := s.putPromises(tx, data.named); err != nil {
			return err
		}
		return nil
	})
	err = errors.Join(err, s.close()) // Windows renames no file that is open
	if err == nil {
		err = errors.Join(fs.rename(tmp, path), fs.syncDir(dir))
	} else {
		_ = fs.remove(tmp)
	}
	if err == nil {
		s.db, err = openHandle(fs, path, o)
	}
	if err != nil {
		return nil, fmt.Errorf("write %q: %w", path, err)
	}
	s.db.touch, s.db.db.AllocSize, s.db.db.MaxSize = s.sound, stateStep, int(limit)
	if err := s.wrote(); err != nil {
		_ = s.close()
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return s, nil
}

// remember notes what state.db holds when the transaction is committed: from memory it can be made again when the file
// is lost, however it was lost.
func (s *stateFile) remember(tx *bolt.Tx) error {
	bkt := tx.Bucket(stateBucket)
	data := &stateData{ckpt: bytes.Clone(bkt.Get(keyCheckpoint)), note: bytes.Clone(bkt.Get(keyNote)), until: bytes.Clone(bkt.Get(keyUntil)), before: bytes.Clone(bkt.Get(keyBefore)), lostAt: bytes.Clone(bkt.Get(keyLost))}
	tx.OnCommit(func() { s.held = data })
	return tx.Bucket(quarantineBucket).ForEach(func(k, v []byte) error {
		data.entries = append(data.entries, [2][]byte{bytes.Clone(k), bytes.Clone(v)})
		return nil
	})
}

// quarantine returns the entries that are sound.
func (d *stateData) quarantine() (out []*Quarantined) {
	for _, kv := range d.entries {
		if q, err := parseQuarantined(kv[0], kv[1]); err == nil {
			out = append(out, q)
		}
	}
	return out
}

// quarantined returns how many entries each destination has.
func (d *stateData) quarantined() map[string]int {
	n := map[string]int{}
	for _, kv := range d.entries {
		if len(kv[0]) > 8 {
			n[string(kv[0][8:])]++
		}
	}
	return n
}

// bound takes out the oldest entries of a quarantine that is larger than the limit: it was lowered.
func (d *stateData) bound(limit int) (removed int) {
	size := 0
	for i := len(d.entries) - 1; i >= 0; i-- {
		if size += len(d.entries[i][1]); size > limit {
			removed = i + 1
			break
		}
	}
	d.entries = d.entries[removed:]
	return removed
}

// openState makes a new state.db with this content the store's; the old one is closed. commitMu is held, or nobody else is there.
func (b *Buffer) openState(data *stateData) error {
	s, err := createState(b.fs, b.dir, b.o.stateLimit(), data)
	if err != nil {
		return err
	}
	b.state = s
	b.held.Store(s.held)
	size := fileSize(filepath.Join(b.dir, stateName), 0)
	b.mu.Lock()
	b.stateSize = size
	b.mu.Unlock()
	b.written.Add(size)
	return nil
}

// saveState writes keys of state.db and remembers how it went. A file whose write failed is not written
// again: what it holds goes to a new one first. commitMu is held.
func (b *Buffer) saveState(f func(*bolt.Tx) error) error {
	err := b.writeState(f)
	if errors.Is(err, errUnsound) { // the file is to blame: memory has all that was in it
		b.noteDamage(Damage{File: stateName, Reason: reasonOf(err) + "; it is written anew from memory"})
		err = b.writeState(f)
	}
	if err != nil {
		err = fmt.Errorf("write state.db of %q: %w", b.dir, err)
	}
	size := fileSize(filepath.Join(b.dir, stateName), 0) // a disk that hangs must not hold mu
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stateSize = size
	b.st.stateErr, b.st.stateBad = err, badSince(b.st.stateBad, b.commitSince(), err)
	b.changed = b.changed || err != nil
	return err
}

// writeState is one attempt of saveState.
func (b *Buffer) writeState(f func(*bolt.Tx) error) error {
	if err := b.renewState(); err != nil {
		return err
	}
	s := b.state
	err := b.update(s.db, func(tx *bolt.Tx) error { return errors.Join(f(tx), s.remember(tx)) })
	if err == nil {
		err = s.wrote()
	}
	s.failed = err != nil
	b.held.Store(s.held)
	return err
}

// checkState looks whether state.db is still as we wrote it: it is seldom written, and a crash until then would lose what it holds,
// which memory has. commitMu is held.
func (b *Buffer) checkState() {
	if b.state.failed || time.Since(b.stateLooked) < stateEvery {
		return
	}
	b.stateLooked = time.Now()
	err := b.state.db.view(b.state.sound)
	if err == nil {
		return
	}
	b.state.failed = true // to be written anew
	b.noteDamage(Damage{File: stateName, Reason: reasonOf(err) + "; it is written anew from memory"})
	_ = b.saveState(func(*bolt.Tx) error { return nil }) // Stats has the error
}

// renewState replaces a state.db whose last write failed.
func (b *Buffer) renewState() error {
	if !b.state.failed {
		return nil
	}
	if err := b.taken(); err != nil {
		return err
	}
	_ = b.state.close() // what it holds is in memory, until a new one has it
	data := *b.state.held
	data.store, data.epoch, data.named = b.store, b.epoch.n, b.promises()
	b.mu.Lock()
	data.reserved = b.reserved
	b.mu.Unlock()
	return b.openState(&data)
}

// reserve promises more sequence numbers on disk when fewer than half a step are left. commitMu is held.
func (b *Buffer) reserve() error {
	b.mu.Lock()
	low, to := b.reserved-b.next < reserveStep/2, b.next+reserveStep
	b.mu.Unlock()
	if !low {
		return nil
	}
	err := b.saveState(func(tx *bolt.Tx) error { return tx.Bucket(stateBucket).Put(keyHead, b.stateHead(to)) })
	if err == nil {
		b.mu.Lock()
		b.reserved = to
		b.mu.Unlock()
	}
	return err
}

// saveCheckpoint writes a checkpoint into state.db. commitMu is held.
func (b *Buffer) saveCheckpoint(d *draft) error {
	if b.state == nil { // Open is about to write it
		return nil
	}
	ckpt, now := d.pack(b.coder.enc), b.promises()
	err := b.saveState(func(tx *bolt.Tx) error {
		bkt := tx.Bucket(stateBucket)
		return errors.Join(bkt.Put(keyCheckpoint, ckpt), bkt.Put(keyUntil, d.until), bkt.Put(keyBefore, d.before), bkt.Put(keyLost, d.lostAt), b.state.putPromises(tx, now))
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.lastIdle = time.Now()
	b.st.idleBytes = int64(len(ckpt)) + emptyFile
	if err != nil {
		b.changed = true
		return err
	}
	b.st.saved = d.next
	return nil
}

// checkpointNow takes the checkpoint of this moment for state.db.
func (b *Buffer) checkpointNow() *draft {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.takeCheckpoint(nil)
}

// noteCheckpoint writes a checkpoint into state.db before what it does not need is unlinked; where state.db does not take it, as on a full disk, into
// the mark, which needs no more room and outlives the process, though not the machine. commitMu is held.
func (b *Buffer) noteCheckpoint(d *draft) error {
	err := b.saveCheckpoint(d)
	if err == nil || b.taken() != nil {
		return err
	}
	b.mu.Lock()
	p := promise{first: b.durable + 1, last: b.durable, epoch: b.epoch.n}
	if b.active != nil {
		p = b.promise(b.active)
	}
	b.mu.Unlock()
	if b.writeMark(p, d.gen, nil, d.pack(b.coder.enc)) == nil {
		return nil
	}
	return err
}

func (s *stateFile) close() error {
	if s == nil || s.db == nil {
		return nil
	}
	return s.db.close()
}
