package opcua

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/drivers/opcua/opcuasim"
)

// authority is a certificate that issues others.
type authority struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T, name string, by *authority, notAfter time.Time) *authority {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	a := &authority{key: key}
	if by == nil {
		by = &authority{key, template}
	}
	if a.cert, err = x509.ParseCertificate(issue(t, template, by, key)); err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, template *x509.Certificate, by *authority, key *rsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (a *authority) revoke(t *testing.T, serial *big.Int) []byte {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: serial, RevocationTime: time.Now().Add(-time.Hour)}}}, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// badCertificate is what a server has and what is said of it, "" for nothing.
type badCertificate struct {
	name string
	lay  func(dir string) *opcuasim.Identity // puts files and returns what the server has
	want string
}

// TestBadCertificates has each certificate that must not be taken, although a person has put it into trusted/ where that is possible. It is
// refused at the first connect and at the next, with its own message. The good ones among them hold that the checks can pass.
func TestBadCertificates(t *testing.T) {
	for _, c := range slices.Concat(badFacts(t), badChains(t), badSuccessors(t)) {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			ownIn(t, dir)
			s := start(t, opcuasim.Options{Identity: c.lay(dir), Policies: uris("basic256sha256")}, 3)
			conn := connection(s.Endpoint(), 10*time.Second, variables(3)...)
			conn.Devices[0].Options = map[string]string{"pki": dir}
			for range 2 {
				if c.want == "" {
					wantNumbers(t, read(t, connect(t, conn)), nil)
				} else {
					refused(t, conn, c.want)
				}
			}
		})
	}
}

// selfSigned is the certificate of a healthy server, spoilt.
func selfSigned(t *testing.T, key *rsa.PrivateKey, spoil func(*x509.Certificate)) []byte {
	template := opcuasim.Template()
	spoil(template)
	return issue(t, template, &authority{key, template}, key)
}

func badFacts(t *testing.T) []badCertificate {
	year, key := time.Now().AddDate(1, 0, 0), identity(t).Key
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	self := func(spoil func(*x509.Certificate)) []byte { return selfSigned(t, key, spoil) }
	return []badCertificate{
		{"expired", pinned(t, key, self(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), "expired on "},
		{"not yet valid", pinned(t, key, self(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(24 * time.Hour); c.NotAfter = year })), "is not valid before "},
		{"other host", pinned(t, key, self(func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses = []string{"press-7"}, []net.IP{net.IPv4(10, 0, 0, 7)}
		})),
			`is for "press-7, 10.0.0.7", not for 127.0.0.1; use one of its names in url, or write server_name to say which to expect`},
		{"other URI", pinned(t, key, self(func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "urn", Opaque: "else"}} })), `is for another application than the server says to be, "urn:millrace:opcuasim"`},
		{"no URI", pinned(t, key, self(func(c *x509.Certificate) { c.URIs = nil })), `is for another application`},
		{"weak key", func(dir string) *opcuasim.Identity {
			template := opcuasim.Template()
			der := issue(t, template, &authority{small, template}, small)
			trusting(t, dir, der)
			return &opcuasim.Identity{Key: small, Certificate: der}
		}, "has a key of 1024 bits, and 2048 to 4096 are allowed"},
		{"elliptic curve", pinned(t, key, curve(t)), "holds a key of type ECDSA, not RSA: OPC UA's elliptic-curve policies are not supported; have the server use an RSA certificate"},
	}
}

// curve is the certificate of a server with an elliptic-curve key.
func curve(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, opcuasim.Template(), opcuasim.Template(), &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// issued is the certificate of a healthy server by an authority.
func issued(t *testing.T, by *authority, key *rsa.PrivateKey) (*x509.Certificate, []byte) {
	template := opcuasim.Template()
	return template, issue(t, template, by, key)
}

// badSuccessors has servers whose certificate is not the one that a person has trusted.
func badSuccessors(t *testing.T) []badCertificate {
	key := identity(t).Key
	return []badCertificate{
		{"another one than before", func(dir string) *opcuasim.Identity {
			trusting(t, dir, selfSigned(t, key, func(c *x509.Certificate) { c.Subject.CommonName, c.SerialNumber = "as it was", big.NewInt(7) }))
			return &opcuasim.Identity{Key: key, Certificate: selfSigned(t, key, func(*x509.Certificate) {})}
		}, `is not trusted; the server shows another certificate than the trusted one "as it was" (thumbprint `},
		{"beside one of another host", func(dir string) *opcuasim.Identity {
			trusting(t, dir, selfSigned(t, key, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"press-7"}, nil }))
			return &opcuasim.Identity{Key: key, Certificate: selfSigned(t, key, func(*x509.Certificate) {})}
		}, "is not trusted; compare the thumbprint"},
	}
}

