package gateway

import (
	"time"

	"millrace/buffer"
)

// What a record costs on disk, measured (buffer/DESIGN.md).
const (
	bytesPerReading = 2.5  // between believable plant signals (1.5) and random float32 (4.2), at 100 tags a record
	bytesPerRecord  = 12   // header of a record and its share of block and page overhead
	pageOverhead    = 1.08 // bbolt's pages around the values
	bytesPerCommit  = 240  // checkpoint and block header that each commit leaves
)

// OutageRate estimates what an outage does to the store: by how many bytes a second it grows, and how many commits a
// second there are, for readings and records a second and the commit interval (0 = strict).
func OutageRate(readings, records float64, interval time.Duration) (grows, commits float64) {
	commits = records // strict: at most one a record
	if interval > 0 {
		commits = min(records, 1/interval.Seconds())
	}
	return (readings*bytesPerReading+records*bytesPerRecord)*pageOverhead + commits*bytesPerCommit, commits
}

const estimateAfter = 10 * time.Second // of running, before which there is no rate

// outageEstimate returns how many hours an outage may last that begins or goes on now, at the rate since the start, before
// the store is full or the file system is; nil when there is no rate yet. accepted is readings of all devices since the
// store began. What a reading costs is what the store has seen, as soon as it has seen enough. It is 0 while the store refuses
// readings. mu is held.
func (g *Gateway) outageEstimate(st *buffer.Stats, accepted uint64, now time.Time) *float64 {
	ran := now.Sub(g.started)
	if ran < estimateAfter || accepted <= g.acceptedBefore {
		return nil
	}
	readings := float64(accepted-g.acceptedBefore) / ran.Seconds()
	rate, _ := OutageRate(readings, float64(st.NextSeq-g.seqBefore)/ran.Seconds(), g.running.cfg.Buffer.CommitInterval)
	if st.ReadingBytes > 0 {
		rate = readings * st.ReadingBytes
	}
	left := st.Room
	if free := g.free.Load(); free != nil {
		left = min(left, *free)
	}
	if !st.Refusing.IsZero() && st.RefusedUntil.IsZero() {
		left = 0
	}
	hours := float64(left) / rate / 3600
	return &hours
}

// acceptedReadings returns how many readings the store has taken from all devices.
func acceptedReadings(ledger []buffer.Account) (n uint64) {
	for i := range ledger {
		n += ledger[i].Accepted
	}
	return n
}
