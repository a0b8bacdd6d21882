package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// faultHostileServers, F23: beside two healthy devices stand OPC UA servers that each play one trick: absurd lengths,
// nested and endless messages, answers nobody asked for, silence. The process lives, its memory stays small, and
// the healthy devices lose nothing.
func faultHostileServers(t *testing.T) {
	var more strings.Builder
	tricks := 0
	for i, trick := range opcuasim.Tricks() {
		if i%pick(4, 1) != 0 {
			continue
		}
		h, err := opcuasim.NewHostile(trick)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Close)
		tricks++
		fmt.Fprintf(&more, "  - name: hostile-%d\n    driver: opcua\n    url: %s\n    security_policy: none\n    mode: read\n    timeout: 500ms\n    groups:\n      - name: all\n"+
			"        interval: 500ms\n        tags:\n          - {name: x, address: \"ns=2;s=x\", type: float64}\n", i, h.Endpoint())
	}
	b := newBed(t, 2, Setup{More: more.String()})
	b.start()
	b.await(20, 30*time.Second)
	time.Sleep(pick(8*time.Second, 2*time.Minute))
	r := b.judge()
	t.Logf("FIGURES %s: %d servers; %d readings of the healthy devices", t.Name(), tricks, r.Served)
	if r.Other == 0 {
		t.Error("no message of a hostile device: the servers were not polled")
	}
	if limit := int64(256 << 20); b.peakRSS > limit { // what the tricks ask for is 1 GB and more; the race detector takes its own
		t.Errorf("peak RSS of %d MB, want at most %d", b.peakRSS>>20, limit>>20)
	}
}

// faultHostileSubscriptions, F23 on the encrypted channel, subscribed: servers that hold the key and push what is no notification, behind the
// login; servers behind somebody on the line who changes a byte of each kind of message, now and then; and servers that play their
// tricks before anybody has logged in. The process lives, its memory stays small, and the healthy devices miss no poll.
func faultHostileSubscriptions(t *testing.T) {
	const interval = time.Second
	identity, err := opcuasim.NewIdentity(2048, nil)
	must(t, err)
	pki := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(pki, "trusted"), 0o700))
	must(t, os.WriteFile(filepath.Join(pki, "trusted", "server.der"), identity.Certificate, 0o600))
	var more strings.Builder
	add := func(name, url string) {
		fmt.Fprintf(&more, "  - name: %s\n    driver: opcua\n    url: %s\n    pki: %s\n    timeout: 1s\n    retry: {min: 1s, max: 4s}\n    groups:\n      - name: all\n"+
			"        interval: 500ms\n        tags:\n          - {name: n, address: \"ns=2;s=n\"}\n", name, url, pki)
	}
	secured := func() *opcuasim.Server {
		s, err := opcuasim.New(opcuasim.Options{Identity: identity, Policies: []string{"http://opcfoundation.org/UA/SecurityPolicy#Basic256Sha256"}})
		must(t, err)
		n := 0
		s.AddVariable("n", func() any { n++; return int64(n) })
		must(t, s.Start())
		t.Cleanup(s.Close)
		return s
	}
	var spoilers []*opcuasim.Server
	notifications := opcuasim.Notifications()
	for i := range notifications {
		s := secured()
		s.Spoil(&notifications[i])
		spoilers = append(spoilers, s)
		add(fmt.Sprintf("pushes-%d", i), s.Endpoint())
	}
	var lines []*opcuasim.Proxy
	for i := range 4 {
		p, err := opcuasim.NewProxy(secured().Addr())
		must(t, err)
		t.Cleanup(p.Close)
		lines = append(lines, p)
		add(fmt.Sprintf("line-%d", i), p.Endpoint())
	}
	for i, trick := range opcuasim.Tricks() {
		if i%pick(3, 1) != 0 {
			continue
		}
		if trick.Step == opcuasim.StepHello || trick.Step == opcuasim.StepOpen || trick.Step == opcuasim.StepOffers {
			h, err := opcuasim.NewHostile(trick)
			must(t, err)
			t.Cleanup(h.Close)
			add(fmt.Sprintf("before-%d", i), h.Endpoint())
		}
	}
	b := newBed(t, 4, Setup{More: more.String(), Interval: interval.String()})
	b.start()
	b.await(20, 60*time.Second)
	for i := range lines {
		b.until(60*time.Second, "the servers push", func() bool { return len(b.numbers(fmt.Sprintf("line-%d", i))) > 3 })
	}
	from := time.Now()
	garbled := 0
	for end := time.Now().Add(pick(15*time.Second, 2*time.Minute)); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		for _, p := range lines {
			at := []int{0, 3, 4, 5, 8, 12, 16, 20, 24, 31, 40, 60, 200, 600}[garbled%14]
			p.Garble([]string{"MSG", "OPN", "ACK"}[garbled/14%3], at)
			garbled++
		}
	}
	b.missedNone(from, time.Now(), interval)
	for i, s := range spoilers {
		if s.Spoilt() == 0 {
			t.Errorf("%q was never pushed: it proves nothing", notifications[i].Name)
		}
	}
	for i := range lines {
		if len(b.gapsOf(fmt.Sprintf("line-%d", i))) == 0 {
			t.Errorf("no gap is told of line-%d, which was spoilt all the time", i)
		}
	}
	r := b.judge()
	t.Logf("FIGURES %s: %d servers that push, %d lines spoilt %d times; %d readings of the healthy devices; peak RSS %d MB",
		t.Name(), len(spoilers), len(lines), garbled, r.Served, b.peakRSS>>20)
	if limit := int64(128 << 20); b.peakRSS > limit && os.Getenv("FAULTS_RACE") != "1" { // whose shadow memory counts as resident
		t.Errorf("peak RSS of %d MB, want at most %d", b.peakRSS>>20, limit>>20)
	}
}
