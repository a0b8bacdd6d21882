package opcua

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// registering is a connection that polls so many variables by handles.
func registering(endpoint string, count int) drivers.Connection {
	c := connection(endpoint, 5*time.Second, variables(count)...)
	c.Devices[0].Options["mode"], c.Devices[0].Options["register_nodes"] = "read", "true"
	return c
}

// TestRegisterNodes: what is polled is read by handles, asked for once a session in as many requests as the server's limit needs; what it forgets is read
// by its own id, and a new session has new ones.
func TestRegisterNodes(t *testing.T) {
	var calls atomic.Int32
	s := start(t, opcuasim.Options{OnRegister: func(n int) ua.StatusCode {
		calls.Add(1)
		if n > 30 {
			return ua.StatusBadTooManyOperations
		}
		return 0
	}}, 100)
	d := connect(t, registering(s.Endpoint(), 100))
	for poll := range 3 {
		before := s.Handled()
		wantNumbers(t, read(t, d), nil)
		if n := s.Handled() - before; n != 100 {
			t.Fatalf("poll %d: %d nodes read by their handles, want 100", poll, n)
		}
	}
	if n := calls.Load(); n < 4 || n > 7 {
		t.Errorf("%d requests to register 100 nodes, 30 at most each", n)
	}
	s.ForgetHandles()
	for i, r := range read(t, d) {
		if r.Quality != telemetry.Bad || !strings.HasPrefix(r.Reason, "BadNodeIdUnknown") {
			t.Fatalf("tag %d: %+v, want what the server says", i, r)
		}
	}
	before, asked := s.Handled(), calls.Load()
	wantNumbers(t, read(t, d), nil)
	if s.Handled() != before || calls.Load() != asked {
		t.Error("handles that the server has forgotten are asked for again")
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, read(t, d), nil)
	if s.Handled() == before {
		t.Error("a new session reads without handles")
	}
}

// TestRegisterRefused: a server that registers no nodes is read all the same, and a note says so; one that ends the connection is asked so often and no more.
func TestRegisterRefused(t *testing.T) {
	s := start(t, opcuasim.Options{OnRegister: func(int) ua.StatusCode { return ua.StatusBadServiceUnsupported }}, 10)
	d := connect(t, registering(s.Endpoint(), 10))
	wantNumbers(t, read(t, d), nil)
	if notes := d.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "BadServiceUnsupported") {
		t.Errorf("notes: %q", notes)
	}

	var proxy atomic.Pointer[opcuasim.Proxy]
	s = start(t, opcuasim.Options{OnRegister: func(int) ua.StatusCode { proxy.Load().Cut(); return 0 }}, 10)
	p, err := opcuasim.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	proxy.Store(p)
	d = connect(t, registering(p.Endpoint(), 10))
	for range maxLapses {
		if _, err := d.Read(t.Context(), drivers.Ref{}, nil); err == nil || !strings.Contains(err.Error(), anyHandle) {
			t.Fatalf("the connection stands: %v", err)
		}
		if err := d.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantNumbers(t, read(t, d), nil)
	if notes := d.Notes(); len(notes) != 1 || !strings.Contains(notes[0], anyHandle) {
		t.Errorf("notes: %q", notes)
	}
}

// TestNodeOPCUARegistered: what node-opcua says by the handles that it gives is what it says by the nodes' own ids.
func TestNodeOPCUARegistered(t *testing.T) {
	url := nodeOPCUA(t)
	c := nodeDevice(t, url)
	c.Devices[0].Groups = connection(url, 0, "ns=1;s=Interop.Double", "ns=1;s=Interop.String", "ns=1;s=Interop.Broken", "ns=1;s=Interop.Missing", "i=2253").Devices[0].Groups
	c.Devices[0].Options["mode"] = "read"
	own := connect(t, c)
	c.Devices[0].Options["register_nodes"] = "true"
	d := connect(t, c)
	for range 2 {
		got, want := read(t, d), read(t, own)
		for i := range want {
			if got[i].Value != want[i].Value || got[i].Quality != want[i].Quality || got[i].Reason != want[i].Reason {
				t.Errorf("tag %d: %+v by its handle, %+v by its id", i, got[i], want[i])
			}
		}
	}
	if got := &d.groups[0][0].ask; len(d.Notes()) > 0 || len(got.handles.asks[0]) == 0 || len(got.handles.asks[3]) > 0 {
		t.Errorf("handles %v, notes %v: want those of the nodes that there are", got.handles.asks, d.Notes())
	}
}

// TestRegisterOnce: a node that its handle does not lead to is not registered again when browse paths are looked for, and what a server gives as handles counts as
// what a request takes.
func TestRegisterOnce(t *testing.T) {
	var asked atomic.Int32
	s := start(t, opcuasim.Options{OnRegister: func(n int) ua.StatusCode { asked.Add(int32(n)); return 0 }}, 3)
	c := registering(s.Endpoint(), 3)
	c.Devices[0].Groups[0].Tags = append(c.Devices[0].Groups[0].Tags, telemetry.Tag{Name: "lost", Address: "/Objects/2:Nowhere"})
	d := connect(t, c)
	read(t, d)
	s.ForgetHandles()
	read(t, d)
	g := &d.groups[0][0]
	for range 3 {
		g.ask.search = time.Time{}
		for i, r := range read(t, d)[:3] {
			if r.Quality != telemetry.Good {
				t.Errorf("tag %d: %+v", i, r)
			}
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("%d nodes registered, want 3 once", n)
	}
	for i := range 3 {
		g.ask.handles.asks[i] = make([]byte, maxHandle)
	}
	if n := g.fit([]int{0, 1, 2}, 10, 2*maxHandle); n != 2 {
		t.Errorf("%d handles fit into a request for the ids of two", n)
	}
}
