package files

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
)

// Flaw is why a file of certificates or of a key cannot be used.
type Flaw struct {
	OfKey bool   // it is in the file of the key, where that is another one
	What  string // words that follow the name of the file
	Mend  string // what to do about it; FILE is that file, NEW another
}

// Error returns the words with what to do.
func (f *Flaw) Error() string { return f.What + "; " + f.Mend }

// Certificates returns those of a file's content in DER or PEM. With an error, a *Flaw, they are those that can be read: none, or one of several cannot.
func Certificates(b []byte) (all []*x509.Certificate, err error) {
	if c, err := x509.ParseCertificate(b); err == nil {
		return []*x509.Certificate{c}, nil
	}
	found, s := parts(b)
	number := 0
	for _, p := range found {
		if !p.isCertificate() {
			continue
		}
		number++
		c, flaw := p.certificate(number)
		if flaw == nil {
			all = append(all, c)
		} else if err == nil {
			err = flaw
		}
	}
	switch {
	case s.ofCertificate != nil: // rather than what it has made of a certificate that stands there
		err = s.ofCertificate
	case number == 0:
		err = noCertificate(b, found)
	}
	return all, err
}

// Authorities returns the certificates of a file's content, as Certificates does, of PEM alone.
func Authorities(b []byte) ([]*x509.Certificate, error) {
	if _, err := x509.ParseCertificate(b); err == nil {
		return nil, &Flaw{What: "is a certificate in DER, not PEM", Mend: "openssl x509 -inform der -in FILE -out NEW makes PEM of it"}
	}
	return Certificates(b)
}

