package modbus

import (
	"crypto/tls"
	goflag "flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/modbus/modbussim"
)

var (
	long      = goflag.Bool("long", os.Getenv("FAULTS") == "long", "run the long form of TestCampaign: 100,000 damaged answers a transport; also FAULTS=long")
	linesFlag = goflag.Int("lines", 0, "lines of each transport in TestCampaign; 0 = 48, with -long 75. On pseudo-terminals 150 at most in a process, for each takes six file descriptors and select knows none over 1023")
	seedFlag  = goflag.Uint64("seed", 0, "seed of TestCampaign; 0 = a new one, printed")
)

// campaign is many lines of one transport whose devices give damaged answers.
type campaign struct {
	name      string
	lines     []*campaignLine
	want      int64 // damaged answers
	calm      bool  // no machine makes timeouts of its own
	good, bad atomic.Int64
	polls     atomic.Int64
	recovery  atomic.Int64 // most polls until a mended line was well
}

type campaignLine struct {
	*bench
	*mangler
}

// TestCampaign damages answers on every transport, in each way of F19 to F21 in FAULTS.md, and holds that a reading is right or
// bad, never wrong, and that each line is well again when its device is. Every register says whose it is and of which poll.
//
// Nothing is excused, also where the machine itself stands still. "memory" has the transports of the network on a clock of its own, where
// nothing stalls.
func TestCampaign(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -seed %d", seed)
	t.Run("serial", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("no pseudo-terminals here")
		}
		t.Parallel()
		realCampaigns(t, seed, "rtu", "ascii")
	})
	t.Run("network", func(t *testing.T) {
		t.Parallel()
		realCampaigns(t, seed, "tcp", "tcp+tls", "udp", "rtuovertcp", "rtuoverudp", "asciiovertcp", "asciioverudp")
	})
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		for i, name := range []string{"tcp", "udp", "rtuovertcp", "rtuoverudp", "asciiovertcp", "asciioverudp"} {
			bubble(t, func(t *testing.T) {
				c := newCampaign(t, name, seed, 10+i, lineOpener(t, name, campaignTimeout(), true))
				c.calm, c.want = true, max(c.want, 3000) // it costs little time
				runCampaign(t, c)
			})
		}
	})
}

// realCampaigns runs one of each transport over sockets or pseudo-terminals, all at once.
func realCampaigns(t *testing.T, seed uint64, names ...string) {
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCampaign(t, name, seed, i, lineOpener(t, name, campaignTimeout(), false))
			var tell *time.Timer
			tell = time.AfterFunc(time.Minute, func() { // a long run says how far it is
				t.Logf("%s: %d of %d", c.name, c.struck(), c.want)
				tell.Reset(time.Minute)
			})
			defer tell.Stop()
			runCampaign(t, c)
		})
	}
}

func campaignTimeout() time.Duration {
	if *long {
		return 300 * time.Millisecond
	}
	return time.Second // few lines, which a busy machine serves in that time
}

func newCampaign(t *testing.T, name string, seed uint64, i int, open func(*rand.Rand) *campaignLine) *campaign {
	c, lines := &campaign{name: name, want: 500}, 16
	if *long {
		c.want, lines = 100000, 75
	}
	if *linesFlag > 0 {
		lines = *linesFlag
	}
	for j := range lines {
		c.lines = append(c.lines, open(rand.New(rand.NewPCG(seed, uint64(1000*i+j)))))
	}
	return c
}

func runCampaign(t *testing.T, c *campaign) {
	var wg sync.WaitGroup
	for _, l := range c.lines {
		wg.Go(func() { c.run(t, l) })
	}
	wg.Wait()
	c.report(t)
}

// run polls one line until all have had enough, and then until it is well.
func (c *campaign) run(t *testing.T, l *campaignLine) {
	for c.struck() < c.want && !t.Failed() {
		bad, err := l.pollAll()
		if wrong(err) {
			t.Errorf("%s: %v; the last exchanges: %v", c.name, err, l.lately())
			return
		}
		c.bad.Add(int64(bad))
		c.good.Add(int64(2*len(campaignTags()) - bad))
		c.polls.Add(1)
		time.Sleep(10 * time.Millisecond) // a poll of units whose late answers may come yet takes no time, and a clock of its own stands still
		l.clock += time.Minute            // so that what was given up is soon tried again
	}
	l.off.Store(true)
	var bad int
	var err error
	most := int64(20)
	if !c.calm {
		most = 200 // a busy machine makes timeouts of its own
	}
	for n := range most {
		bad, err = l.pollAll()
		if l.clock += time.Minute; wrong(err) {
			t.Errorf("%s, mended: %v; the last exchanges: %v", c.name, err, l.lately())
			return
		} else if bad == 0 && err == nil {
			c.recovery.Store(max(c.recovery.Load(), n+1))
			return
		}
		time.Sleep(campaignTimeout()) // a silent unit of a shared line is not asked as long as its late answer may come
	}
	t.Errorf("%s: the device is well, the line is not after %d polls: %d bad, %v\n%q\n%q", c.name, most, bad, err, l.driver.Plan(drivers.Ref{}), l.driver.Plan(drivers.Ref{Device: 1}))
}

