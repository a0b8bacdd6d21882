package opcua

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/drivers"
	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/opcua/wire"
)

// endAt makes our certificate and has it end then.
func endAt(t *testing.T, p PKI, end time.Time) (chain []byte) {
	t.Helper()
	key, chain, err := p.own()
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(chain)
	if err != nil {
		t.Fatal(err)
	}
	c.NotAfter = end
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := encodeOwn(key, der)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.Path, "own", "millrace.pem"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return der
}

// TestOwnIsRenewed: a valid certificate is never made anew; one that ends within a week, or has ended, is followed by one of
// the same key and names, also when several need it at a time.
func TestOwnIsRenewed(t *testing.T) {
	for name, left := range map[string]time.Duration{"in time": 6 * 24 * time.Hour, "expired": -400 * 24 * time.Hour, "not yet": 8 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			p := PKI{t.TempDir()}
			end := time.Now().Add(left).UTC().Truncate(time.Second)
			old := endAt(t, p, end)
			var all sync.WaitGroup
			var chains [4][]byte
			for i := range chains {
				all.Go(func() {
					_, chain, err := p.own()
					if err != nil {
						t.Error(err)
					}
					chains[i] = chain
				})
			}
			all.Wait()
			for _, c := range chains {
				if !bytes.Equal(c, chains[0]) {
					t.Fatal("two certificates of our own")
				}
			}
			if der, err := os.ReadFile(p.OwnFile()); err != nil || !bytes.Equal(der, chains[0]) {
				t.Errorf("%s is not the certificate in use (%v)", p.OwnFile(), err)
			}
			if name == "not yet" {
				if !bytes.Equal(chains[0], old) || !p.replaced().IsZero() {
					t.Error("a valid certificate was made anew")
				}
				return
			}
			was, _ := x509.ParseCertificate(old)
			now, err := x509.ParseCertificate(chains[0])
			if err != nil {
				t.Fatal(err)
			}
			if now.NotAfter.Before(time.Now().AddDate(1, 0, 0)) || !now.NotBefore.Equal(was.NotBefore) || now.SerialNumber.Cmp(was.SerialNumber) == 0 ||
				applicationURI(chains[0]) != applicationURI(old) || !bytes.Equal(now.RawSubjectPublicKeyInfo, was.RawSubjectPublicKeyInfo) {
				t.Errorf("%v to %v, serial %v, %q", now.NotBefore, now.NotAfter, now.SerialNumber, applicationURI(chains[0]))
			}
			kept, err := os.ReadFile(p.ownUntil(end))
			if err != nil {
				t.Fatal(err)
			}
			if _, chain, err := parseOwn(kept); err != nil || !bytes.Equal(chain, old) {
				t.Errorf("the one before is not kept (%v)", err)
			}
			if got := p.replaced().Format(time.DateOnly); got != end.Format(time.DateOnly) {
				t.Errorf("replaced: %s, want %s", got, end.Format(time.DateOnly))
			}
		})
	}
}

// TestForeignOwnStays: a certificate that a person has put there is never touched.
func TestForeignOwnStays(t *testing.T) {
	p := PKI{t.TempDir()}
	key, chain, err := p.own()
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(chain)
	if err != nil {
		t.Fatal(err)
	}
	ca := newAuthority(t, "plant", nil, time.Now().Add(time.Hour))
	c.NotAfter = time.Now().Add(time.Hour)
	c.AuthorityKeyId = nil
	der, err := x509.CreateCertificate(rand.Reader, c, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := encodeOwn(key, der)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.Path, "own", "millrace.pem"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, chain, err = p.own(); err != nil || !bytes.Equal(chain, der) {
		t.Errorf("the certificate of the plant's own authority was replaced (%v)", err)
	}
	for policy, want := range map[*wire.Policy]int{nil: 1, wire.None(): 0} {
		d := driver{set: settings{pki: p, policy: policy}}
		if held := d.Held(); len(held) != want || want > 0 && !held[0].NotAfter.Equal(c.NotAfter.Truncate(time.Second)) {
			t.Errorf("it is not told before the first connect that it ends: %v", held)
		}
	}
}

// TestOwnChainEnds: of our certificate with issuers behind it that one counts which ends first, before the first connect as after it.
func TestOwnChainEnds(t *testing.T) {
	p := PKI{t.TempDir()}
	key, made, err := p.own()
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(made)
	if err != nil {
		t.Fatal(err)
	}
	hall := newAuthority(t, "hall", newAuthority(t, "plant", nil, time.Now().Add(48*time.Hour)), time.Now().Add(time.Hour))
	c.NotAfter, c.AuthorityKeyId = time.Now().Add(24*time.Hour), nil
	der, err := x509.CreateCertificate(rand.Reader, c, hall.cert, &key.PublicKey, hall.key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := encodeOwn(key, der)
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, "\ufeff"...) // as where files of Windows were joined
	write(t, p.ownPair(), append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hall.cert.Raw})...))
	d := driver{set: settings{pki: p, seen: &seen{}}}
	d.set.seen.noteOwn(p, slices.Concat(der, hall.cert.Raw))
	for _, all := range [][]drivers.Certificate{d.Held(), d.Certificates()} {
		if len(all) != 1 || !all[0].NotAfter.Equal(hall.cert.NotAfter) {
			t.Errorf("got %v, want the end of the issuer, %v", all, hall.cert.NotAfter)
		}
	}
}

