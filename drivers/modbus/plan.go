package modbus

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"millrace/drivers"
	"millrace/drivers/telemetry"
)

// group is one poll group with its plan. The plan is of spans: what one request would cover if the device
// had every register in between. What the device then refuses is learned, see learn.go.
type group struct {
	unit    *unit
	tags    int
	fields  []field
	spans   []*span
	areas   []*area   // one for each table of the group
	texts   []kept    // the last text of each string tag, by tag; nil without strings
	polls   int       // how many polls there were
	exact   int       // the poll up to which even the last answer keeps its own time
	doubts  bool      // some gap is to be tried
	doubt   doubt     // the one that is
	retried time.Time // when cuts were last tried again, and
	turn    int       // which one is next
	seams   []seam    // cuts that are tried again sooner
}

// area is a table of a group, as a device may refuse it whole.
type area struct {
	table    table
	spans    []*span
	atoms    int
	turn     int  // which single register is asked next
	alone    int  // single registers tried alone in this poll
	answered bool // in this poll
	health        // a reason: the table is given up
}

// span is a stretch of one table that one request can read, and how it is read now.
type span struct {
	table  table
	unit   *unit
	area   *area
	atoms  []atom
	ops    []op
	cuts   []cut    // cuts[i]: what is known of one request for atoms i-1 and i
	blocks []*block // the present requests, in order: together they hold every atom once
	good   bool     // some block was good when the present poll began
	again  bool     // forget at the end of this poll what was learned
}

// atom is what is read or refused as a whole: the registers of a value, for all the tags that read them.
type atom struct {
	reg, count uint32
	ops        uint32 // the atom's ops end here; they begin where those of the atom before end
}

// block is a run of atoms that is read by one request, and how the device took the last one.
type block struct {
	*span
	lo, hi       int // atoms
	first, count uint32
	ops          []op
	half         refusal // of the block that it is a half of, until it is asked itself
	waiting      refusal // its own, until it is known what it means
	proved       bool    // it was answered as it is
	asked        bool    // in this poll, while the lanes worked
	twice        bool    // it is asked once more in this poll
	run          int     // requests for it in a row that failed
	probe        bool    // one register alone, beside the plan, to learn whether anything answers
	trial        bool    // beside the plan, to learn whether a longer request is answered
	across       int     // of a trial: the boundary across which it reads, 0 = it is about the length
	piece        bool    // of a block that was cut at its gaps
	health
}

// newGroup plans the requests of a group.
func newGroup(fields []field, u *unit) *group {
	g := &group{unit: u, tags: len(fields), fields: fields}
	tags := make([]int, len(fields))
	for i := range tags {
		tags[i] = i
		if fields[i].kind.long() && g.texts == nil {
			g.texts = make([]kept, len(fields))
		}
	}
	slices.SortStableFunc(tags, func(a, b int) int {
		x, y := &fields[a], &fields[b]
		return cmp.Or(cmp.Compare(x.table, y.table), cmp.Compare(x.number, y.number), cmp.Compare(x.count, y.count))
	})
	var run *span                                  // what may be read together but for the length of a request
	end, ops := uint32(0), make([]op, len(fields)) // one piece for all spans, without room to grow
	for i, tag := range tags {
		f := &fields[tag]
		if run == nil || !u.joins(run.table, end, f) {
			g.add(run)
			run, end = &span{table: f.table, unit: u, ops: ops[i:i]}, 0
		}
		run.add(f, tag)
		end = max(end, f.number+uint32(f.count))
	}
	g.add(run)
	return g
}

// joins reports whether a field may be read with what ends before a register of its table: not across more than max_gap
// registers nobody asked for, nor across a forbidden one.
func (s *settings) joins(t table, end uint32, f *field) bool {
	gap := uint32(s.maxGap)
	if t.bits() {
		gap *= 16
	}
	return t == f.table && f.number <= end+gap && !(f.number > end && s.forbids(t, end, f.number-1))
}

