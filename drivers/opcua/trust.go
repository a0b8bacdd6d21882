package opcua

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"millrace/drivers/opcua/wire"
	"millrace/drivers/peer"
)

// maxChain is how many certificates a server may send: its own and its issuers'.
const maxChain = 10

// secure connects to a secured endpoint, once its certificate is trusted.
func (s *settings) secure(ctx context.Context, e *endpoint) (*link, error) {
	remote, err := s.trusted(e.certificate, e)
	if err != nil {
		return nil, err
	}
	if err := e.policy.CheckKey(remote.PublicKey); err != nil {
		return nil, fmt.Errorf("the server's certificate %s: %w", called(remote), err)
	}
	key, chain, err := s.pki.own()
	if err != nil {
		return nil, fmt.Errorf("our own certificate: %w", err)
	}
	s.seen.noteOwn(s.pki, chain)
	if err := e.policy.CheckKey(&key.PublicKey); err != nil {
		return nil, fmt.Errorf("our own certificate: %w", err)
	}
	l, err := s.reach(ctx, wire.Security{Policy: e.policy, Mode: e.mode, Chain: chain, Key: key, Remote: remote.Raw, RemoteKey: remote.PublicKey.(*rsa.PublicKey)})
	return l, s.mustTrustUs(err, chain)
}

// mustTrustUs adds what to do to the error of a server that does not know our certificate. Many say no more than that
// security checks failed, in an error message or an answer, or hang up.
func (s *settings) mustTrustUs(err error, chain []byte) error {
	var ended *wire.EndedError
	var closed closedError
	var refused unopenedError
	if !errors.As(err, &ended) && !errors.As(err, &closed) && !errors.As(err, &refused) {
		return err
	}
	return fmt.Errorf("%w; it may have to trust our certificate first: %s, thumbprint %s", err, s.pki.OwnFile(), Thumbprint(wire.Leaf(chain)))
}

// trusted returns the server's certificate when it is good and a person has said to trust it or its issuer. It is checked at each
// connect (OPC 10000-4, 6.1.3).
func (s *settings) trusted(raw []byte, e *endpoint) (*x509.Certificate, error) {
	if len(raw) == 0 {
		return nil, errors.New("the server shows no certificate at this endpoint; have one made in the server")
	}
	s.seen.notePassedOver(s.pki.PassedOver())
	chain, err := x509.ParseCertificates(raw)
	if err != nil {
		return nil, fmt.Errorf("the server's certificate cannot be read: %w", err)
	}
	if len(chain) > maxChain {
		return nil, fmt.Errorf("the server sends %d certificates; at most %d are allowed", len(chain), maxChain)
	}
	leaf := chain[0]
	if err := s.checkFacts(leaf, e); err != nil {
		if time.Now().After(leaf.NotAfter) {
			s.seen.noteServer(leaf)
		}
		return nil, fmt.Errorf("the server's certificate %s %w", called(leaf), err)
	}
	if err := s.checkTrust(leaf, chain[1:]); err != nil {
		return nil, fmt.Errorf("the server's certificate %s %w", called(leaf), err)
	}
	s.seen.noteServer(leaf)
	return leaf, nil
}

// called names a certificate in a message.
func called(c *x509.Certificate) string {
	return fmt.Sprintf("%q (thumbprint %s)", c.Subject.CommonName, Thumbprint(c.Raw))
}

// checkFacts checks what the certificate says of itself.
func (s *settings) checkFacts(c *x509.Certificate, e *endpoint) error {
	now := time.Now()
	key, isRSA := c.PublicKey.(*rsa.PublicKey)
	switch {
	case !isRSA:
		return fmt.Errorf("holds a key of type %v, not RSA: OPC UA's elliptic-curve policies are not supported; have the server use an RSA certificate", c.PublicKeyAlgorithm)
	case key.N.BitLen() < minBits(e.policy, s.insecure) || key.N.BitLen() > 4096:
		return fmt.Errorf("has a key of %d bits, and %d to 4096 are allowed; have a new one made in the server", key.N.BitLen(), minBits(e.policy, s.insecure))
	case now.Before(c.NotBefore):
		return fmt.Errorf("is not valid before %s; look at the clocks of the server and of this machine", c.NotBefore.UTC().Format(time.DateOnly))
	case now.After(c.NotAfter):
		return fmt.Errorf("expired on %s; have a new one made in the server", c.NotAfter.UTC().Format(time.DateOnly))
	case !slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return u.String() == e.server }):
		return fmt.Errorf("is for another application than the server says to be, %.200q; have a new one made in the server", e.server)
	case !s.namesHost(c):
		return fmt.Errorf("is for %s, not for %s; use one of its names in url, or write server_name to say which to expect", hosts(c), s.serverName)
	}
	return nil
}

// minBits is the smallest key: that of the policies which are not withdrawn, unless the config allows the others.
func minBits(p *wire.Policy, insecure bool) int {
	if insecure && p.Insecure {
		return 1024
	}
	return 2048
}

