package modbus

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// caller is a simulated device that says who it is in each register.
func caller(t *testing.T, scheme string, is uint16) *modbussim.Server {
	t.Helper()
	o := modbussim.Options{Transport: "tcp"}
	if scheme == "rtu-listen" {
		o.Transport = "rtuovertcp"
	}
	s := startSim(t, o)
	for u := range uint8(3) {
		s.Unit(u + 1).Fill(func(q modbussim.Request, dst []byte) {
			for i := 0; i+1 < len(dst); i += 2 {
				dst[i], dst[i+1] = byte(is>>8), byte(is)
			}
		})
	}
	return s
}

// called opens a driver that is called, with units of three blocks each.
func called(t *testing.T, scheme, registration string, units int) *driver {
	t.Helper()
	c := drivers.Connection{URL: fmt.Sprintf("%s://127.0.0.1:%d", scheme, drivertest.FreePort(t))}
	for u := range units {
		d := device(c.URL, u+1, tags("holding:1", "holding:1000", "input:1"))
		d.Timeout = 2 * time.Second
		if registration != "" {
			d.Options["registration"] = registration
		}
		c.Devices = append(c.Devices, d)
	}
	d, err := newDriver(&c, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// who polls a unit, and returns which callers answered; 0 = nobody.
func who(t *testing.T, d *driver, unit int) uint16 {
	t.Helper()
	got, err := d.Read(t.Context(), drivers.Ref{Device: unit}, nil)
	if err != nil {
		return 0
	}
	var all []uint16
	for _, r := range got {
		if r.Quality == telemetry.Bad {
			all = append(all, 0)
			continue
		}
		n, _ := r.Value.Float()
		all = append(all, uint16(n))
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) > 1 {
		t.Errorf("one poll with readings of %v", all)
	}
	return all[0]
}

// waits returns once a call waits, or a newer one than a moment before.
func waits(t *testing.T, d *driver) {
	t.Helper()
	for start := time.Now(); !d.link.slot.listener.waits(&d.link.slot.slot); time.Sleep(time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatal("the call does not arrive")
		}
	}
}

func call(t *testing.T, d *driver, s *modbussim.Server, registration string) {
	t.Helper()
	if err := s.Call(d.link.address, []byte(registration)); err != nil {
		t.Fatal(err)
	}
	waits(t, d)
}

// TestTwoCallers: of two modems with one registration the first is the device as long as it answers. The other is hung up on, and the
// trouble names both.
func TestTwoCallers(t *testing.T) {
	for _, scheme := range []string{"tcp-listen", "rtu-listen"} {
		for _, registration := range []string{"gw-1", ""} {
			d := called(t, scheme, registration, 1)
			a, b := caller(t, scheme, 1), caller(t, scheme, 2)
			call(t, d, a, registration)
			if n := who(t, d, 0); n != 1 {
				t.Fatalf("%s: %d answers", scheme, n)
			}
			if now := d.Trouble(); now != (drivers.Trouble{}) {
				t.Errorf("%s: one caller, and trouble: %+v", scheme, now)
			}
			for range 5 {
				call(t, d, b, registration)
				for range 2 {
					if n := who(t, d, 0); n != 1 {
						t.Fatalf("%s: %d answers", scheme, n)
					}
				}
			}
			for start := time.Now(); b.Connections() > 0; time.Sleep(time.Millisecond) {
				if time.Since(start) > 10*time.Second {
					t.Fatalf("%s: the second caller is not hung up on", scheme)
				}
			}
			now := d.Trouble()
			if now.State != drivers.Contested || !strings.Contains(now.What, registration) || strings.Count(now.What, "127.0.0.1:") != 3 || !strings.Contains(now.What, "(5 calls so far)") {
				t.Errorf("%s: trouble %+v", scheme, now)
			}
			if b.Requests() > 0 || a.Accepted() != 1 {
				t.Errorf("%s: %d requests to the second caller, %d calls of the first", scheme, b.Requests(), a.Accepted())
			}
			a.Close() // and when it has gone, the other one is the device
			call(t, d, b, registration)
			if n := who(t, d, 0); n != 2 {
				t.Errorf("%s: %d answers after the first has gone", scheme, n)
			}
			d.link.slot.contest.last = time.Now().Add(-contestTime)
			if now := d.Trouble(); now != (drivers.Trouble{}) {
				t.Errorf("%s: trouble that is over: %+v", scheme, now)
			}
		}
	}
}

// TestSilentStranger: who only connects does not take the device's place, and gives way to the device where it was there first.
func TestSilentStranger(t *testing.T) {
	d := called(t, "tcp-listen", "", 1)
	d.units[0].timeout = 500 * time.Millisecond
	stranger := func() net.Conn {
		c, err := net.Dial("tcp", d.link.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		waits(t, d)
		return c
	}
	stranger()
	if n := who(t, d, 0); n != 0 {
		t.Fatalf("%d answers", n)
	}
	a := caller(t, "tcp-listen", 1)
	call(t, d, a, "")
	if n := who(t, d, 0); n != 1 {
		t.Fatalf("%d answers though the device has called", n)
	}
	d.units[0].timeout = 5 * time.Second
	for range 20 {
		c := stranger()
		if n := who(t, d, 0); n != 1 {
			t.Fatalf("%d answers", n)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Fatalf("the stranger is not hung up on: %v", err)
		}
	}
	if a.Accepted() != 1 || d.Trouble().State != drivers.Contested {
		t.Errorf("%d calls of the device, trouble %+v", a.Accepted(), d.Trouble())
	}
}

// TestCallersDoNotMix: a caller that falls silent in the middle of a poll, and one that takes its place, do not share the poll.
func TestCallersDoNotMix(t *testing.T) {
	d := called(t, "tcp-listen", "gw-1", 1)
	d.units[0].timeout = 500 * time.Millisecond
	a, b := caller(t, "tcp-listen", 1), caller(t, "tcp-listen", 2)
	call(t, d, a, "gw-1")
	for range 20 {
		if who(t, d, 0) == 1 { // all blocks were answered once
			break
		}
	}
	asked := a.Requests()
	a.Inject(modbussim.Fault{Kind: modbussim.Silence, Skip: 1})
	done := make(chan error, 1)
	go func() {
		for a.Requests() < asked+2 {
			time.Sleep(time.Millisecond)
		}
		done <- b.Call(d.link.address, []byte("gw-1"))
	}()
	d.units[0].timeout = 2 * time.Second // of the request that meets silence
	if n := who(t, d, 0); n != 2 {
		t.Errorf("%d answers", n)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if b.Requests() != 2+3 { // the rest of the poll, and all of it again
		t.Errorf("%d requests to the new caller", b.Requests())
	}
}

// TestRivalIsNotTakenForOneLostAnswer: while a line is contested a lost answer does not hand the device over; three do.
func TestRivalIsNotTakenForOneLostAnswer(t *testing.T) {
	d := called(t, "tcp-listen", "gw-1", 1)
	a, b := caller(t, "tcp-listen", 1), caller(t, "tcp-listen", 2)
	call(t, d, a, "gw-1")
	for range 20 {
		if who(t, d, 0) == 1 {
			break
		}
	}
	call(t, d, b, "gw-1")
	who(t, d, 0) // it is refused
	call(t, d, b, "gw-1")
	d.units[0].timeout = 300 * time.Millisecond
	a.Inject(modbussim.Fault{Kind: modbussim.Silence, Times: 2})
	if n := who(t, d, 0); n != 0 || b.Requests() > 0 {
		t.Errorf("%d answers, %d requests to the rival after two lost answers", n, b.Requests())
	}
	a.Inject(modbussim.Fault{Kind: modbussim.Silence})
	for range 4 {
		if who(t, d, 0) == 2 {
			return
		}
	}
	t.Error("the rival does not get its turn though the first is silent")
}

// TestDeadUnitOfCaller: a unit that was dead before does not cost the others behind the same modem their call.
func TestDeadUnitOfCaller(t *testing.T) {
	d := called(t, "tcp-listen", "gw-1", 2)
	a, b := caller(t, "tcp-listen", 1), caller(t, "tcp-listen", 2)
	call(t, d, a, "gw-1")
	d.units[1].timeout = 200 * time.Millisecond
	a.Inject(modbussim.Fault{Kind: modbussim.Silence, Match: modbussim.OfUnit(2)})
	who(t, d, 0)
	if n := who(t, d, 1); n != 0 {
		t.Fatalf("%d answers for the dead unit", n)
	}
	who(t, d, 0)
	call(t, d, b, "gw-1")
	if n := who(t, d, 1); n != 0 || b.Requests() > 0 {
		t.Errorf("%d answers for the dead unit, %d requests to the newer caller", n, b.Requests())
	}
	if n := who(t, d, 0); n != 1 || d.Trouble().State != drivers.Contested {
		t.Errorf("%d answers, trouble %+v", n, d.Trouble())
	}
}

// TestCoalescedRegistration: a registration that is sent twice at once, or with heartbeats behind it that do not stop, is one.
func TestCoalescedRegistration(t *testing.T) {
	port, shared := drivertest.FreePort(t), new(listeners)
	for i, hello := range []string{"gw-%dgw-%d", "gw-%d\r\ngw-%d\r\nbeats", "beatsgw-%dbeats", "gw-%dbeatsbeatsgw-%d"} {
		hello = strings.ReplaceAll(hello, "%d", fmt.Sprint(i))
		c := drivers.Connection{URL: fmt.Sprintf("tcp-listen://127.0.0.1:%d", port), Devices: []drivers.Device{device("", 1, tags("holding:1"))}}
		c.Devices[0].Options["registration"], c.Devices[0].Options["heartbeat_packet"] = fmt.Sprint("gw-", i), "beats"
		d, err := newDriver(&c, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		d.link.listeners = shared
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		conn, err := net.Dial("tcp", d.link.address)
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		t.Cleanup(func() { close(stop); conn.Close() })
		io.WriteString(conn, hello)
		go func() { // as long as the test looks
			for tick := time.Tick(20 * time.Millisecond); ; {
				select {
				case <-stop:
					return
				case <-tick:
					io.WriteString(conn, "beats")
				}
			}
		}()
		waits(t, d)
		if w := d.Warning(); w != "" {
			t.Errorf("%q: %s", hello, w)
		}
	}
}