func badChains(t *testing.T) []badCertificate {
	year, key := time.Now().AddDate(1, 0, 0), identity(t).Key
	root, other := newAuthority(t, "root", nil, year), newAuthority(t, "other", nil, year)
	middle, stale := newAuthority(t, "middle", root, year), newAuthority(t, "stale", root, time.Now().Add(-24*time.Hour))
	leaf := func(by *authority) (*x509.Certificate, []byte) { return issued(t, by, key) }
	return []badCertificate{
		{"unknown", func(dir string) *opcuasim.Identity {
			return &opcuasim.Identity{Key: key, Certificate: selfSigned(t, key, func(*x509.Certificate) {})}
		}, "is not trusted; compare the thumbprint"},
		{"of an unknown issuer", func(dir string) *opcuasim.Identity {
			_, der := leaf(other)
			return &opcuasim.Identity{Key: key, Certificate: der}
		}, `is not trusted, nor is its issuer "other", whose certificate is neither in trusted/ nor in issuers/`},
		{"of an issuer that is known, not trusted", func(dir string) *opcuasim.Identity {
			_, der := leaf(other)
			write(t, filepath.Join(dir, "issuers", "other.der"), other.cert.Raw)
			return &opcuasim.Identity{Key: key, Certificate: der}
		}, `is not trusted, nor is its issuer "other"; compare`},
		{"of a trusted issuer", func(dir string) *opcuasim.Identity {
			_, der := leaf(root)
			trusting(t, dir, root.cert.Raw)
			return &opcuasim.Identity{Key: key, Certificate: der}
		}, ""},
		{"broken chain", func(dir string) *opcuasim.Identity {
			_, der := leaf(middle)
			trusting(t, dir, root.cert.Raw)
			return &opcuasim.Identity{Key: key, Certificate: der}
		}, `is not trusted, nor is its issuer "middle", whose certificate is neither in trusted/ nor in issuers/`},
		{"chain, completed by us", func(dir string) *opcuasim.Identity {
			_, der := leaf(middle)
			trusting(t, dir, root.cert.Raw)
			write(t, filepath.Join(dir, "issuers", "middle.der"), middle.cert.Raw)
			return &opcuasim.Identity{Key: key, Certificate: der}
		}, ""},
		{"issuer expired", func(dir string) *opcuasim.Identity {
			_, der := leaf(stale)
			trusting(t, dir, root.cert.Raw)
			write(t, filepath.Join(dir, "issuers", "stale.der"), stale.cert.Raw)
			return &opcuasim.Identity{Key: key, Certificate: der}
		}, `has an issuer "stale" that is not valid now`},
		{"revoked", func(dir string) *opcuasim.Identity {
			template, der := leaf(root)
			trusting(t, dir, root.cert.Raw)
			write(t, filepath.Join(dir, "trusted", "root.crl"), root.revoke(t, template.SerialNumber))
			return &opcuasim.Identity{Key: key, Certificate: der}
		}, `was revoked on `},
		{"revoked and pinned", func(dir string) *opcuasim.Identity {
			template, der := leaf(other)
			trusting(t, dir, der)
			write(t, filepath.Join(dir, "issuers", "other.der"), other.cert.Raw)
			write(t, filepath.Join(dir, "issuers", "other.crl"), other.revoke(t, template.SerialNumber))
			return &opcuasim.Identity{Key: key, Certificate: der}
		}, `was revoked on `},
		{"issuer revoked", func(dir string) *opcuasim.Identity {
			_, der := leaf(middle)
			trusting(t, dir, root.cert.Raw)
			write(t, filepath.Join(dir, "issuers", "middle.der"), middle.cert.Raw)
			write(t, filepath.Join(dir, "trusted", "root.crl"), root.revoke(t, middle.cert.SerialNumber))
			return &opcuasim.Identity{Key: key, Certificate: der}
		}, `has an issuer "middle" that was revoked on `},
		{"revoked by a stranger", func(dir string) *opcuasim.Identity {
			template, der := leaf(root)
			trusting(t, dir, root.cert.Raw)
			write(t, filepath.Join(dir, "trusted", "other.crl"), other.revoke(t, template.SerialNumber))
			return &opcuasim.Identity{Key: key, Certificate: der}
		}, ""},
	}
}

// pinned has a certificate that a person has trusted.
func pinned(t *testing.T, key *rsa.PrivateKey, der []byte) func(dir string) *opcuasim.Identity {
	return func(dir string) *opcuasim.Identity {
		trusting(t, dir, der)
		return &opcuasim.Identity{Key: key, Certificate: der}
	}
}

// TestServerName has a server that is reached by another name than its certificate holds.
func TestServerName(t *testing.T) {
	template := opcuasim.Template()
	template.DNSNames, template.IPAddresses = []string{"press-7"}, nil
	key := identity(t).Key
	who := &opcuasim.Identity{Key: key, Certificate: issue(t, template, &authority{key, template}, key)}
	s := start(t, opcuasim.Options{Identity: who, Policies: uris("basic256sha256")}, 1)
	c, dir := securedConnection(t, s.Endpoint(), map[string]string{"server_name": "PRESS-7"}, variables(1)...)
	trusting(t, dir, who.Certificate)
	wantNumbers(t, read(t, connect(t, c)), nil)
}

// TestRejectedIsBounded has a server that shows another certificate each time.
func TestRejectedIsBounded(t *testing.T) {
	p, key := PKI{t.TempDir()}, identity(t).Key
	for range maxRejected + 3 {
		template := opcuasim.Template()
		template.Subject.CommonName = "../../x\x00" + strings.Repeat("long", 50)
		c, err := x509.ParseCertificate(issue(t, template, &authority{key, template}, key))
		if err != nil {
			t.Fatal(err)
		}
		_ = p.Reject(c)
	}
	left, err := os.ReadDir(filepath.Join(p.Path, "rejected"))
	if err != nil || len(left) != maxRejected {
		t.Errorf("%d files in rejected/, want %d (%v)", len(left), maxRejected, err)
	}
}
