package faults

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// buildWithClock builds the gateway with a wall clock that the test sets: a file says by how many seconds it is wrong.
// Only package time, the kernel's flag and a file beside main are replaced, for this build alone.
func buildWithClock(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	file := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(file)
	must(t, err)
	const now, reads = "func Now() Time {\n", "\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), now+reads) != 1 {
		t.Fatal("time.Now of this Go is not as expected: change what is replaced in it")
	}
	dir := t.TempDir()
	changed := strings.Replace(string(source), now+reads, "//go:norace\n"+now+reads+"\tsec += faultSeconds\n", 1) + "\nvar faultSeconds int64\n"
	must(t, os.WriteFile(filepath.Join(dir, "time.go"), []byte(changed), 0o644))
	beside, err := filepath.Abs("testdata/clock/clock.go.txt")
	must(t, err)
	main, err := filepath.Abs("../../cmd/millrace/fault_clock.go")
	must(t, err)
	flag, err := filepath.Abs("../clock_linux.go")
	must(t, err)
	synced, err := filepath.Abs("testdata/clock/synced.go.txt")
	must(t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: filepath.Join(dir, "time.go"), main: beside, flag: synced}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644))
	binary, err := Build(dir, os.Getenv("FAULTS_RACE") == "1", "-overlay", filepath.Join(dir, "overlay.json"), "-ldflags=-checklinkname=0")
	must(t, err)
	return binary
}

// faultClock, F24: the gateway starts in 1970, its clock is set in an outage, jumps back an hour and ahead by more than
// max_age, and it is killed in between. Order and sequence numbers do not care, nothing is dropped for its age, and
// polling keeps its interval. Every record of 1970 says that the clock was not set, also after an outage and a kill; no later
// one does.
func faultClock(t *testing.T) {
	b := newBed(t, 3, Setup{Words: 4, Commit: "250ms"})
	b.window = 250*time.Millisecond + commitSlack
	b.gateway.Binary = buildWithClock(t)
	file := filepath.Join(b.dir, "clock")
	b.gateway.Env = []string{"FAULT_CLOCK=" + file}
	set := func(off time.Duration) {
		must(t, os.WriteFile(file+".new", strconv.AppendInt(nil, int64(off/time.Second), 10), 0o644))
		must(t, os.Rename(file+".new", file))
	}
	phase := pick(2*time.Second, time.Minute)
	live := func(what string) {
		before := len(b.devices[0].Served())
		time.Sleep(phase) // a busy machine takes longer
		b.until(20*time.Second, "a poll each 100 ms "+what, func() bool { return len(b.devices[0].Served())-before >= int(phase/(200*time.Millisecond)) })
	}
	set(-time.Duration(time.Now().Unix()) * time.Second)
	b.start()
	b.await(20, 20*time.Second)
	live("in 1970")
	if ts := b.newest(); ts > time.Hour.Milliseconds() {
		t.Fatalf("a message says %s: the clock is not set, the scenario proves nothing", time.UnixMilli(ts))
	}
	b.says(`clock "system": not set`)
	b.net.Refuse()
	b.net.Cut()
	live("in an outage in 1970")
	set(0)
	wasSet := time.Now()
	live("after the clock was set")
	b.says(`clock "system": jumped`)
	b.kill()
	set(-time.Hour)
	b.start()
	live("after a jump back")
	set(40 * 24 * time.Hour)
	live("after a jump of 40 days")
	b.kill()
	b.start()
	live("after a restart 40 days ahead")
	b.heal()
	live("with the uplink back")
	set(-time.Hour)
	live("after another jump back")
	r := b.judge()
	b.marks(wasSet)
	if r.Gaps > 0 || r.Historical == 0 {
		t.Errorf("%d gap records and %d historical messages, want none of the first and some of the second", r.Gaps, r.Historical)
	}
}

// marks judges the mark of a clock that is not set. The gateway looks at its clock once a second.
func (b *bed) marks(wasSet time.Time) {
	b.t.Helper()
	var live, stored, later, missing, wrong int
	for _, a := range b.sub.Arrivals() {
		m, err := ParseMessage(a.Payload)
		must(b.t, err)
		switch at := time.UnixMilli(m.TS); {
		case m.Gap != nil:
		case at.Year() < 1971:
			if m.Historical {
				stored++
			} else {
				live++
			}
			if m.Clock != "not set" {
				missing++
			}
		case at.After(wasSet.Add(3*time.Second)) || at.Before(wasSet.Add(-time.Minute)):
			if later++; m.Clock != "" {
				wrong++
			}
		}
	}
	b.t.Logf("FIGURES %s: %d live and %d stored messages of 1970, %d of them without the mark; %d later ones, %d with it",
		b.t.Name(), live, stored, missing, later, wrong)
	if live == 0 || stored == 0 || later == 0 {
		b.t.Error("messages of one kind are missing: the scenario proves nothing")
	}
	if missing > 0 || wrong > 0 {
		b.t.Errorf("%d messages of 1970 do not say that the clock was not set, %d later ones do", missing, wrong)
	}
}
