package modbus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/drivertest"
	"millrace/drivers/modbus/modbussim"
	"millrace/drivers/telemetry"
)

// transportNames are those of which the simulated device speaks some here.
func transportNames() []string {
	names := []string{"tcp", "udp", "rtuovertcp", "rtuoverudp", "asciiovertcp", "asciioverudp"}
	if runtime.GOOS == "linux" {
		names = append(names, "rtu", "ascii")
	}
	return names
}

// benchOn starts a bench on a transport, with a timeout that no slow machine uses up. A serial line has this machine's time, and a timeout that it may use up: there a poll that is not well is repeated.
func benchOn(t testing.TB, transport string, units int, timeout time.Duration, groups ...[]telemetry.Tag) *bench {
	t.Helper()
	b := &bench{sim: startSim(t, modbussim.Options{Transport: transport})}
	b.conn.URL = b.sim.URL()
	if transport == "rtu" || transport == "ascii" {
		b.slack = 50
	}
	for u := 1; u <= units; u++ {
		b.sim.Unit(uint8(u)).Fill(b.fill)
		d := device(b.conn.URL, u, groups...)
		d.Timeout = timeout
		b.conn.Devices = append(b.conn.Devices, d)
	}
	return b
}

// TestTransports reads every table of two units over each transport, and survives what F19 and F21 do to it: over networks by a clock of its
// own (TestCampaign does the like over sockets), over pseudo-terminals some faults a line, all lines at once, because they mostly wait.
func TestTransports(t *testing.T) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, name := range transportNames() {
		if name != "rtu" && name != "ascii" {
			b := benchOn(t, name, 2, 10*time.Second, faultTags()).open(t)
			if err := b.mustBeWell("over sockets", 1); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			bubble(t, func(t *testing.T) {
				b := newBubbleBench(t, modbussim.Options{Transport: name}, 2, faultTags())
				b.conn.Devices[0].Timeout, b.conn.Devices[1].Timeout = 400*time.Millisecond, 400*time.Millisecond
				b.open(t).surviveAll(t, name, packedFaults())
			})
			continue
		}
		for some := range slices.Chunk(packedFaults(), 4) {
			b := benchOn(t, name, 2, 400*time.Millisecond, faultTags()).open(t)
			wg.Go(func() { b.surviveAll(t, name, some) })
		}
	}
}

func (b *bench) surviveAll(t *testing.T, transport string, faults []modbussim.Fault) {
	if err := b.mustBeWell("at first", 1); err != nil {
		t.Errorf("%s: %v", transport, err)
	}
	for _, f := range faults {
		if f.Kind == modbussim.Spoil && b.driver.link.framing == mbap || f.Kind == modbussim.CloseAt && b.driver.link.network == netSerial {
			continue // TCP and UDP have checksums of their own; a serial line is not closed by the device
		}
		if err := b.survive(f, "once"); err != nil {
			t.Errorf("%s: %+v: %v", transport, f, err)
		}
	}
}

// packedFaults are the faults that mean something on every transport.
func packedFaults() []modbussim.Fault {
	list := []modbussim.Fault{
		{Kind: modbussim.Silence}, {Kind: modbussim.Delay, Wait: 600 * time.Millisecond}, {Kind: modbussim.WrongUnit},
		{Kind: modbussim.WrongFunction}, {Kind: modbussim.ShortValues}, {Kind: modbussim.LongValues}, {Kind: modbussim.StaleInstead},
		{Kind: modbussim.Exception, Code: 6}, {Kind: modbussim.Exception, Code: 11}, {Kind: modbussim.WrongCount, N: 3}, {Kind: modbussim.CloseAt, N: 4},
	}
	for n := range 8 {
		list = append(list, modbussim.Fault{Kind: modbussim.Spoil, N: 3 * n}, modbussim.Fault{Kind: modbussim.Garbage, N: 1 << n, Seed: uint64(n)})
	}
	return list
}

