// Package peer is what drivers and links share that make a connection to a peer: TLS from files that others renew, the certificates
// that a session rests on, and what an error of the network means.
//
// It promises that a peer's certificate is always verified, that the files are read again at every connect, and bounded, that an
// end of a certificate is known also when it was the reason not to connect, and that a handshake which fails is explained in the config's
// words. drivers/modbus and gateway/link/mqtt connect through it.
package peer

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"

	"millrace/drivers/files"
)

// Files names the files of a TLS connection.
type Files struct {
	CA         string // PEM certificates to trust; "" = those of the system
	Cert       string // PEM certificate of ours, "" = none
	Key        string // and its key
	ServerName string // the name that the peer's certificate must have; "" = the host that is dialled
}

// ReadCA returns the certificates in the content of Files.CA, as a connection takes them, for who checks it before. An error is a *files.Flaw.
func ReadCA(b, _ []byte) ([]*x509.Certificate, error) { return files.Authorities(b) }

// ReadPair likewise returns those of Files.Cert, whose key is in that of Files.Key; none where that is nil.
func ReadPair(b, key []byte) ([]*x509.Certificate, error) {
	if key == nil {
		return nil, nil
	}
	_, all, err := files.Pair(b, key)
	return all, err
}

// Certificate is a certificate that a connection rests on.
type Certificate struct {
	Own       bool      // ours, not the peer's
	Name      string    // its file where it is ours, else what it calls itself
	Authority string    // what it calls itself where it is one that we trust: of the file, or where it is not ours of the machine's own list
	NotBefore time.Time // when it begins
	NotAfter  time.Time // when it ends, it or the one in its chain that ends first
	Next      string    // what happens before it ends, in words, where that is not for a person to do
	Replaced  time.Time // the end of the one that it replaces, which peers may still know; zero = none
}

// Certified is a driver or dialer that knows until when the certificates of its connection are valid.
type Certified interface {
	// Certificates returns those of the last attempt to connect, none before it. It may be called from any goroutine.
	Certificates() []Certificate
}

// Names are what the config calls things, for errors.
type Names struct {
	Peer       string // who is at the other end, as "device"
	CA         string
	Pair       string // certificate and key
	ServerName string
	Plain      string // how a url without TLS begins, as "tcp://"
}

// TLS makes connections to one peer secure.
type TLS struct {
	Files
	Names Names

	mu   sync.Mutex
	own  []Certificate // guarded by mu; one at most, as peer
	peer []Certificate
}

// Handshake is one attempt to make a connection secure, and what came of it. It belongs to the goroutine that dials.
type Handshake struct {
	Config *tls.Config

	of     *TLS
	trusts []*x509.Certificate // those of Files.CA
	own    *tls.Certificate    // nil = none is given
	chain  []*x509.Certificate // of it, first what ends first
	proved bool                // the peer has proved who it is
	asked  bool                // it asked for a certificate of ours, and
	unfit  bool                // ours is of none of these, so it was not sent
	takes  []string            // the first authorities that it takes certificates of
}

// Begin reads the files for a connection to a host. Whoever connects with its Config gives an error that follows to Failed, up to the
// first answer: with TLS 1.3 a peer judges our certificate after the handshake.
func (t *TLS) Begin(host string) (*Handshake, error) {
	h := &Handshake{of: t}
	h.Config = &tls.Config{ServerName: cmp.Or(t.ServerName, host), MinVersion: tls.VersionTLS12, VerifyConnection: h.prove, GetClientCertificate: h.present}
	if t.CA != "" {
		b, err := files.Read(t.CA, files.MaxPEM)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", t.Names.CA, err)
		}
		all, err := files.Authorities(b)
		if err != nil {
			return nil, fmt.Errorf("read %s: %q %w", t.Names.CA, t.CA, err)
		}
		h.trusts, h.Config.RootCAs = all, x509.NewCertPool()
		for _, c := range all {
			h.Config.RootCAs.AddCert(c)
		}
	}
	if t.Cert != "" {
		if err := h.readPair(); err != nil {
			return nil, fmt.Errorf("read %s: %w", t.Names.Pair, err)
		}
	}
	return h, nil
}

