package modbussim

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// client is a bare socket: what a test writes is what goes on the wire.
type client struct {
	net.Conn
	t testing.TB
}

func start(t testing.TB, o Options) (*Server, *client) {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, dial(t, s)
}

func dial(t testing.TB, s *Server) *client {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return &client{c, t}
}

func (c *client) send(text string) {
	c.t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// get reads as many bytes as the hex text has and compares.
func (c *client) get(want string) {
	c.t.Helper()
	want = strings.ReplaceAll(want, " ", "")
	b := make([]byte, len(want)/2)
	n, err := io.ReadFull(c, b)
	if got := hex.EncodeToString(b[:n]); got != want {
		c.t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

// ended is true when the server hung up.
func (c *client) ended() bool {
	_, err := c.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

func TestTables(t *testing.T) {
	s, c := start(t, Options{})
	u := s.Unit(7)
	u.SetRegisters(Holding, 100, 0x1234, 0xabcd)
	u.SetRegisters(Input, 65534, 1, 2, 3) // the third does not exist
	u.SetBits(Coil, 3, true, false, true)
	u.SetBits(Discrete, 65535, true)
	for request, answer := range map[string]string{
		"0001 0000 0006 07 03 0064 0002": "0001 0000 0007 07 03 04 1234 abcd",
		"0002 0000 0006 07 03 0065 0001": "0002 0000 0005 07 03 02 abcd",
		"0003 0000 0006 07 04 fffe 0002": "0003 0000 0007 07 04 04 0001 0002",
		"0004 0000 0006 07 01 0003 0003": "0004 0000 0004 07 01 01 05",
		"0005 0000 0006 07 01 0000 0009": "0005 0000 0005 07 01 02 28 00",
		"0006 0000 0006 07 02 ffff 0001": "0006 0000 0004 07 02 01 01",
		"0007 0000 0006 07 03 ffff 0002": "0007 0000 0003 07 83 02",
		"0008 0000 0006 07 03 0000 007e": "0008 0000 0003 07 83 03",
		"0009 0000 0006 07 03 0000 0000": "0009 0000 0003 07 83 03",
		"000a 0000 0006 07 02 0000 07d1": "000a 0000 0003 07 82 03",
		"000b 0000 0006 07 07 0000 0001": "000b 0000 0003 07 87 01",
		"000c 0000 0006 08 03 0000 0001": "000c 0000 0003 08 83 0b",
		"000d 0000 0003 07 03 00":        "000d 0000 0003 07 83 03",
	} {
		c.send(request)
		c.get(answer)
	}
	if n := u.Served(); n != 2+1+2+3+9+1 {
		t.Errorf("served %d registers and bits", n)
	}
	if n := s.Requests(); n != 13 {
		t.Errorf("%d requests", n)
	}
}

// TestFraming sends requests in pieces, two at once, and what is no Modbus.
func TestFraming(t *testing.T) {
	s, c := start(t, Options{})
	s.Unit(1)
	c.send("0001 0000 0006 01 03 00")
	time.Sleep(20 * time.Millisecond)
	c.send("00 0001 0002 0000 0006 01 03 0000 0001 0003")
	c.get("0001 0000 0005 01 03 02 0000 0002 0000 0005 01 03 02 0000")
	c.send("0000 0006 01 03 0000 0001")
	c.get("0003 0000 0005 01 03 02 0000")
	for _, bad := range []string{"0001 0001 0006 01 03 0000 0001", "0001 0000 0001 01", "0001 0000 ffff 01", "0001 0000 0000 00"} {
		c := dial(t, s)
		c.send(bad)
		if !c.ended() {
			t.Errorf("still connected after %s", bad)
		}
	}
}

// TestServed holds the account against the answers.
func TestServed(t *testing.T) {
	var mu sync.Mutex
	var got []string
	s, c := start(t, Options{Served: func(q Request, values []byte) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, hex.EncodeToString([]byte{q.Unit, byte(q.Table), byte(q.Addr), byte(q.Count)})+" "+hex.EncodeToString(values))
	}})
	n := uint16(0)
	s.Unit(1).Fill(func(q Request, dst []byte) {
		n++
		for i := range int(q.Count) {
			binary.BigEndian.PutUint16(dst[2*i:], n)
		}
	})
	c.send("0001 0000 0006 01 03 0005 0002 0002 0000 0006 01 04 0006 0001")
	c.get("0001 0000 0007 01 03 04 0001 0001 0002 0000 0005 01 04 02 0002")
	s.Inject(Fault{Kind: Silence, Times: 1})
	c.send("0003 0000 0006 01 03 0005 0001 0004 0000 0006 01 03 0005 0001")
	c.get("0004 0000 0005 01 03 02 0003")
	mu.Lock()
	if want := "01030502 00010001 01040601 0002 01030501 0003"; strings.Join(got, " ") != want {
		t.Errorf("served %q, want %q", got, want)
	}
	mu.Unlock()
	s.Unit(1).Fill(nil)
	c.send("0005 0000 0006 01 03 0005 0001")
	c.get("0005 0000 0005 01 03 02 0000")
}

// TestAtomic holds that an answer never holds half of a SetRegisters.
func TestAtomic(t *testing.T) {
	s, c := start(t, Options{})
	u := s.Unit(1)
	u.SetRegisters(Holding, 0, make([]uint16, 100)...)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		values := make([]uint16, 100)
		for n := uint16(1); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			for i := range values {
				values[i] = n
			}
			u.SetRegisters(Holding, 0, values...)
		}
	}()
	answer := make([]byte, 9+200)
	for range 500 {
		c.send("0001 0000 0006 01 03 0000 0064")
		if _, err := io.ReadFull(c, answer); err != nil {
			t.Fatal(err)
		}
		if v := answer[9:]; !bytes.Equal(v[2:], v[:198]) {
			t.Fatalf("half old, half new: %x", v)
		}
	}
	close(stop)
	<-done
}

