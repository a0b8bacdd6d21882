package peer

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// HandshakeError says to whoever wrote the config why a connection could not be made secure, and what mends that.
type HandshakeError struct {
	words string
	err   error
}

// Error returns what is wrong and its mend. It is the same at each attempt of a day.
func (e *HandshakeError) Error() string { return e.words }

// Unwrap returns the error of the library.
func (e *HandshakeError) Unwrap() error { return e.err }

// Bounds of what a peer's certificate may add to an error.
const (
	maxNames = 4  // of hosts, of authorities
	maxName  = 80 // characters
)

// Failed says what an error means that came of connecting, as a *HandshakeError, or returns it as it is where it is none of TLS. It notes
// the certificate of a peer that is refused because it has expired. A nil Handshake, of a connection without TLS, explains nothing.
func (h *Handshake) Failed(err error) error {
	if h == nil || err == nil {
		return err
	}
	if cert := Expired(err); cert != nil && time.Now().After(cert.NotAfter) {
		var sent []*x509.Certificate
		if refused, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			sent = refused.UnverifiedCertificates
		}
		h.notePeer(cert, sent)
	}
	words := h.certificate(err)
	if words == "" {
		words = h.end(err)
	}
	if words == "" {
		return err
	}
	return &HandshakeError{words, err}
}

// certificate says why the peer's certificate is refused, "" where it is not.
func (h *Handshake) certificate(err error) string {
	refused, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(refused.UnverifiedCertificates) == 0 {
		return ""
	}
	leaf := refused.UnverifiedCertificates[0]
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok && unknown.Cert != nil {
		return h.authority(leaf, unknown)
	}
	if other, ok := errors.AsType[x509.HostnameError](err); ok {
		return h.name(leaf, other.Host)
	}
	if cert := Expired(err); cert != nil {
		return h.time(cert, refused.UnverifiedCertificates)
	}
	why := strings.TrimPrefix(refused.Err.Error(), "x509: ")
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.IncompatibleUsage {
		why = "it is not made for a server (its extended key usage is not serverAuth)"
	}
	return fmt.Sprintf("the %s's certificate %s cannot be used: %.200s; have another one made for it", h.of.Names.Peer, called(&leaf.Subject), why)
}

// authority says why nobody vouches for the peer's certificate.
func (h *Handshake) authority(leaf *x509.Certificate, unknown x509.UnknownAuthorityError) string {
	n := h.of.Names
	who := fmt.Sprintf("the %s's certificate %s", n.Peer, called(&leaf.Subject))
	what := fmt.Sprintf("%s is from an unknown authority, %s: %s", who, called(&unknown.Cert.Issuer), h.list())
	mend := fmt.Sprintf("give the certificate of that authority (a PEM file) as %s", n.CA)
	if slices.Equal(leaf.RawIssuer, leaf.RawSubject) {
		what = fmt.Sprintf("%s is signed by itself, and %s", who, h.list())
		mend = fmt.Sprintf("give that certificate itself (a PEM file) as %s", n.CA)
	}
	hint := unknown.Error() // the library says only there that one of this name is known
	switch {
	case strings.Contains(hint, "insecure algorithm"):
		return who + " is signed with an algorithm that is not safe any more (SHA-1 or older); have one made that is signed with SHA-256"
	case strings.Contains(hint, "cannot sign"):
		return fmt.Sprintf("%s has one of that name that is no authority and may not sign others; %s", what, mend)
	case strings.Contains(hint, "possibly because of"):
		return fmt.Sprintf("%s has one of that name with another key, perhaps from before it was made anew; %s", what, mend)
	}
	return fmt.Sprintf("%s does not have it; %s", what, mend)
}

// list is where the authorities are.
func (h *Handshake) list() string {
	if h.of.CA == "" {
		return "this machine's own list"
	}
	return fmt.Sprintf("%s %q", h.of.Names.CA, h.of.CA)
}

// name says whom the peer's certificate is for.
func (h *Handshake) name(leaf *x509.Certificate, host string) string {
	n := h.of.Names
	var names []string
	for _, name := range leaf.DNSNames {
		names = append(names, fmt.Sprintf("%.*q", maxName, name))
	}
	for _, ip := range leaf.IPAddresses {
		names = append(names, strconv.Quote(ip.String()))
	}
	mend := fmt.Sprintf("correct the url, or give a name of the certificate as %s", n.ServerName)
	if h.of.ServerName != "" {
		mend = fmt.Sprintf("correct %s, which is the name that is looked for", n.ServerName)
	}
	switch {
	case len(names) == 0:
		return fmt.Sprintf("the %s's certificate %s names no host (it has no subject alternative name); have one made for %.*q", n.Peer, called(&leaf.Subject), maxName, host)
	case len(names) > maxNames:
		names = append(names[:maxNames], "others")
	}
	return fmt.Sprintf("the %s's certificate is for %s, not %.*q; %s", n.Peer, strings.Join(names, ", "), maxName, host, mend)
}