// Pair returns the certificate that the first of a PEM file is, with its issuers behind it, and its key from another PEM file or the same; and all
// certificates of the file. An error is a *Flaw.
func Pair(cert, key []byte) (tls.Certificate, []*x509.Certificate, error) {
	all, err := Authorities(cert)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	block, err := Key(key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	if block.Type == "" {
		return tls.Certificate{}, nil, &Flaw{OfKey: true, What: "is a key in DER, not PEM", Mend: "openssl pkey -inform der -in FILE -out NEW makes PEM of it"}
	}
	private, public := Private(block)
	if public == nil {
		if IsOtherKind(block) {
			return tls.Certificate{}, nil, &Flaw{OfKey: true, What: "holds a key of a kind that is not used here",
				Mend: "make one of RSA, ECDSA (P-256, P-384, P-521) or Ed25519, and have a certificate made for it"}
		}
		return tls.Certificate{}, nil, &Flaw{OfKey: true, What: "holds a key that cannot be read", Mend: copyAgain}
	}
	if err := OfKey(all, public, key); err != nil {
		return tls.Certificate{}, nil, err
	}
	pair := tls.Certificate{PrivateKey: private, Leaf: all[0]}
	for _, c := range all { // of what is read here: a second reader of the file may see others in it
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair, all, nil
}

// OfKey refuses certificates of which the first is not that of a key, the first of its file.
func OfKey(all []*x509.Certificate, public PublicKey, keyFile []byte) error {
	switch at, keys := slices.IndexFunc(all, func(c *x509.Certificate) bool { return public.Equal(c.PublicKey) }), keysIn(keyFile); {
	case at < 0 && keys > 1:
		return &Flaw{OfKey: true, What: fmt.Sprintf("holds %d private keys, and the first, which is used, is not that of the certificate", keys), Mend: "leave the certificate's own key alone in it"}
	case at < 0:
		return &Flaw{What: "is not the certificate of the key: the two do not belong together", Mend: "give one certificate and its own key"}
	case at > 0:
		return &Flaw{What: fmt.Sprintf("begins with another certificate than that of the key, which is number %d", at+1), Mend: "put that first, its issuers behind it"}
	}
	return nil
}

// Key returns the first private key of a file's content in PEM, or what is one in DER, which has no Type then. An error is a *Flaw.
func Key(b []byte) (*pem.Block, error) {
	locked := &Flaw{OfKey: true, What: "holds a key with a passphrase, and nobody is there to type it", Mend: "openssl pkey -in FILE -out NEW writes it without one; only the gateway may read that file"}
	found, s := parts(b)
	for _, p := range found {
		if !p.isKey() {
			continue
		}
		block, _ := pem.Decode(p.text)
		switch {
		case p.kind == "OPENSSH PRIVATE KEY":
			return nil, &Flaw{OfKey: true, What: "holds a key in a form of OpenSSH's own", Mend: "ssh-keygen -p -m PKCS8 -f COPY rewrites a copy of an RSA or ECDSA key in the usual one"}
		case p.kind == "ENCRYPTED PRIVATE KEY" || block != nil && block.Headers["DEK-Info"] != "":
			return nil, locked
		case block == nil:
			return nil, &Flaw{OfKey: true, What: fmt.Sprintf("holds a key that is damaged or cut off, in line %d", p.line), Mend: copyAgain}
		}
		return block, nil
	}
	if s.ofKey != nil {
		return nil, s.ofKey
	}
	switch form := binary(b); {
	case form == derKey:
		return &pem.Block{Bytes: b}, nil
	case form == derLocked:
		return nil, locked
	case form == "" && slices.ContainsFunc(found, func(p part) bool { return p.kind == "CERTIFICATE" }), form == derCertificate:
		return nil, &Flaw{OfKey: true, What: "holds a certificate and no private key", Mend: "give the file of its key (-----BEGIN PRIVATE KEY-----)"}
	}
	if flaw := otherForm(b); flaw != nil {
		flaw.OfKey = true
		return nil, flaw
	}
	return nil, &Flaw{OfKey: true, What: "holds no private key", Mend: "use a PEM file of the certificate's own key (-----BEGIN PRIVATE KEY-----)"}
}

// HoldsKey reports whether there is a private key in a PEM file's content.
func HoldsKey(b []byte) bool { return keysIn(b) > 0 }

func keysIn(b []byte) (n int) {
	found, _ := parts(b)
	for _, p := range found {
		if p.isKey() {
			n++
		}
	}
	return n
}

// Chain returns the first of some certificates, and those of the others that it rests on, which end with it: first what ends first. What has
// signed itself is left out behind it: a peer goes by its own copy of that.
func Chain(all []*x509.Certificate) (chain []*x509.Certificate) {
	for i := 0; i >= 0 && i < len(all) && len(chain) < len(all); {
		c := all[i]
		if chain = append(chain, c); bytes.Equal(c.RawIssuer, c.RawSubject) {
			break
		}
		i = slices.IndexFunc(all, func(o *x509.Certificate) bool {
			return bytes.Equal(o.RawSubject, c.RawIssuer) && !bytes.Equal(o.RawIssuer, o.RawSubject)
		})
	}
	slices.SortStableFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return chain
}

const copyAgain = "copy the file again, as a whole, with its lines as they were made"

func (p part) isCertificate() bool {
	return p.kind == "CERTIFICATE" || p.kind == "TRUSTED CERTIFICATE" || p.kind == "X509 CERTIFICATE"
}

func (p part) isKey() bool { return strings.HasSuffix(p.kind, "PRIVATE KEY") }

func (p part) certificate(number int) (*x509.Certificate, error) {
	which := fmt.Sprintf("certificate %d of the file, in line %d", number, p.line)
	if p.kind != "CERTIFICATE" {
		return nil, &Flaw{What: fmt.Sprintf("holds a form of OpenSSL's own, -----BEGIN %s-----: %s", p.kind, which), Mend: "openssl x509 -in FILE -out NEW makes the usual one of it"}
	}
	block, _ := pem.Decode(p.text)
	if block == nil {
		return nil, &Flaw{What: "is damaged or cut off: " + which, Mend: copyAgain}
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, &Flaw{What: fmt.Sprintf("cannot be read: %s: %s", which, strings.TrimPrefix(err.Error(), "x509: ")), Mend: copyAgain + ", or take that certificate out"}
	}
	return c, nil
}

// noCertificate says what a file's content is instead.
func noCertificate(b []byte, found []part) error {
	if flaw := otherForm(b); flaw != nil {
		return flaw
	}
	key := binary(b) == derKey || binary(b) == derLocked
	for _, p := range found {
		switch {
		case p.kind == "PKCS7" || p.kind == "CMS":
			return &Flaw{What: "is PKCS #7 (.p7b)", Mend: "openssl pkcs7 -print_certs -in FILE -out NEW makes PEM certificates of it"}
		case strings.HasSuffix(p.kind, "CERTIFICATE REQUEST"):
			return &Flaw{What: "holds a request for a certificate, and no certificate", Mend: "give the certificate that the authority has made for it"}
		}
		key = key || p.isKey()
	}
	if key {
		return &Flaw{What: "holds a private key and no certificate", Mend: "give the file of the certificate here (-----BEGIN CERTIFICATE-----)"}
	}
	return &Flaw{What: "holds no certificate", Mend: "use a file of PEM certificates (-----BEGIN CERTIFICATE-----)"}
}

// otherForm says of a file's content what it is, where that can hold neither certificates nor a key that we read. nil = it may.
func otherForm(b []byte) *Flaw {
	switch form := binary(b); {
	case len(bytes.TrimSpace(b)) == 0:
		return &Flaw{What: "is empty", Mend: copyAgain}
	case bytes.HasPrefix(b, []byte("\xff\xfe")), bytes.HasPrefix(b, []byte("\xfe\xff")), bytes.HasPrefix(b, []byte("-\x00")):
		return &Flaw{What: "is text in UTF-16", Mend: "save it as UTF-8; in PowerShell with -Encoding ascii"}
	case form == derPKCS12:
		return &Flaw{What: "is PKCS #12 (.p12, .pfx)", Mend: "openssl pkcs12 -nodes -in FILE -out NEW makes PEM of it, certificate and key; only the gateway may read that file"}
	case form == derPKCS7:
		return &Flaw{What: "is PKCS #7 (.p7b)", Mend: "openssl pkcs7 -inform der -print_certs -in FILE -out NEW makes PEM certificates of it"}
	}
	return nil
}

// What a file in DER can be.
const (
	derCertificate = "certificate"
	derKey         = "key"
	derLocked      = "key with a passphrase"
	derPKCS7       = "PKCS #7"
	derPKCS12      = "PKCS #12"
)

// binary returns what a file's content is by the first of its fields in DER, "" for nothing that is known.
func binary(b []byte) string {
	var whole, first, inner asn1.RawValue
	if _, err := asn1.Unmarshal(b, &whole); err != nil || whole.Class != asn1.ClassUniversal || whole.Tag != asn1.TagSequence {
		return ""
	}
	if _, err := asn1.Unmarshal(whole.Bytes, &first); err != nil {
		return ""
	}
	_, _ = asn1.Unmarshal(first.Bytes, &inner) // what has no fields has none that tells
	switch {
	case first.Tag == asn1.TagOID:
		return derPKCS7
	case first.Tag == asn1.TagInteger && bytes.Equal(first.Bytes, []byte{3}):
		return derPKCS12
	case first.Tag == asn1.TagInteger:
		return derKey
	case first.Tag == asn1.TagSequence && inner.Class == asn1.ClassUniversal && inner.Tag == asn1.TagOID:
		return derLocked
	case first.Tag == asn1.TagSequence:
		return derCertificate
	}
	return ""
}

// PublicKey is the public half of a key.
type PublicKey interface{ Equal(crypto.PublicKey) bool }

// Private returns the key in a block that Key returned, and its public half: RSA, ECDSA or Ed25519, nil where it cannot be read or is another.
func Private(block *pem.Block) (private any, public PublicKey) {
	var err error
	if private, err = x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		if private, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			private, _ = x509.ParseECPrivateKey(block.Bytes)
		}
	}
	switch k := private.(type) {
	case *rsa.PrivateKey:
		return k, &k.PublicKey
	case *ecdsa.PrivateKey:
		if k != nil {
			return k, &k.PublicKey
		}
	case ed25519.PrivateKey:
		return k, k.Public().(ed25519.PublicKey)
	}
	return nil, nil
}
