package opcua

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers/files"
	"millrace/drivers/opcua/wire"
)

// userPair reads the certificate and the key of the user that we log in as. They are read at each connect, so that they can be replaced.
func (s *settings) userPair() (*rsa.PrivateKey, *x509.Certificate, error) {
	b, err := files.Read(s.userCertificate, maxFile)
	if err != nil {
		return nil, nil, err
	}
	all := files.Certificates(b)
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("%s holds no certificate, in DER or PEM", s.userCertificate)
	}
	path := s.userCertificate
	if s.userKey != "" {
		path = s.userKey
		if b, err = files.Read(path, maxFile); err != nil {
			return nil, nil, err
		}
	}
	key, err := keyIn(b)
	c, now := all[0], time.Now()
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	case !key.PublicKey.Equal(c.PublicKey):
		return nil, nil, fmt.Errorf("%s: the key is not that of the certificate in %s", path, s.userCertificate)
	case now.After(c.NotAfter):
		return nil, nil, fmt.Errorf("%s expired on %s; have a new one made", s.userCertificate, c.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(c.NotBefore):
		return nil, nil, fmt.Errorf("%s is not valid before %s; look at this machine's clock", s.userCertificate, c.NotBefore.UTC().Format(time.DateOnly))
	}
	return key, c, nil
}

// keyIn returns the RSA key of a file in PEM or DER.
func keyIn(b []byte) (*rsa.PrivateKey, error) {
	blocks := 0
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		blocks++
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["DEK-Info"] != "":
			return nil, errors.New("its key is encrypted, and nobody is there to type a passphrase; give it without one, in a file that only the gateway may read")
		case block.Type == "EC PRIVATE KEY" || block.Type == "DSA PRIVATE KEY":
			return nil, fmt.Errorf("its key is of type %s; %w", strings.TrimSuffix(block.Type, " PRIVATE KEY"), errNotRSA)
		case block.Type == "PRIVATE KEY" || block.Type == "RSA PRIVATE KEY":
			return parseKey(block)
		}
	}
	if blocks == 0 {
		key, err := parseKey(&pem.Block{Bytes: b})
		if err == nil || errors.Is(err, errNotRSA) {
			return key, err
		}
	}
	return nil, errors.New("it holds no RSA key; write user_key, the file of the key, in PEM or DER")
}

// certificateIdentity returns the token of the user's certificate and the proof that the key is ours (OPC 10000-4, 7.40.2 and 7.40.5). The
// key itself never leaves; the proof is for this server and this session only.
func (s *settings) certificateIdentity(created *session, e *endpoint, offers []endpoint, security *wire.Security) (any, *ua.SignatureData, error) {
	policy := e.user(ua.UserTokenTypeCertificate)
	if policy == nil {
		return nil, nil, noUser(ua.UserTokenTypeCertificate, e, offers)
	}
	signs := e.encryption(policy)
	switch {
	case signs.Policy == nil:
		return nil, nil, fmt.Errorf("the server wants the user's signature by a policy that this driver does not know: %.100q", policy.security)
	case signs.Policy == wire.None():
		return nil, nil, errors.New("the server says no policy for the user's signature at this endpoint; choose an encrypted one")
	case signs.Insecure && !s.insecure:
		return nil, nil, fmt.Errorf(`the server wants the user's signature by the withdrawn policy %s; write "allow_insecure: true" to allow it`, signs.Name)
	}
	remote, err := s.signedFor(created, e, security)
	if err != nil {
		return nil, nil, err
	}
	key, own, err := s.userPair()
	if err != nil {
		return nil, nil, fmt.Errorf("the user's certificate: %w", err)
	}
	s.seen.noteUser(s.userCertificate, own)
	if err := signs.CheckKey(&key.PublicKey); err != nil {
		return nil, nil, fmt.Errorf("the user's certificate %s: %w", s.userCertificate, err)
	}
	signature, err := signs.Sign(key, append(bytes.Clone(remote), created.nonce...))
	return &ua.X509IdentityToken{PolicyID: policy.id, CertificateData: own.Raw}, &ua.SignatureData{Algorithm: signs.Signature, Signature: signature}, err
}

// signedFor returns the server's certificate, which the user's signature is for. On a channel without security nothing has been checked yet.
func (s *settings) signedFor(created *session, e *endpoint, security *wire.Security) ([]byte, error) {
	if security.Mode != wire.ModeNone {
		return security.Remote, nil
	}
	if len(created.nonce) < minNonce || len(created.nonce) > maxNonce {
		return nil, protocolError(fmt.Sprintf("the server's nonce has %d bytes; %d to %d are allowed", len(created.nonce), minNonce, maxNonce))
	}
	raw := e.certificate
	if len(raw) == 0 {
		raw = created.certificate
	}
	c, err := s.trusted(raw, e)
	if err != nil {
		return nil, err
	}
	return c.Raw, nil
}

// mustKnowUser adds what to do to the error of a server that refuses the user's certificate.
func (s *settings) mustKnowUser(err error) error {
	var refused statusError
	if s.userCertificate == "" || !errors.As(err, &refused) {
		return err
	}
	_, c, unread := s.userPair()
	if unread != nil {
		return err
	}
	return fmt.Errorf("%w; the server must know and trust the user's certificate first: %s, %s", err, s.userCertificate, called(c))
}
