package faults

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// steady is a counted server whose number changes each 150 ms, whether anybody samples it or not: with each change that nobody was there for, at its time. One
// that comes late because the machine stood still is none of these.
func (c *counted) steady() any {
	const every, unobserved = 150 * time.Millisecond, 3 * time.Second
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if len(c.at) == 0 {
		c.at = append(c.at, now)
	}
	last := c.at[len(c.at)-1]
	switch passed := now.Sub(last); {
	case passed >= unobserved:
		for at := last.Add(every); !at.After(now); at = at.Add(every) {
			c.at = append(c.at, at)
		}
	case passed >= every:
		c.at = append(c.at, now)
	}
	return int64(len(c.at))
}

// TestStopsAreTold: a value goes on to change while the gateway is killed and started, stopped in peace and started, reloaded, and started before it can reach the
// server, with no history to ask for. Every change came, or lies in a gap message that says why; nobody has to acknowledge it.
func TestStopsAreTold(t *testing.T) {
	t.Parallel()
	c := startServing(t, "steady", (*counted).steady)
	path, err := NewProxy(strings.TrimPrefix(c.Endpoint(), "opc.tcp://"))
	must(t, err)
	t.Cleanup(path.Close)
	b := newBed(t, 0, Setup{More: fmt.Sprintf("  - name: steady\n    driver: opcua\n    url: opc.tcp://%s\n    security_policy: none\n    timeout: 2s\n    retry: {min: 200ms, max: 1s}\n    groups:\n"+
		"      - name: all\n        interval: 20ms\n        tags:\n          - {name: n, address: \"ns=2;s=n\"}\n", path.Addr())})
	b.start()
	b.until(60*time.Second, "numbers", func() bool { return len(b.numbers(c.name)) > 10 })
	if gaps := b.gapsOf(c.name); len(gaps) > 0 {
		t.Errorf("of a device that is new something is said to be missing: %+v", gaps)
	}
	b.stopEachWay(path, func(what string) {
		t.Helper()
		now := time.Now()
		b.until(60*time.Second, "numbers "+what, func() bool {
			last := b.lastNumber(c.name)
			return last > 0 && c.sampled(last).After(now.Add(time.Second))
		})
	})
	time.Sleep(12 * time.Second) // a gap may wait for ten
	b.explains(c, "outage", "connected")
	if _, body, err := b.gateway.Get("/readyz"); err != nil || strings.Contains(string(body), "lost data") {
		t.Errorf("readyz: %s %v", body, err)
	}
}

// TestInteropStops is the same with what node-opcua counts.
func TestInteropStops(t *testing.T) {
	t.Parallel()
	b, path, more := throughPath(t, "Tick", unsecured)
	b.stopEachWay(path, more)
	time.Sleep(12 * time.Second) // a gap may wait for ten
	silent, n := b.beats()
	if silent != 0 {
		t.Errorf("%d of %d changes are missing in no gap message: %+v", silent, n, b.gapsOf("beats"))
	}
	t.Logf("FIGURES %s: %d changes, %d silent losses, %d gap messages", t.Name(), n, silent, len(b.gapsOf("beats")))
}

// stopEachWay ends the gateway in each way, and starts it again.
func (b *bed) stopEachWay(path *Proxy, more func(what string)) {
	b.kill()
	time.Sleep(5 * time.Second)
	b.start()
	more("after a kill")
	b.stop()
	time.Sleep(5 * time.Second)
	b.start()
	more("after a stop")
	config, err := os.ReadFile(b.gateway.Config)
	must(b.t, err)
	b.write(strings.Replace(string(config), "    timeout: 2s\n", "    timeout: 3s\n", 1))
	if code, out := run(b.gateway.Binary, "reload", "--config", b.gateway.Config); code != 0 {
		b.t.Fatalf("reload: exit %d: %s", code, out)
	}
	more("after a reload")
	b.stop()
	path.Refuse()
	path.Cut()
	b.start()
	time.Sleep(3 * time.Second)
	b.kill() // before it has reached the server
	b.start()
	time.Sleep(3 * time.Second)
	must(b.t, path.Accept())
	more("after a start that did not reach the server at first")
}
