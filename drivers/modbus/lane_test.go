package modbus

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// together counts the requests that a device has under way at once, and holds each until there were so many.
type together struct {
	want        int32
	under, most atomic.Int32
	reached     chan struct{}
	once        sync.Once
}

func (m *together) fill(fill func(modbussim.Request, []byte)) func(modbussim.Request, []byte) {
	return func(q modbussim.Request, dst []byte) {
		n := m.under.Add(1)
		defer m.under.Add(-1)
		for most := m.most.Load(); n > most && !m.most.CompareAndSwap(most, n); most = m.most.Load() {
		}
		if n >= m.want {
			m.once.Do(func() { close(m.reached) })
		}
		select {
		case <-m.reached:
		case <-time.After(5 * time.Second):
		}
		fill(q, dst)
	}
}

// TestConnectionsInParallel: four requests of a group are under way at once, over four connections, each block is asked once,
// and each answer is that of its request.
func TestConnectionsInParallel(t *testing.T) {
	b := newBench(t, 2, tags(blocksOf(12)...)).patient().option("connections", "4").open(t)
	if err := b.mustBeWell("at first", 1); err != nil {
		t.Fatal(err)
	}
	if n := b.sim.Accepted(); n != 1 {
		t.Errorf("%d connections for what was never asked before, want 1", n)
	}
	m := &together{want: 4, reached: make(chan struct{})}
	for u := uint8(1); u <= 2; u++ {
		b.sim.Unit(u).Fill(m.fill(b.fill))
	}
	for range 20 {
		n := b.requests(func() {
			if bad, err := b.pollAll(); bad > 0 || err != nil {
				t.Errorf("%d bad, %v", bad, err)
			}
		})
		if n != 24 {
			t.Errorf("%d requests for 24 blocks", n)
		}
	}
	if n := m.most.Load(); n != 4 {
		t.Errorf("%d requests at once, want 4", n)
	}
	if n := b.sim.Accepted(); n != 4 {
		t.Errorf("%d connections, want 4", n)
	}
	if l := b.driver.Learned(0); l != nil {
		t.Errorf("learned %q", l)
	}
	if err := b.driver.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.read(drivers.Ref{}); err == nil {
		t.Error("read after Close")
	}
}

// TestNothingIsLearnedFromSeveral: when a request fails, the others have ended before it is decided what that means.
func TestNothingIsLearnedFromSeveral(t *testing.T) {
	b := newBench(t, 1, tags(blocksOf(12)...)).patient().option("connections", "4").open(t)
	if err := b.mustBeWell("at first", 1); err != nil {
		t.Fatal(err)
	}
	held := make(chan struct{}) // each lane at its first block
	b.sim.Unit(1).Fill(func(q modbussim.Request, dst []byte) {
		<-held
		b.fill(q, dst)
	})
	time.AfterFunc(200*time.Millisecond, func() { close(held) })
	d := b.driver
	d.poll.begin(d.groups[0][0], make([]telemetry.Reading, 12), time.Now())
	d.spread(t.Context())
	mine := d.lanes.claim()
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Exception, Code: 2, Match: modbussim.Touching(1, modbussim.Holding, uint16(mine.first), uint16(mine.first))})
	if err := d.ask(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	if n := len(d.lanes.blocks); n > 0 || mine.reason == "" {
		t.Errorf("the lanes were not waited for; the block is bad for %q", mine.reason)
	}
	d.gather()
}

