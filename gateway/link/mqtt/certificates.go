package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"time"

	"millrace/gateway/link"
)

// certificates are those of the last dial.
type certificates struct {
	mu          sync.Mutex
	own, broker []link.Certificate // one at most
}

func (c *certificates) list() []link.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Concat(c.own, c.broker)
}

// watch notes our certificate, and has the broker's noted once it is verified.
func (c *certificates) watch(config *tls.Config, file string) {
	c.mu.Lock()
	c.own = nil
	for _, pair := range config.Certificates {
		c.own = []link.Certificate{{Own: true, Name: file, NotBefore: pair.Leaf.NotBefore, NotAfter: pair.Leaf.NotAfter}}
	}
	c.mu.Unlock()
	config.VerifyConnection = func(s tls.ConnectionState) error {
		c.note(lastToEnd(s.VerifiedChains))
		return nil
	}
}

// refused notes the certificate of a broker that is refused because it has expired.
func (c *certificates) refused(err error) {
	if cert := expired(err); cert != nil && time.Now().After(cert.NotAfter) {
		c.note(cert)
	}
}

// expired returns the certificate that is not valid now, where that is why err came.
func expired(err error) *x509.Certificate {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return invalid.Cert
	}
	return nil
}

func (c *certificates) note(cert *x509.Certificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broker = []link.Certificate{{Name: cert.Subject.CommonName, NotBefore: cert.NotBefore, NotAfter: cert.NotAfter}}
}

// lastToEnd returns the certificate with which the last of the chains ends.
func lastToEnd(chains [][]*x509.Certificate) (last *x509.Certificate) {
	for _, chain := range chains {
		first := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		if last == nil || first.NotAfter.After(last.NotAfter) {
			last = first
		}
	}
	return last
}
