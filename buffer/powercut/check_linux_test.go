package powercut

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"millrace/buffer"
)

const freshID = 1 << 40 // ids of records appended after a power cut begin here

// verdict is what a store was found to be after a power cut.
type verdict struct {
	lost      int  // records promised to a destination and not there, each destination counted
	required  int  // and those that had to be there
	excused   int  // not there, but dropped for want of room
	repaired  bool // the file system needed e2fsck
	unmounted bool // and that did not help
	torn      bool // a sector was torn: what looks like damage is damage
	damages   uint64
	problems  []error // everything that breaks a promise, lost records among it
	found     [2]map[uint64]*buffer.Record
}

const maxProblems = 8

func (v *verdict) problem(format string, args ...any) {
	if len(v.problems) < maxProblems {
		v.problems = append(v.problems, fmt.Errorf(format, args...))
	}
}

// check opens the store that a power cut left and compares it with the story.
func check(dir string, p *plan, s *story, c crash, again bool) (v *verdict) {
	at := c.at
	v = &verdict{torn: c.manner == tearSector}
	defer func() {
		if r := recover(); r != nil {
			v.problem("panic: %v", r)
		}
	}()
	b, err := buffer.Open(dir, p.options())
	if err != nil {
		v.problem("open: %w", err)
		v.lost = s.countRequired(at)
		return v
	}
	v.inspect(b, p, s, at)
	fresh := v.appendFresh(b, p, s, at)
	if err := b.Close(); err != nil {
		v.problem("close: %w", err)
	}
	v.checkSize(dir, p)
	if again {
		v.reopen(dir, p, s, at, fresh)
	}
	return v
}

func (s *story) countRequired(at int) (n int) {
	for _, f := range s.facts {
		for dest := range f.dests {
			if f.required(dest, at) {
				n++
			}
		}
	}
	return n
}

// inspect reads everything and holds it against the story and the ledger.
func (v *verdict) inspect(b *buffer.Buffer, p *plan, s *story, at int) {
	if b.Epoch() == s.epoch {
		v.problem("a new process has the epoch %s again", s.epoch)
	}
	for dest := range v.found {
		v.found[dest] = v.read(b, dest)
		v.compare(s, dest, at)
	}
	v.checkLedger(b, p)
	stats := b.Stats()
	if v.damages = stats.Damages; v.damages > 0 && !v.torn {
		v.problem("a power cut was taken for damage: %v", stats.Damage)
	}
	if stats.Health != "ok" {
		v.problem("health after opening: %s", stats.Health)
	}
}

// read returns all that a destination gets.
func (v *verdict) read(b *buffer.Buffer, dest int) map[uint64]*buffer.Record {
	d := b.Destination(destinations()[dest])
	found := map[uint64]*buffer.Record{}
	next := uint64(0)
	for {
		got := 0
		r := d.Reader(next, 0)
		for {
			rec := new(buffer.Record)
			ok, err := r.Next(rec)
			if err != nil {
				v.problem("read for %s: %w", d.Name(), err)
				d.Reset()
				return found
			}
			if !ok {
				break
			}
			if rec.Seq < next {
				v.problem("%s got record %d after %d", d.Name(), rec.Seq, next-1)
			}
			got, next = got+1, rec.Seq+1
			if rec.Gap == nil {
				if err := compare(rec); err != nil {
					v.problem("%s got a wrong value: %w", d.Name(), err)
				}
				rec.Payload = append([]byte(nil), rec.Payload[:min(8, len(rec.Payload))]...) // the id; the rest was compared
			}
			found[rec.Seq] = rec
		}
		d.Reset()
		if got < buffer.MaxInFlight {
			return found
		}
	}
}

// compare holds what a destination got against what is known.
func (v *verdict) compare(s *story, dest, at int) {
	name, found := destinations()[dest], v.found[dest]
	for seq, rec := range found {
		f := s.facts[seq]
		switch {
		case f == nil && rec.Gap == nil:
			v.problem("%s got record %d (id %d), which nobody appended", name, seq, idOf(rec.Payload))
		case f == nil:
		case rec.Gap != nil && f.handed > at: // a new gap record, under a number that was given out after the power cut
		case !f.is(rec):
			v.problem("%s got id %d, epoch %s, gap %v as record %d, which was id %d, epoch %s, gap %v", name, idOf(rec.Payload), rec.Epoch, rec.Gap, seq, f.id, f.epoch, f.gap)
		}
	}
	for seq, f := range s.facts {
		_, there := found[seq]
		switch {
		case f.required(dest, at):
			v.required++
			if !there {
				v.lost++
				v.problem("%s lost record %d (id %d, gap %v), promised at request %d", name, seq, f.id, f.gap, f.promised)
			}
		case f.excused(dest, at) && !there:
			v.excused++
		}
	}
}