// TestLateAnswer holds that an answer that comes after its time is not taken for that of the next request, which looks the
// same: by its transaction id, and where there is none, or any is taken, by other means.
func TestLateAnswer(t *testing.T) {
	for _, c := range []struct{ transport, accept string }{
		{"tcp", ""}, {"tcp", "any"}, {"udp", ""}, {"rtuovertcp", ""}, {"asciiovertcp", ""}, {"rtuoverudp", ""},
	} {
		bubble(t, func(t *testing.T) {
			b := newBubbleBench(t, modbussim.Options{Transport: c.transport}, 1, tags("holding:100", "holding:200", "holding:300")).option("retries", "0")
			b.conn.Devices[0].Timeout = time.Second
			if c.accept != "" {
				b.option("accept_transaction_id", c.accept)
			}
			if err := b.open(t).mustBeWell("at first", 1); err != nil {
				t.Fatal(c, err)
			}
			b.sim.Inject(modbussim.Fault{Kind: modbussim.Delay, Wait: 1200 * time.Millisecond, Skip: 1, Times: 1})
			if bad, err := b.read(drivers.Ref{}); wrong(err) || bad == 0 {
				t.Fatalf("%v: %d bad, %v; want some without an answer, and none of another register", c, bad, err)
			}
			for range 3 {
				if _, err := b.pollAll(); wrong(err) {
					t.Fatal(c, err)
				}
			}
			if err := b.mustBeWell("after it", 2); err != nil {
				t.Error(c, err)
			}
		})
	}
}

// TestNoise has random bytes before answers, as a line makes them that turns round: they cost nothing.
func TestNoise(t *testing.T) {
	for _, name := range []string{"rtuovertcp", "asciiovertcp"} {
		b := benchOn(t, name, 1, 5*time.Second, faultTags()).open(t)
		for seed := range 20 {
			remove := b.sim.Inject(modbussim.Fault{Kind: modbussim.LineNoise, N: seed, Seed: uint64(seed)})
			if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
				t.Errorf("%s, %d bytes: %d bad, %v", name, seed, bad, err)
			}
			remove()
		}
	}
}

// TestDatagramLost has a request over UDP get no answer: the next one does, on the same socket.
func TestDatagramLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBubbleBench(t, modbussim.Options{Transport: "udp"}, 1, tags("holding:1", "holding:100"))
		b.conn.Devices[0].Timeout = 100 * time.Millisecond
		b.open(t)
		b.sim.Inject(modbussim.Fault{Kind: modbussim.Silence, Skip: 3, Times: 1})
		for range 3 {
			if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
				t.Errorf("%d bad, %v: a lost datagram is asked for again", bad, err)
			}
		}
		if n := b.sim.Accepted(); n != 1 {
			t.Errorf("%d sockets, want 1", n)
		}
	})
}

// TestSerialUnplugged takes the line away: an error that says so, and it opens again when it is back.
func TestSerialUnplugged(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no pseudo-terminals here")
	}
	b := benchOn(t, "rtu", 1, 2*time.Second, tags("holding:1"))
	link := filepath.Join(t.TempDir(), "tty")
	if err := os.Symlink(b.sim.Addr(), link); err != nil {
		t.Fatal(err)
	}
	b.conn.URL = "rtu://" + link + "?baud=115200"
	b.conn.Devices[0].URL = b.conn.URL
	b.open(t)
	if err := b.mustBeWell("at first", 1); err != nil {
		t.Fatal(err)
	}
	b.sim.Down()
	if _, err := b.read(drivers.Ref{}); err == nil || errors.Is(err, drivers.ErrDevice) {
		t.Errorf("unplugged: %v, want a line that is down", err)
	}
	if err := b.driver.Connect(context.Background()); err == nil || !strings.Contains(err.Error(), "plugged in") && !strings.Contains(err.Error(), "open serial line") {
		t.Errorf("connect while it is unplugged: %v", err)
	}
	if err := b.sim.Up(); err != nil {
		t.Fatal(err)
	}
	os.Remove(link)
	if err := os.Symlink(b.sim.Addr(), link); err != nil {
		t.Fatal(err)
	}
	if err := b.mustBeWell("plugged in again", 3); err != nil {
		t.Error(err)
	}
}