// add cuts a run into spans, in the cheapest way, and takes them into the plan.
func (g *group) add(run *span) {
	if run == nil {
		return
	}
	if len(g.areas) == 0 || g.areas[len(g.areas)-1].table != run.table {
		g.areas = append(g.areas, &area{table: run.table})
	}
	a := g.areas[len(g.areas)-1]
	run.cuts = make([]cut, len(run.atoms))
	lo := 0
	for _, hi := range run.partition(0, len(run.atoms)) {
		b := run.block(lo, hi)
		s := &span{table: run.table, unit: run.unit, area: a, ops: b.ops, atoms: slices.Clone(run.atoms[lo:hi])}
		for i := range s.atoms {
			s.atoms[i].ops -= uint32(run.opsBefore(lo))
		}
		s.reset()
		g.spans, a.spans, a.atoms = append(g.spans, s), append(a.spans, s), a.atoms+len(s.atoms)
		lo = hi
	}
}

func (s *span) add(f *field, tag int) {
	s.ops = append(s.ops, op{reg: f.number, tag: uint32(tag), kind: f.kind, order: f.order, arg: f.arg(), check: f.check() != nil})
	if n := len(s.atoms); n > 0 && s.atoms[n-1].reg == f.number && s.atoms[n-1].count == uint32(f.count) {
		s.atoms[n-1].ops++
		return
	}
	s.atoms = append(s.atoms, atom{reg: f.number, count: uint32(f.count), ops: uint32(len(s.ops))})
}

// opsBefore is how many ops the atoms before one have.
func (s *span) opsBefore(atom int) int {
	if atom == 0 {
		return 0
	}
	return int(s.atoms[atom-1].ops)
}

// extent returns the registers of the atoms lo to hi: the first and the one after the last. Atoms are in
// order of their first register, but a long one may end after a later one.
func (s *span) extent(lo, hi int) (first, end uint32) {
	for _, a := range s.atoms[lo:hi] {
		end = max(end, a.reg+a.count)
	}
	return s.atoms[lo].reg, end
}

// touch reports whether the atoms before one reach up to it, so that one request for both reads nothing besides.
func (s *span) touch(atom int) bool {
	_, end := s.extent(0, atom)
	return s.atoms[atom].reg <= end
}

// limit is the most registers of one request, by the config and by what was learned.
func (s *span) limit() uint32 {
	most := uint32(s.unit.maxRegisters)
	if s.table.bits() {
		most = uint32(s.unit.maxBits)
	}
	return min(most, s.unit.limitOf(s.table).most())
}

// partition returns where to end each request for the atoms lo to hi, so that they take the least time on the line: few
// requests, and of these the shortest. Equal ones are as long as possible from the left. It looks at each atom once for
// every atom that one request can hold.
func (s *span) partition(lo, hi int) []int {
	most := s.limit()
	cost, next := make([]time.Duration, hi-lo+1), make([]int, hi-lo)
	for i := hi - 1; i >= lo; i-- {
		end := uint32(0)
		for j := i; j < hi; j++ {
			end = max(end, s.atoms[j].reg+s.atoms[j].count)
			count := end - s.atoms[i].reg
			if j > i && (count > most || s.cuts[j].apart()) {
				break
			}
			if c := s.unit.price(s.table, count) + cost[j+1-lo]; j == i || c <= cost[i-lo] {
				cost[i-lo], next[i-lo] = c, j+1
			}
		}
	}
	var ends []int
	for i := lo; i < hi; i = next[i-lo] {
		ends = append(ends, next[i-lo])
	}
	return ends
}

// price is how long a request for so many registers takes on the line; on a network, where nobody knows what stands behind
// it, one request is worth any number of registers.
func (s *settings) price(t table, count uint32) time.Duration {
	register, request := s.register, s.request
	if register == 0 {
		register, request = time.Microsecond, time.Second
	}
	if t.bits() {
		return request + time.Duration(count)*register/16
	}
	return request + time.Duration(count)*register
}