// struck is how many answers were damaged.
func (c *campaign) struck() (n int64) {
	for _, l := range c.lines {
		n += l.total.Load()
	}
	return n
}

// report logs the figures and holds that each kind of damage was done.
func (c *campaign) report(t *testing.T) {
	var collisions int64
	var kinds []string
	requests := uint64(0)
	var sum [damages]int64
	learned := map[string]int{}
	for _, l := range c.lines {
		for name, text := range l.driver.Learned(0) {
			learned[name+": "+text]++
		}
		requests += l.sim.Requests()
		collisions += l.collisions.Load()
		for d := range sum {
			sum[d] += l.struck[d].Load()
		}
	}
	for d, n := range sum {
		if n > 0 {
			kinds = append(kinds, fmt.Sprint(damageNames[d], " ", n))
		}
		if m := c.lines[0].mangler; n == 0 && m.knows(damage(d)) {
			t.Errorf("%s: nothing was %s", c.name, damageNames[d])
		}
	}
	good := c.good.Load()
	t.Logf("FIGURES %s: %d damaged of %d answers in %d polls, %.0f %% of the readings good, well after at most %d polls, checksum right all the same %d, learned %v; %s",
		c.name, c.struck(), requests, c.polls.Load(), 100*float64(good)/float64(good+c.bad.Load()), c.recovery.Load(), collisions, learned, strings.Join(kinds, ", "))
	if good == 0 {
		t.Errorf("%s: no reading was good", c.name)
	}
}

// campaignTags are three requests of one function and length, which only a transaction id, or patience, tells apart, and others.
func campaignTags() []string {
	words := append(append(run("holding", 100, 9), run("holding", 300, 9)...), run("holding", 500, 9)...)
	return append(words, "input:20", "input:24 uint32", "input:28", "coil:7", "coil:8", "discrete:3")
}

// lineOpener returns what makes lines of a transport, in memory where a bubble is around.
func lineOpener(t *testing.T, name string, timeout time.Duration, inMemory bool) func(*rand.Rand) *campaignLine {
	o := modbussim.Options{Transport: name}
	more := map[string]string{}
	if name == "tcp+tls" {
		folder, ca := t.TempDir(), newAuthority(t)
		pair, err := tls.LoadX509KeyPair(ca.issue(t, folder, "server", "plc.example")+".pem", filepath.Join(folder, "server.key"))
		if err != nil {
			t.Fatal(err)
		}
		more["ca_file"], more["server_name"] = filepath.Join(folder, "ca.pem"), "plc.example"
		ca.save(t, more["ca_file"])
		o.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	return func(r *rand.Rand) *campaignLine {
		given, once := r.IntN(2) == 0, r.IntN(2) == 0
		m := &mangler{mu: make(turn, 1), timeout: timeout, r: r, share: strikes, begun: time.Now()}
		own := o
		own.Wire = m.write
		b := &bench{}
		if inMemory {
			network := newMemory(strings.Contains(name, "udp"))
			own.Listener, b.dialer = network, network.dial
		}
		b.sim = startSim(t, own)
		b.conn.URL = b.sim.URL()
		if name == "tcp+tls" {
			b.conn.URL, m.spoil = spoiler(t, b.sim.Addr(), r.Uint64())
		}
		for u := range 2 {
			b.sim.Unit(uint8(u + 1)).Fill(b.fill)
			d := device(b.conn.URL, u+1, tags(campaignTags()...))
			d.Timeout = timeout
			for k, v := range more {
				d.Options[k] = v
			}
			if given { // a pause learned from damage costs time
				d.Options["pause_after_connect"], d.Options["pause_between_requests"] = "0", "0"
			}
			if once { // else a late answer is mostly taken for that of the same request
				d.Options["retries"] = "0"
			}
			b.conn.Devices = append(b.conn.Devices, d)
		}
		e, _ := parseURL(b.conn.URL)
		m.framing, m.network = e.framing, e.network
		b.open(t).driver.Trace(m.note)
		return &campaignLine{bench: b, mangler: m}
	}
}

// spoiler is a cable to a device. After a call of flip one bit of what the device sends next is wrong.
func spoiler(t *testing.T, to string, seed uint64) (url string, flip func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var due atomic.Bool
	go func() {
		for n := uint64(0); ; n++ {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			go func() { io.Copy(far, near); far.Close() }()
			go spoilTo(near, far, &due, rand.New(rand.NewPCG(seed, n)))
		}
	}()
	return "tcp+tls://" + l.Addr().String(), func() { due.Store(true) }
}

func spoilTo(near, far net.Conn, due *atomic.Bool, r *rand.Rand) {
	defer near.Close()
	b := make([]byte, 4<<10)
	for {
		n, err := far.Read(b)
		if n > 0 && due.CompareAndSwap(true, false) {
			b[r.IntN(n)] ^= 1 << r.IntN(8)
		}
		if _, e := near.Write(b[:n]); err != nil || e != nil {
			return
		}
	}
}