// TestTLS connects with the right CA and client certificate, and says what is wrong with others.
func TestTLS(t *testing.T) {
	folder := t.TempDir()
	ca := newAuthority(t)
	server, client := ca.issue(t, folder, "server", "plc.example"), ca.issue(t, folder, "client", "millrace")
	other := newAuthority(t)
	strange := other.issue(t, folder, "strange", "millrace")
	ca.save(t, filepath.Join(folder, "ca.pem"))
	other.save(t, filepath.Join(folder, "other.pem"))
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	pair, err := tls.LoadX509KeyPair(server+".pem", server+".key")
	if err != nil {
		t.Fatal(err)
	}
	sim := startSim(t, modbussim.Options{Transport: "tcp+tls", TLS: &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}})
	sim.Unit(1).SetRegisters(modbussim.Holding, 1, 4711)
	for _, c := range []struct{ name, ca, cert, server, want string }{
		{"right", "ca.pem", client, "plc.example", ""},
		{"another name", "ca.pem", client, "", `the device's certificate is for "plc.example", not "127.0.0.1"; correct the url, or give a name of the certificate as server_name`},
		{"another CA", "other.pem", client, "plc.example", `unknown authority, "ca": ca_file "` + folder + `/other.pem" has one of that name with another key`},
		{"no certificate", "ca.pem", "", "plc.example", "a client certificate, and none is given"},
		{"a stranger's certificate", "ca.pem", strange, "plc.example", "; is that of cert_file and key_file valid, and does the device trust its authority"},
		{"no such file", "none.pem", client, "plc.example", "read ca_file"},
		{"no regular file", ".", client, "plc.example", "read ca_file: read " + folder + ": it is not a regular file"},
	} {
		d := device(sim.URL(), 1, tags("holding:1"))
		d.Timeout = 5 * time.Second
		d.Options["ca_file"] = filepath.Join(folder, c.ca)
		if c.server != "" {
			d.Options["server_name"] = c.server
		}
		if c.cert != "" {
			d.Options["cert_file"], d.Options["key_file"] = c.cert+".pem", c.cert+".key"
		}
		driver, err := newDriver(&drivers.Connection{URL: sim.URL(), Devices: []drivers.Device{d}}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		var readings []telemetry.Reading
		if err = driver.Connect(context.Background()); err == nil { // the server's objection comes with its first answer
			readings, err = driver.Read(context.Background(), drivers.Ref{}, nil)
		}
		driver.Close()
		if all := driver.Certificates(); c.want == "" && (len(all) != 2 || all[0].Name != client+".pem" || all[1].Name != "plc.example" || all[1].NotAfter.IsZero()) {
			t.Errorf("%s: the certificates are %v", c.name, all)
		}
		if c.want == "" && (err != nil || readings[0].Value != telemetry.Uint(4711)) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, %v; want %q", c.name, readings, err, c.want)
		}
	}
}

// TestTLSOtherPeers says what answers in place of a device that speaks TLS, and keeps for drivers.IsClosed that it hung up.
func TestTLSOtherPeers(t *testing.T) {
	for answer, want := range map[string]string{
		"":                                 "the device closed the connection during the TLS handshake; does this port speak TLS? Where it does not, use tcp:// in the url",
		"HTTP/1.1 400 Bad Request\r\n\r\n": "what answers there does not speak TLS; use tcp:// in the url",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if c, err := l.Accept(); err == nil {
				_, _ = c.Read(make([]byte, 2048))
				_, _ = c.Write([]byte(answer))
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}
		}()
		url := "tcp+tls://" + l.Addr().String()
		driver, err := newDriver(&drivers.Connection{URL: url, Devices: []drivers.Device{device(url, 1, tags("holding:1"))}}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if err := driver.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), want) || drivers.IsClosed(err) != (answer == "") {
			t.Errorf("%q: %v; want %q", answer, err, want)
		}
	}
}

