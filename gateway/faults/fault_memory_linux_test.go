package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// memoryLimit is what the gateway of F25 may use.
const memoryLimit = 64 << 20

// sevenDays is how many records 100 tags make that are polled each second for seven days.
const sevenDays = 7 * 24 * 3600

// faultBacklogMemory, F25: the backlog grows on disk, the process does not, also while it drains; where the machine
// lets us, the kernel holds it to 64 MB. The long form has the backlog of seven days of 100 tags a second: as many
// records and readings, polled faster.
func faultBacklogMemory(t *testing.T) {
	b := newBed(t, pick(8, 12), Setup{Words: 100, Interval: pick("20ms", "10ms"), Memory: "1MiB"})
	b.gateway.Env = []string{"GOMEMLIMIT=64MiB"}
	used := b.limitMemory()
	b.start()
	b.await(100, 20*time.Second)
	b.net.Refuse()
	b.net.Cut()
	time.Sleep(5 * time.Second)
	before := b.snapshot()
	want := pick(2*before.Destinations[0].BacklogRecords, sevenDays)
	b.until(pick(time.Minute, 2*time.Hour), fmt.Sprintf("a backlog of %d records", want), func() bool {
		time.Sleep(time.Second)
		return b.snapshot().Destinations[0].BacklogRecords > want
	})
	after := b.snapshot()
	b.heal()
	b.patience = pick(5*time.Minute, 30*time.Minute)
	b.judge()
	t.Logf("FIGURES %s: backlog %d to %d records, disk %.1f to %.1f MiB, RSS %.1f to %.1f MiB, peak with the drain %.1f MiB; %s", t.Name(),
		before.Destinations[0].BacklogRecords, after.Destinations[0].BacklogRecords, float64(before.Buffer.Bytes)/(1<<20),
		float64(after.Buffer.Bytes)/(1<<20), float64(before.Process.RSSBytes)/(1<<20), float64(after.Process.RSSBytes)/(1<<20), float64(b.peakRSS)/(1<<20), used())
	if b.peakRSS > memoryLimit && os.Getenv("FAULTS_RACE") != "1" {
		t.Errorf("peak RSS %d, want at most %d", b.peakRSS, memoryLimit)
	}
}

// limitMemory makes the gateway run in a control group of memoryLimit, where the kernel kills what does not fit. The
// cache of the files it writes counts too. What it returns says what was used. Without root, without a memory
// controller, or with the race detector there is no such limit.
func (b *bed) limitMemory() (used func() string) {
	b.t.Helper()
	none := func(why string) func() string { return func() string { return "no control group: " + why } }
	if os.Getenv("FAULTS_RACE") == "1" {
		return none("the race detector needs more")
	}
	for _, c := range []struct{ root, limit, peak string }{
		{"/sys/fs/cgroup", "memory.max", "memory.peak"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"},
	} {
		group := filepath.Join(c.root, fmt.Sprintf("millrace-faults-%d", os.Getpid()))
		if os.Mkdir(group, 0o755) != nil {
			continue
		}
		b.t.Cleanup(func() { b.gateway.Kill(); os.Remove(group) })
		limit, err := os.OpenFile(filepath.Join(group, c.limit), os.O_WRONLY, 0) // not made where it is missing
		if err != nil {
			continue // no memory controller here
		}
		_, err = fmt.Fprint(limit, memoryLimit)
		must(b.t, errors.Join(err, limit.Close()))
		// A shell enters the group and becomes the gateway.
		wrapper := filepath.Join(b.dir, "limited")
		script := "#!/bin/sh\necho $$ > " + group + "/cgroup.procs || exit 9\nexec " + b.gateway.Binary + ` "$@"` + "\n"
		must(b.t, os.WriteFile(wrapper, []byte(script), 0o755))
		b.gateway.Binary = wrapper
		return func() string {
			peak, err := os.ReadFile(filepath.Join(group, c.peak))
			must(b.t, err)
			return fmt.Sprintf("in a control group of 64 MiB, peak with the cache of its files %s bytes", strings.TrimSpace(string(peak)))
		}
	}
	return none("not allowed here")
}

func (b *bed) snapshot() *Snapshot {
	b.t.Helper()
	s, err := b.gateway.Snapshot()
	must(b.t, err)
	return s
}
