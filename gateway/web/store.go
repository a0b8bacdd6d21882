package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"millrace/buffer"
)

// Store is what people can ask of a store, and the few things they can do to it. There are two: a Client speaks
// to the gateway that runs on the store, and the one of OpenStore reads the files of one that nobody runs on.
type Store interface {
	// Status returns sizes, destinations, segments and the ledger.
	Status(ctx context.Context) (*StoreStatus, error)
	// Scan calls f for each record of the query in order, whoever has acknowledged it. The record is valid until f returns.
	Scan(ctx context.Context, q Query, f func(*StoredRecord) error) error
	// Verify reads everything and checks it. progress is called now and then with bytes done and bytes in all.
	Verify(ctx context.Context, progress func(done, total int64)) (*buffer.Verification, error)
	// Backup gives a copy of the store as of one moment, file by file, the one that makes it a store last. It is complete when
	// state.db came.
	Backup(ctx context.Context, file func(name string, size int64, r io.Reader) error) error
	// Quarantine returns the records that a destination refused.
	Quarantine(ctx context.Context) ([]*buffer.Quarantined, error)
	// Retry gives a record in quarantine to its destination again and returns its new sequence number.
	Retry(ctx context.Context, id string) (uint64, error)
	// Delete takes a record out of quarantine for good.
	Delete(ctx context.Context, id string) error
	// Forget gives up a destination that is not configured any more, and returns what was waiting for it.
	Forget(ctx context.Context, destination string) (buffer.Forgotten, error)
	// Found says what a command found damaged when it opened the store to change it, a line each: nothing of a running gateway, which says it itself.
	Found() []string
	// Close ends the look.
	Close() error
}

// StoreStatus is the state of a store at one moment.
type StoreStatus struct {
	Running    bool                 `json:"running"`          // a gateway runs on it; else Gateway and Version are empty and every destination counts as configured
	Holder     string               `json:"holder,omitempty"` // the process that has it open although no gateway answers, "" for none
	Gateway    string               `json:"gateway"`          // its name
	Version    string               `json:"version"`
	Stats      buffer.Stats         `json:"stats"` // of a store that nobody runs on MaxBytes is 0: it stands in the config
	Segments   []buffer.SegmentInfo `json:"segments"`
	Ledger     []buffer.Account     `json:"ledger"`
	Quarantine int                  `json:"quarantine"` // entries
	States     []State              `json:"states"`     // of the running gateway: what is not ok, loudest first
}

// Query says which records Scan gives. The zero value means all.
type Query struct {
	From, To         uint64 // sequence numbers: from <= seq < to; To 0 = no end
	FromTime, ToTime int64  // from <= time < to, µs since 1970; 0 = no bound
	Device           string // "" = all
}

// StoredRecord is one record as it lies in the store.
type StoredRecord struct {
	Stream   *StoredStream // the same for all records of a stream in one scan
	Epoch    string        // with Seq its identity
	Seq      uint64
	Payload  []byte // record.Record's bytes, empty for gap records
	At       int64  // µs since 1970
	Readings int
	Gap      *buffer.Gap // not nil: a gap record
}

// StoredStream is what the records of one poll group have in common.
type StoredStream struct {
	ID     int    `json:"id"` // of this scan, counted from 0
	Device string `json:"device"`
	Schema []byte `json:"schema"` // record.Schema's bytes, empty for gap records
}

func (q *Query) has(r *buffer.Record) bool {
	return r.At >= q.from() && r.At < q.to() && (q.Device == "" || q.Device == r.Stream.Account())
}

func (q *Query) from() int64 {
	if q.FromTime == 0 {
		return math.MinInt64
	}
	return q.FromTime
}

func (q *Query) to() int64 {
	if q.ToTime == 0 {
		return math.MaxInt64
	}
	return q.ToTime
}

// viewer is what a *buffer.Buffer and a *buffer.ReadOnly have in common.
type viewer interface {
	Stats() buffer.Stats
	Ledger() []buffer.Account
	Segments() []buffer.SegmentInfo
	Scan(ctx context.Context, from, to uint64, f func(*buffer.Record) error) error
	Verify(ctx context.Context, progress func(done, all int64)) (*buffer.Verification, error)
	Quarantine() ([]*buffer.Quarantined, error)
}

func statusOf(v viewer) (*StoreStatus, error) {
	q, err := v.Quarantine()
	return &StoreStatus{Stats: v.Stats(), Segments: v.Segments(), Ledger: v.Ledger(), Quarantine: len(q)}, err
}

// scan gives the records of the query to f, and calls look for each that it looks at, wanted or not. Segments whose times are all outside of it are not read.
func scan(ctx context.Context, v viewer, q Query, look func(), f func(*StoredRecord) error) error {
	if q.To == 0 {
		q.To = math.MaxUint64
	}
	s := scanner{q: q, look: look, f: f, known: map[*buffer.Stream]*StoredStream{}, named: map[string]*StoredStream{}}
	var damage error
	read := func(from, to uint64) error {
		if from >= to {
			return nil
		}
		err := v.Scan(ctx, from, to, s.give)
		if err == nil || s.err != nil || ctx.Err() != nil {
			return err
		}
		damage = errors.Join(damage, err) // the rest is given
		return nil
	}
	pos := q.From
	for _, seg := range v.Segments() {
		if !seg.Sealed || (seg.MaxAt >= q.from() && seg.MinAt < q.to()) {
			continue
		}
		if err := read(pos, min(seg.FirstSeq, q.To)); err != nil {
			return err
		}
		pos = max(pos, seg.LastSeq+1)
	}
	if err := read(pos, q.To); err != nil {
		return err
	}
	return damage
}

