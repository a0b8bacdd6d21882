package faults

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// counted is a simulated server whose one variable is another number each time it is sampled.
type counted struct {
	*opcuasim.Server
	name string
	mu   sync.Mutex
	at   []time.Time // of each number
}

func startCounted(t *testing.T, name string) *counted {
	t.Helper()
	return startServing(t, name, (*counted).next)
}

func startServing(t *testing.T, name string, next func(*counted) any) *counted {
	t.Helper()
	s, err := opcuasim.New(opcuasim.Options{Listen: ownHost() + ":0", OneClient: true})
	must(t, err)
	c := &counted{Server: s, name: name}
	s.AddVariable("n", func() any { return next(c) })
	must(t, s.Start())
	t.Cleanup(s.Close)
	return c
}

func (c *counted) next() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = append(c.at, time.Now())
	return int64(len(c.at))
}

// sampled returns when a number was.
func (c *counted) sampled(n int64) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[n-1]
}

// subscriptionFaults break a subscription each. Silence takes 10 s to be noticed, and they all run at a time.
var subscriptionFaults = []struct {
	name, cause, reason string // of the gap
	play                func(c *counted, t *testing.T)
}{
	{"restart", "outage", "connection", func(c *counted, t *testing.T) { must(t, c.Restart()) }},
	{"killed", "outage", "connection", func(c *counted, t *testing.T) {
		c.Close()
		time.Sleep(5 * time.Second)
		must(t, c.Start())
	}},
	{"silent", "outage", "published nothing", func(c *counted, _ *testing.T) {
		c.SetSilent(true)
		time.Sleep(14 * time.Second)
		c.SetSilent(false)
	}},
	{"deleted", "outage", "published nothing", func(c *counted, _ *testing.T) { c.DropSubscriptions(opcuasim.DropQuietly) }},
	{"forgotten", "lost", "messages of the subscription are lost", func(c *counted, _ *testing.T) { c.SkipMessages(5, true) }},
	{"overflow", "lost", "a queue", func(c *counted, _ *testing.T) {
		c.SetUnpublished(true)
		time.Sleep(4 * time.Second)
		c.SetUnpublished(false)
	}},
	{"flapping", "outage", "", func(c *counted, t *testing.T) {
		for range 40 {
			must(t, c.Restart())
			time.Sleep(250 * time.Millisecond)
		}
	}},
	{"well", "", "", func(*counted, *testing.T) {}},
}

// faultSubscriptions, F22: eight servers push to one gateway and break in eight ways. At the broker every change of each value is received,
// or lies in a gap message of its device that names the cause; a server that flaps leaves few; one that is well, none.
func faultSubscriptions(t *testing.T) {
	var more strings.Builder
	var servers []*counted
	for _, f := range subscriptionFaults {
		c := startCounted(t, f.name)
		servers = append(servers, c)
		fmt.Fprintf(&more, "  - name: %s\n    driver: opcua\n    url: %s\n    security_policy: none\n    timeout: 2s\n    retry: {min: 200ms, max: 1s}\n    groups:\n"+
			"      - name: all\n        interval: 100ms\n        tags:\n          - {name: n, address: \"ns=2;s=n\"}\n", f.name, c.Endpoint())
	}
	b := newBed(t, 2, Setup{More: more.String(), Commit: "500ms"})
	b.start()
	for _, c := range servers {
		b.until(60*time.Second, c.name+" pushes", func() bool { return len(b.numbers(c.name)) > 20 })
	}
	var all sync.WaitGroup
	for i, f := range subscriptionFaults {
		all.Go(func() { f.play(servers[i], t) })
	}
	all.Wait()
	over := time.Now()
	for i, f := range subscriptionFaults {
		b.until(60*time.Second, f.name+" pushes again, and its gap is told", func() bool {
			last, gaps := b.lastNumber(f.name), b.gapsOf(f.name)
			if last == 0 || servers[i].sampled(last).Before(over.Add(3*time.Second)) {
				return false
			}
			return f.cause == "" || len(gaps) > 0 && servers[i].sampled(last).After(time.UnixMilli(gaps[len(gaps)-1].To))
		})
	}
	time.Sleep(12 * time.Second) // a gap of a device that flaps may wait for ten
	for i, f := range subscriptionFaults {
		b.explains(servers[i], f.cause, f.reason)
	}
	if gaps := b.gapsOf("overflow"); len(gaps) > 0 && !slices.Equal(gaps[0].Tags, []string{"n"}) {
		t.Errorf("the overflow is said to be of %q", gaps[0].Tags)
	}
	if n := b.lostOf("overflow"); n == 0 {
		t.Error("the API does not say that readings of the tag were lost")
	}
	if n := len(b.gapsOf("flapping")); n > 5 {
		t.Errorf("%d gap messages of a server that flapped for some 12 s", n)
	}
	b.judge()
}