// TestOwnIsReadWhole: what cannot be read of our file is an error, and not passed over.
func TestOwnIsReadWhole(t *testing.T) {
	b, err := newOwn()
	if err != nil {
		t.Fatal(err)
	}
	hall := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: newAuthority(t, "hall", nil, time.Now().Add(time.Hour)).cert.Raw})
	key, cert, _ := bytes.Cut(b, []byte("-----BEGIN CERT"))
	cert = append([]byte("-----BEGIN CERT"), cert...)
	for _, c := range []struct {
		what string
		b    []byte
		want string
	}{
		{"key and certificate", b, ""},
		{"behind a mark of UTF-8", append([]byte("\ufeff"), b...), ""},
		{"an issuer with 4 dashes", append(bytes.Clone(b), hall[1:]...), "it has in line "},
		{"an issuer that is cut off", append(bytes.Clone(b), hall[:200]...), "it is damaged or cut off: certificate 2"},
		{"no key", cert, "it holds no RSA key"},
		{"no certificate", key, "it holds no certificate; add it"},
		{"a locked key", append(bytes.ReplaceAll(key, []byte("PRIVATE"), []byte("ENCRYPTED PRIVATE")), cert...), "it holds a key with a passphrase"},
	} {
		if _, _, err := parseOwn(c.b); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
	}
}

// TestRevocationsBehindAMark: a list of revoked certificates counts also where an editor has put a mark of UTF-8 before it.
func TestRevocationsBehindAMark(t *testing.T) {
	ca := newAuthority(t, "plant", nil, time.Now().Add(time.Hour))
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), NextUpdate: time.Now().Add(time.Hour)}, ca.cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	p := PKI{t.TempDir()}
	write(t, filepath.Join(p.Path, "trusted", "a.crl"), append([]byte("\ufeff"), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...))
	if all, err := p.lists("trusted"); err != nil || len(all) != 1 {
		t.Errorf("%d lists, %v", len(all), err)
	}
}

// TestCertificatesAreKnown: after a connect the driver knows until when both certificates are valid.
func TestCertificatesAreKnown(t *testing.T) {
	s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris("basic256sha256")}, 1)
	c, dir := securedConnection(t, s.Endpoint(), nil, variables(1)...)
	made, err := newDriver(c)
	if err != nil {
		t.Fatal(err)
	}
	d := made.(*driver)
	if got := d.Certificates(); len(got) > 0 {
		t.Errorf("before the first connect: %v", got)
	}
	end := time.Now().Add(20 * 24 * time.Hour).UTC().Truncate(time.Second)
	endAt(t, PKI{dir}, end)
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got := d.Certificates()
	if len(got) != 2 || !got[0].Own || got[0].Name != (PKI{dir}).OwnFile() || !got[0].NotAfter.Equal(end) || got[0].Next == "" ||
		got[1].Own || got[1].Name == "" || got[1].NotAfter.Before(time.Now()) {
		t.Errorf("got %+v", got)
	}
}