func TestFaultsOnTheWire(t *testing.T) {
	const ask, right = "0001 0000 0006 01 03 0000 0001", "0001 0000 0005 01 03 02 beef"
	for name, c := range map[string]struct {
		Fault
		want string
		ends bool
	}{
		"exception":         {Fault{Kind: Exception, Code: 4}, "0001 0000 0003 01 83 04", false},
		"delay":             {Fault{Kind: Delay, Wait: time.Millisecond}, right, false},
		"silence":           {Fault{Kind: Silence}, "", false},
		"close at 0":        {Fault{Kind: CloseAt}, "", true},
		"close at 5":        {Fault{Kind: CloseAt, N: 5}, "0001 0000 00", true},
		"close past end":    {Fault{Kind: CloseAt, N: 99}, right, true},
		"partial":           {Fault{Kind: Partial, N: 10}, "0001 0000 0005 01 03 02 be", false},
		"drip":              {Fault{Kind: Drip, Wait: time.Millisecond}, right, false},
		"wrong transaction": {Fault{Kind: WrongTransaction}, "0002 0000 0005 01 03 02 beef", false},
		"wrong protocol":    {Fault{Kind: WrongProtocol}, "0001 0007 0005 01 03 02 beef", false},
		"wrong unit":        {Fault{Kind: WrongUnit}, "0001 0000 0005 02 03 02 beef", false},
		"wrong function":    {Fault{Kind: WrongFunction}, "0001 0000 0005 01 04 02 beef", false},
		"wrong count":       {Fault{Kind: WrongCount, N: 250}, "0001 0000 0005 01 03 fa beef", false},
		"short values":      {Fault{Kind: ShortValues}, "0001 0000 0003 01 03 00", false},
		"long values":       {Fault{Kind: LongValues}, "0001 0000 0007 01 03 04 beef eeee", false},
		"length 65535":      {Fault{Kind: Length, N: 65535}, "0001 0000 ffff 01 03 02 beef", false},
		"stale before":      {Fault{Kind: StaleBefore}, "0009 0000 0005 01 03 02 beef" + right, false},
		"stale instead":     {Fault{Kind: StaleInstead}, "0009 0000 0005 01 03 02 beef", false},
		"garbage":           {Fault{Kind: Garbage, N: 4, Seed: 1}, hex.EncodeToString(garbage(1, 4)), false},
	} {
		t.Run(name, func(t *testing.T) {
			s, conn := start(t, Options{})
			s.Unit(1).SetRegisters(Holding, 0, 0xbeef)
			conn.send("0009 0000 0006 01 03 0000 0001")
			conn.get("0009 0000 0005 01 03 02 beef")
			c.Times, c.Match = 1, OfUnit(1)
			remove := s.Inject(c.Fault)
			conn.send(ask)
			conn.get(c.want)
			if c.ends {
				if !conn.ended() {
					t.Error("still connected")
				}
				return
			}
			conn.send("0008 0000 0006 01 03 0000 0001") // one strike was all
			conn.get("0008 0000 0005 01 03 02 beef")
			remove()
			if s.faults.Load() != nil {
				t.Error("the fault is still there")
			}
		})
	}
}

