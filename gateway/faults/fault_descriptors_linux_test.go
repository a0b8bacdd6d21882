package faults

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// faultFewDescriptors, F26: the process may open fewer files than the plant has devices, and all devices compete for
// them. Those that got a connection are polled on, the others say why they are not; the page and the local endpoint
// answer all the while, nothing is lost of what was taken, and it recovers once descriptors are free.
func faultFewDescriptors(t *testing.T) {
	b := newBed(t, 40, Setup{Words: 2, Interval: "500ms"}) // a machine that cannot send what is live sends no backlog, and nothing would settle
	// A shell lowers the limit and becomes the gateway.
	wrapper := filepath.Join(b.dir, "few")
	must(t, os.WriteFile(wrapper, []byte("#!/bin/sh\nulimit -n 40\nexec "+b.gateway.Binary+` "$@"`+"\n"), 0o755))
	binary := b.gateway.Binary
	b.gateway.Binary = wrapper
	b.start()
	b.await(40, 20*time.Second)
	asked, slowest := 0, time.Duration(0)
	for end := time.Now().Add(pick(6*time.Second, time.Minute)); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		if !b.gateway.Running() {
			t.Fatal("the gateway ended for want of descriptors")
		}
		begin := time.Now()
		if _, err := b.gateway.Snapshot(); err != nil {
			t.Fatalf("the page does not answer while all devices compete for descriptors: %v", err)
		}
		if code, out := run(binary, "buffer", "status", "--path", b.setup.Path); code != 0 || !strings.Contains(out, "runs on it") {
			t.Fatalf("the local endpoint does not answer while all devices compete for descriptors: exit %d: %s", code, out)
		}
		asked, slowest = asked+1, max(slowest, time.Since(begin))
	}
	polled := b.polledDevices()
	t.Logf("FIGURES %s: %d of 40 devices polled with 40 descriptors; page and endpoint answered %d times, the slowest in %s",
		t.Name(), polled, asked, slowest.Round(time.Millisecond))
	if polled == 0 || polled == 40 {
		t.Errorf("%d of 40 devices are polled with 40 descriptors, want some and not all", polled)
	}
	if waiting := b.waitingForDescriptors(); waiting != 40-polled {
		t.Errorf("the page says of %d devices that there is no descriptor for them, want %d", waiting, 40-polled)
	}
	b.logs("LimitNOFILE")
	b.freeDescriptors()
	b.judge()
}

// freeDescriptors takes polled devices away; some of the others must get their descriptors. Not as many, because store
// and broker use a few of the reserve by now.
func (b *bed) freeDescriptors() {
	b.t.Helper()
	down, before := 0, b.polledDevices()
	for _, d := range b.devices {
		if len(d.Served()) > 0 && down < before/2 {
			d.Down()
			down++
		}
	}
	b.until(60*time.Second, "polls of devices that waited for descriptors", func() bool { return b.polledDevices() > before })
}

func (b *bed) polledDevices() (n int) {
	for _, d := range b.devices {
		if len(d.Served()) > 0 {
			n++
		}
	}
	return n
}

// waitingForDescriptors returns how many devices the page says have no descriptor.
func (b *bed) waitingForDescriptors() (n int) {
	b.t.Helper()
	s, err := b.gateway.Snapshot()
	must(b.t, err)
	for _, d := range s.Devices {
		if strings.Contains(d.Reason, "no file descriptor left") {
			n++
		}
	}
	return n
}
