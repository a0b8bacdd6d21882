package powercut

import (
	"encoding/gob"
	"fmt"
	"io"
	"sync"
	"time"

	"millrace/buffer"
)

// destinations of every store: the first acknowledges what it gets, the second is slow and untidy.
func destinations() []string { return []string{"cloud", "plant"} }

// plan is what a workload does. It goes to the workload's process as JSON.
type plan struct {
	Name      string
	Seed      uint64
	Device    string // the block device with the file system
	Mount     string // mount options
	Strict    bool
	Producers int
	WhenFull  buffer.Policy
	MaxSize   int64
	Cycles    int    // times the store is opened
	Recovers  bool   // the first opening is after a power cut
	Steps     int    // of each cycle
	Outage    bool   // nobody reads before the last quarter of a cycle
	Hoard     bool   // the second destination acknowledges nothing
	Tight     bool   // the store is meant to run full
	FirstID   uint64 // of the first record
	NoSync    bool   // the negative control: fsync does nothing
}

// options returns the store's options.
func (p *plan) options() buffer.Options {
	o := buffer.Options{MaxSize: p.MaxSize, SegmentSize: 256 << 10, CommitInterval: 5 * time.Millisecond,
		WhenFull: p.WhenFull, Destinations: destinations()}
	if p.Strict {
		o.CommitInterval = 0
	}
	return o
}

// handedOut is a record that got its sequence number.
type handedOut struct{ Seq, ID uint64 }

// seen is what a destination got from a reader.
type seen struct {
	Dest    int
	Seq     uint64
	Account string
	Gap     *buffer.Gap
}

// settled is a record that a destination is about to acknowledge or to reject.
type settled struct {
	Dest int
	Seq  uint64
}

// report is what the workload tells the recorder, which answers when it has noted it. The store has kept
// its word at every moment after that only if everything reported as promised survives.
type report struct {
	Phase     string // what was going on since the last report, when it was more than appending
	Mounted   bool
	Epoch     string // after Open
	Appended  []handedOut
	Durable   uint64 // every record up to here is on disk or needs no disk, says the store
	Seen      []seen
	Settling  []settled
	Looked    bool   // at the directory, and at the next three
	Dropped   bool   // segments were dropped since the last look
	OldestSeq uint64 // the first of the oldest segment, or the next record's when there is none
	Segments  []string
	Err       string
}

// link is the workload's end of the wire. It may be used by several goroutines.
type link struct {
	mu  sync.Mutex
	out *gob.Encoder
	in  io.Reader
}

// send reports and waits for the answer.
func (l *link) send(r *report) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.out.Encode(r); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	var answer [1]byte
	if _, err := io.ReadFull(l.in, answer[:]); err != nil {
		return fmt.Errorf("wait for the recorder: %w", err)
	}
	return nil
}

// listen hears every report until the workload ends.
func listen(in io.Reader, out io.Writer, hear func(*report) error) error {
	dec := gob.NewDecoder(in)
	for {
		var r report
		if err := dec.Decode(&r); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read report: %w", err)
		}
		if err := hear(&r); err != nil {
			return err
		}
		if _, err := out.Write([]byte{1}); err != nil {
			return fmt.Errorf("answer report: %w", err)
		}
	}
}
