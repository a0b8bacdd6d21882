package peer

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
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// rig has authorities and the certificates that they issued.
type rig struct {
	*testing.T
	folder string
	serial int64
}

// pair makes a certificate from a template, valid around now where that says nothing else; issuer nil = itself.
func (r *rig) pair(template x509.Certificate, issuer *tls.Certificate) *tls.Certificate {
	r.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.Fatal(err)
	}
	r.serial++
	template.SerialNumber = big.NewInt(r.serial)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-24 * time.Hour)
	}
	parent, signer := &template, any(key)
	if issuer != nil {
		parent, signer = issuer.Leaf, issuer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, &key.PublicKey, signer)
	if err != nil {
		r.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		r.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (r *rig) authority(name string, end time.Time) *tls.Certificate {
	return r.pair(x509.Certificate{Subject: pkix.Name{CommonName: name}, NotAfter: end, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
}

// save writes a certificate, and its key beside it.
func (r *rig) save(name string, c *tls.Certificate) string {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	path := filepath.Join(r.folder, name)
	var chain []byte
	for _, der := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if err := errors.Join(err, os.WriteFile(path, chain, 0o600),
		os.WriteFile(path+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)); err != nil {
		r.Fatal(err)
	}
	return path
}

// mark writes a file of certificates, each behind a mark of UTF-8, as files that were saved on Windows and joined are.
func (r *rig) mark(name string, all ...*tls.Certificate) string {
	var b []byte
	for _, c := range all {
		b = append(append(b, "\ufeff"...), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Leaf.Raw})...)
	}
	path := filepath.Join(r.folder, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		r.Fatal(err)
	}
	return path
}

// dial connects to what serves one connection, reads the first answer as a driver does, and returns what it is told of it.
func (r *rig) dial(f Files, patience time.Duration, serve func(net.Conn)) error {
	r.Helper()
	_, err := r.connect(f, patience, serve)
	return err
}

// connect is dial, and returns what the connection rests on, too.
func (r *rig) connect(f Files, patience time.Duration, serve func(net.Conn)) ([]Certificate, error) {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		if c, err := l.Accept(); err == nil {
			serve(c)
			c.Close()
		}
	}()
	defer func() { l.Close(); <-over }()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	t := &TLS{Files: f, Names: Names{Peer: "device", CA: "ca_file", Pair: "cert_file and key_file", ServerName: "server_name", Plain: "tcp://"}}
	h, err := t.Begin("127.0.0.1")
	if err != nil {
		r.Fatal(err)
	}
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		r.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, h.Config)
	if err = c.HandshakeContext(ctx); err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	err = h.Failed(err)
	return t.Certificates(), err
}

// server serves TLS, and a byte. It waits for the client's farewell, so that no reset overtakes what it says.
func server(config *tls.Config) func(net.Conn) {
	return func(raw net.Conn) {
		c := tls.Server(raw, config)
		if err := c.Handshake(); err == nil {
			_, _ = c.Write([]byte{1})
		}
		_ = raw.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, raw)
	}
}

