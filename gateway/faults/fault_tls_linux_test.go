package faults

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// authority is a certificate authority of the test's own.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}}, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{t, key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue writes server.crt and server.key for the host, valid until the given time.
func (a *authority) issue(dir, host string, until time.Time) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, &key.PublicKey, a.key)
	must(a.t, err)
	bytes, err := x509.MarshalPKCS8PrivateKey(key)
	must(a.t, err)
	write := func(name, kind string, b []byte) {
		must(a.t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600))
	}
	write("server.crt", "CERTIFICATE", der)
	write("server.key", "PRIVATE KEY", bytes)
}

// faultTLS, F18: an expired certificate, another authority's and another host's are refused, at the first
// and at every later connect, in words. A renewed authority's file is used without a restart, loss 0.
func faultTLS(t *testing.T) {
	const host = "broker.test"
	old, renewed := newAuthority(t, "old authority"), newAuthority(t, "new authority")
	b := newBed(t, 2, Setup{Words: 4})
	secure, err := freeAddr(ownHost())
	must(t, err)
	ip, port, _ := strings.Cut(secure, ":")
	listener := []string{"listener " + port + " " + ip,
		"certfile " + filepath.Join(b.dir, "server.crt"), "keyfile " + filepath.Join(b.dir, "server.key")}
	b.net.Close()
	b.net, err = NewProxy(secure) // no tap: it cannot read along
	must(t, err)
	t.Cleanup(b.net.Close)
	ca := filepath.Join(b.dir, "ca.pem")
	must(t, os.WriteFile(ca, old.pem, 0o600))
	b.setup.Scheme = "mqtts"
	b.setup.Extra = []string{"tls: {ca: " + ca + ", server_name: " + host + "}"}
	must(t, b.prepare())
	later := time.Now().Add(24 * time.Hour)

	for i, refused := range []struct {
		name, says string
		issue      func()
	}{
		{"an expired certificate", "expired on ", func() { old.issue(b.dir, host, time.Now().Add(-time.Hour)) }},
		{"another authority's certificate", "authority", func() { renewed.issue(b.dir, host, later) }},
		{"another host's certificate", "other.test", func() { old.issue(b.dir, "other.test", later) }},
	} {
		refused.issue()
		b.broker.Kill()
		b.restartBroker(listener...)
		if i == 0 {
			b.start()
		}
		before := b.net.Accepted()
		b.until(time.Minute, "two connects to a broker with "+refused.name, func() bool { return b.net.Accepted() >= before+2 })
		if n := len(b.sub.Arrivals()); n > 0 {
			t.Fatalf("%d messages arrived at a broker with %s", n, refused.name)
		}
		b.logs(refused.says)
		if i == 0 {
			b.says(`certificate "cloud": expired since`)
		}
	}
	old.issue(b.dir, host, later)
	b.broker.Kill()
	b.restartBroker(listener...)
	b.await(60, time.Minute)
	b.says(`certificate "cloud": expires this week`)

	renewed.issue(b.dir, host, later)
	must(t, os.WriteFile(ca, renewed.pem, 0o600))
	b.net.Refuse()
	b.net.Cut()
	must(t, b.sub.Drain(time.Minute)) // what was acknowledged is delivered before the broker dies
	b.broker.Kill()
	b.restartBroker(listener...)
	b.await(len(b.sub.Arrivals())+30, time.Minute)
	b.judge()
}

// says waits until /readyz names a state that begins so.
func (b *bed) says(state string) {
	b.t.Helper()
	b.until(time.Minute, "the state "+state, func() bool {
		_, body, err := b.gateway.Get("/readyz")
		var h struct{ Problems []string }
		return err == nil && json.Unmarshal(body, &h) == nil && slices.ContainsFunc(h.Problems, func(p string) bool { return strings.HasPrefix(p, state) })
	})
}
