package gateway

import (
	"math"
	"testing"
	"time"

	"millrace/buffer"
	"millrace/gateway/config"
)

func TestOutageEstimate(t *testing.T) {
	start := time.Now()
	g := &Gateway{started: start, acceptedBefore: 5_000_000, seqBefore: 1000, running: running{cfg: &config.Config{}}}
	g.running.cfg.Buffer.CommitInterval = time.Second
	for _, c := range []struct {
		name     string
		after    time.Duration
		accepted uint64  // readings since the start
		each     float64 // bytes that a reading was seen to cost
		records  uint64
		bytes    int64
		want     float64 // hours
		known    bool
		refusing bool
	}{
		{"just started", 9 * time.Second, 9000, 0, 9, 1 << 20, 0, false, false},
		{"nothing polled", time.Hour, 0, 0, 0, 1 << 20, 0, false, false},
		{"healthy: what an outage would cost, not what is written now", time.Hour, 3_600_000, 0, 36_000, 0, float64(1<<30) / ((2500+120)*1.08 + 240) / 3600, true, false},
		{"a backlog that compresses well", time.Hour, 3_600_000, 1, 36_000, 100_000_000, float64(1<<30-100_000_000) / 1000 / 3600, true, false},
		{"full", time.Hour, 3_600_000, 0, 36_000, 1 << 30, 0, true, false},
		{"full but for less than a record takes", time.Hour, 3_600_000, 0, 36_000, 1<<30 - 4000, 0, true, true},
	} {
		st := &buffer.Stats{Room: 1<<30 - c.bytes, NextSeq: 1000 + c.records, ReadingBytes: c.each}
		if c.refusing {
			st.Refusing = start
		}
		got := 0.0
		h := g.outageEstimate(st, g.acceptedBefore+c.accepted, start.Add(c.after))
		if h != nil {
			got = *h
		}
		if math.Abs(got-c.want) > 1e-9*c.want || (h != nil) != c.known {
			t.Errorf("%s: %v hours, want %v", c.name, got, c.want)
		}
	}
	free := int64(1 << 20)
	g.free.Store(&free)
	h := g.outageEstimate(&buffer.Stats{Room: 1 << 30, ReadingBytes: 1}, g.acceptedBefore+3_600_000, start.Add(time.Hour))
	if want := float64(free) / 1000 / 3600; h == nil || math.Abs(*h-want) > 1e-9*want {
		t.Errorf("on a disk of %d bytes: %v hours, want %v", free, h, want)
	}
}

// TestOutageRateOfASmallPlant holds the estimate against a store: where a commit has one small record, the commit
// itself is most of what is left on disk.
func TestOutageRateOfASmallPlant(t *testing.T) {
	b, err := buffer.Open(t.TempDir()+"/store", buffer.Options{MaxSize: 1 << 30, Destinations: []string{"cloud"}}) // strict: each record its own commit
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s, err := b.Stream("press", nil)
	if err != nil {
		t.Fatal(err)
	}
	before := b.Stats().Bytes
	const records = 1000
	for i := range records {
		if _, err := b.Append(s, []byte{byte(i), byte(i * 7), byte(i * 13), 1, 2}, 2, int64(i)*1e6); err != nil {
			t.Fatal(err)
		}
	}
	want, _ := OutageRate(2, 1, 0)
	if got := float64(b.Stats().Bytes-before) / records; got > 1.5*want || got < want/1.5 {
		t.Errorf("%.0f bytes a record on disk, the estimate is %.0f", got, want)
	} else {
		t.Logf("%.0f bytes a record on disk, the estimate is %.0f", got, want)
	}
}
