package modbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"millrace/drivers"
	"millrace/drivers/callers"
	"millrace/drivers/drivertest"
	"millrace/drivers/modbus/modbussim"
)

// calling starts a simulated device and a driver that waits for its call.
func calling(t *testing.T, scheme string, port, units int, o modbussim.Options, options ...string) *bench {
	t.Helper()
	if o.Transport = "tcp"; scheme == "rtu-listen" {
		o.Transport = "rtuovertcp"
	}
	b := &bench{sim: startSim(t, o)}
	b.conn.URL = fmt.Sprintf("%s://127.0.0.1:%d", scheme, port)
	for u := 1; u <= units; u++ {
		b.sim.Unit(uint8(u)).Fill(b.fill)
		d := device(b.conn.URL, u, faultTags())
		d.Timeout = 2 * time.Second
		b.conn.Devices = append(b.conn.Devices, d)
	}
	for i := 0; i < len(options); i += 2 {
		b.option(options[i], options[i+1])
	}
	return b
}

func (b *bench) call(t *testing.T, hello string) {
	t.Helper()
	if err := b.sim.Call(b.driver.link.address, []byte(hello)); err != nil {
		t.Fatal(err)
	}
}

// soon reads until all is well, or until the error has these words.
func (b *bench) soon(t *testing.T, words string) {
	t.Helper()
	var bad int
	var err error
	for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(5 * time.Millisecond) {
		bad, err = b.pollAll()
		if wrong(err) {
			t.Fatal(err)
		}
		if words == "" && bad == 0 && err == nil {
			return
		}
		if words != "" && err != nil && strings.Contains(err.Error(), words) {
			if !errors.Is(err, drivers.ErrDevice) || !errors.Is(err, drivers.ErrAbsent) {
				t.Fatalf("%v: the link is not down, the device is absent", err)
			}
			return
		}
	}
	t.Fatalf("%d bad, %v; want %q", bad, err, words)
}

// TestListen has a device call, hang up and call again; and Close frees the port.
func TestListen(t *testing.T) {
	for _, scheme := range []string{"tcp-listen", "rtu-listen"} {
		b := calling(t, scheme, drivertest.FreePort(t), 2, modbussim.Options{}).open(t)
		b.soon(t, string(neverCalled))
		b.call(t, "")
		b.soon(t, "")
		b.sim.Cut()
		b.soon(t, string(callEnded))
		b.call(t, "")
		b.soon(t, "")
		if err := b.driver.Close(); err != nil {
			t.Error(err)
		}
		l, err := net.Listen("tcp", b.driver.link.address)
		if err != nil {
			t.Fatalf("after Close: %v", err)
		}
		l.Close()
		if err := b.driver.Connect(context.Background()); err != nil {
			t.Fatal(err)
		}
		b.call(t, "")
		b.soon(t, "")
	}
}

// TestNewerCall: a call that comes while the older one is silent, as when a modem calls again because its old call is dead, is taken within the
// poll, and the older is hung up.
func TestNewerCall(t *testing.T) {
	b := calling(t, "tcp-listen", drivertest.FreePort(t), 1, modbussim.Options{}).open(t)
	b.call(t, "")
	b.soon(t, "")
	b.driver.units[0].timeout = 300 * time.Millisecond
	b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Times: 1})
	asked := b.sim.Requests()
	go func() {
		for b.sim.Requests() == asked {
			time.Sleep(time.Millisecond)
		}
		b.sim.Call(b.driver.link.address, nil)
	}()
	if bad, err := b.pollAll(); bad > 0 || err != nil {
		t.Errorf("%d bad, %v", bad, err)
	}
	for start := time.Now(); b.sim.Connections() > 1; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("the older call goes on")
		}
	}
	if n := b.sim.Accepted(); n != 2 || b.driver.Trouble() != (drivers.Trouble{}) {
		t.Errorf("%d calls, trouble %+v", n, b.driver.Trouble())
	}
}

