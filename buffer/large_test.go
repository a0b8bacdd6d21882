package buffer

import (
	"math/rand/v2"
	"testing"
)

// TestLargeStore: bbolt's limits are ints, and the room of a store of a little more than 4 GiB must not become that little where they have 32 bits.
func TestLargeStore(t *testing.T) {
	o := testOptions()
	o.MaxSize = 4 << 30
	b := mustOpen(t, t.TempDir(), o)
	o.MaxSize += 4<<30 - b.room() + 20<<10
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, t.TempDir(), o)
	defer b.Close()
	s := mustStream(t, b, "press")
	for i := range 20 {
		if _, err := b.Append(s, randomBytes(rand.New(rand.NewPCG(1, uint64(i))), 4000), 1, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	commitNow(t, b)
}
