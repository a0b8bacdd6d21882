package faults

import (
	"fmt"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// TestBackfillSkewed: a server whose clock is hours off keeps what it counts, and cuts each answer of its history short without a word. The path to it breaks, and the gateway is killed:
// every number comes, none is missing where two portions of history meet or where history ends and values are pushed again. Its queue has room for all of 50 s.
func TestBackfillSkewed(t *testing.T) {
	t.Parallel()
	need(t, mosquitto())
	for ahead, cut := range map[time.Duration]int{3 * time.Hour: 7, -90 * time.Minute: 40} {
		t.Run(fmt.Sprint(ahead), func(t *testing.T) {
			t.Parallel()
			s, err := opcuasim.New(opcuasim.Options{Listen: ownHost() + ":0", Ahead: ahead, HistoryCut: cut, OneClient: true})
			must(t, err)
			s.AddBeat("n", 50*time.Millisecond)
			must(t, s.Start())
			t.Cleanup(s.Close)
			path, err := NewProxy(s.Addr())
			must(t, err)
			t.Cleanup(path.Close)
			b := newBed(t, 0, Setup{More: fmt.Sprintf("  - name: beats\n    driver: opcua\n    url: opc.tcp://%s\n%s    backfill: history\n    queue_size: 1000\n    timeout: 2s\n    groups:\n"+
				"      - name: all\n        interval: 20ms\n        tags:\n          - {name: beat, address: \"ns=2;s=n\"}\n", path.Addr(), unsecured)})
			b.start()
			more := func(what string) {
				t.Helper()
				_, before, _ := b.backfilled()
				b.until(60*time.Second, "beats "+what, func() bool { _, n, _ := b.backfilled(); return n > before+10 })
			}
			more("at first")
			b.breakAndKill(path, more)
			end := time.Now()
			b.until(3*time.Minute, "the last of the past", func() bool {
				missing, _, _ := b.backfilled()
				return len(missing) == 0 || time.Since(end) > 2*time.Minute
			})
			missing, all, past := b.backfilled()
			t.Logf("FIGURES %s: %d numbers, %d of them from history, missing %d", t.Name(), all, past, missing)
			if len(missing) > 0 || past < 20 { // several answers of the shorter cut, also where the machine lets the server count slowly
				t.Errorf("missing %d of %d numbers, %d came from history", missing, all, past)
			}
		})
	}
}
