package opcua

import (
	"bytes"
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
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
	var keyFile []byte
	if s.userKey != "" {
		if keyFile, err = files.Read(s.userKey, maxFile); err != nil {
			return nil, nil, err
		}
	}
	key, c, err := readUser(b, keyFile)
	if err != nil {
		path := s.userCertificate
		if flaw, ok := errors.AsType[*files.Flaw](err); ok && flaw.OfKey {
			path = cmp.Or(s.userKey, path)
		}
		return nil, nil, fmt.Errorf("%s %w", path, err)
	}
	switch now := time.Now(); {
	case now.After(c.NotAfter):
		return nil, nil, fmt.Errorf("%s expired on %s; have a new one made", s.userCertificate, c.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(c.NotBefore):
		return nil, nil, fmt.Errorf("%s is not valid before %s; look at this machine's clock", s.userCertificate, c.NotBefore.UTC().Format(time.DateOnly))
	}
	return key, c, nil
}

// readUser returns the key and the certificate of a user from the content of their files, or of one that holds both: keyFile is nil then. An error is a *files.Flaw.
func readUser(b, keyFile []byte) (*rsa.PrivateKey, *x509.Certificate, error) {
	all, err := files.Certificates(b)
	if err != nil {
		return nil, nil, err
	}
	alone := keyFile == nil
	if alone {
		keyFile = b
	}
	block, err := files.Key(keyFile)
	if err != nil {
		if flaw, ok := errors.AsType[*files.Flaw](err); ok && alone && !files.HoldsKey(b) {
			flaw.Mend = "write user_key, the file of the key, in PEM or DER"
		}
		return nil, nil, err
	}
	key, err := parseKey(block)
	if err != nil {
		return nil, nil, err
	}
	return key, all[0], files.OfKey(all, &key.PublicKey, keyFile)
}

// userCertificate returns the one certificate of a user's file that a server gets: see drivers.Option. It has its own copies of the issuers, so when
// those end that stand behind it in the file is nothing to us.
func userCertificate(b, key []byte) ([]*x509.Certificate, error) {
	_, c, err := readUser(b, key)
	return []*x509.Certificate{c}, err
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
