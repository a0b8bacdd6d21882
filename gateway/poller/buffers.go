package poller

import (
	"math/bits"
	"sync"

	"millrace/drivers/telemetry"
)

// Buffers lends the slices that polls fill. A plant polls a few of its connections at a time, so they need far less
// memory together than if each kept its own. The zero value is ready; all pollers of a gateway share one.
type Buffers struct {
	mu   sync.Mutex
	free [32][][]telemetry.Reading // by the logarithm of their size
	kept int                       // readings that fit into the free ones
}

// maxKept bounds the free slices: 2 MB, enough for the polls of 25 devices with 1,000 tags at once.
const maxKept = 1 << 15

// lend returns an empty slice with room for n readings.
func (b *Buffers) lend(n int) []telemetry.Reading {
	class := bits.Len(uint(max(n, 1) - 1))
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := len(b.free[class]) - 1; last >= 0 {
		s := b.free[class][last]
		b.free[class] = b.free[class][:last]
		b.kept -= cap(s)
		return s
	}
	return make([]telemetry.Reading, 0, 1<<class)
}

// giveBack takes a slice that nobody uses any more.
func (b *Buffers) giveBack(s []telemetry.Reading) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := cap(s); n > 0 && b.kept+n <= maxKept {
		class := bits.Len(uint(n)) - 1
		b.free[class] = append(b.free[class], s[:0])
		b.kept += n
	}
}
