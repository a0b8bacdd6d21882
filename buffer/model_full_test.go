package buffer

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// fillOrFree lets others fill the disk or free it, and the time pass after which the store no longer waits for them. While the disk refuses a file,
// destinations may acknowledge, as they do in other goroutines.
func (m *model) fillOrFree() {
	switch m.rng.IntN(40) {
	case 0, 1:
		m.disk.full = true
	case 2:
		m.free()
	}
	if m.rng.IntN(2) == 0 {
		m.b.st.fullSince = time.Now().Add(-2 * fullPatience)
	}
	m.disk.refused = func() {
		switch m.rng.IntN(8) {
		case 0:
			m.ackAll()
		case 1, 2, 3:
			m.ack()
		}
		m.disk.full = m.rng.IntN(4) > 0
	}
}

// ackAll acknowledges for all destinations what there is.
func (m *model) ackAll() {
	for _, d := range m.dests {
		if d.reader == nil {
			d.reader, d.next = m.b.Destination(d.name).Reader(0, 0), 0
		}
		for m.readOne(d) {
		}
		for _, seq := range d.flight {
			m.b.Destination(d.name).Ack(seq)
			d.acked[seq], d.lastAcked[seq] = true, true
		}
		d.flight = nil
	}
}

// free frees the disk, and the store notices, as it does in Run.
func (m *model) free() {
	m.disk.full, m.b.st.lastTry = false, time.Time{}
	m.b.lockCommit()
	m.b.probe()
	m.b.unlockCommit()
}

// TestModelFullDisk is TestModel on a disk that others fill and free.
func TestModelFullDisk(t *testing.T) {
	for name, o := range map[string]Options{
		"oldest":         {},
		"oldest, killed": {},
		"newest":         {WhenFull: DropNewest},
		"newest, killed": {WhenFull: DropNewest},
		"small":          {MaxSize: 4 << 20},
		"small, newest":  {MaxSize: 4 << 20, WhenFull: DropNewest},
		"small, killed":  {MaxSize: 4 << 20, WhenFull: DropNewest},
	} {
		o.TailBytes, o.CommitInterval, o.Destinations = 64<<10, time.Hour, []string{"a", "b", "c"}
		if o.MaxSize == 0 {
			o.MaxSize, o.SegmentSize = 16<<20, 128<<10
		}
		for _, seed := range seeds(t, max(3/raceShare, 1), 200) {
			t.Run(fmt.Sprintf("%s/seed=%d", name, seed), func(t *testing.T) {
				t.Parallel()
				m := newModel(t, seed, o)
				m.fills, m.drops, m.steady = true, true, !strings.HasSuffix(name, "killed")
				m.away = o.MaxSize == 4<<20
				for range 1000 {
					m.step()
				}
				m.free()
				m.finish()
			})
		}
	}
}
