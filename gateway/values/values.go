// Package values keeps the last reading of every tag and lets others watch. The pipeline puts readings in, after scaling
// and before report by exception; the page, the API, commands and formats look. It promises that a Put never waits for
// a watcher, and that 50,000 tags take at most 8 MB.
package values

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"millrace/drivers/telemetry"
	"millrace/gateway/record"
)

// Table holds the last readings of all tags of a gateway. Its methods may be called from any goroutine.
type Table struct {
	mu     sync.Mutex
	groups []*Group // by device and group
	watch  watchers
}

// New returns an empty table.
func New() *Table { return &Table{} }

// Group is the tags of one poll group.
type Group struct {
	table    *Table
	schema   *record.Schema
	interval time.Duration

	mu   sync.Mutex
	tags []record.Tag // of the schema, or as the device has described them since
	at   int64        // of the last poll, µs since 1970; 0 = none yet
	last []last
	text map[uint32]string // texts and arrays
	lost map[uint32]losses
}

// losses is readings of a tag that are known to be missing.
type losses struct {
	count uint64
	at    int64 // when the last of them was noticed, µs since 1970
}

// LostFor is for how long a loss is told of: it belongs to the readings beside it, not to the tag for ever. Losses that come in
// shorter times are counted together.
const LostFor = 10 * time.Minute

// last is the last reading of a tag in 32 bytes; texts lie beside, reasons are shared.
type last struct {
	bits    uint64
	time    int64 // source time, µs since 1970
	reason  *string
	kind    telemetry.Kind
	quality telemetry.Quality
	read    bool
}

// Entry is one tag with its last reading.
type Entry struct {
	Device, Group string
	Tag           *record.Tag // not to be changed
	Interval      time.Duration
	At            int64 // of the last poll or push of the group by the gateway's clock, µs since 1970; 0 = not read yet
	Reading       telemetry.Reading
	Lost          uint64 // readings of a tag that is pushed, known to be missing; old ones too: see LostFor
	LostAt        int64  // when the last of them was noticed, µs since 1970; 0 = none is
}

// Group adds the group of a schema, or replaces the one of the same device and name.
func (t *Table) Group(s *record.Schema, interval time.Duration) *Group {
	g := &Group{table: t, schema: s, tags: s.Tags, interval: interval, last: make([]last, len(s.Tags))}
	t.mu.Lock()
	defer t.mu.Unlock()
	i, found := slices.BinarySearchFunc(t.groups, g, compare)
	if found {
		t.groups[i] = g
		return g
	}
	t.groups = slices.Insert(t.groups, i, g)
	return g
}

func compare(a, b *Group) int {
	return cmp.Or(cmp.Compare(a.schema.Device, b.schema.Device), cmp.Compare(a.schema.Group, b.schema.Group))
}

// Remove takes a group out, if it was not replaced meanwhile.
func (t *Table) Remove(g *Group) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.groups, g); i >= 0 {
		t.groups = slices.Delete(t.groups, i, i+1)
	}
}

// Put takes the readings of one poll or push: at is its time in µs since 1970. What a push leaves out is as it was. It keeps
// nothing of the slice.
func (g *Group) Put(at int64, readings []telemetry.Reading) {
	g.mu.Lock()
	g.at = at
	var reason *string // readings of one poll mostly share theirs
	for i := range readings {
		r := &readings[i]
		if int(r.Tag) >= len(g.last) {
			continue
		}
		l := &g.last[r.Tag]
		l.bits, l.time, l.read, l.kind, l.quality = r.Value.Bits, r.Time, true, r.Value.Kind, r.Quality
		l.reason = share(l.reason, &reason, r.Reason)
		if r.Value.Text != "" || g.text != nil {
			g.setText(r)
		}
	}
	g.mu.Unlock()
	g.table.watch.changed(g, at, readings)
}

// Describe replaces the tags by the same ones with more said of them, which are not changed any more.
func (g *Group) Describe(tags []record.Tag) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(tags) == len(g.tags) {
		g.tags = tags
	}
}

// share returns a pointer to the reason: the one that the tag has, or another of the same poll has, if it is equal.
func share(had *string, lately **string, reason string) *string {
	switch {
	case reason == "":
		return nil
	case had != nil && *had == reason:
		*lately = had
	case *lately == nil || **lately != reason:
		kept := reason
		*lately = &kept
	}
	return *lately
}

