package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"millrace/buffer"
)

// backlogRow is what a gateway costs that polls while its uplink is down and a backlog lies on disk.
type backlogRow struct {
	bytes        int64
	open, status time.Duration // until the buffer tells its state after the start; of one `millrace buffer status`
	polled       float64       // readings/s
	cpu          float64       // share of a core
	rss, peak    int64         // bytes
}

// backlogRun fills a store, starts the gateway on it with the uplink down and measures it for length.
func backlogRun(ctx context.Context, size int64, length time.Duration) (row backlogRow, err error) {
	o := options{Scenario: "growth", Target: "millrace", Slack: unitSlack, Driver: "modbus", Security: "none", Devices: 10, Tags: 1000, Interval: 100 * time.Millisecond,
		Kind: "uint16", Outage: length, Commit: time.Second, MaxSize: "16GiB", Order: "live-first"}
	b, err := lay(o)
	if b != nil {
		defer b.clear()
	}
	if err != nil {
		return row, err
	}
	b.relay.set(true)
	if err := fillStore(filepath.Join(b.dir, "data"), size); err != nil {
		return row, err
	}
	if err := b.target.start(); err != nil {
		return row, err
	}
	status := func() error {
		out, err := exec.Command(b.target.args[0], "buffer", "status", "--config", b.target.args[3]).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("millrace buffer status: %w: %s", err, out)
		}
		return err
	}
	for err = status(); err != nil || !b.target.answers(); err = status() {
		if time.Since(b.target.started) > time.Minute {
			return row, fmt.Errorf("the buffer was not open within a minute: %w", err)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return row, err
		}
	}
	row.open = time.Since(b.target.started)
	begin := time.Now()
	if err := status(); err != nil {
		return row, err
	}
	row.status = time.Since(begin)
	if err := pause(ctx, 5*time.Second); err != nil {
		return row, err
	}
	served, err := b.sim.report()
	if err != nil {
		return row, err
	}
	before, from, begin := b.target.usage(), served.Registers, time.Now()
	if err := b.watch(length)(ctx); err != nil {
		return row, err
	}
	if served, err = b.sim.report(); err != nil {
		return row, err
	}
	after, took := b.target.usage(), time.Since(begin).Seconds()
	row.polled, row.cpu = float64(served.Registers-from)/took, (after.CPU-before.CPU)/took
	row.rss, row.peak, row.bytes = after.RSS, after.PeakRSS, dirSize(filepath.Join(b.dir, "data"))
	return row, nil
}

// fillStore writes records that do not compress, as a gateway with this destination would have left them.
func fillStore(dir string, size int64) error {
	if size == 0 {
		return nil
	}
	b, err := buffer.Open(dir, buffer.Options{MaxSize: 16 << 30, CommitInterval: time.Second, Destinations: []string{"cloud"}})
	if err != nil {
		return fmt.Errorf("fill the store: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = b.Run(ctx)
	}()
	payload := make([]byte, 4000)
	for i := 0; err == nil && b.Stats().Bytes < size; i++ {
		var s *buffer.Stream
		if s, err = b.Stream(fmt.Sprintf("d%d", i%10), nil); err == nil {
			_, _ = rand.Read(payload)
			_, err = b.Append(s, payload, 1000, time.Now().UnixMicro())
		}
	}
	cancel()
	<-done
	if closed := b.Close(); err == nil {
		err = closed
	}
	return err
}

// answers reports whether the gateway's control socket is there: the buffer is open then.
func (t *target) answers() bool {
	_, err := os.Stat(filepath.Join(filepath.Dir(t.args[3]), "data", "control.sock"))
	return err == nil
}
