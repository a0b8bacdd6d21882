package files

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// made is a certificate with its key, both in PEM.
type made struct {
	*x509.Certificate
	private   *ecdsa.PrivateKey
	cert, key []byte
}

// issue makes a certificate of a name that ends in so many days, by an issuer or, without one, by itself.
func issue(t *testing.T, name string, days int, issuer *made) *made {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().AddDate(0, 0, days)}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.Certificate, issuer.private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	private, kerr := x509.MarshalPKCS8PrivateKey(key)
	if err := errors.Join(err, kerr); err != nil {
		t.Fatal(err)
	}
	return &made{c, key, block("CERTIFICATE", der), block("PRIVATE KEY", private)}
}

func block(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }

func der(b []byte) []byte {
	p, _ := pem.Decode(b)
	return p.Bytes
}

func join(all ...[]byte) []byte { return bytes.Join(all, nil) }

// flawed compares an error, and what is to be done about it, with words; "" is none.
func flawed(t *testing.T, what string, err error, ofKey bool, want string) {
	t.Helper()
	var flaw *Flaw
	if want == "" {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	if !errors.As(err, &flaw) || !strings.Contains(err.Error(), want) || flaw.OfKey != ofKey || flaw.Mend == "" {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}

// wide is a text in UTF-16.
func wide(b []byte) (all []byte) {
	all = []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(string(b))) {
		all = append(all, byte(u), byte(u>>8))
	}
	return all
}

// A SEQUENCE that begins as a file of PKCS #7, PKCS #12, or a key with a passphrase.
var (
	pkcs7  = []byte{0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2}
	pkcs12 = []byte{0x30, 3, 2, 1, 3}
	sealed = []byte{0x30, 15, 0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13, 4, 0}
)

// TestCertificates: every certificate of a file is read, or an error says which is not, and what the file is instead.
func TestCertificates(t *testing.T) {
	a, b := issue(t, "a", 1, nil), issue(t, "b", 1, nil)
	damaged := bytes.Replace(b.cert, []byte("\n"), []byte("\nAAAA\n"), 2)
	for _, c := range []struct {
		what  string
		b     []byte
		count int
		want  string
	}{
		{"two", join(a.cert, b.cert), 2, ""},
		{"two behind a mark of UTF-8", join([]byte(BOM), a.cert, b.cert), 2, ""},
		{"with text between, and lines of Windows", bytes.ReplaceAll(join([]byte("# one\n"), a.cert, []byte("two\n"), b.cert), []byte("\n"), []byte("\r\n")), 2, ""},
		{"with a key", join(a.key, a.cert), 1, ""},
		{"DER", a.Raw, 1, ""},
		{"the second is cut off", join(a.cert, b.cert[:200]), 1, "cut off: certificate 2 of the file, in line " + line(a.cert)},
		{"cut off in the begin of the second", join(a.cert, b.cert[:9]), 1, "ends in line " + line(a.cert) + " within the begin of what is missing; copy the file again"},
		{"cut off in what the second is", join(a.cert, b.cert[:20]), 1, "ends in line " + line(a.cert)},
		{"cut off in the dashes of the second", join(a.cert, b.cert[:3]), 1, "ends in line " + line(a.cert)},
		{"cut off in the begin of a key", join(a.cert, a.key[:14]), 1, "ends in line " + line(a.cert)},
		{"dashes at the end", join(a.cert, []byte("-----\n")), 1, ""},
		{"the first is cut off", join(a.cert[:200], []byte("\n"), b.cert), 1, "cut off: certificate 1 of the file, in line 1;"},
		{"the second is damaged", join(a.cert, damaged), 1, "certificate 2 of the file, in line " + line(a.cert)},
		{"with lines of an old Mac", bytes.ReplaceAll(join(a.cert, b.cert), []byte("\n"), []byte("\r")), 2, ""},
		{"the second made a comment", join(a.cert, commented(b.cert)), 1, ""},
		{"the second's lines made a comment, not what is in them", join(a.cert, []byte("# "), b.cert[:len(b.cert)-26], []byte("# "), b.cert[len(b.cert)-26:]), 1, "like the content of a certificate"},
		{"indented", bytes.ReplaceAll(a.cert, []byte("\n"), []byte("\n  ")), 1, ""},
		{"joined, the second with a mark of UTF-8", join(a.cert, []byte(BOM), b.cert), 2, ""},
		{"joined without a line break", join(bytes.TrimSpace(a.cert), b.cert), 2, ""},
		{"joined with a mark and without a line break", join(bytes.TrimSpace(a.cert), []byte(BOM), b.cert, a.cert), 3, ""},
		{"the second with text before its begin", join(a.cert, []byte("plant: "), b.cert), 1, looks(a.cert, "begin")},
		{"the second in quotes of a mail", join(a.cert, quoted(b.cert)), 1, looks(a.cert, "begin")},
		{"the second with 4 dashes", join(a.cert, b.cert[1:]), 1, looks(a.cert, "begin")},
		{"the second with 4 dashes behind", join(a.cert, bytes.Replace(b.cert, []byte("CATE-----"), []byte("CATE----"), 1)), 1, looks(a.cert, "begin")},
		{"the second with a long dash", join(a.cert, bytes.ReplaceAll(b.cert, []byte("-----"), []byte("—"))), 1, looks(a.cert, "begin")},
		{"the second in small letters", join(a.cert, bytes.ReplaceAll(b.cert, []byte("CERTIFICATE"), []byte("certificate"))), 1, looks(a.cert, "begin")},
		{"the second with two spaces", join(a.cert, bytes.Replace(b.cert, []byte("N C"), []byte("N  C"), 1)), 1, looks(a.cert, "begin")},
		{"the second with a mark of no width", join(a.cert, []byte("\u200b"), b.cert), 1, looks(a.cert, "begin")},
		{"the second without its begin", join(a.cert, b.cert[28:]), 1, "in line " + line(a.cert) + " what looks like the content of a certificate, with no -----BEGIN"},
		{"the second without its lines", join(a.cert, b.cert[28:len(b.cert)-26]), 1, "like the content of a certificate"},
		{"an end without a begin", join(a.cert, []byte("-----END CERTIFICATE-----\n")), 1, "has in line " + line(a.cert) + " the end of a certificate without its begin"},
		{"the end with 4 dashes", b.cert[:len(b.cert)-2], 0, "what looks like the end of a certificate and is none"},
		{"the second in UTF-16", join(a.cert, wide(b.cert)), 1, "is not text in line " + line(a.cert)},
		{"the second in DER", join(a.cert, b.Raw), 1, "is not text in line "},
		{"a broken key, too", join(a.key[1:], a.cert, b.cert), 2, ""},
		{"text of other tools", join([]byte(chatter), a.cert, []byte(chatter), b.cert, []byte(chatter)), 2, ""},
		{"in one line", bytes.ReplaceAll(a.cert, []byte("\n"), nil), 0, "cut off: certificate 1"},
		{"OpenSSL's own", block("TRUSTED CERTIFICATE", a.Raw), 0, "OpenSSL's own, -----BEGIN TRUSTED CERTIFICATE-----: certificate 1 of the file, in line 1; openssl x509 -in FILE"},
		{"empty", nil, 0, "is empty"},
		{"UTF-16", wide(a.cert), 0, "is text in UTF-16; save it as UTF-8"},
		{"PKCS #7", block("PKCS7", pkcs7), 0, "openssl pkcs7 -print_certs -in FILE"},
		{"PKCS #7 in DER", pkcs7, 0, "openssl pkcs7 -inform der -print_certs -in FILE"},
		{"PKCS #12", pkcs12, 0, "openssl pkcs12 -nodes -in FILE"},
		{"a request", block("CERTIFICATE REQUEST", a.Raw), 0, "holds a request for a certificate"},
		{"a key", a.key, 0, "holds a private key and no certificate"},
		{"a key in DER", der(a.key), 0, "holds a private key and no certificate"},
		{"rubbish", []byte("rubbish"), 0, "holds no certificate; use a file of PEM"},
	} {
		all, err := Certificates(c.b)
		flawed(t, c.what, err, false, c.want)
		if len(all) != c.count {
			t.Errorf("%s: %d certificates, want %d", c.what, len(all), c.count)
		}
	}
	_, err := Authorities(a.Raw)
	flawed(t, "authorities in DER", err, false, "in DER, not PEM; openssl x509 -inform der -in FILE")
}

// line is the number of the line behind a text.
func line(b []byte) string { return big.NewInt(int64(bytes.Count(b, []byte("\n")) + 1)).String() }

// looks begins what is said of the line behind a text.
func looks(b []byte, what string) string {
	return "has in line " + line(b) + " what looks like the " + what + " of a certificate and is none; the lines around it must be -----BEGIN CERTIFICATE-----"
}

func quoted(b []byte) []byte {
	return bytes.ReplaceAll(append([]byte("> "), b...), []byte("\n"), []byte("\n> "))
}

func commented(b []byte) []byte {
	return append(bytes.ReplaceAll(quoted(b), []byte(">"), []byte("#")), '\n')
}

// chatter is what tools and people write around certificates.
const chatter = `# ---- the plant's certificates, see the wiki ----
-- end of first certificate --
==========================
Bag Attributes: <No Attributes>
    friendlyName: certificate
subject=CN = root
Certificate:
    Data:
        Serial Number:
            06:58:76:b7:15:ab:86:9a:8a:eb:7c:b9:22:3c:20:e1:49:15:11:fb
---
Server certificate
d7a7a0fb5d7e2731d771e9484ebcdef71d5f0c3e0a2948782bc83ee0ea699ef4
-----BEGIN X509 CRL-----
AAAA
-----END X509 CRL-----
-----BEGIN DH PARAMETERS-----
MIGHAoGBAP//////////yQ/aoiFowjTExmKLgNwc0SkCTgiKZ8x0Agu+pjsTmyJR
-----END DH PARAMETERS-----
`

// TestPair: our certificate and its key are taken, or an error says which of the two files is wrong, and how.
func TestPair(t *testing.T) {
	ca := issue(t, "ca", 1, nil)
	own, other := issue(t, "own", 1, ca), issue(t, "other", 1, ca)
	sec1, err := x509.MarshalECPrivateKey(own.private)
	if err != nil {
		t.Fatal(err)
	}
	old := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: sec1})
	for _, c := range []struct {
		what      string
		cert, key []byte
		ofKey     bool
		want      string
	}{
		{"right", own.cert, own.key, false, ""},
		{"an older form of key, behind its parameters", own.cert, join(block("EC PARAMETERS", []byte{5, 0}), block("EC PRIVATE KEY", sec1)), false, ""},
		{"issuers behind it, and the key", join(own.cert, ca.cert, own.key), join(own.cert, own.key), false, ""},
		{"its issuer joined with a mark of UTF-8", join(own.cert, []byte(BOM), ca.cert), own.key, false, ""},
		{"its issuer joined without a line break", join(bytes.TrimSpace(own.cert), ca.cert), own.key, false, ""},
		{"two keys, ours first", own.cert, join(own.key, other.key), false, ""},
		{"two keys, another first", own.cert, join(other.key, own.key), true, "holds 2 private keys, and the first, which is used, is not that of the certificate; leave"},
		{"a key with 4 dashes", own.cert, own.key[1:], true, "has in line 1 what looks like the begin of a private key"},
		{"a key without its begin", own.cert, own.key[28:], true, "the end of a private key without its begin"},
		{"both behind a mark of UTF-8", join([]byte(BOM), own.cert), join([]byte(BOM), own.key), false, ""},
		{"the issuer first", join(ca.cert, own.cert), own.key, false, "begins with another certificate than that of the key, which is number 2; put that first"},
		{"another's key", own.cert, other.key, false, "is not the certificate of the key"},
		{"exchanged", own.key, own.cert, false, "holds a private key and no certificate"},
		{"an issuer cut off", join(own.cert, ca.cert[:200]), own.key, false, "cut off: certificate 2"},
		{"DER", own.Raw, own.key, false, "openssl x509 -inform der"},
		{"a key in DER", own.cert, der(own.key), true, "is a key in DER, not PEM; openssl pkey -inform der -in FILE"},
		{"a passphrase", own.cert, block("ENCRYPTED PRIVATE KEY", sealed), true, "with a passphrase, and nobody is there to type it; openssl pkey -in FILE -out NEW"},
		{"a passphrase, in the older form", own.cert, old, true, "with a passphrase"},
		{"a passphrase, in DER", own.cert, sealed, true, "with a passphrase"},
		{"a key cut off", own.cert, own.key[:100], true, "holds a key that is damaged or cut off, in line 1"},
		{"a key of OpenSSH", own.cert, block("OPENSSH PRIVATE KEY", []byte("openssh-key-v1")), true, "in a form of OpenSSH's own; ssh-keygen -p -m PKCS8 -f COPY"},
		{"a key cut off in its begin", own.cert, own.key[:12], true, "ends in line 1 within the begin"},
		{"a certificate for a key", own.cert, own.cert, true, "holds a certificate and no private key"},
		{"an empty key", own.cert, []byte{}, true, "is empty"},
		{"PKCS #12 for a key", own.cert, pkcs12, true, "openssl pkcs12"},
		{"rubbish for a key", own.cert, []byte("rubbish"), true, "holds no private key"},
		{"a key of rubbish", own.cert, block("PRIVATE KEY", []byte("rubbish")), true, "holds a key that cannot be read"},
	} {
		pair, all, err := Pair(c.cert, c.key)
		flawed(t, c.what, err, c.ofKey, c.want)
		if c.want == "" && (err != nil || pair.Leaf == nil || !pair.Leaf.Equal(own.Certificate) || !all[0].Equal(own.Certificate) || len(pair.Certificate) != len(all)) {
			t.Errorf("%s: another certificate than ours: %v", c.what, err)
		}
	}
}