// explains fails for each number of a server that is missing in no gap message, and when the gaps have another cause.
func (b *bed) explains(c *counted, cause, reason string) {
	b.t.Helper()
	came := b.numbers(c.name)
	gaps := b.gapsOf(c.name)
	first, last := int64(math.MaxInt64), int64(0)
	for n := range came {
		first, last = min(first, n), max(last, n)
	}
	named, silent := 0, 0
	for n := first; n <= last; n++ {
		at := c.sampled(n).UnixMilli()
		switch {
		case came[n]:
		case slices.ContainsFunc(gaps, func(g Gap) bool { return at >= g.From-1 && at <= g.To+1 }):
			named++
		default:
			silent++
		}
	}
	b.t.Logf("FIGURES %s: %s: %d changes received, %d missing in %d gap messages, %d silent losses", b.t.Name(), c.name, len(came), named, len(gaps), silent)
	if silent > 0 {
		b.t.Errorf("%s: %d changes are missing in no gap message: %+v", c.name, silent, gaps)
	}
	if reason != "a queue" {
		gaps = slices.DeleteFunc(gaps, b.ofStall)
	}
	if (cause == "") != (len(gaps) == 0) {
		b.t.Errorf("%s: gap messages %+v, want the cause %q", c.name, gaps, cause)
	}
	for _, g := range gaps {
		if g.Cause != cause || !strings.Contains(g.Reason, reason) {
			b.t.Errorf("%s: gap message %+v, want the cause %q and the reason %q", c.name, g, cause, reason)
		}
	}
}

// ofStall tells whether a gap is of a queue that ran over because the machine stood still: the gateway fetched too late what it held.
func (b *bed) ofStall(g Gap) bool {
	return g.Cause == "lost" && strings.Contains(g.Reason, "a queue") && slices.ContainsFunc(b.stoodStill(200*time.Millisecond), func(s Stall) bool {
		return s.To.UnixMilli() >= g.From-1000 && s.From.UnixMilli() <= g.To+1000
	})
}

// numbers returns what arrived of a server.
func (b *bed) numbers(device string) map[int64]bool {
	came := map[int64]bool{}
	for _, m := range b.messages(device) {
		if n, ok := m.Values["n"].(json.Number); ok {
			i, _ := n.Int64()
			came[i] = true
		}
		for _, e := range m.Earlier {
			if n, ok := e.Value.(json.Number); ok {
				i, _ := n.Int64()
				came[i] = true
			}
		}
	}
	return came
}

func (b *bed) lastNumber(device string) (last int64) {
	for n := range b.numbers(device) {
		last = max(last, n)
	}
	return last
}

func (b *bed) gapsOf(device string) (all []Gap) {
	for _, m := range b.messages(device) {
		if m.Gap != nil {
			all = append(all, *m.Gap)
		}
	}
	return all
}

// lostOf returns how many readings of a device's tags the gateway's API says were lost.
func (b *bed) lostOf(device string) (n uint64) {
	b.t.Helper()
	_, body, err := b.gateway.Get("/api/v1/values?device=" + device)
	must(b.t, err)
	var tags []struct {
		Lost uint64 `json:"lost"`
	}
	must(b.t, json.Unmarshal(body, &tags))
	for _, t := range tags {
		n += t.Lost
	}
	return n
}
