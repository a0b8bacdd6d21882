package opcua

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"millrace/drivers/files"
)

// Bounds of the directory of certificates.
const (
	maxFile     = 1 << 20 // bytes of a certificate or list
	maxFiles    = 1000    // files of one folder that are looked at
	maxRejected = 100     // files in rejected/
	ownBits     = 2048
	ownYears    = 10
)

// PKI is a directory of certificates: own/, trusted/, issuers/, rejected/. Files are DER or PEM, and a person may
// move them by hand: they are read at each connect.
type PKI struct{ Path string }

// Certificate is one file of a PKI.
type Certificate struct {
	Folder, File string
	*x509.Certificate
}

// Thumbprint returns the SHA-1 of a certificate in hex, by which OPC UA servers show it.
func Thumbprint(der []byte) string {
	sum := sha1.Sum(der)
	return hex.EncodeToString(sum[:])
}

// List returns the certificates of a folder, by file name. A folder that does not exist is empty; a file that is no certificate is passed over.
func (p PKI) List(folder string) (all []Certificate, err error) {
	err = p.files(folder, func(name string, b []byte) {
		found, _ := files.Certificates(b)
		for _, c := range found {
			all = append(all, Certificate{folder, name, c})
		}
	})
	return all, err
}

// lists returns the revocation lists of a folder.
func (p PKI) lists(folder string) (all []*x509.RevocationList, err error) {
	err = p.files(folder, func(_ string, b []byte) {
		if block, _ := pem.Decode(bytes.TrimPrefix(b, []byte(files.BOM))); block != nil && block.Type == "X509 CRL" {
			b = block.Bytes
		}
		if l, err := x509.ParseRevocationList(b); err == nil {
			all = append(all, l)
		}
	})
	return all, err
}

func (p PKI) files(folder string, take func(name string, b []byte)) error {
	dir := filepath.Join(p.Path, folder)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries[:min(len(entries), maxFiles)] {
		path := filepath.Join(dir, e.Name())
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() { // a link to a file is one: mounted secrets are links
			continue
		}
		b, err := files.Read(path, maxFile)
		if err != nil {
			return err
		}
		take(e.Name(), b)
	}
	return nil
}

// PassedOver says which files of trusted/ and issuers/ are no regular files, such as a pipe, or cannot be looked at, such as a link to nowhere. Folders are none.
func (p PKI) PassedOver() (all []string) {
	const most = 3
	more := 0
	for _, folder := range []string{"trusted", "issuers"} {
		dir := filepath.Join(p.Path, folder)
		entries, _ := os.ReadDir(dir) // who reads the certificates says why
		for _, e := range entries[:min(len(entries), maxFiles)] {
			path := filepath.Join(dir, e.Name())
			why := "it is not a regular file"
			switch info, err := os.Stat(path); {
			case errors.Is(err, fs.ErrNotExist):
				why = "it is a link to nowhere"
			case err != nil:
				why = "it cannot be looked at"
			case info.Mode().IsRegular() || info.IsDir():
				continue
			}
			if len(all) == most {
				more++
				continue
			}
			all = append(all, fmt.Sprintf("%s among the certificates is passed over: %s", path, why))
		}
	}
	if more > 0 {
		all = append(all, fmt.Sprintf("%d more files among the certificates are passed over", more))
	}
	return all
}

// Reject keeps a certificate that is not trusted, for a person to look at. What is there already, or too much, is not kept.
func (p PKI) Reject(c *x509.Certificate) error {
	dir := filepath.Join(p.Path, "rejected")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	name := fileName(c)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == name {
			return nil
		}
	}
	if len(entries) >= maxRejected {
		return fmt.Errorf("%s holds %d files already; remove those of no use", dir, len(entries))
	}
	return os.WriteFile(filepath.Join(dir, name), c.Raw, 0o600)
}

// fileName is the name of a certificate's file: what it calls itself, in letters that no file system minds, and its thumbprint.
func fileName(c *x509.Certificate) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '_'
	}, c.Subject.CommonName)
	return name[:min(len(name), 60)] + "-" + Thumbprint(c.Raw) + ".der"
}

// Trust moves the one certificate of rejected/ whose thumbprint begins so into trusted/, or copies a file there. It returns what is trusted now.
func (p PKI) Trust(what string) (Certificate, error) {
	c, err := p.find("rejected", what)
	if err != nil {
		b, readErr := files.Read(what, maxFile)
		found, _ := files.Certificates(b)
		switch already, notYet := p.find("trusted", what); {
		case readErr == nil && len(found) > 0:
			c = Certificate{"", "", found[0]}
		case readErr == nil:
			return c, fmt.Errorf("%s is no certificate in DER or PEM; export the server's certificate as one of these", what)
		case !errors.Is(readErr, fs.ErrNotExist):
			return c, readErr
		case notYet == nil:
			return already, fmt.Errorf("%s is trusted already; a server that is refused all the same shows another one: see millrace opcua trust ls", called(already.Certificate))
		case strings.Trim(strings.ToLower(what), "0123456789abcdef") != "":
			return c, fmt.Errorf("there is no file %s, and it is no thumbprint of hex digits; see millrace opcua trust ls", what)
		default:
			return c, err
		}
	}
	dir := filepath.Join(p.Path, "trusted")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return c, err
	}
	if err := os.WriteFile(filepath.Join(dir, fileName(c.Certificate)), c.Raw, 0o600); err != nil {
		return c, err
	}
	if c.Folder != "" {
		err = os.Remove(filepath.Join(p.Path, c.Folder, c.File))
	} else {
		err = nil
	}
	c.Folder, c.File = "trusted", fileName(c.Certificate)
	return c, err
}