// TestAllowFrom: a caller from elsewhere is hung up on, one with the right registration too, and does not become the device when that has fallen
// silent.
func TestAllowFrom(t *testing.T) {
	elsewhere := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for _, registration := range []string{"", "gw-7"} {
		options := []string{"allow_from", "127.0.0.1, 10.1.0.0/16"}
		if registration != "" {
			options = append(options, "registration", registration)
		}
		b := calling(t, "tcp-listen", drivertest.FreePort(t), 1, modbussim.Options{}, options...).open(t)
		if registration != "" { // another device on the port takes calls from everywhere, so that who calls must say it first
			l, other := b.driver.link.slot.listener, &slot{registration: []byte("gw-8")}
			if err := l.add(other); err != nil {
				t.Fatal(err)
			}
			defer l.remove(other)
		}
		b.call(t, registration)
		b.soon(t, "")
		b.driver.units[0].timeout = 100 * time.Millisecond
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence})
		stranger, err := elsewhere.Dial("tcp", b.driver.link.address)
		if err != nil {
			drivertest.Lacks(t, "this machine calls from no second address: %v", err)
		}
		defer stranger.Close()
		_, _ = stranger.Write([]byte(registration))
		heard := make(chan error, 1)
		go func() {
			_ = stranger.SetReadDeadline(time.Now().Add(20 * time.Second))
			n, err := stranger.Read(make([]byte, 1))
			if n > 0 {
				err = fmt.Errorf("it was asked as if it were the device")
			}
			heard <- err
		}()
		for ended := false; !ended; {
			select {
			case err := <-heard:
				if ended = true; errors.Is(err, os.ErrDeadlineExceeded) || err != nil && strings.Contains(err.Error(), "as if it were") {
					t.Errorf("%q: the stranger: %v", registration, err)
				}
			default:
				if bad, _ := b.pollAll(); bad == 0 {
					t.Errorf("%q: a silent device gives good readings", registration)
				}
			}
		}
		if w := b.driver.Warning(); !strings.Contains(w, "the last from 127.0.0.2:") || !strings.Contains(w, callers.NotAllowed) || !strings.Contains(w, registration) {
			t.Errorf("warning %q", w)
		}
		b.sim.Mend()
		b.soon(t, "")
		if n := b.sim.Accepted(); n != 1 {
			t.Errorf("%d calls", n)
		}
	}
}

