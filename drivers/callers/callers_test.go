package callers

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// call is a connection from an address.
type call struct {
	net.Conn
	from   string
	closed bool
}

func (c *call) RemoteAddr() net.Addr { return c }
func (c *call) Network() string      { return "tcp" }
func (c *call) String() string       { return c.from }
func (c *call) Close() error         { c.closed = true; return nil }

func TestAllowed(t *testing.T) {
	for _, c := range []struct{ allow, takes, refuses string }{
		{"10.1.0.0/16", "10.1.2.3:502 [::ffff:10.1.2.3]:502", "10.2.2.3:502 [fd00::1]:502 11.1.2.3:502 @ 10.1.2.3"},
		{"192.168.1.7", "192.168.1.7:1", "192.168.1.8:1 192.168.1.70:1"},
		{" fd00::/8 , fe80::1,10.0.0.1/32 ", "[fd00::7]:1 [fe80::1%eth0]:1 10.0.0.1:1", "[fe80::2]:1 10.0.0.2:1"},
		{"0.0.0.0/0", "1.2.3.4:5", "[fd00::1]:5"},
	} {
		a, err := ParseAllowed(c.allow)
		if err != nil {
			t.Fatalf("%q: %v", c.allow, err)
		}
		for from := range strings.FieldsSeq(c.takes) {
			if !a.Takes(&call{from: from}) {
				t.Errorf("%q refuses %s", c.allow, from)
			}
		}
		for from := range strings.FieldsSeq(c.refuses) {
			if a.Takes(&call{from: from}) {
				t.Errorf("%q takes %s", c.allow, from)
			}
		}
	}
	if !Allowed(nil).Takes(&call{from: "@"}) {
		t.Error("without allow a call is refused")
	}
}

func TestParseAllowedRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                              `"" is no address or network`,
		"10.1.0.0/16,":                  `"" is no address or network`,
		"modem.example":                 `"modem.example" is no address or network`,
		"10.1.0.0/33":                   `"10.1.0.0/33" is no address or network`,
		"10.1.2.3:502":                  `"10.1.2.3:502" is no address or network`,
		"fe80::1%eth0":                  `"fe80::1%eth0" is no address or network`,
		"10.1.2.3/16":                   `"10.1.2.3/16" has more than its network: that is 10.1.0.0/16`,
		"::ffff:10.0.0.0/104":           `is an IPv4 address in IPv6 form`,
		strings.Repeat("10.0.0.1,", 64): `is no address`,
		strings.Repeat("10.0.0.1,", 64) + "10.0.0.2": `there are more than 64`,
	} {
		if a, err := ParseAllowed(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q", text, a, err, want)
		}
	}
}

// TestWaiting: one host cannot take all the room, nor all hosts more than there is.
func TestWaiting(t *testing.T) {
	var w Waiting
	var in []*call
	for n := range 200 {
		c := &call{from: fmt.Sprintf("10.0.0.%d:%d", n%8, n)}
		if w.Add(c) {
			in = append(in, c)
		}
	}
	if w.Len() != Most || len(in) != Most {
		t.Errorf("%d of 200 wait, want %d", w.Len(), Most)
	}
	w.Remove(in[0])
	if !w.Add(&call{from: "10.0.1.1:1"}) || w.Add(&call{from: "10.0.1.2:1"}) {
		t.Error("where one has left there is not room for one")
	}
	one := Waiting{}
	for n := range 20 {
		if got := one.Add(&call{from: fmt.Sprintf("[fd00::1]:%d", n)}); got != (n < MostOfHost) {
			t.Errorf("call %d of a host: %v", n, got)
		}
	}
	w.Close()
	for _, c := range in[1:] {
		if !c.closed {
			t.Fatal("a call is left open")
		}
	}
}

func FuzzParseAllowed(f *testing.F) {
	f.Add("10.1.0.0/16, 192.168.1.7", "10.1.2.3:502")
	f.Add("fd00::/8", "[fd00::1%eth0]:502")
	f.Fuzz(func(t *testing.T, text, from string) {
		a, err := ParseAllowed(text)
		if err != nil && (a != nil || len(err.Error()) > 840) || err == nil && (len(a) == 0 || len(a) > maxAllowed) {
			t.Fatalf("%q: %v, %v", text, a, err)
		}
		a.Takes(&call{from: from})
	})
}

// TestListenInUse: a port that another program has is told with what to do about it, any other mistake with another.
func TestListenInUse(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0", "device", "stop that")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Listen(t.Context(), l.Addr().String(), "device", "stop that")
	if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("listen on %q for the device to call: ", l.Addr())) || !strings.HasSuffix(err.Error(), "; another program has it, perhaps a millrace that runs; stop that") {
		t.Error(err)
	}
	if _, err = Listen(t.Context(), "192.0.2.1:0", "device", "stop that"); err == nil || !strings.HasSuffix(err.Error(), "; choose another address or port") {
		t.Error(err)
	}
}