// Remove deletes the one certificate of trusted/ or rejected/ whose thumbprint begins so.
func (p PKI) Remove(what string) (Certificate, error) {
	c, err := p.find("trusted", what)
	if err != nil {
		if c, err = p.find("rejected", what); err != nil {
			return c, fmt.Errorf("neither trusted/ nor rejected/ holds exactly one certificate whose thumbprint begins with %q; see millrace opcua trust ls", what)
		}
	}
	return c, os.Remove(filepath.Join(p.Path, c.Folder, c.File))
}

func (p PKI) find(folder, thumbprint string) (found Certificate, err error) {
	all, err := p.List(folder)
	if err != nil {
		return found, err
	}
	n := 0
	for _, c := range all {
		if len(thumbprint) >= 4 && strings.HasPrefix(Thumbprint(c.Raw), strings.ToLower(thumbprint)) {
			found, n = c, n+1
		}
	}
	if n != 1 {
		return found, fmt.Errorf("%s holds %d certificates whose thumbprint begins with %q (4 digits at least), want one; see millrace opcua trust ls",
			filepath.Join(p.Path, folder), n, thumbprint)
	}
	return found, nil
}

// OwnFile is where our certificate is, for a server that must trust it first.
func (p PKI) OwnFile() string { return filepath.Join(p.Path, "own", "millrace.der") }

// ownPair is where our key and certificate are.
func (p PKI) ownPair() string { return filepath.Join(p.Path, "own", "millrace.pem") }

// own returns our key and certificate, which are made once. Of several that make them at a time one wins, and all use his.
func (p PKI) own() (*rsa.PrivateKey, []byte, error) {
	path := p.ownPair()
	b, err := files.Read(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err = p.generate(path); err == nil {
			b, err = files.Read(path, maxFile)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	key, chain, err := parseOwn(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if old := renewable(chain); old != nil && time.Now().After(old.NotAfter.Add(-renewBefore)) {
		if newer, err := p.renew(path, key, old, time.Now()); err == nil {
			chain = newer // else the old one is used on, and its state says that it ends
		}
	}
	if der, err := files.Read(p.OwnFile(), maxFile); err != nil || !bytes.Equal(der, chain) {
		if err := os.WriteFile(p.OwnFile(), chain, 0o644); err != nil {
			return nil, nil, err
		}
	}
	return key, chain, nil
}

// parseOwn takes a PEM file of a key and its certificate, issuers behind it.
func parseOwn(b []byte) (key *rsa.PrivateKey, chain []byte, err error) {
	if files.HoldsKey(b) {
		block, err := files.Key(b)
		if err == nil {
			key, err = parseKey(block)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("it %w", err)
		}
	}
	all, err := files.Certificates(b)
	switch {
	case key == nil:
		return nil, nil, errors.New("it holds no RSA key; add it, or remove the file to have key and certificate made anew")
	case err != nil && len(all) > 0:
		return nil, nil, fmt.Errorf("it %w", err)
	case len(all) == 0:
		return nil, nil, errors.New("it holds no certificate; add it, or remove the file to have key and certificate made anew")
	case !key.PublicKey.Equal(all[0].PublicKey):
		return nil, nil, errors.New("its first certificate is not that of its key; put ours first, its issuers behind it")
	case len(all[0].URIs) == 0:
		return nil, nil, errors.New("its certificate names no application URI; have one made with a URI as subject alternative name")
	}
	for _, c := range all {
		chain = append(chain, c.Raw...)
	}
	return key, chain, nil
}

// parseKey returns the RSA key in a block. An error is a *files.Flaw.
func parseKey(block *pem.Block) (*rsa.PrivateKey, error) {
	switch key, _ := files.Private(block); key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case nil:
		if files.IsOtherKind(block) {
			return nil, &files.Flaw{OfKey: true, What: "holds a key of a kind that is not used here", Mend: "have an RSA key and a certificate for it made"}
		}
		return nil, &files.Flaw{OfKey: true, What: "holds a key that cannot be read", Mend: "have an RSA key in PEM or DER written anew"}
	case *ecdsa.PrivateKey:
		return nil, notRSA("EC")
	default:
		return nil, notRSA("Ed25519")
	}
}

func notRSA(kind string) *files.Flaw {
	return &files.Flaw{OfKey: true, What: "holds a key of type " + kind, Mend: "OPC UA's elliptic-curve policies are not supported: have an RSA key and a certificate for it made"}
}

// generate makes a key and a self-signed certificate. The file appears whole or not at all; one that is there stays.
func (p PKI) generate(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	b, err := newOwn()
	if err != nil {
		return err
	}
	temporary, err := writeBeside(path, b)
	if err != nil {
		return err
	}
	defer os.Remove(temporary)
	if err := os.Link(temporary, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// writeBeside writes a file in the same directory, for the caller to put in its place, and returns its name.
func writeBeside(path string, b []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".own-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// newOwn follows OPC 10000-6, 6.2.2.
func newOwn() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, ownBits)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "millrace " + host, Organization: []string{maker}},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(ownYears, 0, 0), // servers' clocks may be slow
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment |
			x509.KeyUsageDataEncipherment | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
		URIs: []*url.URL{{Scheme: "urn", Opaque: host + ":millrace:gateway"}}, DNSNames: []string{host},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return encodeOwn(key, der)
}

// encodeOwn is what parseOwn reads.
func encodeOwn(key *rsa.PrivateKey, der []byte) ([]byte, error) {
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), nil
}

// applicationURI returns the URI that a certificate is for, "" for none.
func applicationURI(der []byte) string {
	c, err := x509.ParseCertificate(der)
	if err != nil || len(c.URIs) == 0 {
		return ""
	}
	return c.URIs[0].String()
}
