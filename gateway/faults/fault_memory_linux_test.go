package faults

import (
	"os"
	"testing"
	"time"
)

// faultBacklogMemory, F25: the backlog grows on disk, the process does not, also while it drains.
func faultBacklogMemory(t *testing.T) {
	b := newBed(t, 8, Setup{Words: 100, Interval: "20ms", Memory: "1MiB"})
	b.gateway.Env = []string{"GOMEMLIMIT=64MiB"}
	b.start()
	b.await(100, 20*time.Second)
	b.net.Refuse()
	b.net.Cut()
	time.Sleep(5 * time.Second)
	before := b.snapshot()
	time.Sleep(pick(12*time.Second, 10*time.Minute))
	after := b.snapshot()
	b.heal()
	b.patience = 5 * time.Minute
	b.judge()
	t.Logf("FIGURES %s: backlog %d to %d records, disk %.1f to %.1f MB, RSS %.1f to %.1f MB, peak with the drain %.1f MB", t.Name(),
		before.Destinations[0].BacklogRecords, after.Destinations[0].BacklogRecords, float64(before.Buffer.Bytes)/1e6,
		float64(after.Buffer.Bytes)/1e6, float64(before.Process.RSSBytes)/1e6, float64(after.Process.RSSBytes)/1e6, float64(b.peakRSS)/1e6)
	if after.Destinations[0].BacklogRecords < 2*before.Destinations[0].BacklogRecords {
		t.Error("the backlog did not double: the scenario proves nothing")
	}
	if limit := int64(64 << 20); b.peakRSS > limit && os.Getenv("FAULTS_RACE") != "1" {
		t.Errorf("peak RSS %d, want at most %d", b.peakRSS, limit)
	}
}

func (b *bed) snapshot() *Snapshot {
	b.t.Helper()
	s, err := b.gateway.Snapshot()
	must(b.t, err)
	return s
}
