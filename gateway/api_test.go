package gateway

import (
	"encoding/json"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/gateway/link/mqtt/brokersim"
	"millrace/gateway/web"
)

// TestAPI asks a whole gateway through its socket: what it answers is what runs.
func TestAPI(t *testing.T) {
	devices := []string{device("a"), device("b")}
	b := newGatewayBed(t, plan{devices: devices, top: "web: {listen: \"127.0.0.1:0\"}\n"})
	b.polled(3, "a", "b")
	c, err := web.Dial(t.Context(), filepath.Join(filepath.Dir(b.file), "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list, err := c.Values(t.Context(), "a", "", false)
	if err != nil || len(list) != 1 || list[0].Tag != "n" || list[0].Quality != "good" || list[0].Every != 0.02 {
		t.Errorf("values: %+v, %v", list, err)
	}
	if _, err := c.Write(t.Context(), "a", "n", "1"); err == nil || !strings.Contains(err.Error(), "writes") {
		t.Errorf("a write that the config does not allow: %v", err)
	}
	peer, err := net.Dial("tcp", b.g.running.page.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		s, err := c.Snapshot(t.Context())
		if err != nil || time.Now().After(end) {
			t.Fatalf("the page's connection is not counted: %v", err)
		}
		if c := s.Devices[0].Connects; c == nil || *c != (web.Connects{Attempts: 1}) {
			t.Fatalf("connects %+v", c)
		}
		if len(s.Devices) != 2 || s.Devices[0].Good != 1 || len(s.Destinations) != 1 {
			t.Fatalf("snapshot %+v", s)
		}
		if s.Page == (web.Page{Connections: 1}) {
			break
		}
	}
	b.write(plan{devices: devices[:1], top: "web: {listen: \"127.0.0.1:0\"}\n"})
	if change, err := c.Reload(t.Context()); err != nil || change.String() != "removed: b; connections untouched: 1" {
		t.Errorf("reload: %v, %v", change, err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // its poller may be handing on a last poll
		list, err := c.Values(t.Context(), "b", "", false)
		if err != nil && strings.Contains(err.Error(), `no device "b"`) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("values of a removed device: %+v, %v", list, err)
		}
	}
}

// guest is a second broker that keeps which readings of device a it got.
type guest struct {
	*brokersim.Broker
	mu  sync.Mutex
	got []int
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	g := &guest{}
	g.Broker = brokersim.New(brokersim.Options{OnPublish: func(m brokersim.Message) {
		var body struct{ Values struct{ N int } }
		if strings.Contains(m.Topic, "/a/") && json.Unmarshal(m.Payload, &body) == nil && body.Values.N > 0 {
			g.mu.Lock()
			g.got = append(g.got, body.Values.N)
			g.mu.Unlock()
		}
	}})
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	return g
}

// whole waits until the guest has every reading from its first to the n-th, and returns the first.
func (g *guest) whole(t *testing.T, n int) (first int) {
	t.Helper()
	var got []int
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		g.mu.Lock()
		got = slices.Clone(g.got)
		g.mu.Unlock()
		slices.Sort(got)
		got = slices.Compact(got)
		if len(got) > 0 && got[len(got)-1] >= n && got[len(got)-1]-got[0]+1 == len(got) {
			return got[0]
		}
	}
	t.Fatalf("the guest has %d, want all from its first to %d", got, n)
	return 0
}

// TestReloadDestinationBegins: a destination that is added while another is down begins where its start says.
func TestReloadDestinationBegins(t *testing.T) {
	devices := []string{device("a")}
	b := newGatewayBed(t, plan{devices: devices})
	b.polled(3, "a")
	outage := b.plant.count(b.plant.reads)["a"]
	b.broker.Stop()
	b.polled(20, "a")
	for _, start := range []string{"now", "oldest"} {
		g := newGuest(t)
		before := b.plant.count(b.plant.reads)["a"]
		b.reload(plan{devices: devices, cloud: "}\n  - {name: guest, client_id: guest, start: " + start + ", url: \"mqtt://" + g.Addr() + "\""})
		b.polled(5, "a")
		first := g.whole(t, before+3)
		if start == "now" && first < before || start == "oldest" && first > outage+1 {
			t.Errorf("start %s: begins with reading %d; the outage began at %d, it was added at %d", start, first, outage, before)
		}
		b.reload(plan{devices: devices})
		if _, err := b.g.Buffer().Forget("guest"); err != nil {
			t.Fatal(err)
		}
	}
}