// TestFailed explains real handshakes that fail: what is wrong, and which key of the config mends it.
func TestFailed(t *testing.T) {
	r := &rig{T: t, folder: t.TempDir()}
	now := time.Now()
	local, here := []net.IP{net.IPv4(127, 0, 0, 1)}, pkix.Name{CommonName: "plc"}
	ca, old := r.authority("Plant", now.Add(time.Hour)), r.authority("Old", now.Add(-time.Minute))
	good := r.pair(x509.Certificate{Subject: here, IPAddresses: local}, ca)
	self := r.pair(x509.Certificate{Subject: here, IPAddresses: local}, nil)
	trusted, others := Files{CA: r.save("ca", ca)}, Files{CA: r.save("others", r.authority("Other", now.Add(time.Hour)))}
	renewed := Files{CA: r.save("renewed", r.authority("Plant", now.Add(time.Hour)))}
	named := Files{CA: trusted.CA, ServerName: "plc.shop"}
	long := make([]string, 50)
	for i := range long {
		long[i] = strings.Repeat("x", 200) + ".example"
	}
	for _, c := range []struct {
		name  string
		files Files
		cert  *tls.Certificate
		want  []string // nil = it succeeds
	}{
		{"right", trusted, good, nil},
		{"right, behind a mark of UTF-8 in the middle of the file", Files{CA: r.mark("marked", self, ca)}, good, nil},
		{"signed by itself, and known", Files{CA: r.save("self", self)}, self, nil},
		{"unknown authority", others, good, []string{`the device's certificate "plc" is from an unknown authority, "Plant": ca_file "` + others.CA + `" does not have it`, "authority (a PEM file) as ca_file"}},
		{"unknown authority, no ca_file", Files{}, good, []string{`unknown authority, "Plant": this machine's own list does not have it; give`, "as ca_file"}},
		{"authority made anew", renewed, good, []string{`unknown authority, "Plant": ca_file "` + renewed.CA + `" has one of that name with another key`, "as ca_file"}},
		{"no authority", Files{CA: r.save("leaf", r.pair(x509.Certificate{Subject: pkix.Name{CommonName: "Plant"}, BasicConstraintsValid: true}, nil))}, good,
			[]string{"has one of that name that is no authority and may not sign others", "as ca_file"}},
		{"signed by itself", trusted, self, []string{`the device's certificate "plc" is signed by itself, and ca_file "` + trusted.CA + `" does not have it`, "give that certificate itself (a PEM file) as ca_file"}},
		{"wrong host", trusted, r.pair(x509.Certificate{Subject: here, DNSNames: []string{"plc.plant"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}}, ca),
			[]string{`the device's certificate is for "plc.plant", "192.0.2.1", not "127.0.0.1"; correct the url, or give a name of the certificate as server_name`}},
		{"wrong server_name", named, r.pair(x509.Certificate{Subject: here, DNSNames: []string{"plc.plant"}}, ca), []string{`for "plc.plant", not "plc.shop"; correct server_name`}},
		{"no host at all", trusted, r.pair(x509.Certificate{Subject: here}, ca), []string{`the device's certificate "plc" names no host`, `have one made for "127.0.0.1"`}},
		{"endless names", trusted, r.pair(x509.Certificate{Subject: pkix.Name{CommonName: strings.Repeat("y", 2000)}, DNSNames: long}, ca), []string{`, others, not "127.0.0.1"`}},
		{"expired", trusted, r.pair(x509.Certificate{Subject: here, IPAddresses: local, NotAfter: now.Add(-time.Minute)}, ca),
			[]string{`the device's certificate "plc" expired on ` + now.Add(-time.Minute).UTC().Format(time.RFC3339) + "; have it renewed, or set this machine's clock, which says "}},
		{"not yet valid", trusted, r.pair(x509.Certificate{Subject: here, IPAddresses: local, NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour)}, ca),
			[]string{`"plc" is not valid before `, "this machine's clock"}},
		{"expired authority", Files{CA: r.save("old", old)}, r.pair(x509.Certificate{Subject: here, IPAddresses: local}, old),
			[]string{`the certificate of the authority "Old", from which the device's is, expired on `, "have it renewed and put it into ca_file \"" + filepath.Join(r.folder, "old")}},
		{"not for a server", trusted, r.pair(x509.Certificate{Subject: here, IPAddresses: local, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca),
			[]string{`certificate "plc" cannot be used: it is not made for a server`, "have another one made"}},
		{"SHA-1", trusted, r.pair(x509.Certificate{Subject: here, IPAddresses: local, SignatureAlgorithm: x509.ECDSAWithSHA1}, ca), []string{"SHA-1", "signed with SHA-256"}},
	} {
		told(t, c.name, r.dial(c.files, time.Minute, server(&tls.Config{Certificates: []tls.Certificate{*c.cert}})), c.want)
	}
}

// told fails where an error does not have all of these words, is long, or hides what it came of; nil = there must be none.
func told(t *testing.T, name string, err error, want []string) {
	t.Helper()
	if want == nil {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	e, ok := errors.AsType[*HandshakeError](err)
	if !ok || e.Unwrap() == nil {
		t.Errorf("%s: %v is not explained", name, err)
		return
	}
	t.Logf("%s: %v", name, err)
	if slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(err.Error(), w) }) || len(err.Error()) > 700 {
		t.Errorf("%s: %q; want %q", name, err, want)
	}
}