// scanner turns the buffer's records into stored ones.
type scanner struct {
	q     Query
	look  func()
	f     func(*StoredRecord) error
	err   error // of f
	out   StoredRecord
	known map[*buffer.Stream]*StoredStream
	named map[string]*StoredStream // by device and schema: each segment has streams of its own
}

func (s *scanner) give(r *buffer.Record) error {
	s.look()
	if !s.q.has(r) {
		return nil
	}
	s.out = StoredRecord{Stream: s.stream(r.Stream), Epoch: r.Epoch, Seq: r.Seq, Payload: r.Payload, At: r.At, Readings: r.Readings, Gap: r.Gap}
	s.err = s.f(&s.out)
	return s.err
}

func (s *scanner) stream(of *buffer.Stream) *StoredStream {
	if st := s.known[of]; st != nil {
		return st
	}
	if len(s.known) >= maxKnownStreams {
		clear(s.known)
	}
	schema := of.Dict()
	name := of.Account() + "\x00" + string(schema)
	st := s.named[name]
	if st == nil {
		st = &StoredStream{ID: len(s.named), Device: of.Account(), Schema: schema}
		s.named[name] = st
	}
	s.known[of] = st
	return st
}

const maxKnownStreams = 1 << 12

// stopped is a store that no gateway runs on. It is looked at without changing anything, and opened in
// earnest only for what changes it.
type stopped struct {
	*buffer.ReadOnly
	dir     string
	maxSize int64
	found   []string // see Store.Found
}

// OpenStore returns the store in a directory: through the gateway that runs on it, when one answers at its
// endpoint, else from the files, which is possible beside a process that does not answer, too. maxSize is its
// bound, for what is written back; 0 = not known.
func OpenStore(ctx context.Context, dir string, maxSize int64) (Store, error) {
	c, err := Dial(ctx, dir)
	if err == nil {
		return c, nil
	}
	if !errors.Is(err, ErrNoGateway) {
		return nil, err
	}
	ro, err := buffer.OpenReadOnly(dir)
	if err != nil {
		return nil, err
	}
	return &stopped{ReadOnly: ro, dir: dir, maxSize: maxSize}, nil
}

func (s *stopped) Status(context.Context) (*StoreStatus, error) {
	st, err := statusOf(s.ReadOnly)
	if err == nil {
		st.Holder = buffer.Holder(s.dir)
	}
	return st, err
}

func (s *stopped) Scan(ctx context.Context, q Query, f func(*StoredRecord) error) error {
	return scan(ctx, s.ReadOnly, q, func() {}, f)
}

func (s *stopped) Quarantine(context.Context) ([]*buffer.Quarantined, error) {
	return s.ReadOnly.Quarantine()
}

func (s *stopped) Close() error {
	s.ReadOnly.Close()
	return nil
}

func (s *stopped) Retry(_ context.Context, id string) (seq uint64, err error) {
	err = s.change(nil, func(b *buffer.Buffer) error {
		seq, err = b.Retry(id)
		return err
	})
	return seq, err
}

func (s *stopped) Delete(_ context.Context, id string) error {
	return s.change(nil, func(b *buffer.Buffer) error { return b.DeleteQuarantined(id) })
}

func (s *stopped) Forget(_ context.Context, destination string) (gone buffer.Forgotten, err error) {
	var others []string
	for _, d := range s.Stats().Destinations {
		if d.Name != destination {
			others = append(others, d.Name)
		}
	}
	if len(others) == 0 {
		return gone, fmt.Errorf("forget destination %q: the store has no other, and needs one; to start afresh, delete the directory", destination)
	}
	err = s.change(others, func(b *buffer.Buffer) error {
		gone, err = b.Forget(destination)
		return err
	})
	return gone, err
}

// boundless is the size bound of a store whose own is not known: only then does opening it drop nothing.
const boundless = 1 << 46

// change opens the store for f. It must not drop anything for want of room, so it would rather refuse.
func (s *stopped) change(destinations []string, f func(*buffer.Buffer) error) error {
	size := s.maxSize
	if size == 0 {
		size = boundless
	}
	b, err := buffer.Open(s.dir, buffer.Options{MaxSize: size, WhenFull: buffer.DropNewest, Destinations: destinations})
	if errors.Is(err, buffer.ErrInUse) {
		return fmt.Errorf("%w; a process runs on this store, but nothing answers at %q in it, so it can only be looked at", err, socketName)
	}
	if err != nil {
		return err
	}
	s.find(b)
	return errors.Join(f(b), b.Close())
}

// find notes what opening the store has found. It stands in the store for the next start to tell, too.
func (s *stopped) find(b *buffer.Buffer) {
	st := b.Stats()
	if st.Before == buffer.BeforeUnknown || st.Before == buffer.BeforeGone {
		s.found = append(s.found, "state.db was lost or damaged and was written anew: nobody knows what was in memory at the last stop")
	}
	for i := range st.Damage {
		d := &st.Damage[i]
		s.found = append(s.found, fmt.Sprintf("%s: %s, readings lost: %s", d.File, d.Reason, d.Lost()))
	}
	if more := st.Damages - uint64(len(st.Damage)); more > 0 {
		s.found = append(s.found, fmt.Sprintf("and %d more", more))
	}
}

func (s *stopped) Found() []string { return s.found }

// Found is Store.Found.
func (c *Client) Found() []string { return nil }
