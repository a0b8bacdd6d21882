package opcua

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/callers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

const (
	listenURL = "opc.tcp-listen://127.0.0.1:4841"
	simURI    = opcuasim.ServerURI
)

// doors is a listener on a free port that the drivers of a test share.
type doors struct {
	listeners *listeners
	address   string // where servers call
}

func open(t *testing.T, hello time.Duration) doors {
	t.Helper()
	before := runtime.NumGoroutine()
	ls, nobody := new(listeners), &slot{server: "nobody", news: make(chan struct{}, 1)}
	l, err := ls.join(t.Context(), "127.0.0.1:0", hello, nobody)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ls.leave(l, nobody)
		for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
		if n := runtime.NumGoroutine(); n > before || len(ls.all) > 0 {
			t.Errorf("%d goroutines, %d before; %d listeners", n, before, len(ls.all))
		}
	})
	return doors{ls, l.net.Addr().String()}
}

// behind makes a driver whose server calls, and that waits for a call for so long.
func (d doors) behind(t *testing.T, c drivers.Connection, server string, wait time.Duration) *driver {
	t.Helper()
	c.URL, c.Devices[0].URL = listenURL, listenURL
	c.Devices[0].Options["server_uri"] = server
	made, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.Close() })
	r := made.(*driver).set.reverse
	r.listeners, r.address, r.wait = d.listeners, "127.0.0.1:0", wait
	return made.(*driver)
}

// nobodyThere connects and wants to hear that nobody is there.
func nobodyThere(t *testing.T, d *driver, want string) {
	t.Helper()
	if err := d.Connect(t.Context()); !errors.Is(err, drivers.ErrAbsent) || !strings.Contains(err.Error(), want) {
		t.Errorf("got  %v\nwant an absence: %s", err, want)
	}
}