// TestFaultsInParallel: under every fault no value goes to a wrong tag, and all is well soon after it.
func TestFaultsInParallel(t *testing.T) {
	for _, f := range faults() {
		for _, when := range []string{"once", "all"} {
			bubble(t, func(t *testing.T) {
				b := newBubbleBench(t, modbussim.Options{}, 2, faultTags()).option("connections", "3")
				for i := range b.conn.Devices {
					b.conn.Devices[i].Timeout = 400 * time.Millisecond
				}
				for u := range b.conn.Devices {
					b.sim.Unit(uint8(u + 1)).Fill(func(q modbussim.Request, dst []byte) {
						time.Sleep(5 * time.Millisecond) // else one connection has done all before another has begun
						b.fill(q, dst)
					})
				}
				b.open(t)
				err := errors.Join(b.mustBeWell("at first", 1), b.mustBeWell("of what is known", 1))
				if n := b.sim.Accepted(); n < 2 {
					t.Errorf("%d connections, want several", n)
				}
				for i := 0; i < 2 && err == nil; i++ { // over whichever connection it comes
					err = b.survive(f.Fault, when)
				}
				if err != nil {
					t.Errorf("%s, %s: %v", f.name, when, err)
				}
			})
		}
	}
}

// TestFewerConnections: a device that has two connections is polled over two, no reading is lost, and it is said.
func TestFewerConnections(t *testing.T) {
	b := newBench(t, 1, tags(blocksOf(8)...)).patient()
	refused := two(t, b)
	b.option("connections", "4").open(t)
	for range 10 {
		if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
			t.Errorf("%d bad, %v", bad, err)
		}
	}
	if n := refused.Load(); n < 1 || n > 4 {
		t.Errorf("%d connections beyond two were tried in ten polls, want at most two of each lane", n)
	}
	if w := b.driver.Warning(); !strings.HasPrefix(w, "one of 4 connections failed: ") {
		t.Errorf("warning %q", w)
	}
	if w := b.driver.Warning(); w != "" {
		t.Errorf("a second warning within a minute: %q", w)
	}
}

// two puts before the device of a bench what takes two connections and hangs up on more. It counts those.
func two(t *testing.T, b *bench) *atomic.Int32 {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	target := strings.TrimPrefix(b.sim.URL(), "tcp://")
	b.conn.URL = "tcp://" + l.Addr().String()
	for i := range b.conn.Devices {
		b.conn.Devices[i].URL = b.conn.URL
	}
	refused, open := new(atomic.Int32), 0
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if open++; open > 2 {
				refused.Add(1)
				c.Close()
				continue
			}
			to, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", target)
			if err != nil {
				c.Close()
				continue
			}
			go func() { _, _ = io.Copy(to, c); to.Close() }()
			go func() { _, _ = io.Copy(c, to); c.Close() }()
		}
	}()
	return refused
}

// TestCostOfConnections: nine requests over four connections take as long as three.
func TestCostOfConnections(t *testing.T) {
	b := newBench(t, 1, tags(blocksOf(9)...)).option("connections", "4").open(t)
	if c := b.driver.Cost(drivers.Ref{}); c.Requests != 9 || c.Time != 3*networkAnswer {
		t.Errorf("%+v", c)
	}
}

// TestConnectionsOfWhat: what cannot have several says so.
func TestConnectionsOfWhat(t *testing.T) {
	for _, c := range []struct{ url, options, want string }{
		{"tcp://h", "connections=8", ""},
		{"tcp+tls://h", "connections=2", ""},
		{"rtu:///dev/ttyUSB0", "connections=1", ""},
		{"tcp://h", "connections=9", "not a number from 1 to 8"},
		{"udp://h", "connections=2", "only devices on tcp and tcp+tls answer in parallel"},
		{"rtuovertcp://h:1", "connections=2", "only devices on tcp and tcp+tls answer in parallel"},
		{"tcp-listen://:1502", "connections=2", "only devices on tcp and tcp+tls answer in parallel"},
		{"tcp://h", "connections=2 close_after_poll=true", "close_after_poll is for devices with few of them"},
	} {
		d := device(c.url, 1, tags("holding:1"))
		for word := range strings.FieldsSeq(c.options) {
			name, text, _ := strings.Cut(word, "=")
			d.Options[name] = text
		}
		_, err := newDriver(&drivers.Connection{URL: c.url, Devices: []drivers.Device{d}}, time.Now)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v", c.url, c.options, err)
		}
	}
}