// TestRegistration has devices share a port. Each is known by what it sends first, in pieces and with heartbeats around it, too.
func TestRegistration(t *testing.T) {
	port, shared := drivertest.FreePort(t), new(listeners)
	var benches []*bench
	for i, r := range []string{"meter-1", "meter-12", "0x000102FF"} {
		b := calling(t, []string{"tcp-listen", "rtu-listen"}[i%2], port, 1, modbussim.Options{}, "registration", r, "heartbeat_packet", "beat")
		b.generation.Store(uint32(5 * i)) // the values say whose they are
		d, err := newDriver(&b.conn, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		d.link.listeners, b.driver = shared, d
		if err := d.Connect(context.Background()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		benches = append(benches, b)
	}
	benches[1].call(t, "meter-12\r\n")
	benches[2].call(t, "beat\x00\x01\x02\xffbeatbeat")
	benches[1].soon(t, "")
	benches[2].soon(t, "")
	benches[0].soon(t, string(neverCalled))
	stranger := func(words ...string) {
		c, err := net.Dial("tcp", benches[0].driver.link.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, w := range words {
			io.WriteString(c, w)
			time.Sleep(time.Millisecond)
		}
	}
	stranger("meter-1", "23") // what begins like one is not it
	for n := 0; benches[0].driver.link.slot.listener.refusals() == 0; n++ {
		if time.Sleep(10 * time.Millisecond); n == 1000 {
			t.Fatal("meter-123 was not refused")
		}
	}
	if w := benches[2].driver.Warning(); !strings.Contains(w, `: 1, the last from 127.0.0.1:`) || !strings.Contains(w, `sent "meter-123", which is the registration of no device`) {
		t.Errorf("warning %q", w)
	}
	stranger("meter-124")
	for n := 0; benches[0].driver.link.slot.listener.refusals() == 0 && n < 1000; n++ {
		time.Sleep(10 * time.Millisecond)
	}
	if w := benches[0].driver.Warning(); w != "" {
		t.Errorf("a second warning within a minute: %q", w)
	}
	benches[0].soon(t, string(neverCalled))
	benches[0].call(t, "meter-1")
	if n := benches[0].requests(func() { benches[0].soon(t, "") }); n == 0 {
		t.Error("another device answered")
	}
	benches[0].driver.Close()
	benches[1].soon(t, "") // the others go on
	other := calling(t, "tcp-listen", port, 1, modbussim.Options{})
	d, _ := newDriver(&other.conn, time.Now)
	d.link.listeners = shared
	if err := d.Connect(context.Background()); err == nil || !strings.Contains(err.Error(), "nothing tells the two callers apart") {
		t.Errorf("a line without registration beside others: %v", err)
	}
}

func (l *listener) refusals() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// TestHeartbeats has a device send heartbeats before and behind each answer, and between polls.
func TestHeartbeats(t *testing.T) {
	for _, beat := range []string{"\xfe", "ab", "\x00", "\x01\x03", "heartbeat of 20 byte"} {
		for _, scheme := range []string{"tcp-listen", "rtu-listen"} {
			r := rand.New(rand.NewPCG(1, uint64(len(beat))))
			wire := func(to io.Writer, frame []byte) bool {
				out := bytes.Repeat([]byte(beat), r.IntN(3))
				out = append(append(out, frame...), bytes.Repeat([]byte(beat), r.IntN(3))...)
				_, err := to.Write(out)
				return err == nil
			}
			b := calling(t, scheme, drivertest.FreePort(t), 1, modbussim.Options{Wire: wire}, "heartbeat_packet", fmt.Sprintf("0x%x", beat)).open(t)
			b.call(t, beat)
			b.soon(t, "")
			for range 100 {
				if bad, err := b.pollAll(); bad > 0 || err != nil {
					t.Errorf("%s, heartbeat %q: %d bad, %v", scheme, beat, bad, err)
					break
				}
			}
			if n := b.sim.Accepted(); n != 1 {
				t.Errorf("%s, heartbeat %q: %d calls", scheme, beat, n)
			}
			b.driver.Close()
		}
	}
}

// TestOnlyHeartbeats: a device that sends nothing else is silent, not damaged.
func TestOnlyHeartbeats(t *testing.T) {
	for _, scheme := range []string{"tcp-listen", "rtu-listen"} {
		wire := func(to io.Writer, _ []byte) bool { _, err := io.WriteString(to, "beatbeatbe"); return err == nil }
		b := calling(t, scheme, drivertest.FreePort(t), 1, modbussim.Options{Wire: wire}, "heartbeat_packet", "beat").open(t)
		b.conn.Devices[0].Timeout = 0
		b.driver.units[0].timeout = 100 * time.Millisecond
		b.call(t, "")
		for start := time.Now(); ; {
			_, err := b.pollAll()
			if err != nil && strings.Contains(err.Error(), "no answer within 100ms") {
				break
			}
			if time.Since(start) > 10*time.Second {
				t.Fatalf("%s: %v", scheme, err)
			}
		}
	}
}

// TestHostileCallers has a thousand callers send nothing, garbage or a byte now and then. Another device misses no poll, the
// one whose port it is is let in from another host, and what they cost is bounded and ends.
func TestHostileCallers(t *testing.T) {
	t.Parallel()
	victim := newBench(t, 1, faultTags()).patient().open(t)
	b := calling(t, "tcp-listen", drivertest.FreePort(t), 1, modbussim.Options{}, "registration", "meter-1").open(t)
	l := b.driver.link.slot.listener
	before := runtime.NumGoroutine()
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	for i := range 1000 {
		c, err := net.Dial("tcp", b.driver.link.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		switch i % 3 {
		case 0:
			c.Write(bytes.Repeat([]byte{byte(i)}, 1<<10))
		case 1:
			go drip(c, stop)
		}
		if n := l.pending(); n > callers.MostOfHost {
			t.Fatalf("%d callers of one host are waited for", n)
		}
		if i%10 > 0 {
			continue
		}
		if bad, err := victim.pollAll(); bad > 0 || err != nil {
			t.Fatalf("the other device: %d bad, %v", bad, err)
		}
		if _, err := b.pollAll(); err == nil || !strings.Contains(err.Error(), string(neverCalled)) {
			t.Fatalf("nobody has registered: %v", err)
		}
	}
	t.Logf("%d goroutines more, dripping callers of the test included", runtime.NumGoroutine()-before)
	if runtime.GOOS == "linux" { // 127.0.0.2 is another host
		good, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", b.driver.link.address)
		if err != nil {
			t.Fatal(err)
		}
		device, err := net.Dial("tcp", b.sim.Addr())
		if err != nil {
			t.Fatal(err)
		}
		go func() { io.Copy(device, good); device.Close() }()
		go func() { io.WriteString(good, "meter-1"); io.Copy(good, device); good.Close() }()
		b.soon(t, "")
	}
	for start := time.Now(); l.pending() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 4*helloTime {
			t.Fatalf("%d callers are still waited for", l.pending())
		}
	}
	if l.refusals() < 900 {
		t.Errorf("%d refused", l.refusals())
	}
}

// drip sends a byte of a registration now and then, until the connection ends.
func drip(c net.Conn, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(500 * time.Millisecond):
			if _, err := c.Write([]byte("m")); err != nil {
				return
			}
		}
	}
}

func (l *listener) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.callers.Len()
}

