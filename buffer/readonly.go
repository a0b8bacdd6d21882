package buffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// ReadOnly is a store opened to be looked at: nothing in the directory is changed, and no lock is taken,
// so it works beside a running gateway, of which it then shows one moment (without what is only in its memory).
type ReadOnly struct{ b *Buffer }

// OpenReadOnly opens a store to be looked at.
func OpenReadOnly(dir string) (*ReadOnly, error) {
	var err error
	for range 5 { // what a running gateway commits meanwhile may look like damage
		var b *Buffer
		if b, err = openReadOnly(dir); err == nil && len(b.st.damage) == 0 {
			return &ReadOnly{b}, nil
		}
		if err == nil {
			err = errDamaged
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if !errors.Is(err, errDamaged) {
			break
		}
	}
	if errors.Is(err, errDamaged) {
		b, again := openReadOnly(dir)
		if again == nil {
			return &ReadOnly{b}, nil
		}
		err = again
	}
	return nil, fmt.Errorf("open buffer %q to be looked at: %w", dir, err)
}

func openReadOnly(dir string) (*Buffer, error) {
	o, err := Options{MaxSize: 1 << 46}.complete() // its own is not known; nothing is written
	if err != nil {
		return nil, err
	}
	b := newBuffer(dir, o, osFiles())
	b.readOnly, b.seen = true, seenIn(dir)
	if b.decoder, err = newDecoder(); err != nil {
		return nil, err
	}
	old, err := b.loadState()
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.settle(old); err != nil {
		return nil, err
	}
	b.stateSize = fileSize(filepath.Join(dir, stateName), 0)
	b.old = old
	return b, nil
}

// Close ends the look.
func (r *ReadOnly) Close() {
	r.b.mu.Lock()
	r.b.closed = true
	segs := r.b.segs
	r.b.mu.Unlock()
	for _, s := range segs {
		r.b.closeHandle(s)
	}
	r.b.decoder.Close()
}

// Epoch is Buffer.Epoch.
func (r *ReadOnly) Epoch() string { return r.b.Epoch() }

// Stats is Buffer.Stats. MaxBytes and Room are not known; Health tells of damage only.
func (r *ReadOnly) Stats() Stats {
	s := r.b.Stats()
	s.MaxBytes, s.Room = 0, 0
	if s.Damages > 0 {
		s.Health = "damaged: " + s.Damage[0].Reason
	}
	return s
}

// Ledger is Buffer.Ledger, as of the last checkpoint.
func (r *ReadOnly) Ledger() []Account { return r.b.Ledger() }

// Segments is Buffer.Segments.
func (r *ReadOnly) Segments() []SegmentInfo { return r.b.Segments() }

// Scan is Buffer.Scan.
func (r *ReadOnly) Scan(ctx context.Context, from, to uint64, f func(*Record) error) error {
	return r.b.Scan(ctx, from, to, f)
}

// Note is Buffer.Note.
func (r *ReadOnly) Note() []byte {
	body, err := openValue(r.b.old.note)
	if err != nil || len(body) == 0 {
		return nil
	}
	return bytes.Clone(body)
}

// Verify is Buffer.Verify.
func (r *ReadOnly) Verify(ctx context.Context, progress func(done, all int64)) (*Verification, error) {
	return r.b.Verify(ctx, progress)
}

// Quarantine is Buffer.Quarantine.
func (r *ReadOnly) Quarantine() ([]*Quarantined, error) { return r.b.old.quarantine(), nil }
