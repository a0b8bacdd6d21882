package opcua

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/telemetry"
)

// TestLopsidedChunks has a server that sends larger chunks than it takes.
func TestLopsidedChunks(t *testing.T) {
	s := start(t, opcuasim.Options{ReceiveChunk: 8192}, 500)
	d := connect(t, connection(s.Endpoint(), 5*time.Second, variables(500)...))
	wantNumbers(t, read(t, d), nil)
}

// TestLargeResponses needs several chunks for a response, and one array that is over the limit.
func TestLargeResponses(t *testing.T) {
	s := start(t, opcuasim.Options{}, 5)
	for i, n := range []int{65535, 65535, 65536} {
		s.AddVariable(fmt.Sprintf("a%d", i), func() any { return make([]float64, n) })
	}
	d := connect(t, connection(s.Endpoint(), 10*time.Second, append(variables(5), "ns=2;s=a0", "ns=2;s=a1", "ns=2;s=a2")...))
	for range 2 {
		r := read(t, d)
		wantNumbers(t, r[:5], nil)
		if r[5].Value.Bits != 65535 || r[6].Value.Bits != 65535 {
			t.Errorf("arrays of %d and %d elements: %s %s", r[5].Value.Bits, r[6].Value.Bits, r[5].Reason, r[6].Reason)
		}
		if r[7].Quality != telemetry.Bad || r[7].Reason != "array of 65536 elements is over 65535" {
			t.Errorf("array over the limit: %v %q", r[7].Quality, r[7].Reason)
		}
	}
}

// TestTooLargeTogether has arrays of which only some fit one response of 2 MiB.
func TestTooLargeTogether(t *testing.T) {
	s := start(t, opcuasim.Options{}, 0)
	var addresses []string
	for i := range 6 {
		name := fmt.Sprintf("a%d", i)
		s.AddVariable(name, func() any { return make([]float64, 65535) })
		addresses = append(addresses, "ns=2;s="+name)
	}
	d := connect(t, connection(s.Endpoint(), 10*time.Second, addresses...))
	for i, r := range read(t, d) {
		if r.Quality != telemetry.Good {
			t.Errorf("array %d: %s", i, r.Reason)
		}
	}
}

// TestTokenRenewal reads over several renewals of the channel's token, the last of them unanswered.
func TestTokenRenewal(t *testing.T) {
	s := start(t, opcuasim.Options{}, 3)
	d := connect(t, connection(s.Endpoint(), time.Second, variables(3)...))
	d.Close()
	d.set.lifetime = 2 * time.Second // renewed after 1 s
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 2500*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		wantNumbers(t, read(t, d), nil)
	}
	s.SetSilent(true)
	time.Sleep(600 * time.Millisecond) // into the next renewal
	begin := time.Now()
	if _, err := d.Read(t.Context(), drivers.Ref{}, nil); err == nil {
		t.Error("Read of a silent server gives no error")
	}
	d.Close()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("Read and Close during a renewal that is not answered took %v", took)
	}
}

// TestStrangers connects to things that are not healthy OPC UA servers.
func TestStrangers(t *testing.T) {
	for _, c := range []struct{ name, says, want string }{
		{"hangs up", "", "the server closed the connection; is it an OPC UA server?"},
		{"speaks HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", "shake hands with "},
		{"another message", "MSGF\x08\x00\x00\x00", `the server answered with "MSGF"`},
		{"refuses", "ERRF\x10\x00\x00\x00\x00\x00\x83\x80\xff\xff\xff\xff", ": BadTcpEndpointUrlInvalid: "},
		{"tiny chunks", "ACKF\x1c\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "the server takes chunks of 16 bytes only"},
		{"closes after the handshake", "ACKF\x1c\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "it may take secured connections only"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					io.CopyN(io.Discard, conn, 32)
					io.WriteString(conn, c.says)
					conn.(*net.TCPConn).CloseWrite()
					io.Copy(io.Discard, conn)
					conn.Close()
				}
			}()
			d, err := newDriver(connection("opc.tcp://"+l.Addr().String(), 2*time.Second, "i=85"))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want …%s…", err, c.want)
			}
		})
	}
}
