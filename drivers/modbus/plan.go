package modbus

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"millrace/drivers"
)

// group is one poll group with its plan. The plan is of spans: what one request would cover if the device
// had every register in between. What the device then refuses is learned, see learn.go.
type group struct {
	unit  uint8
	tags  int
	spans []*span
	texts []string // the last text of each string tag, by tag; nil without strings
	polls int      // how many polls there were
}

// span is a stretch of one table that one request can read, and how it is read now.
type span struct {
	table  table
	atoms  []atom
	ops    []op
	cuts   []bool    // cuts[i]: the device refuses atoms i-1 and i in one request
	blocks []*block  // the present requests, in order: together they hold every atom once
	good   bool      // some block was good when the present poll began
	again  bool      // forget at the end of this poll what was learned
	dead   time.Time // when last every atom had been refused by itself
}

// atom is what is read or refused as a whole: the registers of a value, for all the tags that read them.
type atom struct {
	reg, count uint32
	ops        int // the atom's ops end here; they begin where those of the atom before end
}

// block is a run of atoms that is read by one request, and how the device took the last one.
type block struct {
	*span
	lo, hi       int // atoms
	first, count uint32
	ops          []op
	refused      string // the exception for which it was split off, until it is asked itself
	health
}

// newGroup plans the requests of a group.
func newGroup(fields []field, dev *settings) *group {
	g := &group{unit: dev.unit, tags: len(fields)}
	tags := make([]int, len(fields))
	for i := range tags {
		tags[i] = i
		if fields[i].kind == kindString && g.texts == nil {
			g.texts = make([]string, len(fields))
		}
	}
	slices.SortStableFunc(tags, func(a, b int) int {
		x, y := &fields[a], &fields[b]
		return cmp.Or(cmp.Compare(x.table, y.table), cmp.Compare(x.number, y.number), cmp.Compare(x.count, y.count))
	})
	var s *span
	for _, tag := range tags {
		f := &fields[tag]
		if s == nil || !s.takes(f, dev) {
			s = &span{table: f.table}
			g.spans = append(g.spans, s)
		}
		s.add(f, tag)
	}
	for _, s := range g.spans {
		s.reset()
	}
	return g
}

// takes reports whether reading the field with the span is cheaper than with a request of its own, and
// allowed: within the limit of one request, and not across more than max_gap registers nobody asked for.
func (s *span) takes(f *field, dev *settings) bool {
	limit, gap := uint32(dev.maxRegisters), uint32(dev.maxGap)
	if s.table.bits() {
		limit, gap = 16*limit, 16*gap
	}
	first, end := s.extent(0, len(s.atoms))
	return s.table == f.table && f.number <= end+gap && f.number+uint32(f.count)-first <= limit
}

// extent returns the registers of the atoms lo to hi: the first and the one after the last. Atoms are in
// order of their first register, but a long one may end after a later one.
func (s *span) extent(lo, hi int) (first, end uint32) {
	for _, a := range s.atoms[lo:hi] {
		end = max(end, a.reg+a.count)
	}
	return s.atoms[lo].reg, end
}

func (s *span) add(f *field, tag int) {
	s.ops = append(s.ops, op{reg: f.number, tag: uint32(tag), kind: f.kind, order: f.order, arg: uint16(max(f.bit, 0) + f.length)})
	if n := len(s.atoms); n > 0 && s.atoms[n-1].reg == f.number && s.atoms[n-1].count == uint32(f.count) {
		s.atoms[n-1].ops++
		return
	}
	s.atoms = append(s.atoms, atom{reg: f.number, count: uint32(f.count), ops: len(s.ops)})
}

// reset forgets what was learned: the span is one block again.
func (s *span) reset() {
	s.cuts, s.dead = make([]bool, len(s.atoms)), time.Time{}
	s.blocks = []*block{s.block(0, len(s.atoms))}
}

// block returns a block of the atoms lo to hi.
func (s *span) block(lo, hi int) *block {
	from := 0
	if lo > 0 {
		from = s.atoms[lo-1].ops
	}
	first, end := s.extent(lo, hi)
	return &block{span: s, lo: lo, hi: hi, first: first, count: end - first, ops: s.ops[from:s.atoms[hi-1].ops]}
}

// String says the block in words: holding 100-148 (49 registers, 20 tags).
func (b *block) String() string {
	unit := "register"
	if b.table.bits() {
		unit = "bit"
	}
	where := fmt.Sprintf("%s %d", b.table, b.first)
	if b.count > 1 {
		where += fmt.Sprintf("-%d", b.first+b.count-1)
	}
	return fmt.Sprintf("%s (%s, %s)", where, plural(int(b.count), unit), plural(len(b.ops), "tag"))
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// Plan says in words which requests the next poll makes, and what it leaves out because the device refused it.
func (d *driver) Plan(ref drivers.Ref) []string {
	var lines []string
	for _, s := range d.groups[ref.Device][ref.Group].spans {
		for _, b := range s.blocks {
			if b.reason != "" {
				lines = append(lines, fmt.Sprintf("leave out %s: %s", b, b.reason))
			} else {
				lines = append(lines, "read "+b.String())
			}
		}
	}
	return lines
}
