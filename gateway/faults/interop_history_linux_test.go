package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestInteropBackfill: node-opcua keeps the history of what it counts. The path to it breaks, and the gateway is killed, stopped in peace while the broker
// hangs, so that it goes on for its grace time, and reloaded with another device: afterwards every number has come, those of the outages marked as what they are.
func TestInteropBackfill(t *testing.T) {
	t.Parallel()
	b, path, more := throughPath(t, "Beat", unsecured+"    backfill: history\n")
	b.breakAndKill(path, more)
	b.broker.Freeze()
	b.stop()
	b.broker.Thaw()
	time.Sleep(pick(4*time.Second, time.Minute))
	b.start()
	more("after a stop")
	config, err := os.ReadFile(b.gateway.Config)
	must(t, err)
	for i := range pick(5, 50) {
		b.write(strings.Replace(string(config), "    timeout: 2s\n    groups", fmt.Sprintf("    timeout: %ds\n    groups", 3+i%2), 1))
		if code, out := run(b.gateway.Binary, "reload", "--config", b.gateway.Config); code != 0 || !strings.Contains(out, "beats") {
			t.Fatalf("reload: exit %d: %s", code, out)
		}
		more("after a reload")
	}
	end := time.Now()
	b.until(3*time.Minute, "the last of the past", func() bool {
		missing, _, _ := b.backfilled()
		return len(missing) == 0 || time.Since(end) > time.Minute
	})
	missing, all, past := b.backfilled()
	t.Logf("FIGURES %s: %d numbers, %d of them from history, %d missing", t.Name(), all, past, len(missing))
	if len(missing) > 0 || past < 100 {
		t.Errorf("of %d numbers these are missing: %v, %d came from history", all, missing, past)
	}
}

// backfilled returns which numbers between the first and the last are missing, how many came, and how many of these as history only.
func (b *bed) backfilled() (missing []int64, all, past int) {
	seen := map[int64]bool{} // true: live
	first, last := int64(0), int64(0)
	for _, m := range b.messages("beats") {
		take := func(v any) {
			n, ok := v.(json.Number)
			if !ok {
				return
			}
			i, _ := n.Int64()
			if seen[i] = seen[i] || !m.Backfill; first == 0 {
				first = i
			}
			last = max(last, i)
		}
		for _, e := range m.Earlier {
			if e.Tag == "beat" {
				take(e.Value)
			}
		}
		take(m.Values["beat"])
	}
	for i := first; i <= last; i++ {
		switch live, ok := seen[i]; {
		case !ok:
			missing = append(missing, i)
		case !live:
			past++
		}
	}
	return missing, len(seen), past
}

// breakAndKill breaks the path to a server for a while, and then kills the gateway for a while. more waits until values have come again.
func (b *bed) breakAndKill(path *Proxy, more func(what string)) {
	b.t.Helper()
	path.Refuse()
	path.Cut()
	time.Sleep(pick(8*time.Second, 5*time.Minute))
	must(b.t, path.Accept())
	more("after the path was broken")
	b.kill()
	time.Sleep(pick(4*time.Second, time.Minute))
	b.start()
	more("after a kill")
}
