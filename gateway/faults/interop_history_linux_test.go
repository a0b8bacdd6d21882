package faults

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
)

// TestInteropBackfill: node-opcua keeps the history of what it counts. The path to it breaks, and the gateway is killed, stopped in peace while the broker
// hangs, so that it goes on for its grace time, and reloaded with another device: afterwards every number has come, those of the outages marked as what they are, or a gap message says that a queue overflowed.
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
		return len(b.hidden(missing)) == 0 || time.Since(end) > time.Minute
	})
	missing, all, past := b.backfilled()
	hidden := b.hidden(missing)
	t.Logf("FIGURES %s: %d numbers, %d of them from history, %d missing, all but %d of them told as lost", t.Name(), all, past, len(missing), len(hidden))
	if slices.ContainsFunc(b.gapsOf("beats"), func(g Gap) bool { return g.From == 0 }) {
		t.Error("a gap begins at a time that is not known")
	}
	if len(hidden) > 0 || past < 100 {
		t.Errorf("of %d numbers these are missing: %v, and of these no gap message tells: %v; %d came from history; gaps: %+v%s", all, missing, hidden, past, b.gapsOf("beats"), b.beside(hidden))
	}
}

// hidden returns which of the missing numbers no gap message of the cause lost tells of, from the value before to the one after. On a machine that stands still
// a queue overflows while the server is heard all the same: that is told, and not read from history.
func (b *bed) hidden(missing []int64) (hidden []int64) {
	if len(missing) == 0 {
		return nil
	}
	type value struct{ n, at int64 }
	var all []value
	for _, m := range b.messages("beats") {
		if n, ok := m.Values["beat"].(json.Number); ok {
			i, _ := n.Int64()
			all = append(all, value{i, m.TS})
		}
	}
	slices.SortFunc(all, func(a, b value) int { return cmp.Compare(a.n, b.n) })
	const slack = 1000 // ms: what is pushed is on its way for a moment
	for _, n := range missing {
		next := sort.Search(len(all), func(i int) bool { return all[i].n > n })
		told := next > 0 && next < len(all) && slices.ContainsFunc(b.gapsOf("beats"), func(g Gap) bool {
			return g.Cause == "lost" && g.From <= all[next].at+slack && g.To >= all[next-1].at-slack
		})
		if !told {
			hidden = append(hidden, n)
		}
	}
	return hidden
}

// beside says how the numbers just before and behind those came.
func (b *bed) beside(numbers []int64) (text string) {
	for _, m := range b.messages("beats") {
		say := func(v any, ts int64) {
			n, ok := v.(json.Number)
			if i, _ := n.Int64(); ok && slices.ContainsFunc(numbers, func(of int64) bool { return i >= of-3 && i <= of+3 }) {
				text += fmt.Sprintf("\n%d of %d in message %d of %d, from history %t", i, ts, m.Seq, m.TS, m.Backfill)
			}
		}
		for _, e := range m.Earlier {
			if e.Tag == "beat" {
				say(e.Value, e.TS)
			}
		}
		say(m.Values["beat"], m.Times["beat"])
	}
	return text
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

// breakAndKill breaks the path to a server for a while, kills the gateway for a while, and kills it in an outage that has lasted. more waits until values have come again.
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
	path.Refuse()
	path.Cut()
	b.until(time.Minute, "the outage noted", func() bool {
		kept, err := os.ReadFile(filepath.Join(b.setup.Path, "missing.json"))
		return err == nil && strings.Contains(string(kept), `"at":{"beats":`)
	})
	time.Sleep(pick(0, 3*time.Minute)) // longer than what is asked for after any kill
	b.kill()
	b.start()
	must(b.t, path.Accept())
	more("after a kill in an outage")
}