func TestFlood(t *testing.T) {
	s, c := start(t, Options{})
	s.Unit(1)
	s.Inject(Fault{Kind: Flood})
	c.send("0001 0000 0006 01 03 0000 0001")
	frame := make([]byte, 11)
	for range 70000 { // more than there are transaction ids
		if _, err := io.ReadFull(c, frame); err != nil {
			t.Fatal(err)
		}
		if frame[0] == 0 && frame[1] == 1 {
			t.Fatal("the flood holds an answer to the request")
		}
	}
	c.Close()
	s.Close() // must end the flood
}

func TestMatch(t *testing.T) {
	touching := Touching(1, Holding, 10, 12)
	for q, want := range map[Request]bool{
		{1, Holding, 10, 1, 0}: true, {1, Holding, 12, 1, 0}: true, {1, Holding, 0, 11, 0}: true, {1, Holding, 0, 100, 0}: true,
		{1, Holding, 0, 10, 0}: false, {1, Holding, 13, 1, 0}: false, {2, Holding, 10, 1, 0}: false, {1, Input, 10, 1, 0}: false,
	} {
		if got := touching(q); got != want {
			t.Errorf("%+v: %v", q, got)
		}
	}
}

// TestEvery strikes each third request that matches, twice.
func TestEvery(t *testing.T) {
	s := &Server{}
	s.Inject(Fault{Kind: Silence, Every: 3, Times: 2, Match: OfUnit(1)})
	struck := ""
	for n := range 24 {
		q := Request{Unit: byte(1 + n%2)}
		if strike(*s.faults.Load(), q) != nil {
			struck += fmt.Sprint(n, " ")
		}
	}
	if struck != "4 10 " {
		t.Errorf("struck %s", struck)
	}
}

func TestDownAndUp(t *testing.T) {
	s, c := start(t, Options{})
	s.Unit(1)
	addr := s.Addr()
	s.Down()
	s.Down()
	if !c.ended() {
		t.Error("the connection is still there")
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("a server that is down takes connections")
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = l.Close() }) // its port is free a moment later
	for range 2 {
		if err := s.Up(); err != nil {
			t.Fatal(err)
		}
	}
	c = dial(t, s)
	c.send("0001 0000 0006 01 03 0000 0001")
	c.get("0001 0000 0005 01 03 02 0000")
	for end := time.Now().Add(10 * time.Second); s.Connections() != 1 && time.Now().Before(end); { // the client saw the end of the first before the server's goroutine
		time.Sleep(time.Millisecond)
	}
	if s.Addr() != addr || s.Connections() != 1 {
		t.Errorf("at %s with %d connections, was at %s", s.Addr(), s.Connections(), addr)
	}
	s.Cut()
	if !c.ended() {
		t.Error("not cut")
	}
	s.Close()
	if err := s.Up(); err == nil {
		t.Error("a closed server goes up")
	}
}

// TestNoAllocations holds that a request costs none, with memory and with a function.
func TestNoAllocations(t *testing.T) {
	s, c := start(t, Options{Served: func(Request, []byte) {}})
	s.Unit(1).SetRegisters(Holding, 0, 1)
	s.Unit(2).Fill(func(q Request, dst []byte) { dst[0] = 1 })
	frame, answer := []byte{0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 125}, make([]byte, 9+250)
	ask := func() {
		frame[6] ^= 3 // unit 1, unit 2
		if _, err := c.Write(frame); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, answer); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	if n := testing.AllocsPerRun(500, ask); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
}

// BenchmarkServe asks for 125 registers, 16 requests in flight: what the server itself costs.
func BenchmarkServe(b *testing.B) {
	s, c := start(b, Options{})
	_ = c.SetDeadline(time.Time{})
	s.Unit(1).SetRegisters(Holding, 0, 1)
	frames := bytes.Repeat([]byte{0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 125}, 16)
	answers := make([]byte, 16*(9+250))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(frames); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, answers); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/16, "ns/request")
}
