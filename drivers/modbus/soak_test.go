package modbus

import (
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers/modbus/modbussim"
)

// TestSoak polls under random faults and holds that no value is wrong: half a second over Modbus TCP and UDP, or as long as
// MODBUS_SOAK says over every transport. Where there is no transaction id, an answer that is later than two timeouts is
// believed: a machine that stands still for that long would be a fault of the test.
func TestSoak(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("MODBUS_SOAK"))
	names := transportNames()
	if err != nil {
		d, names = 500*time.Millisecond, []string{"tcp", "udp"}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for i, name := range names {
		b := benchOn(t, name, 2, 30*time.Millisecond, faultTags()).open(t)
		faulted := b.soakFaults(rand.New(rand.NewPCG(seed, uint64(i))))
		wg.Go(func() {
			polls := 0
			for end := time.Now().Add(d); time.Now().Before(end); polls++ {
				if _, err := b.pollAll(); wrong(err) {
					t.Errorf("%s: %v", name, err)
					return
				}
				b.clock += time.Minute // so that what was given up is soon tried again
			}
			t.Logf("%s: %d faulted answers of %d in %d polls", name, faulted.Load(), b.sim.Requests(), polls)
		})
	}
	wg.Wait()
}

// soakFaults injects faults that strike one answer in four, and counts them.
func (b *bench) soakFaults(r *rand.Rand) *atomic.Int64 {
	var n atomic.Int64
	var mu sync.Mutex
	serial, numbered := b.driver.link.network == netSerial, b.driver.link.framing == mbap
	for _, f := range packedFaults() {
		if f.Kind == modbussim.Spoil && numbered || f.Kind == modbussim.CloseAt && serial || f.Kind == modbussim.StaleInstead && !numbered {
			continue // what nobody could see, or what does not happen there
		}
		if f.Wait > 0 {
			f.Wait = 40 * time.Millisecond // late, and before two timeouts have passed
		}
		f.Match = func(modbussim.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			strikes := r.IntN(90) == 0
			if strikes {
				n.Add(1)
			}
			return strikes
		}
		b.sim.Inject(f)
	}
	return &n
}