// checkLedger holds the equation, and holds it against the records there are.
func (v *verdict) checkLedger(b *buffer.Buffer, p *plan) {
	for _, a := range b.Ledger() {
		for dest, d := range a.Destinations {
			sum := d.Before + d.Delivered + d.Buffered + d.InFlight + d.Lost()
			if a.Accepted != sum {
				v.problem("ledger of %s at %s: accepted %d, but in all %d: %+v", a.Name, d.Name, a.Accepted, sum, d)
			}
			if n := v.readings(dest, a.Name); d.Buffered != n || d.InFlight != 0 {
				v.problem("ledger of %s at %s: %d buffered and %d in flight, but %d are there", a.Name, d.Name, d.Buffered, d.InFlight, n)
			}
			if n := d.Dropped[buffer.CauseDamaged]; n > 0 && !v.torn {
				v.problem("ledger of %s at %s: %d lost to damage", a.Name, d.Name, n)
			}
			if n := d.Dropped[buffer.CauseFull]; n > 0 && !p.Tight {
				v.problem("ledger of %s at %s: %d dropped for want of room, of which there was enough", a.Name, d.Name, n)
			}
		}
	}
}

func (v *verdict) readings(dest int, account string) (n uint64) {
	for _, rec := range v.found[dest] {
		if rec.Stream.Account() == account {
			n += uint64(rec.Readings)
		}
	}
	return n
}

// appendFresh appends a few records: their numbers must be new to everybody.
func (v *verdict) appendFresh(b *buffer.Buffer, p *plan, s *story, at int) (fresh [2]map[uint64]uint64) {
	fresh = [2]map[uint64]uint64{{}, {}}
	for i := range uint64(5) {
		id, before := freshID+i, droppedFull(b)
		seq, err := appendTo(b, id)
		if errors.Is(err, buffer.ErrFull) && p.Tight {
			continue
		}
		if err != nil {
			v.problem("append after the power cut: %w", err)
			continue
		}
		for dest, n := range droppedFull(b) {
			if n == before[dest] { // else it was refused for this one alone
				fresh[dest][seq] = id
			}
		}
		f := s.facts[seq]
		if f != nil && f.handed <= at || v.found[0][seq] != nil || v.found[1][seq] != nil {
			v.problem("sequence number %d was used before and is given to another record", seq)
		}
	}
	return fresh
}

// checkSize adds up the directory.
func (v *verdict) checkSize(dir string, p *plan) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		v.problem("list the store: %w", err)
	}
	var sum int64
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil {
			v.problem("list the store: %w", err)
			continue
		}
		sum += info.Size()
	}
	if sum > p.MaxSize {
		v.problem("the store takes %d bytes, the bound is %d", sum, p.MaxSize)
	}
}

// reopen opens the store once more: nothing may have changed, but for what was appended. Losses that the
// first opening found must have left gap records by now.
func (v *verdict) reopen(dir string, p *plan, s *story, at int, fresh [2]map[uint64]uint64) {
	b, err := buffer.Open(dir, p.options())
	if err != nil {
		v.problem("open for the second time: %w", err)
		return
	}
	defer func() {
		if err := b.Close(); err != nil {
			v.problem("close for the second time: %w", err)
		}
	}()
	second := &verdict{torn: v.torn}
	for dest := range second.found {
		second.found[dest] = second.read(b, dest)
		for seq, rec := range v.found[dest] {
			now := second.found[dest][seq]
			if now == nil && !p.Tight || now != nil && string(now.Payload) != string(rec.Payload) {
				v.problem("record %d was there after the power cut, and is %v after another opening", seq, now)
			}
		}
		for seq, id := range fresh[dest] {
			if now := second.found[dest][seq]; now == nil || idOf(now.Payload) != id {
				v.problem("record %d, appended after the power cut, is gone after another opening", seq)
			}
		}
	}
	second.checkLedger(b, p)
	second.checkGaps(s, at)
	v.problems = append(v.problems, second.problems...)
}

// checkGaps sees to it that every record dropped for want of room is inside a gap record.
func (v *verdict) checkGaps(s *story, at int) {
	for dest, found := range v.found {
		told := map[string][]*buffer.Gap{}
		for _, rec := range found {
			if rec.Gap != nil {
				told[rec.Stream.Account()] = append(told[rec.Stream.Account()], rec.Gap)
			}
		}
		for _, f := range s.facts {
			if f.gap != nil && f.dests[dest].settling <= at {
				told[f.account] = append(told[f.account], f.gap)
			}
		}
		for _, f := range s.facts {
			if f.gap != nil || !f.excused(dest, at) || found[f.seq] != nil {
				continue
			}
			if !isInside(f.seq, told[contentOf(f.id).account]) {
				v.problem("%s lost record %d (id %d) for want of room, and no gap record says so", destinations()[dest], f.seq, f.id)
			}
		}
	}
}

func isInside(seq uint64, gaps []*buffer.Gap) bool {
	for _, g := range gaps {
		if g.FirstSeq <= seq && seq <= g.LastSeq {
			return true
		}
	}
	return false
}