// TestTLSHangsUp has a device that asked for a certificate end the connection at the first request, without a word.
func TestTLSHangsUp(t *testing.T) {
	folder := t.TempDir()
	ca := newAuthority(t)
	server := ca.issue(t, folder, "server", "plc.example")
	ca.save(t, filepath.Join(folder, "ca.pem"))
	pair, err := tls.LoadX509KeyPair(server+".pem", server+".key")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			_, _ = c.Read(make([]byte, 512))
			c.Close()
		}
	}()
	d := device("tcp+tls://"+l.Addr().String(), 1, tags("holding:1"))
	d.Timeout, d.Options["ca_file"], d.Options["server_name"] = 5*time.Second, filepath.Join(folder, "ca.pem"), "plc.example"
	driver := connect(t, drivers.Connection{URL: d.URL, Devices: []drivers.Device{d}})
	const want = "the device closed the connection after it asked for a client certificate, and none is given; give cert_file and key_file"
	if _, err := driver.Read(t.Context(), drivers.Ref{}, nil); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %q", err, want)
	}
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) save(t *testing.T, path string) { savePEM(t, path, "CERTIFICATE", a.cert.Raw) }

// issue writes a certificate and its key, and returns their path without the ending.
func (a *authority) issue(t *testing.T, folder, file, name string) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, file)
	savePEM(t, path+".pem", "CERTIFICATE", der)
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	savePEM(t, path+".key", "EC PRIVATE KEY", private)
	return path
}

func savePEM(t *testing.T, path, kind string, der []byte) {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestIPv6 reads over ::1, where the machine has it.
// TestIPv6 reads over each network, and from a device that calls.
func TestIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		drivertest.Lacks(t, "no IPv6 here: %v", err)
	} else {
		l.Close()
	}
	for _, transport := range []string{"tcp", "udp", "rtuovertcp", "rtuoverudp", "asciiovertcp", "asciioverudp", "tcp-listen", "rtu-listen"} {
		own, calls := transport, map[string]string{"tcp-listen": "tcp", "rtu-listen": "rtuovertcp"}[transport]
		if calls != "" {
			own = calls
		}
		sim := startSim(t, modbussim.Options{Addr: "[::1]:0", Transport: own})
		sim.Unit(1).SetRegisters(modbussim.Holding, 1, 4711)
		url := sim.URL()
		if calls != "" {
			url = fmt.Sprintf("%s://[::1]:%d", transport, drivertest.FreePort(t))
		}
		dev := device(url, 1, tags("holding:1"))
		dev.Timeout = 10 * time.Second
		d := connect(t, drivers.Connection{URL: url, Devices: []drivers.Device{dev}})
		if calls != "" {
			if err := sim.Call(d.link.address, nil); err != nil {
				t.Errorf("%s: %v", transport, err)
			}
		}
		var readings []telemetry.Reading
		var err error
		for range 200 { // a call takes its time
			if readings, err = d.Read(context.Background(), drivers.Ref{}, nil); err == nil || !errors.Is(err, drivers.ErrAbsent) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil || readings[0].Value != telemetry.Uint(4711) {
			t.Errorf("%s: %+v, %v", transport, readings, err)
		}
	}
}

// TestNormal holds the one form of a line's urls.
func TestNormal(t *testing.T) {
	for url, want := range map[string]string{
		"tcp://h": "tcp://h:502", "tcp://H:502/": "tcp://h:502", "tcp://h:0502": "tcp://h:502", "tcp+tls://h": "tcp+tls://h:802", "tcp://[::1]": "tcp://[::1]:502",
		"rtu:///dev/ttyS0?baud=9600": "rtu:///dev/ttyS0", "rtu:///dev//ttyS0": "rtu:///dev/ttyS0", "mqtt://h": "mqtt://h", "": "",
	} {
		if got := Normal(url); got != want {
			t.Errorf("Normal(%q) = %q, want %q", url, got, want)
		}
	}
}

// TestTransactionsGoOnOverConnections: a gateway may give the answer to a request of the last connection on the next one, where its
// transaction id must not be in use.
func TestTransactionsGoOnOverConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBubbleBench(t, modbussim.Options{}, 1, tags("holding:0")).open(t)
		first := b.driver.link.wire.number
		for n := range uint16(5) {
			if bad, err := b.read(drivers.Ref{}); bad > 0 || err != nil {
				t.Fatalf("%d bad, %v", bad, err)
			}
			if got := b.driver.link.wire.number - first; got != n+1 {
				t.Errorf("transaction %d on connection %d, want %d", got, n, n+1)
			}
			b.driver.Close()
			if err := b.driver.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