// TestReverseConnect: the server calls, and calls again after its end.
func TestReverseConnect(t *testing.T) {
	door := open(t, time.Minute)
	s := start(t, opcuasim.Options{}, 3)
	d := door.behind(t, connection("", 5*time.Second, variables(3)...), simURI, 50*time.Millisecond)
	nobodyThere(t, d, `the server "urn:millrace:opcuasim" has not called "127.0.0.1:0" yet`)
	d.set.reverse.wait = 30 * time.Second
	s.KeepCalling(door.address, "", simURI, 10*time.Millisecond)
	for range 2 {
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantNumbers(t, read(t, d), nil)
		if d.set.serverName != "127.0.0.1" || d.set.endpoint != s.Endpoint() {
			t.Errorf("the server is %q at %q", d.set.serverName, d.set.endpoint)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if len(door.listeners.all["127.0.0.1:0"].slots) != 1 {
			t.Error("a driver that is closed still waits for calls")
		}
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := d.Read(t.Context(), drivers.Ref{}, nil); !errors.Is(err, drivers.ErrClosed) {
		t.Errorf("read from a server that is gone: %v", err)
	}
	d.set.reverse.wait = 50 * time.Millisecond
	nobodyThere(t, d, `the last call of the server "urn:millrace:opcuasim" has ended`)
}

// TestReverseAllowFrom: a server that calls from elsewhere is refused, though it says that it is the one.
func TestReverseAllowFrom(t *testing.T) {
	door := open(t, time.Minute)
	s := start(t, opcuasim.Options{}, 1)
	s.KeepCalling(door.address, "", simURI, 10*time.Millisecond)
	with := func(from string, wait time.Duration) *driver {
		c := connection("", 5*time.Second, variables(1)...)
		c.Devices[0].Options["allow_from"] = from
		return door.behind(t, c, simURI, wait)
	}
	d := with("10.1.0.0/16, fd00::/8", time.Second)
	nobodyThere(t, d, `has not called "127.0.0.1:0" yet; refused: 127.0.0.1: the caller says it is the server "urn:millrace:opcuasim" and `+callers.NotAllowed)
	d.Close()
	if d = with("127.0.0.0/8", 30*time.Second); d.Connect(t.Context()) != nil {
		t.Error("a server from where calls are taken is refused")
	}
}

// TestReverseConnectEnds: waiting for a call ends with the context.
func TestReverseConnectEnds(t *testing.T) {
	d := open(t, time.Minute).behind(t, connection("", time.Second, "i=2258"), simURI, time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.Connect(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestReverseSecured takes two calls for a session, also when the second comes after the first attempt has given up.
func TestReverseSecured(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint(late), func(t *testing.T) {
			door := open(t, time.Minute)
			s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris(current...)}, 3)
			c, _ := securedConnection(t, "", nil, variables(3)...)
			if !late {
				s.KeepCalling(door.address, "", simURI, 10*time.Millisecond)
				d := door.behind(t, c, simURI, 30*time.Second)
				if err := d.Connect(t.Context()); err != nil {
					t.Fatal(err)
				}
				wantNumbers(t, read(t, d), nil)
				return
			}
			d := door.behind(t, c, simURI, 500*time.Millisecond)
			nobodyThere(t, d, "has not called")
			once := func(until func() bool) {
				t.Helper()
				go s.Call(door.address, "", simURI)
				for end := time.Now().Add(30 * time.Second); !until(); {
					if err := d.Connect(t.Context()); err != nil && !errors.Is(err, drivers.ErrAbsent) || time.Now().After(end) {
						t.Fatal(err)
					}
				}
			}
			once(func() bool { return d.set.reverse.chosen != nil })
			nobodyThere(t, d, "the last call")
			once(func() bool { return d.link != nil })
			wantNumbers(t, read(t, d), nil)
		})
	}
}

// TestReverseSharedPort: two servers call at one port, each the device that it says to be; one whose endpoint says to be another is refused.
func TestReverseSharedPort(t *testing.T) {
	door := open(t, time.Minute)
	rename := func(name string) func([]*ua.EndpointDescription) []*ua.EndpointDescription {
		return func(all []*ua.EndpointDescription) []*ua.EndpointDescription {
			for _, e := range all {
				e.Server.ApplicationURI = name
			}
			return all
		}
	}
	a, b := start(t, opcuasim.Options{Offers: rename("urn:a")}, 0), start(t, opcuasim.Options{Offers: rename("urn:b")}, 0)
	a.AddVariable("v0", func() any { return 0.0 })
	b.AddVariable("v1", func() any { return 1.0 })
	da := door.behind(t, connection("", 5*time.Second, "ns=2;s=v0"), "urn:a", 30*time.Second)
	db := door.behind(t, connection("", 5*time.Second, "i=2258", "ns=2;s=v1"), "urn:b", 30*time.Second)
	b.KeepCalling(door.address, "", "urn:b", 10*time.Millisecond)
	a.KeepCalling(door.address, "", "urn:a", 10*time.Millisecond)
	for _, d := range []*driver{da, db} {
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantNumbers(t, read(t, da), nil)
	if r := read(t, db); r[1].Value != telemetry.Float64(1) {
		t.Errorf("%+v", r)
	}
	again := door.behind(t, connection("", time.Second, "i=2258"), "urn:a", time.Second)
	if err := again.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), `another device waits there for the server "urn:a"`) {
		t.Error(err)
	}
	liar := door.behind(t, connection("", 5*time.Second, "i=2258"), "urn:c", 30*time.Second)
	b.KeepCalling(door.address, "", "urn:c", 10*time.Millisecond)
	if err := liar.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), `the server that called as "urn:c" says at its endpoint that it is "urn:b"`) {
		t.Error(err)
	}
}