// TestChain: a certificate ends with what it rests on, and with nothing else that lies beside it.
func TestChain(t *testing.T) {
	root := issue(t, "root", -5, nil)
	late, early := issue(t, "issuer", 30, root), issue(t, "issuer", 3, root)
	stranger := issue(t, "stranger", -1, root)
	own := issue(t, "own", 10, late)
	for _, c := range []struct {
		what string
		all  []*x509.Certificate
		want string
	}{
		{"alone", []*x509.Certificate{own.Certificate}, "own"},
		{"its issuer ends later, the root has ended", []*x509.Certificate{own.Certificate, late.Certificate, root.Certificate}, "own issuer"},
		{"its issuer ends sooner", []*x509.Certificate{own.Certificate, early.Certificate}, "issuer own"},
		{"what it does not rest on has ended", []*x509.Certificate{own.Certificate, stranger.Certificate, late.Certificate}, "own issuer"},
		{"signed by itself", []*x509.Certificate{root.Certificate, stranger.Certificate}, "root"},
		{"none", nil, ""},
	} {
		var names []string
		for _, one := range Chain(c.all) {
			names = append(names, one.Subject.CommonName)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// FuzzCertificates: nothing that encoding/pem finds in a file is passed over without a word.
func FuzzCertificates(f *testing.F) {
	const one = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
	for _, seed := range []string{one + one, BOM + one + BOM + one, one[:len(one)-1] + one, one + "> " + one, one[1:], chatter, one[27:], strings.ReplaceAll(one, "\n", "\r\n"), "-----END a----------END b-----x"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		all, s := parts(b)
		var read [][]byte
		for _, p := range all {
			if block, _ := pem.Decode(p.text); block != nil {
				read = append(read, block.Bytes)
			} else if p.isCertificate() {
				return // Certificates says so
			}
		}
		for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "CERTIFICATE" && s.ofCertificate == nil && !slices.ContainsFunc(read, func(r []byte) bool { return bytes.Equal(r, block.Bytes) }) {
				t.Fatalf("%q is passed over", block.Bytes)
			}
		}
	})
}
