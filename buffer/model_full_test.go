package buffer

import (
	"fmt"
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
		m.disk.full = false
	}
	if m.rng.IntN(2) == 0 {
		m.b.st.fullSince = time.Now().Add(-2 * fullPatience)
	}
	m.disk.refused = func() {
		if m.rng.IntN(2) == 0 {
			m.ack()
		}
		if m.rng.IntN(4) == 0 {
			m.disk.full = false
		}
	}
}

// TestModelFullDisk is TestModel on a disk that others fill and free.
func TestModelFullDisk(t *testing.T) {
	for name, o := range map[string]Options{
		"oldest": {},
		"newest": {WhenFull: DropNewest},
	} {
		o.MaxSize, o.TailBytes, o.SegmentSize, o.CommitInterval, o.Destinations = 16<<20, 64<<10, 128<<10, time.Hour, []string{"a", "b"}
		for _, seed := range seeds(t, 3, 200) {
			t.Run(fmt.Sprintf("%s/seed=%d", name, seed), func(t *testing.T) {
				t.Parallel()
				m := newModel(t, seed, o)
				crash(m.b)
				m.disk, m.drops, m.epoch = &disk{}, true, ""
				m.open()
				for range 1000 {
					m.step()
				}
				m.disk.full = false
				m.finish()
			})
		}
	}
}