// TestReverseBetweenAttempts: a call that comes while its device is between two attempts to connect, and another one keeps the port open, is held.
func TestReverseBetweenAttempts(t *testing.T) {
	door := open(t, time.Minute)
	l := door.listeners.all["127.0.0.1:0"]
	l.mu.Lock()
	l.hold = time.Hour
	l.mu.Unlock()
	s := start(t, opcuasim.Options{}, 3)
	d := door.behind(t, connection("", 5*time.Second, variables(3)...), simURI, time.Millisecond)
	nobodyThere(t, d, "has not called")
	d.Close()
	go s.Call(door.address, "", simURI)
	eventually(t, "the call is held", time.Minute, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.callers.Len() == 1 })
	d.set.reverse.wait = time.Minute
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, read(t, d), nil)
	c, err := net.Dial("tcp", door.address) // of a stranger, who is held when the last device leaves
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write(opcuasim.ReverseHello("urn:x", "opc.tcp://h:4840")); err != nil {
		t.Fatal(err)
	}
}

// TestHostileCallers: whoever says nothing, nonsense, or to be somebody else costs a connection for a while at most, and keeps nobody of another host out.
func TestHostileCallers(t *testing.T) {
	if c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", "127.0.0.1:1"); err == nil || strings.Contains(err.Error(), "assign") {
		t.Skipf("no second address: %v %v", c, err)
	}
	door := open(t, 3*time.Second)
	d := door.behind(t, connection("", 5*time.Second, variables(3)...), simURI, 50*time.Millisecond)
	l := door.listeners.all["127.0.0.1:0"]
	said := func(hello []byte, want string) {
		t.Helper()
		c, err := net.Dial("tcp", door.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(hello); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
			t.Errorf("%.20q is kept: %v", hello, err)
		}
		nobodyThere(t, d, want)
	}
	endpoint := "opc.tcp://h:4840"
	said([]byte("GET / HTTP/1.1\r\n"), `127.0.0.1: the caller sent "GET / HT", not a ReverseHello`)
	said([]byte("RHEF\xff\xff\xff\x7f"), "ReverseHello of 2147483647 bytes")
	said(opcuasim.ReverseHello("urn:x", endpoint), `the caller is the server "urn:x", and no device here waits for it`)
	said(opcuasim.ReverseHello("", endpoint), `the caller is the server "", and`)
	said(opcuasim.ReverseHello(simURI, "http://h"), `the caller names "http://h", which is no OPC UA endpoint`)
	said(opcuasim.ReverseHello(simURI, "opc.tcp://u:p@h"), `which is no OPC UA endpoint`)
	said([]byte("RHEF"), "the caller has not said who it is") // after 3 s

	for range 4 * callers.MostOfHost { // that say nothing
		c, err := net.Dial("tcp", door.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	most := 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		l.mu.Lock()
		most = max(most, l.callers.Len())
		l.mu.Unlock()
	}
	if most != callers.MostOfHost {
		t.Errorf("%d callers of one host at a time, want %d", most, callers.MostOfHost)
	}
	s := start(t, opcuasim.Options{}, 3)
	s.KeepCalling(door.address, "127.0.0.2", simURI, 10*time.Millisecond)
	d.set.reverse.wait = 30 * time.Second
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, read(t, d), nil)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l.mu.Lock()
		left := l.callers.Len()
		l.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d callers are kept", left)
		}
	}
}

// TestNewestCall: of two calls of one server the newer counts, and the older is hung up.
func TestNewestCall(t *testing.T) {
	door := open(t, time.Minute)
	d := door.behind(t, connection("", time.Second, "i=2258"), simURI, time.Millisecond)
	nobodyThere(t, d, "has not called")
	var calls [2]net.Conn
	for i := range calls {
		c, err := net.Dial("tcp", door.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(opcuasim.ReverseHello(simURI, fmt.Sprintf("opc.tcp://h%d", i))); err != nil {
			t.Fatal(err)
		}
		<-d.set.reverse.slot.news
		calls[i] = c
	}
	_ = calls[0].SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := calls[0].Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the older call: %v", err)
	}
	if c, err := d.set.called(t.Context()); err != nil || d.set.endpoint != "opc.tcp://h1" {
		t.Errorf("%v %v %q", c, err, d.set.endpoint)
	} else {
		c.Close()
	}
}