// Lose counts readings that the device had and that never came: one for each mention of a tag. at is when that was noticed, in
// µs since 1970.
func (g *Group) Lose(tags []uint32, at int64) {
	if len(tags) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lost == nil {
		g.lost = map[uint32]losses{}
	}
	for _, tag := range tags {
		if int(tag) >= len(g.last) {
			continue
		}
		l := g.lost[tag]
		if at-l.at >= LostFor.Microseconds() {
			l.count = 0
		}
		g.lost[tag] = losses{l.count + 1, at}
	}
}

func (g *Group) setText(r *telemetry.Reading) {
	if r.Value.Text == "" {
		delete(g.text, r.Tag)
		return
	}
	if g.text == nil {
		g.text = map[uint32]string{}
	}
	g.text[r.Tag] = r.Value.Text
}

// entry returns a tag's entry. g.mu is held.
func (g *Group) entry(tag int) Entry {
	l := &g.last[tag]
	e := Entry{Device: g.schema.Device, Group: g.schema.Group, Tag: &g.tags[tag], Interval: g.interval}
	lost := g.lost[uint32(tag)]
	e.Lost, e.LostAt = lost.count, lost.at
	if l.read {
		e.At = g.at
	}
	e.Reading = telemetry.Reading{Tag: uint32(tag), Time: l.time, Quality: l.quality,
		Value: telemetry.Value{Kind: l.kind, Bits: l.bits, Text: g.text[uint32(tag)]}}
	if l.reason != nil {
		e.Reading.Reason = *l.reason
	}
	return e
}

// Each calls yield with every tag of a device, "" for all, and of a name, "" for all, in order of device, group and place,
// until yield returns false. The entry is a copy. No lock is held during yield.
func (t *Table) Each(device, tag string, yield func(*Entry) bool) {
	t.mu.Lock()
	groups := slices.Clone(t.groups)
	t.mu.Unlock()
	for _, g := range groups {
		if device != "" && g.schema.Device != device {
			continue
		}
		for i := range g.schema.Tags {
			if tag != "" && g.schema.Tags[i].Name != tag {
				continue
			}
			g.mu.Lock()
			e := g.entry(i)
			g.mu.Unlock()
			if !yield(&e) {
				return
			}
		}
	}
}

// Counts is how the tags of one device stand.
type Counts struct {
	Tags, Good, Uncertain, Bad int   // Tags counts also those not read yet
	At                         int64 // of the last poll of any group, µs since 1970; 0 = none yet

	BadBy     [telemetry.ReasonClasses]int // the bad ones by the class of their reason
	BadTag    string                       // the first of them
	BadReason string

	reason *string // of the last bad tag, and its class: tags mostly share theirs
	class  telemetry.ReasonClass
}

// Count returns the counts of each device.
func (t *Table) Count() map[string]*Counts {
	t.mu.Lock()
	groups := slices.Clone(t.groups)
	t.mu.Unlock()
	out := make(map[string]*Counts, len(groups))
	for _, g := range groups {
		c := out[g.schema.Device]
		if c == nil {
			c = &Counts{}
			out[g.schema.Device] = c
		}
		g.mu.Lock()
		c.Tags += len(g.last)
		c.At = max(c.At, g.at)
		for i := range g.last {
			switch l := &g.last[i]; {
			case !l.read:
			case l.quality == telemetry.Good:
				c.Good++
			case l.quality == telemetry.Uncertain:
				c.Uncertain++
			default:
				c.countBad(g, i, l)
			}
		}
		g.mu.Unlock()
	}
	return out
}

// countBad counts one bad tag.
func (c *Counts) countBad(g *Group, tag int, l *last) {
	reason := ""
	if l.reason != nil {
		reason = *l.reason
	}
	if c.Bad++; c.Bad == 1 {
		c.BadTag, c.BadReason = g.schema.Tags[tag].Name, reason
	}
	if c.Bad == 1 || l.reason != c.reason {
		c.reason, c.class = l.reason, telemetry.ClassOf(reason)
	}
	c.BadBy[c.class]++
}
