package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// state.db holds what must outlive the segments: the store's epoch, the sequence numbers reserved, the
// checkpoint while nothing is committed, and the quarantine. It is written anew at each Open, so that no
// bbolt file is ever opened for writing that an earlier process left.
const (
	stateName = "state.db"
	stateNew  = "state.db.new"
)

var (
	stateBucket      = []byte("state")
	quarantineBucket = []byte("quarantine")
	keyHead          = []byte("head")       // format, epoch, reserved
	keyCheckpoint    = []byte("checkpoint") //
	keyIntent        = []byte("intent")     // the segment being dropped, and why
)

// reserveStep is how many sequence numbers are promised at once; they are renewed when half are left.
const reserveStep = 1 << 20

// stateData is what state.db holds, but for the quarantine.
type stateData struct {
	epoch    uint64
	reserved uint64
	ckpt     []byte
	intent   []byte
	entries  [][2][]byte // of the quarantine, as they are
}

type stateFile struct {
	db *bolt.DB
}

// stateLimit is how large state.db may become. Two of it are kept free of segments, because Open writes
// the new one before it removes the old.
func (o *Options) stateLimit() int64 { return min(max(o.MaxSize/16, 256<<10), 8<<20) }

func stateHead(epoch, reserved uint64) []byte {
	v := append(make([]byte, 8), formatMajor)
	v = binary.BigEndian.AppendUint64(v, epoch)
	return sealValue(binary.BigEndian.AppendUint64(v, reserved))
}

func parseStateHead(v []byte) (epoch, reserved uint64, err error) {
	body, err := openValue(v)
	if err != nil {
		return 0, 0, err
	}
	if len(body) > 0 && body[0] > formatMajor {
		return 0, 0, fmt.Errorf("format %d, this binary reads up to %d; run the newer millrace, or drain the store with it first: %w",
			body[0], formatMajor, ErrNewer)
	}
	if len(body) != 17 {
		return 0, 0, fmt.Errorf("head of state.db: %w", errDamaged)
	}
	return binary.BigEndian.Uint64(body[1:]), binary.BigEndian.Uint64(body[9:]), nil
}

// readState reads an old state.db. A missing file gives nil, nil.
func readState(fs files, path string) (data *stateData, err error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	db, err := openReadOnly(fs, path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = guard(db.Close) }()
	data = &stateData{}
	err = guard(func() error {
		return db.View(func(tx *bolt.Tx) error {
			bkt := tx.Bucket(stateBucket)
			if bkt == nil {
				return fmt.Errorf("no bucket: %w", errDamaged)
			}
			if data.epoch, data.reserved, err = parseStateHead(bkt.Get(keyHead)); err != nil {
				return err
			}
			data.ckpt = append([]byte(nil), bkt.Get(keyCheckpoint)...)
			data.intent = append([]byte(nil), bkt.Get(keyIntent)...)
			if q := tx.Bucket(quarantineBucket); q != nil {
				return q.ForEach(func(k, v []byte) error {
					data.entries = append(data.entries, [2][]byte{append([]byte(nil), k...), append([]byte(nil), v...)})
					return nil
				})
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	return data, nil
}

// createState writes a new state.db with this content in place of any old one and leaves it open.
func createState(fs files, dir string, limit int64, data *stateData) (*stateFile, error) {
	tmp, path := filepath.Join(dir, stateNew), filepath.Join(dir, stateName)
	if err := fs.remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove %q: %w", tmp, err)
	}
	db, err := fs.bolt(tmp, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType, NoStatistics: true, PageSize: pageSize})
	if err != nil {
		return nil, fmt.Errorf("create %q: %w", tmp, err)
	}
	db.AllocSize, db.MaxSize = 16<<10, int(limit)
	s := &stateFile{db: db}
	err = s.update(func(tx *bolt.Tx) error {
		bkt, err := tx.CreateBucketIfNotExists(stateBucket)
		if err != nil {
			return err
		}
		if err := bkt.Put(keyHead, stateHead(data.epoch, data.reserved)); err != nil {
			return err
		}
		if err := bkt.Put(keyCheckpoint, data.ckpt); err != nil {
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
		return nil
	})
	if err == nil {
		err = errors.Join(fs.rename(tmp, path), fs.syncDir(dir))
	}
	if err != nil {
		_ = guard(db.Close)
		return nil, fmt.Errorf("write %q: %w", path, err)
	}
	return s, nil
}

func (s *stateFile) update(f func(*bolt.Tx) error) error {
	return guard(func() error { return s.db.Update(f) })
}

func (s *stateFile) put(key, value []byte) error {
	return s.update(func(tx *bolt.Tx) error { return tx.Bucket(stateBucket).Put(key, value) })
}

// saveState writes keys of state.db and remembers how it went. commitMu is held.
func (b *Buffer) saveState(f func(*bolt.Bucket) error) error {
	err := b.state.update(func(tx *bolt.Tx) error { return f(tx.Bucket(stateBucket)) })
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.written += emptyFile
	if err != nil {
		err = fmt.Errorf("write state.db of %q: %w", b.dir, err)
	}
	b.st.stateErr = err
	return err
}

// reserve promises more sequence numbers on disk when fewer than half a step are left. commitMu is held.
func (b *Buffer) reserve() error {
	b.mu.Lock()
	low, to := b.reserved-b.next < reserveStep/2, b.next+reserveStep
	b.mu.Unlock()
	if !low {
		return nil
	}
	err := b.saveState(func(bkt *bolt.Bucket) error { return bkt.Put(keyHead, stateHead(b.epoch, to)) })
	if err == nil {
		b.mu.Lock()
		b.reserved = to
		b.mu.Unlock()
	}
	return err
}

// saveCheckpoint writes a checkpoint into state.db. commitMu is held.
func (b *Buffer) saveCheckpoint(ckpt []byte) error {
	err := b.saveState(func(bkt *bolt.Bucket) error {
		if err := bkt.Delete(keyIntent); err != nil {
			return err
		}
		return bkt.Put(keyCheckpoint, ckpt)
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.lastIdle = time.Now()
	if err != nil {
		b.changed = true
	}
	return err
}