// TestNodeOPCUACalls: node-opcua calls, unsecured and secured, again after a session has ended, and after it was cut off.
func TestNodeOPCUACallsUs(t *testing.T) {
	door := open(t, time.Minute)
	t.Setenv("REVERSE", "opc.tcp://"+door.address)
	nodeOPCUAIn(t, t.TempDir())
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ownIn(t, dir)
	c := connection("", 10*time.Second, "ns=1;s=Interop.Double", "/Objects/1:Interop/1:Beat")
	stranger := door.behind(t, c, "urn:x", 30*time.Second)
	stranger.set.reverse.wait = time.Second
	err = stranger.Connect(t.Context())
	for end := time.Now().Add(30 * time.Second); errors.Is(err, drivers.ErrAbsent) && !strings.Contains(err.Error(), "the caller is the server") && time.Now().Before(end); {
		err = stranger.Connect(t.Context()) // a call that nobody waits for is held for 3 s before it is said
	}
	if !errors.Is(err, drivers.ErrAbsent) || !strings.Contains(err.Error(), "the caller is the server") {
		t.Fatal(err)
	}
	uri := strings.Split(err.Error(), `"`)[5] // as a person finds it out
	for _, policy := range []string{"none", "auto", "basic256sha256"} {
		c.Devices[0].Options = map[string]string{"security_policy": policy, "pki": dir, "server_name": host}
		d := door.behind(t, c, uri, 30*time.Second)
		err := d.Connect(t.Context())
		if policy == "auto" {
			if err == nil || !strings.Contains(err.Error(), "is not trusted; compare the thumbprint") {
				t.Fatal(err)
			}
			trust(t, dir)
			err = d.Connect(t.Context())
		}
		for range 2 {
			if err != nil {
				t.Fatal(policy, err)
			}
			if r := read(t, d); r[0].Value != telemetry.Float64(2.718281828459045) || r[1].Quality != telemetry.Good {
				t.Errorf("%s: %+v", policy, r)
			}
			d.link.channel.Close() // cut off
			d.Close()
			err = d.Connect(t.Context())
		}
		d.Close()
	}
}

func TestReverseMistakes(t *testing.T) {
	for _, c := range []struct{ url, server, want string }{
		{"opc.tcp-listen://:4841", "", "server_uri, which tells the servers that call apart, is missing or too long; write the application URI"},
		{"opc.tcp-listen://:4841", repeat("x", 4097), "missing or too long"},
		{"opc.tcp-listen://", "urn:a", `url "opc.tcp-listen://" is no address to listen on; use "opc.tcp-listen://:4841"`},
		{"opc.tcp-listen://:4841/path", "urn:a", "is no address to listen on"},
		{"opc.tcp-listen://u@:4841", "urn:a", "is no address to listen on"},
		{"opc.tcp-listen://:0", "urn:a", `port "0" is not a number`},
		{"opc.tcp://h", "urn:a", "server_uri is of servers that call; use url"},
		{"opc.tcp-listen://:4841", "urn:a allow_from=10.1.0.0/16", ""},
		{"opc.tcp-listen://:4841", "urn:a allow_from=10.1.2.3/16", `allow_from: "10.1.2.3/16" has more than its network: that is 10.1.0.0/16; write addresses and networks`},
		{"opc.tcp-listen://:4841", "urn:a allow_from=", `allow_from: "" is no address or network`},
		{"opc.tcp://h", " allow_from=10.1.0.0/16", "allow_from is of servers that call; use url"},
		{"opc.tcp-listen://:4841", "urn:a", ""},
		{"opc.tcp-listen://10.0.0.1:4841", "urn:a", ""},
		{"opc.tcp-listen://[::1]:4841", "urn:a", ""},
	} {
		conn := connection(c.url, time.Second, "i=2258")
		server, from, limited := strings.Cut(c.server, " allow_from=")
		if conn.Devices[0].Options["server_uri"] = server; limited {
			conn.Devices[0].Options["allow_from"] = from
		}
		_, err := newDriver(conn)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %.20s: %v, want %s", c.url, c.server, err, c.want)
		}
	}
}
