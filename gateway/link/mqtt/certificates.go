package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"time"

	"millrace/gateway/link"
)

// certificates are those of the last dial.
type certificates struct {
	mu     sync.Mutex
	own    *link.Certificate
	broker *link.Certificate
}

func (c *certificates) list() (all []link.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range []*link.Certificate{c.own, c.broker} {
		if one != nil {
			all = append(all, *one)
		}
	}
	return all
}

// watch notes our certificate, and has the broker's noted once it is verified.
func (c *certificates) watch(config *tls.Config, file string) {
	var own *link.Certificate
	if len(config.Certificates) > 0 {
		own = &link.Certificate{Own: true, Name: file, NotAfter: config.Certificates[0].Leaf.NotAfter}
	}
	c.mu.Lock()
	c.own = own
	c.mu.Unlock()
	config.VerifyConnection = func(s tls.ConnectionState) error {
		c.note(lastToEnd(s.VerifiedChains))
		return nil
	}
}

// refused notes the certificate of a broker that is refused because it has expired.
func (c *certificates) refused(err error) {
	var bad *tls.CertificateVerificationError
	var invalid x509.CertificateInvalidError
	if errors.As(err, &bad) && errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil && time.Now().After(invalid.Cert.NotAfter) {
		c.note(invalid.Cert)
	}
}

func (c *certificates) note(cert *x509.Certificate) {
	if cert == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broker = &link.Certificate{Name: cert.Subject.CommonName, NotAfter: cert.NotAfter}
}

// lastToEnd returns the certificate with which the last of the chains ends.
func lastToEnd(chains [][]*x509.Certificate) (last *x509.Certificate) {
	for _, chain := range chains {
		first := chain[0]
		for _, cert := range chain[1:] {
			if cert.NotAfter.Before(first.NotAfter) {
				first = cert
			}
		}
		if last == nil || first.NotAfter.After(last.NotAfter) {
			last = first
		}
	}
	return last
}