// chunks returns blocks for the atoms lo to hi.
func (s *span) chunks(lo, hi int) []*block {
	var blocks []*block
	for _, end := range s.partition(lo, hi) {
		blocks = append(blocks, s.block(lo, end))
		lo = end
	}
	return blocks
}

// reset forgets what was learned of the span's registers, but not of the gaps between them.
func (s *span) reset() {
	cuts := make([]cut, len(s.atoms))
	for i := range s.gaps(0, len(s.cuts)) {
		cuts[i] = s.cuts[i]
	}
	s.cuts = cuts
	s.blocks = s.chunks(0, len(s.atoms))
}

// block returns a block of the atoms lo to hi.
func (s *span) block(lo, hi int) *block {
	first, end := s.extent(lo, hi)
	return &block{span: s, lo: lo, hi: hi, first: first, count: end - first, ops: s.ops[s.opsBefore(lo):s.atoms[hi-1].ops]}
}

// stale reports whether the plan was made anew, or the block divided, since it was queued.
func (b *block) stale() bool {
	return !b.probe && !b.trial && !slices.Contains(b.span.blocks, b)
}

// replace puts blocks of the same atoms in the place of one.
func (s *span) replace(b *block, by ...*block) {
	i := slices.Index(s.blocks, b)
	s.blocks = slices.Replace(s.blocks, i, i+1, by...)
}

// join plans the requests for each run of good blocks anew.
func (s *span) join() {
	var joined []*block
	for i := 0; i < len(s.blocks); {
		j := i
		for j < len(s.blocks) && s.blocks[j].reason == "" {
			j++
		}
		switch {
		case j == i:
			joined = append(joined, s.blocks[i])
			j++
		case j == i+1 && s.blocks[i].count <= s.limit():
			joined = append(joined, s.blocks[i])
		default:
			joined = append(joined, s.chunks(s.blocks[i].lo, s.blocks[j-1].hi)...)
		}
		i = j
	}
	s.blocks = joined
}

// single returns a block of one atom of the table, another one each time.
func (a *area) single() *block {
	const stride = 61 // so that a few tries look at different ends
	n := a.turn * stride % a.atoms
	if a.atoms%stride == 0 {
		n = a.turn % a.atoms
	}
	a.turn++
	for _, s := range a.spans {
		if n < len(s.atoms) {
			b := s.block(n, n+1)
			b.probe = true
			return b
		}
		n -= len(s.atoms)
	}
	panic("BUG: a table without atoms")
}

// String says the block in words: holding 100-148 (49 registers, 20 tags).
func (b *block) String() string {
	what := "register"
	if b.table.bits() {
		what = "bit"
	}
	where := fmt.Sprintf("%s %d", b.table, b.first)
	if b.count > 1 {
		where += fmt.Sprintf("-%d", b.first+b.count-1)
	}
	return fmt.Sprintf("%s (%s, %s)", where, telemetry.Count(int(b.count), what), telemetry.Count(len(b.ops), "tag"))
}

// Plan says in words which requests the next poll makes, and what it leaves out because the device refused it.
func (d *driver) Plan(ref drivers.Ref) []string {
	g := d.groups[ref.Device][ref.Group]
	var lines []string
	for _, a := range g.areas {
		if a.reason != "" {
			lines = append(lines, fmt.Sprintf("leave out all of table %s: %s", a.table, a.reason))
			continue
		}
		for _, s := range a.spans {
			for _, b := range s.blocks {
				if b.reason != "" {
					lines = append(lines, fmt.Sprintf("leave out %s: %s", b, b.reason))
				} else {
					lines = append(lines, "read "+b.String()+g.unit.duration(b))
				}
			}
		}
	}
	return lines
}

// duration says how long a request takes on a serial line, the device's own time left aside.
func (s *settings) duration(b *block) string {
	if s.register == 0 {
		return ""
	}
	return fmt.Sprintf(", about %v on the line", s.price(b.table, b.count).Round(time.Millisecond))
}
