package buffer

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// probeBytes is how much a probe writes: what a block takes, unpacked.
const probeBytes = blockTarget

// probe finds out whether a disk that failed is well again while no record needs it: else the store would say *failing* until
// the next one does, and who restarts what is failing would restart a sound gateway. commitMu is held.
func (b *Buffer) probe() {
	b.mu.Lock()
	due := b.st.commitErr != nil && time.Since(b.st.lastTry) >= b.st.probeAfter
	b.mu.Unlock()
	if !due {
		return
	}
	err := b.writeProbe()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.st.lastTry = time.Now()
	b.st.probeAfter = min(2*b.st.probeAfter, probeMost)
	if err == nil {
		b.commitWorks()
	}
}

// writeProbe makes a file as a commit does, writes to it, and removes it. Its name is that of state.db's successor, for
// which there is always room, and which Open removes.
func (b *Buffer) writeProbe() error {
	if err := b.checkNames(); err != nil {
		return err
	}
	path := filepath.Join(b.dir, stateNew)
	db, err := openHandle(b.fs, path, &bolt.Options{Timeout: time.Second, NoFreelistSync: true, NoStatistics: true, PageSize: pageSize})
	if err == nil {
		db.db.AllocSize = stateStep
		err = b.update(db, func(tx *bolt.Tx) error {
			bkt, err := tx.CreateBucketIfNotExists(stateBucket)
			if err != nil {
				return err
			}
			return bkt.Put(keyHead, make([]byte, probeBytes))
		})
		err = errors.Join(err, db.close())
	}
	if gone := b.fs.remove(path); !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}
