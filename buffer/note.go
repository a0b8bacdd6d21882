package buffer

import (
	"bytes"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// maxNote is how many bytes a note may have.
const maxNote = 8 << 10

// Note returns the note that SetNote kept, nil when there is none or it is damaged. What it says is the caller's affair.
func (b *Buffer) Note() []byte {
	b.lockCommit()
	defer b.unlockCommit()
	body, err := openValue(b.state.held.note)
	if err != nil || len(body) == 0 {
		return nil
	}
	return bytes.Clone(body)
}

// SetNote keeps a note of at most 8 KiB in the store, in place of the one before. It is on disk when SetNote returns nil.
func (b *Buffer) SetNote(note []byte) error {
	if len(note) > maxNote {
		return fmt.Errorf("keep a note of %d bytes: at most %d", len(note), maxNote)
	}
	b.lockCommit()
	defer b.unlockCommit()
	if b.isClosed() {
		return ErrClosed
	}
	v := sealValue(append(make([]byte, 8), note...))
	return b.saveState(func(tx *bolt.Tx) error { return tx.Bucket(stateBucket).Put(keyNote, v) })
}