func (s *settings) namesHost(c *x509.Certificate) bool {
	if slices.ContainsFunc(c.DNSNames, func(n string) bool { return strings.EqualFold(n, s.serverName) }) {
		return true
	}
	return slices.ContainsFunc(hostIPs(c), func(ip string) bool { return ip == s.serverName })
}

func hostIPs(c *x509.Certificate) (all []string) {
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// hosts lists a few of the names that a certificate is for.
func hosts(c *x509.Certificate) string {
	all := append(slices.Clone(c.DNSNames), hostIPs(c)...)
	if len(all) == 0 {
		return "no host at all"
	}
	return fmt.Sprintf("%.200q", strings.Join(all[:min(len(all), 8)], ", "))
}

// checkTrust looks for the certificate, or a chain from it to an issuer, in trusted/. Issuers in issuers/ complete a chain and are not
// trusted by themselves.
func (s *settings) checkTrust(leaf *x509.Certificate, sent []*x509.Certificate) error {
	trusted, err := s.pki.List("trusted")
	if err != nil {
		return err
	}
	issuers, err := s.pki.List("issuers")
	if err != nil {
		return err
	}
	known := slices.Clone(sent)
	for _, c := range append(trusted, issuers...) {
		known = append(known, c.Certificate)
	}
	if err := s.revoked(leaf, known); err != nil {
		return err
	}
	if slices.ContainsFunc(trusted, func(c Certificate) bool { return bytes.Equal(c.Raw, leaf.Raw) }) {
		return nil
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range trusted {
		if c.IsCA {
			roots.AddCert(c.Certificate)
		}
	}
	for _, c := range known {
		between.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return s.untrusted(leaf, known, trusted, err)
	}
	for _, c := range chains[0][1:] {
		if err := s.revoked(c, known); err != nil {
			return fmt.Errorf("has an issuer %q that %w", c.Subject.CommonName, err)
		}
	}
	return nil
}

// untrusted says why a certificate is not trusted, and keeps it for a person to decide.
func (s *settings) untrusted(leaf *x509.Certificate, known []*x509.Certificate, trusted []Certificate, why error) error {
	if c := peer.Expired(why); c != nil && !c.Equal(leaf) {
		return fmt.Errorf("has an issuer %q that is not valid now (%s to %s); have a new one made", c.Subject.CommonName,
			c.NotBefore.UTC().Format(time.DateOnly), c.NotAfter.UTC().Format(time.DateOnly))
	}
	problem := "is not trusted"
	if !bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
		problem = fmt.Sprintf("is not trusted, nor is its issuer %q", leaf.Issuer.CommonName)
		if issuerOf(leaf, known) == nil {
			problem += ", whose certificate is neither in trusted/ nor in issuers/"
		}
	}
	if old := s.before(leaf, trusted); old != nil {
		problem += fmt.Sprintf("; the server shows another certificate than the trusted one %s: it was renewed, or somebody is in the middle", called(old))
	}
	if err := s.pki.Reject(leaf); err != nil {
		return fmt.Errorf("%s, and cannot be kept for you to look at: %w", problem, err)
	}
	return fmt.Errorf("%s; compare the thumbprint with what the server shows, then run: millrace opcua trust add %s --pki %s", problem, Thumbprint(leaf.Raw), s.pki.Path)
}

// before returns the trusted certificate of the same application on the same host, the one that ends last; nil = this is a first contact.
func (s *settings) before(leaf *x509.Certificate, trusted []Certificate) (old *x509.Certificate) {
	for _, c := range trusted {
		same := slices.ContainsFunc(c.URIs, func(u *url.URL) bool {
			return slices.ContainsFunc(leaf.URIs, func(l *url.URL) bool { return l.String() == u.String() })
		})
		if same && s.namesHost(c.Certificate) && (old == nil || c.NotAfter.After(old.NotAfter)) {
			old = c.Certificate
		}
	}
	return old
}

func issuerOf(c *x509.Certificate, known []*x509.Certificate) *x509.Certificate {
	for _, k := range known {
		if bytes.Equal(k.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(k) == nil {
			return k
		}
	}
	return nil
}

// revoked reports whether a list of its issuer names the certificate. A list counts when the issuer has signed it, however old it is; an
// issuer without a list revokes nothing.
func (s *settings) revoked(c *x509.Certificate, known []*x509.Certificate) error {
	issuer := issuerOf(c, known)
	if issuer == nil {
		return nil
	}
	for _, folder := range []string{"trusted", "issuers"} {
		lists, err := s.pki.lists(folder)
		if err != nil {
			return err
		}
		for _, l := range lists {
			if l.CheckSignatureFrom(issuer) != nil {
				continue
			}
			for _, r := range l.RevokedCertificateEntries {
				if r.SerialNumber.Cmp(c.SerialNumber) == 0 {
					return fmt.Errorf("was revoked on %s by its issuer %q; have a new one made for the server", r.RevocationTime.UTC().Format(time.DateOnly), issuer.Subject.CommonName)
				}
			}
		}
	}
	return nil
}