// readPair reads our certificate and its key.
func (h *Handshake) readPair() error {
	t := h.of
	cert, certErr := files.Read(t.Cert, files.MaxPEM)
	key, keyErr := files.Read(t.Key, files.MaxPEM)
	if err := cmp.Or(certErr, keyErr); err != nil {
		return err
	}
	pair, all, err := files.Pair(cert, key)
	if err != nil {
		name := t.Cert
		if flaw, ok := errors.AsType[*files.Flaw](err); ok && flaw.OfKey {
			name = t.Key
		}
		return fmt.Errorf("%q %w", name, err)
	}
	h.own, h.chain = &pair, files.Chain(all)
	ends := h.chain[0]
	t.mu.Lock()
	defer t.mu.Unlock()
	t.own = []Certificate{{Own: true, Name: t.Cert, NotBefore: ends.NotBefore, NotAfter: ends.NotAfter}}
	return nil
}

func (h *Handshake) prove(s tls.ConnectionState) error {
	h.proved = true
	h.notePeer(firstToEnd(s.VerifiedChains), s.PeerCertificates)
	return nil
}

// present answers with our certificate where it is one that the peer takes, and else with none.
func (h *Handshake) present(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	h.asked = true
	if h.own != nil && r.SupportsCertificate(h.own) == nil {
		return h.own, nil
	}
	h.unfit = h.own != nil
	for _, der := range r.AcceptableCAs[:min(len(r.AcceptableCAs), maxNames)] {
		var names pkix.RDNSequence
		var name pkix.Name
		if _, err := asn1.Unmarshal(der, &names); err == nil {
			name.FillFromRDNSequence(&names)
			h.takes = append(h.takes, called(&name))
		}
	}
	return new(tls.Certificate), nil
}

// Certificates returns ours and the peer's: see Certified.
func (t *TLS) Certificates() []Certificate {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Concat(t.own, t.peer)
}

// notePeer notes what ends first of what the peer's certificate rests on. It has shown the certificates sent.
func (h *Handshake) notePeer(c *x509.Certificate, sent []*x509.Certificate) {
	noted := Certificate{Name: c.Subject.CommonName, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
	switch trusted := h.trusted(c, sent); {
	case trusted && h.of.CA != "":
		noted.Own, noted.Name, noted.Authority = true, h.of.CA, nameOf(&c.Subject)
	case trusted:
		noted.Authority = nameOf(&c.Subject)
	}
	h.of.mu.Lock()
	defer h.of.mu.Unlock()
	h.of.peer = []Certificate{noted}
}

// trusted reports whether a certificate that the peer's rests on is of our list of authorities, and so for us to mend: also where the peer
// shows it, too. The peer's own is for the peer to mend.
func (h *Handshake) trusted(c *x509.Certificate, sent []*x509.Certificate) bool {
	switch {
	case len(sent) > 0 && c.Equal(sent[0]):
		return false
	case h.of.CA != "":
		return slices.ContainsFunc(h.trusts, c.Equal)
	}
	return !slices.ContainsFunc(sent, c.Equal)
}

// firstToEnd returns the certificate with which the last of the chains ends.
func firstToEnd(chains [][]*x509.Certificate) (last *x509.Certificate) {
	for _, chain := range chains {
		first := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		if last == nil || first.NotAfter.After(last.NotAfter) {
			last = first
		}
	}
	return last
}

// Expired returns the certificate that is not valid now, where that is why err came.
func Expired(err error) *x509.Certificate {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return invalid.Cert
	}
	return nil
}

// Windows has numbers of its own for a connection that the peer has reset.
const (
	wsaConnAborted = syscall.Errno(10053)
	wsaConnReset   = syscall.Errno(10054)
)

// ownAddress is how the network's errors, and those of a name server, begin the way of a connection: read tcp 10.0.0.5:47650->10.0.0.9:1883.
var ownAddress = regexp.MustCompile(`\S+:\d+->`)

// Text returns what an error says, without our own address: its port is another one at each attempt, and tells nobody anything.
func Text(err error) string { return ownAddress.ReplaceAllString(err.Error(), "") }

// Closed reports whether an error means that the peer has ended an established connection: not silence, nor an end by us or by the
// machine's own network.
func Closed(err error) bool {
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, syscall.ECONNRESET, syscall.EPIPE, wsaConnAborted, wsaConnReset},
		func(end error) bool { return errors.Is(err, end) })
}
