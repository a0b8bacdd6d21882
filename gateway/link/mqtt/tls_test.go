package mqtt

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"millrace/drivers/peer"
	"millrace/gateway/link"
)

// authority is a test CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue returns a certificate and its key as PEM.
func (a *authority) issue(t testing.TB, host string, end time.Time) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, NotBefore: time.Now().Add(-2 * time.Hour),
		NotAfter: end, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func (a *authority) pair(t testing.TB, host string, end time.Time) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, host, end))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// file writes the CA's certificate and returns its path.
func (a *authority) file(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	write(t, path, a.pem)
	return path
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCertificates: the dialer knows until when the broker's certificate and ours are valid, also when an expired one is refused.
func TestCertificates(t *testing.T) {
	ca := newAuthority(t, "ca") // ends in an hour
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "own.pem"), filepath.Join(dir, "own.key")
	half, past := time.Now().Add(30*time.Minute).Truncate(time.Second).UTC(), time.Now().Add(-time.Minute).Truncate(time.Second).UTC()
	cert, key := ca.issue(t, "gateway", half)
	write(t, certFile, cert)
	write(t, keyFile, key)
	for _, c := range []struct {
		name string
		cert tls.Certificate
		want peer.Certificate
	}{
		{"the broker's ends first", ca.pair(t, "127.0.0.1", half), peer.Certificate{Name: "127.0.0.1", NotAfter: half}},
		{"its authority ends first", ca.pair(t, "127.0.0.1", time.Now().Add(48*time.Hour)), peer.Certificate{Own: true, Authority: "ca", NotAfter: ca.cert.NotAfter}},
		{"expired", ca.pair(t, "127.0.0.1", past), peer.Certificate{Name: "127.0.0.1", NotAfter: past}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, addr := secureBroker(t, &tls.Config{Certificates: []tls.Certificate{c.cert}})
			trusted := ca.file(t)
			if c.want.Own {
				c.want.Name = trusted
			}
			d := dialer(t, Options{URL: "mqtts://" + addr, TLS: peer.Files{CA: trusted, Cert: certFile, Key: keyFile}})
			if got := d.Certificates(); len(got) > 0 {
				t.Errorf("before the first dial: %v", got)
			}
			if l, err := d.Dial(context.Background(), nil); err == nil {
				defer l.Close()
			}
			all := d.Certificates()
			for i := range all {
				if c := &all[i]; c.NotBefore.IsZero() || !c.NotBefore.Before(c.NotAfter) {
					t.Errorf("%s is valid from %v", c.Name, c.NotBefore)
				} else {
					c.NotBefore = time.Time{}
				}
			}
			if got, want := all, []peer.Certificate{{Own: true, Name: certFile, NotAfter: half}, c.want}; !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// TestTLS: only a broker that proves who it is gets a login.
func TestTLS(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	hour := time.Now().Add(time.Hour)
	for _, c := range []struct {
		name  string
		cert  tls.Certificate
		name2 string
		words []string
	}{
		{"right", ca.pair(t, "127.0.0.1", hour), "", nil},
		{"unknown CA", other.pair(t, "127.0.0.1", hour), "", []string{`unknown authority, "other"`, "as tls.ca"}},
		{"other host", ca.pair(t, "192.0.2.1", hour), "", []string{`for "192.0.2.1", not "127.0.0.1"; correct the url`, "tls.server_name"}},
		{"other host, by name", ca.pair(t, "broker.plant", hour), "broker.plant", nil},
		{"other host, by another name", ca.pair(t, "broker.plant", hour), "broker.shop", []string{`"broker.plant", not "broker.shop"; correct tls.server_name`}},
		{"expired", ca.pair(t, "127.0.0.1", time.Now().Add(-time.Minute)), "", []string{"expired", "this machine's clock"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, addr := secureBroker(t, &tls.Config{Certificates: []tls.Certificate{c.cert}})
			d := dialer(t, Options{URL: "mqtts://" + addr, TLS: peer.Files{CA: ca.file(t), ServerName: c.name2}})
			l, err := d.Dial(context.Background(), nil)
			if c.words != nil {
				says(t, err, nil, append(c.words, "connect: ")...)
				if n := b.Stats().Connects; n != 0 {
					t.Errorf("%d logins at a broker that proved nothing", n)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := l.Send(link.Message{Topic: "a", Payload: make([]byte, 100_000), QoS: 1}); err != nil {
				t.Fatal(err)
			}
			l.Flush()
			acks(t, l, 1)
		})
	}
}

// TestClientCertificate: it is asked for, missing, wrong, expired and renewed; the files are read at each dial.
func TestClientCertificate(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	hour := time.Now().Add(time.Hour)
	for version, name := range map[uint16]string{tls.VersionTLS12: "TLS 1.2", tls.VersionTLS13: "TLS 1.3"} {
		t.Run(name, func(t *testing.T) {
			_, addr := secureBroker(t, &tls.Config{Certificates: []tls.Certificate{ca.pair(t, "127.0.0.1", hour)}, MaxVersion: version,
				ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(ca)})
			dir := t.TempDir()
			files := peer.Files{CA: filepath.Join(dir, "ca.pem")}
			with := peer.Files{CA: files.CA, Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
			dial := func(f peer.Files) error {
				l, err := dialer(t, Options{URL: "mqtts://" + addr, TLS: f}).Dial(context.Background(), nil)
				if err == nil {
					_ = l.Close()
				}
				return err
			}
			put := func(a *authority, end time.Time) {
				cert, key := a.issue(t, "shop", end)
				write(t, with.Cert, cert)
				write(t, with.Key, key)
			}
			says(t, dial(files), nil, "read tls.ca", "no such file")
			write(t, files.CA, []byte("rubbish"))
			says(t, dial(files), nil, "read tls.ca", "holds no certificate; use a file of PEM certificates")
			write(t, files.CA, ca.pem)
			says(t, dial(files), nil, "the broker wants a client certificate", "give tls.cert and tls.key")
			says(t, dial(with), nil, "read tls.cert and tls.key")
			put(other, hour)
			says(t, dial(with), nil, `takes client certificates from "ca"`, `that of tls.cert and tls.key is from "other"`)
			put(ca, time.Now().Add(-time.Minute))
			says(t, dial(with), nil, "refuses the client certificate", "it expired on", "renew tls.cert and tls.key")
			put(ca, hour)
			if err := dial(with); err != nil {
				t.Error(err)
			}
			write(t, with.Key, []byte("rubbish"))
			says(t, dial(with), nil, "read tls.cert and tls.key")
			says(t, dial(peer.Files{CA: "/dev/zero"}), nil, "not a regular file")
		})
	}
}

func pool(a *authority) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}