// TestFailedClientCertificate: the server demands one, in both versions of TLS.
func TestFailedClientCertificate(t *testing.T) {
	r := &rig{T: t, folder: t.TempDir()}
	hour := time.Now().Add(time.Hour)
	ca, other, twin := r.authority("Plant", hour), r.authority("Other", hour), r.authority("Plant", hour)
	good := r.pair(x509.Certificate{Subject: pkix.Name{CommonName: "plc"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, ca)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	of := func(name string, issuer *tls.Certificate, end time.Time) Files {
		path := r.save(name, r.pair(x509.Certificate{Subject: pkix.Name{CommonName: "gateway"}, NotAfter: end, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, issuer))
		return Files{CA: r.save("ca", ca), Cert: path, Key: path + ".key"}
	}
	behind := func(name string) Files { // a chain whose issuer has ended
		hall := r.pair(x509.Certificate{Subject: pkix.Name{CommonName: "Hall"}, NotAfter: time.Now().Add(-time.Minute), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, ca)
		own := r.pair(x509.Certificate{Subject: pkix.Name{CommonName: "gateway"}, NotAfter: hour, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, hall)
		own.Certificate = append(own.Certificate, hall.Certificate[0])
		path := r.save(name, own)
		return Files{CA: r.save("ca", ca), Cert: path, Key: path + ".key"}
	}
	hall := r.pair(x509.Certificate{Subject: pkix.Name{CommonName: "Hall"}, NotAfter: hour, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, ca)
	own := r.pair(x509.Certificate{Subject: pkix.Name{CommonName: "gateway"}, NotAfter: hour, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, hall)
	marked := Files{CA: r.save("ca", ca), Cert: r.mark("chain", own, hall), Key: r.save("alone", own) + ".key"}
	young := func(name string, issuer *tls.Certificate) Files {
		path := r.save(name, r.pair(x509.Certificate{Subject: pkix.Name{CommonName: "gateway"}, NotBefore: hour, NotAfter: hour.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, issuer))
		return Files{CA: r.save("ca", ca), Cert: path, Key: path + ".key"}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{Certificates: []tls.Certificate{*good}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: version, MaxVersion: version}
		for _, c := range []struct {
			name  string
			files Files
			want  []string
		}{
			{"right", of("own", ca, hour), nil},
			{"right, its issuer behind a mark of UTF-8", marked, nil},
			{"none", Files{CA: r.save("ca", ca)}, []string{"the device wants a client certificate, and none is given (it says: ", "; give cert_file and key_file"}},
			{"of another authority", of("other", other, hour), []string{`takes client certificates from "Plant", and that of cert_file and key_file is from "Other"`, "give one that it takes"}},
			{"of one of the same name", of("twin", twin, hour), []string{"refuses the client certificate (it says: ", "is that of cert_file and key_file valid", `trust its authority, "Plant"`}},
			{"expired", of("past", ca, time.Now().Add(-time.Minute)), []string{"refuses the client certificate (it says: ", "it expired on ", "renew cert_file and key_file"}},
			{"not valid yet", young("young", ca), []string{"refuses the client certificate (it says: ", "it is not valid before " + hour.UTC().Format(time.DateOnly), "wait until then, or set this machine's clock, which says "}},
			{"its issuer expired", behind("behind"), []string{"refuses the client certificate (it says: ", `that of its issuer "Hall" expired on `, "renew cert_file and key_file"}},
		} {
			told(t, tls.VersionName(version)+", "+c.name, r.dial(c.files, time.Minute, server(config)), c.want)
		}
		mute := func(raw net.Conn) { // as one whose alert is lost to a reset
			own := config.Clone()
			own.VerifyConnection = func(tls.ConnectionState) error { raw.Close(); return nil }
			own.ClientAuth = tls.RequestClientCert
			_ = tls.Server(raw, own).Handshake()
		}
		told(t, tls.VersionName(version)+", none, hangs up", r.dial(Files{CA: r.save("ca", ca)}, time.Minute, mute), []string{"closed the connection after it asked for a client certificate, and none is given; give cert_file and key_file"})
		told(t, tls.VersionName(version)+", hangs up", r.dial(of("own", ca, hour), time.Minute, mute), []string{"closed the connection after it was shown the client certificate; is that of cert_file and key_file valid"})
	}
}

// TestFailedOtherPeers: what answers speaks no TLS, another version, or not at all.
func TestFailedOtherPeers(t *testing.T) {
	r := &rig{T: t, folder: t.TempDir()}
	hello := make([]byte, 2048)
	speaks := []string{"does this port speak TLS?", "use tcp:// in the url"}
	for _, c := range []struct {
		name     string
		patience time.Duration
		serve    func(net.Conn)
		want     []string
	}{
		{"plain text", time.Minute, func(c net.Conn) {
			_, _ = c.Read(hello)
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_, _ = c.Read(hello)
		}, []string{"what answers there does not speak TLS", "use tcp:// in the url, or the port for TLS"}},
		{"hangs up", time.Minute, func(c net.Conn) { _, _ = c.Read(hello) }, append(speaks, "the device closed the connection during the TLS handshake")},
		{"says nothing", 100 * time.Millisecond, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, append(speaks, "took the connection, but gave no answer to the TLS handshake in time")},
		{"old version", time.Minute, server(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, Certificates: []tls.Certificate{*r.authority("Plant", time.Time{})}}),
			[]string{"do not agree on how to encrypt (protocol version not supported)", "TLS 1.2 or 1.3 with a current cipher", "update the device"}},
		{"unknown name", time.Minute, func(c net.Conn) {
			_, _ = c.Read(hello)
			_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, 112})
			_, _ = c.Read(hello)
		}, []string{`the device does not know the name "127.0.0.1"`, "as server_name"}},
	} {
		told(t, c.name, r.dial(Files{}, c.patience, c.serve), c.want)
	}
	var none *Handshake
	if err := none.Failed(io.EOF); err != io.EOF {
		t.Errorf("without TLS: %v", err)
	}
}

// TestWhoseAuthorityEnds: what ends of what a peer's certificate rests on is ours where it is of our file of authorities, and else the peer's.
func TestWhoseAuthorityEnds(t *testing.T) {
	r := &rig{T: t, folder: t.TempDir()}
	now := time.Now()
	past, soon, hour := now.Add(-time.Minute), now.Add(10*time.Minute), now.Add(time.Hour)
	signs := func(name string, end time.Time) x509.Certificate {
		return x509.Certificate{Subject: pkix.Name{CommonName: name}, NotAfter: end, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	}
	// shown is a peer's chain: its own certificate, that of the hall, and what more is given.
	shown := func(root *tls.Certificate, leaf, hall time.Time, more ...*tls.Certificate) (chain, between *tls.Certificate) {
		between = r.pair(signs("Hall", hall), root)
		chain = r.pair(x509.Certificate{Subject: pkix.Name{CommonName: "plc"}, NotAfter: leaf, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, between)
		for _, c := range append([]*tls.Certificate{between}, more...) {
			chain.Certificate = append(chain.Certificate, c.Certificate[0])
		}
		return chain, between
	}
	root, endsSoon, ended := r.authority("Root", hour), r.authority("Soon", soon), r.authority("Ended", past)
	files := func(name string, all ...*tls.Certificate) Files {
		joined := *all[0]
		for _, c := range all[1:] {
			joined.Certificate = append(slices.Clone(joined.Certificate), c.Certificate[0])
		}
		return Files{CA: r.save(name, &joined)}
	}
	late := hour.Add(time.Hour)
	ofSoon, _ := shown(endsSoon, late, late)
	ofEnded, _ := shown(ended, late, late)
	withRoot, _ := shown(ended, late, late, ended)
	endedHall, hall := shown(root, late, past)
	endedLeaf, _ := shown(root, past, late)
	self := r.pair(x509.Certificate{Subject: pkix.Name{CommonName: "plc"}, NotAfter: past, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, nil)
	for _, c := range []struct {
		name string
		ours Files
		peer *tls.Certificate
		want Certificate
		says []string // nil = it connects
	}{
		{"our root ends soon", files("soon", endsSoon), ofSoon, Certificate{Own: true, Authority: "Soon"}, nil},
		{"our root has ended", files("ended", ended), ofEnded, Certificate{Own: true, Authority: "Ended"}, []string{`authority "Ended"`, "put it into ca_file"}},
		{"and is shown, too", files("ended", ended), withRoot, Certificate{Own: true, Authority: "Ended"}, []string{`authority "Ended"`, "put it into ca_file"}},
		{"the issuer that is shown has ended", files("root", root), endedHall, Certificate{Name: "Hall"}, []string{`authority "Hall"`, "have it renewed there, for the device to show"}},
		{"and is in our file, too", files("both", hall, root), endedHall, Certificate{Own: true, Authority: "Hall"}, []string{`authority "Hall"`, "put it into ca_file"}},
		{"the peer's own has ended", files("root", root), endedLeaf, Certificate{Name: "plc"}, []string{`the device's certificate "plc" expired`}},
		{"that has signed itself", files("self", self), self, Certificate{Name: "plc"}, []string{`the device's certificate "plc" expired`}},
	} {
		if c.want.Own {
			c.want.Name = c.ours.CA
		}
		all, err := r.connect(c.ours, time.Minute, server(&tls.Config{Certificates: []tls.Certificate{*c.peer}}))
		told(t, c.name, err, c.says)
		if len(all) != 1 {
			t.Errorf("%s: %+v, want one", c.name, all)
			continue
		}
		if got := (Certificate{Own: all[0].Own, Name: all[0].Name, Authority: all[0].Authority}); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	h := Handshake{of: &TLS{}} // with the machine's own list
	if h.notePeer(root.Leaf, []*x509.Certificate{hall.Leaf}); h.of.peer[0].Own || h.of.peer[0].Authority != "Root" {
		t.Errorf("of the machine's own list: %+v", h.of.peer)
	}
	if h.notePeer(hall.Leaf, []*x509.Certificate{self.Leaf, hall.Leaf}); h.of.peer[0].Authority != "" {
		t.Errorf("shown: %+v", h.of.peer)
	}
}