// TestRegistrations says what is a registration, among what callers send.
func TestRegistrations(t *testing.T) {
	for _, c := range []struct {
		registration, heartbeat, hello string
		want                           int
	}{
		{"gw-1", "", "gw-1", 1}, {"gw-1", "", "gw-1\r\n", 1}, {"gw-1\r\n", "", "gw-1", 1}, {"gw-1", "", "gw-", 0}, {"gw-1", "", "gw-12", 0}, {"gw-1", "", "", 0},
		{"gw-1", "", "gw-1gw-1", 2}, {"gw-1", "", "gw-1\r\ngw-1\r\ngw-1\r\n", 2}, {"gw-1", "", "gw-1gw-", 0}, {"gw-1", "", "gw-1gw-2", 0},
		{"gw-1", "beat", "gw-1beat", 1}, {"gw-1", "beat", "beatbeatgw-1beatbeat", 1}, {"gw-1", "beat", "gw-1beatgw-1", 2}, {"gw-1", "beat", "gw-1bea", 0}, {"gw-1", "beat", "beat", 0},
		{"1", "", "11", 2}, {"11", "", "11", 1}, {"gw-1", "1", "gw-111", 1}, {"ab", "a", "aab", 1}, {"ab", "abab", "ababab", 1}, {"", "", "x", 0},
		{"\x00\x01", "\x00", "\x00\x00\x01\x00", 1},
	} {
		s := &slot{registration: []byte(c.registration), heartbeat: []byte(c.heartbeat)}
		if got := s.registrations([]byte(c.hello)); got != c.want {
			t.Errorf("%q is %d times %q with heartbeats %q, want %d", c.hello, got, c.registration, c.heartbeat, c.want)
		}
	}
	one, eleven := &slot{registration: []byte("1")}, &slot{registration: []byte("11")}
	l := &listener{slots: []*slot{one, eleven}}
	for hello, want := range map[string]*slot{"1": one, "11": eleven, "111": one, "1111": nil, "2": nil} {
		if got := l.slotOf([]byte(hello)); got != want {
			t.Errorf("%q is taken for another", hello)
		}
	}
}

// FuzzHello: a caller is known by its registration and nothing but it, line ends and heartbeats, and by no less.
func FuzzHello(f *testing.F) {
	f.Add([]byte("beatgw-7beat\r\n"), []byte("gw-7"), []byte("beat"))
	f.Add([]byte("gw-7gw-7"), []byte("gw-7"), []byte{})
	f.Fuzz(func(t *testing.T, hello, registration, heartbeat []byte) {
		if len(hello) > maxHello || len(registration) > maxPacket || len(heartbeat) > maxPacket {
			return
		}
		s := &slot{registration: registration, heartbeat: heartbeat}
		trimmed := bytes.TrimRight(registration, "\r\n")
		if len(trimmed) == 0 {
			if s.registrations(hello) != 0 {
				t.Errorf("%q is taken for none", hello)
			}
			return
		}
		parts := regexp.QuoteMeta(string(trimmed)) + `|\r|\n`
		if len(heartbeat) > 0 {
			parts += "|" + regexp.QuoteMeta(string(heartbeat))
		}
		if !utf8.Valid(hello) || !utf8.Valid(registration) || !utf8.Valid(heartbeat) {
			return // regexp does not take bytes
		}
		is := regexp.MustCompile(`^(?:` + parts + `)*` + regexp.QuoteMeta(string(trimmed)) + `(?:` + parts + `)*$`).Match(hello)
		if got := s.registrations(hello); got > 0 != is {
			t.Errorf("%q for %q with %q: %d", hello, registration, heartbeat, got)
		}
		if s.registrations(registration) != 1 {
			t.Errorf("%q is not itself", registration)
		}
	})
}

// FuzzHeartbeat: heartbeats before a frame of the right answer do not hide it, whatever they are.
func FuzzHeartbeat(f *testing.F) {
	f.Add([]byte{0xfe}, uint16(7), uint8(3))
	f.Add([]byte{0, 0, 0}, uint16(0), uint8(1))
	f.Fuzz(func(t *testing.T, heartbeat []byte, id uint16, times uint8) {
		if n := len(heartbeat); n == 0 || n > maxPacket || n >= 4 && heartbeat[2] == 0 && heartbeat[3] == 0 {
			return // the config refuses it
		}
		q := &request{unit: 1, pdu: []byte{readHolding, 0, 1, 0, 1}, want: 2}
		w := &wire{heartbeat: heartbeat, number: id}
		in := bytes.Repeat(heartbeat, int(times%4))
		in = append(in, byte(id>>8), byte(id), 0, 0, 0, 5, 1, readHolding, 2, 0x12, 0x34)
		for _, b := range in { // one byte at a time is the hardest
			w.in[w.have] = b
			w.have++
			pdu, err := w.findMBAP(q)
			if err != nil {
				t.Fatalf("%x, transaction %d: %v", heartbeat, id, err)
			}
			if pdu != nil {
				if !bytes.Equal(pdu, in[len(in)-4:]) {
					t.Fatalf("%x: %x", heartbeat, pdu)
				}
				return
			}
		}
		t.Fatalf("%x, transaction %d: the answer was not seen", heartbeat, id)
	})
}
