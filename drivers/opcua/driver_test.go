package opcua

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// patience is a device's timeout where its server answers: more than a slow machine takes.
const patience = 10 * time.Second

// brief is a timeout that a test waits for, from a server that answers before that as long as it should, on a busy machine too.
const brief = 2 * time.Second

const machineURI = "urn:millrace:machine"

// start runs a simulated server with count variables "v0" …, whose values are their numbers.
func start(t testing.TB, o opcuasim.Options, count int) *opcuasim.Server {
	t.Helper()
	s, err := opcuasim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range count {
		s.AddVariable(fmt.Sprintf("v%d", i), func() any { return float64(i) })
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// connection describes one device with one group of the addresses.
func connection(endpoint string, timeout time.Duration, addresses ...string) drivers.Connection {
	g := drivers.Group{Name: "all", Interval: time.Second}
	for i, a := range addresses {
		g.Tags = append(g.Tags, telemetry.Tag{Name: fmt.Sprintf("t%d", i), Address: a})
	}
	return drivers.Connection{URL: endpoint, Devices: []drivers.Device{{
		Name: "cnc-1", URL: endpoint, Timeout: timeout, Groups: []drivers.Group{g},
		Options: map[string]string{"security_policy": "none"},
	}}}
}

func variables(count int) []string {
	var a []string
	for i := range count {
		a = append(a, fmt.Sprintf("ns=2;s=v%d", i))
	}
	return a
}

// connect makes a driver and connects it.
func connect(t testing.TB, c drivers.Connection) *driver {
	t.Helper()
	d, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d.(*driver)
}

// valuesOnly keeps a driver from asking what the server says of its tags, so that each request is one for values, however slow the machine.
func valuesOnly(d *driver) *driver {
	for _, groups := range d.groups {
		for i := range groups {
			groups[i].about.over = true
		}
	}
	return d
}

func read(t testing.TB, d drivers.Driver) []telemetry.Reading {
	t.Helper()
	r, err := d.Read(context.Background(), drivers.Ref{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantNumbers checks that every reading but those of the bad tags is good and holds its number.
func wantNumbers(t *testing.T, readings []telemetry.Reading, bad map[int]string) {
	t.Helper()
	for i, r := range readings {
		want, isBad := bad[i]
		switch {
		case isBad && (r.Quality != telemetry.Bad || !strings.Contains(r.Reason, want)):
			t.Errorf("tag %d: %v %q, want bad with %q", i, r.Quality, r.Reason, want)
		case !isBad && (r.Quality != telemetry.Good || r.Value != telemetry.Float64(float64(i))):
			t.Errorf("tag %d: %v %q %+v, want good %d", i, r.Quality, r.Reason, r.Value, i)
		}
	}
}

func TestOneBadNodeAmong50(t *testing.T) {
	s := start(t, opcuasim.Options{}, 49)
	addresses := variables(50)
	d := valuesOnly(connect(t, connection(s.Endpoint(), patience, addresses...)))
	before := s.Reads()
	readings := read(t, d)
	wantNumbers(t, readings, map[int]string{49: "BadNodeIdUnknown"})
	if n := s.Reads() - before; n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	s.SetStatus("v7", 0x80310000) // BadNoCommunication
	wantNumbers(t, read(t, d), map[int]string{49: "BadNodeIdUnknown", 7: "BadNoCommunication"})
}

// TestNoVariable has a server that cannot be browsed: the other nodes are none the worse.
func TestNoVariable(t *testing.T) {
	s := start(t, opcuasim.Options{}, 3)
	d := connect(t, connection(s.Endpoint(), patience, variables(3)...))
	s.SetStatus("v1", 0x80350000)
	for range 3 {
		wantNumbers(t, read(t, d), map[int]string{1: "; the node is no variable and has no value"})
	}
}

func TestServersLimitIsKept(t *testing.T) {
	s := start(t, opcuasim.Options{MaxNodesPerRead: 10}, 25)
	d := valuesOnly(connect(t, connection(s.Endpoint(), patience, variables(25)...)))
	for range 2 {
		before := s.Reads()
		wantNumbers(t, read(t, d), nil)
		if n := s.Reads() - before; n != 3 {
			t.Errorf("%d requests for 25 tags at 10 each, want 3", n)
		}
	}
	if got := d.reads(&d.groups[0][0]); len(got) != 3 || got[2] != "read 5 nodes in request 3 of 3, up to 10 each" {
		t.Errorf("plan %q", got)
	}
}

func TestUnstatedLimitIsLearned(t *testing.T) {
	s := start(t, opcuasim.Options{MaxNodesPerRead: 10, HideLimit: true}, 200)
	d := valuesOnly(connect(t, connection(s.Endpoint(), patience, variables(200)...)))
	wantNumbers(t, read(t, d), nil)
	before := s.Reads()
	wantNumbers(t, read(t, d), nil)
	if n := s.Reads() - before; n > 34 {
		t.Errorf("%d requests for 200 tags at 10 each once the limit is known, want at most 34", n)
	}
}

// TestSpoilerIsFound has nodes that make the server fail every request they are part of.
func TestSpoilerIsFound(t *testing.T) {
	spoiled := true
	s := start(t, opcuasim.Options{OnRead: func(ids []string) uint32 {
		for _, id := range ids {
			if spoiled && (id == "s=v123" || id == "s=v400") {
				return 0x80060000 // BadEncodingError
			}
		}
		return 0
	}}, 500)
	d := valuesOnly(connect(t, connection(s.Endpoint(), patience, variables(500)...)))
	bad := map[int]string{123: "BadEncodingError", 400: "BadEncodingError"}
	wantNumbers(t, read(t, d), bad)
	before := s.Reads()
	wantNumbers(t, read(t, d), bad)
	if n := s.Reads() - before; n != 1 {
		t.Errorf("%d requests once the nodes are set aside, want 1", n)
	}
	spoiled = false
	for range 2 {
		d.groups[0][0].ask.retry = time.Time{}
		wantRecovering := read(t, d)
		if wantRecovering[0].Quality != telemetry.Good {
			t.Error("tag 0 is bad while others are tried")
		}
	}
	wantNumbers(t, read(t, d), nil)
}

// TestManySpoilersStayBounded has more such nodes than one poll may search for.
func TestManySpoilersStayBounded(t *testing.T) {
	s := start(t, opcuasim.Options{OnRead: func(ids []string) uint32 {
		if ids[0] != "i=11705" {
			return 0x80060000
		}
		return 0
	}}, 500)
	d := valuesOnly(connect(t, connection(s.Endpoint(), patience, variables(500)...)))
	before := s.Reads()
	for i, r := range read(t, d) {
		if r.Quality != telemetry.Bad || !strings.HasPrefix(r.Reason, "BadEncodingError") || r.Tag != uint32(i) {
			t.Fatalf("tag %d: %+v, want bad", i, r)
		}
	}
	if n := s.Reads() - before; n > 2*maxRefusals {
		t.Errorf("%d requests, want at most %d", n, 2*maxRefusals)
	}
}

func TestNamespaceByURI(t *testing.T) {
	s := start(t, opcuasim.Options{Namespaces: []string{machineURI, "urn:other"}}, 1)
	s.AddNode("urn:other", "s=v0", func() any { return "not ours" })
	d := connect(t, connection(s.Endpoint(), patience, "nsu="+machineURI+";s=v0", "nsu=urn:none;s=v0", "nsu=http://opcfoundation.org/UA/;i=2259"))
	check := func(t *testing.T) {
		t.Helper()
		r := read(t, d)
		if r[0].Quality != telemetry.Good || r[0].Value != telemetry.Float64(0) {
			t.Errorf("by URI: %+v", r[0])
		}
		if want := `the server has no namespace "urn:none"`; r[1].Quality != telemetry.Bad || r[1].Reason != want {
			t.Errorf("unknown URI: %v %q, want %q", r[1].Quality, r[1].Reason, want)
		}
		if r[2].Value != telemetry.Int(0) {
			t.Errorf("namespace 0 by URI: %+v", r[2])
		}
	}
	check(t)
	s.SetNamespaces("urn:other", "urn:new", machineURI) // ns=2 is now another's
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(t.Context(), drivers.Ref{}, nil); err == nil {
		t.Fatal("Read over the restart gives no error")
	}
	d.Close()
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t)
}

func TestSilenceIsAnErrorInTime(t *testing.T) {
	t.Parallel()
	s := start(t, opcuasim.Options{}, 3)
	p, err := opcuasim.NewProxy(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	d := connect(t, connection(p.Endpoint(), brief, variables(3)...))
	read(t, d)
	p.Silence(true)
	begin := time.Now()
	r, err := d.Read(t.Context(), drivers.Ref{}, nil)
	if err == nil || err.Error() != "no answer within 2s" || len(r) != 0 {
		t.Errorf("Read of a silent server: %v, %d readings", err, len(r))
	}
	d.Close()
	if err := d.Connect(t.Context()); err == nil {
		t.Error("Connect to a silent server gives no error")
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("a silent server held us for %v", took)
	}
	p.Silence(false)
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, read(t, d), nil)
	p.Cut()
	_, err = d.Read(t.Context(), drivers.Ref{}, nil)
	if err == nil || !strings.Contains(err.Error(), "connection") || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("Read over a cut connection: %v", err)
	}
	p.Refuse(true)
	want := "connect to " + p.Addr() + ": connect: connection refused"
	if err := d.Connect(t.Context()); err == nil || err.Error() != want {
		t.Errorf("Connect to a closed port: %v, want %s", err, want)
	}
}

func TestSourceTimeIsTheDevices(t *testing.T) {
	s := start(t, opcuasim.Options{}, 0)
	at := time.Date(2026, 11, 23, 10, 15, 30, 123456000, time.UTC)
	s.AddVariable("v", func() any {
		return &ua.DataValue{
			EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp | ua.DataValueServerTimestamp,
			Value:        ua.MustVariant(int32(1)), SourceTimestamp: at, ServerTimestamp: at.Add(time.Second),
		}
	})
	d := connect(t, connection(s.Endpoint(), patience, "ns=2;s=v"))
	if r := read(t, d); r[0].Time != at.UnixMicro() {
		t.Errorf("time %v, want %v", time.UnixMicro(r[0].Time).UTC(), at)
	}
}

// TestServedIsComplete holds what ledger checkers rely on: every value that is read was reported.
func TestServedIsComplete(t *testing.T) {
	served := map[any]bool{}
	var mu sync.Mutex
	s := start(t, opcuasim.Options{Served: func(identifier string, value any) {
		mu.Lock()
		defer mu.Unlock()
		served[value] = true
	}}, 0)
	count := 0
	s.AddVariable("count", func() any { count++; return count })
	d := connect(t, connection(s.Endpoint(), patience, "ns=2;s=count", "i=2258"))
	for range 20 {
		r := read(t, d)
		mu.Lock()
		if n := int(r[0].Value.Bits); !served[n] {
			t.Errorf("value %d was not reported", n)
		}
		mu.Unlock()
	}
	if len(served) != 20 {
		t.Errorf("%d values reported, want 20", len(served))
	}
}

func TestLostSession(t *testing.T) {
	s := start(t, opcuasim.Options{}, 1)
	d := connect(t, connection(s.Endpoint(), patience, variables(1)...))
	s.DropSessions()
	_, err := d.Read(t.Context(), drivers.Ref{}, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "BadSessionIdInvalid: ") {
		t.Errorf("Read in a lost session: %v", err)
	}
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, read(t, d), nil)
	if n := s.Sessions(); n != 1 {
		t.Errorf("%d sessions after a reconnect, want 1", n)
	}
	d.Close()
	if n := s.Sessions(); n != 0 {
		t.Errorf("%d sessions after Close, want 0", n)
	}
}

// TestExpiredSession has a group slower than the server keeps sessions.
func TestExpiredSession(t *testing.T) {
	s := start(t, opcuasim.Options{}, 1)
	d := connect(t, connection(s.Endpoint(), patience, variables(1)...))
	s.DropSessions()
	d.link.used = time.Now().Add(-2 * time.Hour)
	wantNumbers(t, read(t, d), nil)
}

// TestLogin logs in with a user over an unsecured channel: the password is encrypted, for a certificate that is trusted.
func TestLogin(t *testing.T) {
	s := start(t, opcuasim.Options{Username: "operator", Password: "päss"}, 1)
	c := connection(s.Endpoint(), 5*time.Second, variables(1)...)
	dir := t.TempDir()
	with := func(user, password string) map[string]string {
		return map[string]string{"security_policy": "none", "username": user, "password": password, "pki": dir}
	}
	c.Devices[0].Options = with("operator", "päss")
	refused(t, c, "is not trusted; compare the thumbprint")
	trust(t, dir)
	d := connect(t, c)
	wantNumbers(t, read(t, d), nil)
	d.Close()
	c.Devices[0].Options = with("operator", "wrong")
	refused(t, c, "activate session: BadUserAccessDenied: user does not have permission to perform the requested operation; see username and password")
	c.Devices[0].Options = with("", "")
	refused(t, c, "the server takes no anonymous users at this endpoint, only user names; write username and password")
	if n := s.Sessions(); n != 0 {
		t.Errorf("%d sessions left after refused logins", n)
	}
}

func TestRefusedLoginNames(t *testing.T) {
	s := start(t, opcuasim.Options{}, 1)
	c := connection(s.Endpoint(), patience, variables(1)...)
	c.Devices[0].Options["username"] = "operator"
	refused(t, c, "activate session: the server takes no user names, only anonymous users; remove username")
}

// TestNoSessionLeft: what to do about a server whose sessions are all taken is said wherever its refusal is.
func TestNoSessionLeft(t *testing.T) {
	h, d := hostile(t, opcuasim.Trick{Step: opcuasim.StepCreate, Play: func(w io.Writer, a opcuasim.Answer) bool {
		a.Body = opcuasim.ResponseHead(397, 0x80560000)
		w.Write(a.Bytes())
		return true
	}}, 10*time.Second)
	defer h.Close()
	err := d.Connect(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "create session: BadTooManySessions: ") || !strings.Contains(err.Error(), "; other clients") || !strings.HasSuffix(err.Error(), "raise the limit in the server") {
		t.Errorf("got %v", err)
	}
}
