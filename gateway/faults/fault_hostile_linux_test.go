package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
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

// hostileField is OPC UA servers that are subscribed to over encrypted channels.
type hostileField struct {
	t             *testing.T
	identity      *opcuasim.Identity
	pki           string
	devices       strings.Builder // of the config
	notifications []opcuasim.Notification
	spoilers      []*opcuasim.Server // push a notification each
	lines         []*opcuasim.Proxy  // have somebody on them
}

func newHostileField(t *testing.T) *hostileField {
	identity, err := opcuasim.NewIdentity(2048, nil)
	must(t, err)
	f := &hostileField{t: t, identity: identity, pki: t.TempDir(), notifications: opcuasim.Notifications()}
	must(t, os.MkdirAll(filepath.Join(f.pki, "trusted"), 0o700))
	must(t, os.WriteFile(filepath.Join(f.pki, "trusted", "server.der"), identity.Certificate, 0o600))
	for i := range f.notifications {
		s := f.secured()
		s.Spoil(&f.notifications[i])
		f.spoilers = append(f.spoilers, s)
		f.add(fmt.Sprintf("pushes-%d", i), s.Endpoint())
	}
	for i := range 4 {
		p, err := opcuasim.NewProxy(f.secured().Addr())
		must(t, err)
		t.Cleanup(p.Close)
		f.lines = append(f.lines, p)
		f.add(fmt.Sprintf("line-%d", i), p.Endpoint())
	}
	for i, trick := range opcuasim.Tricks() {
		if i%pick(3, 1) == 0 && slices.Contains([]opcuasim.Step{opcuasim.StepHello, opcuasim.StepOpen, opcuasim.StepOffers}, trick.Step) {
			h, err := opcuasim.NewHostile(trick)
			must(t, err)
			t.Cleanup(h.Close)
			f.add(fmt.Sprintf("before-%d", i), h.Endpoint())
		}
	}
	return f
}

func (f *hostileField) add(name, url string) {
	fmt.Fprintf(&f.devices, "  - name: %s\n    driver: opcua\n    url: %s\n    pki: %s\n    timeout: 1s\n    retry: {min: 1s, max: 4s}\n    groups:\n      - name: all\n"+
		"        interval: 500ms\n        tags:\n          - {name: n, address: \"ns=2;s=n\"}\n", name, url, f.pki)
}

// secured starts a server that counts.
func (f *hostileField) secured() *opcuasim.Server {
	s, err := opcuasim.New(opcuasim.Options{Identity: f.identity, Policies: []string{"http://opcfoundation.org/UA/SecurityPolicy#Basic256Sha256"}})
	must(f.t, err)
	var n atomic.Int64
	s.AddVariable("n", func() any { return n.Add(1) })
	must(f.t, s.Start())
	f.t.Cleanup(s.Close)
	return s
}

// garble changes a byte of each kind of message, now and then, and returns how many.
func (f *hostileField) garble(length time.Duration) (n int) {
	places := []int{0, 3, 4, 5, 8, 12, 16, 20, 24, 31, 40, 60, 200, 600}
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		for _, p := range f.lines {
			p.Garble([]string{"MSG", "OPN", "ACK"}[n/len(places)%3], places[n%len(places)])
			n++
		}
	}
	return n
}

// faultHostileSubscriptions, F23 on the encrypted channel, subscribed: servers that hold the key and push what is no notification, behind the
// login; servers behind somebody on the line who changes a byte of each kind of message, now and then; and servers that play their
// tricks before anybody has logged in. The process lives, its memory stays small, and the healthy devices miss no poll.
func faultHostileSubscriptions(t *testing.T) {
	const interval = time.Second
	f := newHostileField(t)
	b := newBed(t, 4, Setup{More: f.devices.String(), Interval: interval.String()})
	b.start()
	b.await(20, 60*time.Second)
	for i := range f.lines {
		b.until(60*time.Second, "the servers push", func() bool { return len(b.numbers(fmt.Sprintf("line-%d", i))) > 3 })
	}
	from := time.Now()
	garbled := f.garble(pick(15*time.Second, 2*time.Minute))
	b.missedNone(from, interval, func() { garbled += f.garble(15 * time.Second) })
	for i, s := range f.spoilers {
		if s.Spoilt() == 0 {
			t.Errorf("%q was never pushed: it proves nothing", f.notifications[i].Name)
		}
		s.Close() // one of them pushes as fast as it can, and the judge has to read all that
	}
	for i := range f.lines {
		name := fmt.Sprintf("line-%d", i)
		b.until(60*time.Second, "a gap is told of "+name+", which was spoilt all the time", func() bool { return len(b.gapsOf(name)) > 0 }) // at its return
	}
	r := b.judge()
	t.Logf("FIGURES %s: %d servers that push, %d lines spoilt %d times; %d readings of the healthy devices; peak RSS %d MB",
		t.Name(), len(f.spoilers), len(f.lines), garbled, r.Served, b.peakRSS>>20)
	if limit := int64(128 << 20); b.peakRSS > limit && os.Getenv("FAULTS_RACE") != "1" { // whose shadow memory counts as resident
		t.Errorf("peak RSS of %d MB, want at most %d", b.peakRSS>>20, limit>>20)
	}
}