// time says of which certificate it is not the time, the peer's own being the first of those that it has sent.
func (h *Handshake) time(cert *x509.Certificate, sent []*x509.Certificate) string {
	n, now, leaf := h.of.Names, time.Now(), sent[0]
	whose, mend := fmt.Sprintf("the %s's certificate %s", n.Peer, called(&leaf.Subject)), "have it renewed"
	if !cert.Equal(leaf) {
		whose = fmt.Sprintf("the certificate of the authority %s, from which the %s's is,", called(&cert.Subject), n.Peer)
		mend = fmt.Sprintf("have it renewed there, for the %s to show", n.Peer)
		switch trusted := h.trusted(cert, sent); {
		case trusted && h.of.CA != "":
			mend = fmt.Sprintf("have it renewed and put it into %s", h.list())
		case trusted:
			mend = fmt.Sprintf("update %s, or have it renewed and give it as %s", h.list(), n.CA)
		}
	}
	when := "expired on " + cert.NotAfter.UTC().Format(time.RFC3339)
	if now.Before(cert.NotBefore) {
		when, mend = "is not valid before "+cert.NotBefore.UTC().Format(time.RFC3339), "wait until then"
	}
	return fmt.Sprintf("%s %s; %s, or set this machine's clock, which says %s, right", whose, when, mend, now.UTC().Format(time.DateOnly))
}

// end says what it means that there was no TLS, or an end of it, "" = nothing.
func (h *Handshake) end(err error) string {
	n := h.of.Names
	speaks := fmt.Sprintf("; does this port speak TLS? Where it does not, use %s in the url, or the port for TLS", n.Plain)
	alert, alerted := alertOf(err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case alerted && !h.proved:
		return h.disagreed(alert)
	case h.asked && (alerted || Closed(err)):
		return h.unwelcome(alert)
	case alerted:
		return fmt.Sprintf("the %s ended the TLS connection: %s; its log may say more", n.Peer, alert)
	case h.proved:
		return ""
	case plain:
		return fmt.Sprintf("what answers there does not speak TLS; use %s in the url, or the port for TLS", n.Plain)
	case Closed(err):
		return fmt.Sprintf("the %s closed the connection during the TLS handshake%s", n.Peer, speaks)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("the %s took the connection, but gave no answer to the TLS handshake in time%s", n.Peer, speaks)
	case strings.Contains(err.Error(), "tls: server selected unsupported") || strings.Contains(err.Error(), "tls: server chose an unconfigured"):
		return h.disagreed(strings.TrimPrefix(err.Error(), "tls: "))
	}
	return ""
}

// alertOf returns what the peer says in a TLS alert.
func alertOf(err error) (string, bool) {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" { // the library has no other mark
		return "", false
	}
	return strings.TrimPrefix(op.Err.Error(), "tls: "), true
}

// disagreed says why a peer ended the handshake before it proved who it is.
func (h *Handshake) disagreed(alert string) string {
	n := h.of.Names
	if alert == "unrecognized name" {
		return fmt.Sprintf("the %s does not know the name %q; give one that it knows as %s", n.Peer, h.Config.ServerName, n.ServerName)
	}
	return fmt.Sprintf("the %s and this gateway do not agree on how to encrypt (%.200s); TLS 1.2 or 1.3 with a current cipher (ECDHE with AES-GCM) is needed: switch it on there, or update the %s", n.Peer, alert, n.Peer)
}

// unwelcome says why a peer that asked for our certificate ended the connection. Without an alert that is not certain: a reset may have
// overtaken one.
func (h *Handshake) unwelcome(alert string) string {
	n := h.of.Names
	closed, said := fmt.Sprintf("the %s closed the connection after it ", n.Peer), ""
	if alert != "" {
		said = fmt.Sprintf(" (it says: %s)", alert)
	}
	switch {
	case h.own == nil && alert == "":
		return fmt.Sprintf("%sasked for a client certificate, and none is given; give %s", closed, n.Pair)
	case h.own == nil:
		return fmt.Sprintf("the %s wants a client certificate, and none is given%s; give %s", n.Peer, said, n.Pair)
	case h.unfit && len(h.takes) > 0:
		return fmt.Sprintf("the %s takes client certificates from %s, and that of %s is from %s%s; give one that it takes, or have it trust that authority",
			n.Peer, strings.Join(h.takes, ", "), n.Pair, called(&h.own.Leaf.Issuer), said)
	}
	if why := h.untimely(); why != "" {
		return fmt.Sprintf("the %s refuses the client certificate%s: %s", n.Peer, said, why)
	}
	what := closed + "was shown the client certificate"
	if alert != "" {
		what = fmt.Sprintf("the %s refuses the client certificate%s", n.Peer, said)
	}
	return fmt.Sprintf("%s; is that of %s valid, and does the %s trust its authority, %s?", what, n.Pair, n.Peer, called(&h.own.Leaf.Issuer))
}

// untimely says of our certificate that it is not the time of it or of an issuer behind it, "" where it is.
func (h *Handshake) untimely() string {
	now := time.Now()
	for _, c := range h.chain {
		which := "it"
		if !c.Equal(h.own.Leaf) {
			which = "that of its issuer " + called(&c.Subject)
		}
		switch {
		case now.After(c.NotAfter):
			return fmt.Sprintf("%s expired on %s; renew %s", which, c.NotAfter.UTC().Format(time.RFC3339), h.of.Names.Pair)
		case now.Before(c.NotBefore):
			return fmt.Sprintf("%s is not valid before %s; wait until then, or set this machine's clock, which says %s, right", which, c.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.DateOnly))
		}
	}
	return ""
}

// called returns a name of a certificate in quotes, cut.
func called(n *pkix.Name) string { return fmt.Sprintf("%.*q", maxName, nameOf(n)) }

func nameOf(n *pkix.Name) string { return cmp.Or(n.CommonName, n.String()) }
