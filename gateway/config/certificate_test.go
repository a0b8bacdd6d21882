package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate is one in PEM with its key.
type certificate struct {
	*x509.Certificate
	private   *ecdsa.PrivateKey
	cert, key []byte
}

const day = 24 * time.Hour

// newCert makes a certificate of a name that is valid from and until so long from now, by an issuer or, without one, by itself.
func newCert(t *testing.T, name string, from, to time.Duration, issuer *certificate) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.Certificate, issuer.private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificate{c, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}
}

// save writes a file and returns its path.
func save(t *testing.T, parts ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.pem")
	var all []byte
	for _, b := range parts {
		all = append(all, b...)
	}
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var anyDevice = [4]string{"modbus", "tcp://h", "1", "holding:1"}

func secured(keys string) string {
	return "destinations: [{name: a, url: 'mqtts://h', tls: {" + keys + "}}]"
}

// TestCertificatesThatEnd: a certificate that is not valid now, or not for long, is a warning at the key of its file.
func TestCertificatesThatEnd(t *testing.T) {
	for _, c := range []struct {
		what     string
		from, to time.Duration
		want     string
	}{
		{"ended", -30 * day, -day, " ended on "},
		{"not yet valid", day, 30 * day, " is not valid before "},
		{"ends within a week", -day, 7*day - time.Hour, " ends on "},
		{"ends later", -day, 7*day + time.Hour, ""},
	} {
		made := newCert(t, "x", c.from, c.to, nil)
		cert, key := save(t, made.cert), save(t, made.key)
		user := [4]string{"opcua", "opc.tcp://h\n    user_certificate: " + cert + "\n    user_key: " + key, "", "ns=1;s=a"}
		again := user
		again[3] = "ns=1;s=b"
		for name, got := range map[string]string{"cert": doubtsOf(t, secured("cert: "+cert+", key: "+key), anyDevice), "ca": doubtsOf(t, secured("ca: "+cert), anyDevice),
			"user_certificate": doubtsOf(t, oneDestination, user, again)} {
			want := c.want
			if want != "" {
				want = fmt.Sprintf("%s %q%s", name, cert, c.want)
			}
			if (got == "") != (want == "") || strings.Count(got, want) != 1 && want != "" {
				t.Errorf("%s, %s: got %q, want %q once", name, c.what, got, want)
			}
		}
	}
}

// TestAuthoritiesThatEnd: an authority that has ended is told as what it is: of several, those count from which a peer may have its certificate.
func TestAuthoritiesThatEnd(t *testing.T) {
	good, soon := newCert(t, "good", -day, 30*day, nil), newCert(t, "soon", -day, 2*day, nil)
	old, older, before := newCert(t, "old", -9*day, -day, nil), newCert(t, "older", -9*day, -2*day, nil), newCert(t, "good", -9*day, -day, nil)
	const all, some = "connections are refused from then on", "peers whose certificate rests on it alone are refused from then on"
	var list [][]byte
	for range wholeList {
		list = append(list, good.cert)
	}
	for _, c := range []struct {
		what  string
		parts [][]byte
		want  []string // of the one warning
	}{
		{"all are valid", [][]byte{good.cert, good.cert}, nil},
		{"the only one has ended", [][]byte{old.cert}, []string{`c.pem" ended on `, all}},
		{"the first has ended", [][]byte{old.cert, good.cert}, []string{`c.pem": its authority "old" ended on `, some}},
		{"the last has ended", [][]byte{good.cert, old.cert}, []string{`c.pem": its authority "old" ended on `, some}},
		{"one ends soon", [][]byte{good.cert, soon.cert}, []string{`c.pem": its authority "soon" ends on `, some}},
		{"two have ended", [][]byte{old.cert, good.cert, older.cert}, []string{`c.pem": 2 of its 3 authorities are not valid now or end within a week; the first, "older", ended on `, some}},
		{"all have ended", [][]byte{old.cert, older.cert}, []string{`c.pem": the last of its 2 authorities, "old", ended on `, all}},
		{"the successor is there", [][]byte{before.cert, good.cert}, nil},
		{"the list of a system", append(list, old.cert), nil},
		{"a key", [][]byte{good.cert, good.key}, []string{`c.pem" holds a private key, too`}},
	} {
		got := doubtsOf(t, secured("ca: "+save(t, c.parts...)), anyDevice)
		if (got == "") != (c.want == nil) || strings.Contains(got, "\n") {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: got %q, want %q", c.what, got, want)
			}
		}
	}
}

// TestChainsThatEnd: of a chain that one counts which ends first.
func TestChainsThatEnd(t *testing.T) {
	root := newCert(t, "root", -9*day, 90*day, nil)
	for _, c := range []struct {
		what     string
		from, to time.Duration
		want     string
	}{
		{"its issuer has ended", -9 * day, -day, `: its issuer "hall" ended on `},
		{"its issuer is not valid yet", day, 60 * day, `: its issuer "hall" is not valid before `},
		{"all is well", -9 * day, 60 * day, ""},
	} {
		hall := newCert(t, "hall", c.from, c.to, root)
		own := newCert(t, "own", -day, 30*day, hall)
		got := doubtsOf(t, secured("cert: "+save(t, own.cert, hall.cert)+", key: "+save(t, own.key)), anyDevice)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}
