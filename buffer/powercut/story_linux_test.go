package powercut

import (
	"fmt"
	"math"
	"reflect"
	"slices"

	"millrace/buffer"
)

const never = math.MaxInt

// fact is what is known of one record, each with the moment from which on it is known.
type fact struct {
	seq, id  uint64      // id 0: a gap record
	epoch    string      // that it was appended in
	gap      *buffer.Gap // of a gap record
	account  string      // likewise
	handed   int         // somebody outside the store knew the sequence number
	promised int         // the store said that it is durable
	dropping int         // the store may have begun to drop it for want of room
	dests    [2]destFact
}

type destFact struct {
	seen     int // a reader handed it out
	settling int // the destination was about to acknowledge or to reject it
}

// phase is what went on between two moments.
type phase struct {
	name     string
	from, to int
}

// story is all that a workload reported, in the disk's moments. Whatever is noted late is noted in the
// store's favour: a moment is that of the report's arrival, after which the workload goes on.
type story struct {
	strict   bool
	facts    map[uint64]*fact
	epoch    string // of the process at work
	phases   []phase
	last     int    // moment of the last report
	dropLook int    // in how many looks to come a file may yet go that the store has counted as dropped
	looks    [2]int // moments of the last report that had looked at the directory, and of the one before
	durable  uint64
	open     []*fact // not promised yet
	segments []string
}

func newStory(strict bool) *story {
	return &story{strict: strict, facts: map[uint64]*fact{}}
}

// fact returns the fact of a sequence number, new if need be.
func (s *story) fact(seq uint64, at int) *fact {
	f := s.facts[seq]
	if f == nil {
		f = &fact{seq: seq, handed: at, promised: never, dropping: never}
		for i := range f.dests {
			f.dests[i] = destFact{seen: never, settling: never}
		}
		s.facts[seq] = f
		s.open = append(s.open, f)
	}
	return f
}

// hear notes a report that arrived at a moment.
func (s *story) hear(r *report, at int) error {
	if r.Err != "" {
		return fmt.Errorf("workload: %s", r.Err)
	}
	if r.Epoch != "" {
		if s.epoch == r.Epoch {
			return fmt.Errorf("a new process has the epoch %s again", s.epoch)
		}
		s.epoch = r.Epoch
	}
	for _, h := range r.Appended {
		f := s.fact(h.Seq, at)
		if f.id != 0 || f.gap != nil {
			return fmt.Errorf("sequence number %d was given to id %d and to id %d, gap %v", h.Seq, h.ID, f.id, f.gap)
		}
		f.id, f.epoch = h.ID, s.epoch
	}
	if err := s.hearReaders(r, at); err != nil {
		return err
	}
	s.promise(max(s.durable, r.Durable), at)
	s.hearSegments(r, at)
	s.last = at
	return nil
}

func (s *story) hearReaders(r *report, at int) error {
	for _, n := range r.Seen {
		f := s.fact(n.Seq, at)
		if (f.id == 0) != (n.Gap != nil) || f.gap != nil && !reflect.DeepEqual(f.gap, n.Gap) {
			return fmt.Errorf("record %d was id %d, gap %v, and is gap %v", n.Seq, f.id, f.gap, n.Gap)
		}
		f.gap, f.account = n.Gap, n.Account
		d := &f.dests[n.Dest]
		d.seen = min(d.seen, at)
		if s.strict {
			f.promised = min(f.promised, at) // a reader in strict mode shows nothing that is not durable
		}
	}
	for _, n := range r.Settling {
		d := &s.fact(n.Seq, at).dests[n.Dest]
		d.settling = min(d.settling, at)
	}
	return nil
}

// promise notes that every record up to durable is on disk or needs no disk.
func (s *story) promise(durable uint64, at int) {
	s.durable = durable
	s.open = slices.DeleteFunc(s.open, func(f *fact) bool {
		if f.seq <= durable {
			f.promised = min(f.promised, at)
		}
		return f.promised != never
	})
}

// hearSegments finds out what happened to the segments since the last look at the directory.
func (s *story) hearSegments(r *report, at int) {
	name := r.Phase
	if r.Looked {
		s.dropLook = max(s.dropLook-1, 0)
		if r.Dropped {
			s.dropLook = 3
		}
		gone := slices.ContainsFunc(s.segments, func(old string) bool { return !slices.Contains(r.Segments, old) })
		switch {
		case name != "":
		case gone && s.dropLook > 0:
			name = "drop"
		case gone:
			name = "delete"
		case slices.ContainsFunc(r.Segments, func(now string) bool { return !slices.Contains(s.segments, now) }):
			name = "rotate"
		}
		s.segments = r.Segments
	}
	if r.Looked && s.dropLook > 0 { // it went after the last look, which was after the report of the one before
		for _, f := range s.facts {
			if f.seq < r.OldestSeq {
				f.dropping = min(f.dropping, s.looks[1])
			}
		}
	}
	if r.Looked {
		s.looks = [2]int{at, s.looks[0]}
	}
	if name == "" {
		name = "append"
	}
	if n := len(s.phases); n > 0 && s.phases[n-1].name == name {
		s.phases[n-1].to = at
		return
	}
	s.phases = append(s.phases, phase{name: name, from: s.last, to: at})
}

// required reports whether a destination must get the record from a store whose power was cut at this moment.
func (f *fact) required(dest, at int) bool {
	d := &f.dests[dest]
	if f.gap != nil && d.seen == never {
		return false // it may be meant for the other one
	}
	return f.promised <= at && d.settling > at && f.dropping > at
}

// excused reports whether the record was promised and is needed, but may have been dropped for want of room.
func (f *fact) excused(dest, at int) bool {
	return f.promised <= at && f.dests[dest].settling > at && f.dropping <= at
}

// is reports whether a record is the one that the fact is about.
func (f *fact) is(rec *buffer.Record) bool {
	if f.gap != nil || rec.Gap != nil {
		return f.gap != nil && rec.Gap != nil && reflect.DeepEqual(f.gap, rec.Gap)
	}
	return f.id == idOf(rec.Payload) && f.epoch == rec.Epoch
}

// after returns what is known to who goes on from a disk cut at this moment, on which these records were found.
func (s *story) after(at int, found [2]map[uint64]*buffer.Record) *story {
	next := newStory(s.strict)
	next.epoch = s.epoch
	for seq, f := range s.facts {
		n := *f
		n.handed, n.promised, n.dropping = since(f.handed, at), never, never
		survived := false
		for i := range n.dests {
			d := &n.dests[i]
			d.seen, d.settling = since(d.seen, at), never
			if rec := found[i][seq]; rec != nil && f.is(rec) {
				survived = true
				n.handed = 0
			} else {
				d.settling = 0
			}
		}
		if survived {
			n.promised = 0
		}
		if n.handed == 0 {
			next.facts[seq] = &n
		}
	}
	return next
}

// since says of something known at a moment whether it is known at the beginning of the next story.
func since(known, at int) int {
	if known <= at {
		return 0
	}
	return never
}
