package opcua

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"
)

// Bounds of what the server gives for the encryption of a password.
const (
	minKey   = 1024 // bits
	maxKey   = 8192
	maxNonce = 1024 // bytes
)

// login creates and activates the session.
func (s *settings) login(ctx context.Context, l *link) error {
	created, err := s.createSession(ctx, l)
	if err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	identity, err := s.identity(&created)
	if err != nil {
		return fmt.Errorf("activate session: %w", err)
	}
	l.token = bytes.Clone(created.token)
	const day = 24 * time.Hour / time.Millisecond
	if created.timeout > 0 { // not NaN
		l.session = time.Duration(min(created.timeout, float64(day))) * time.Millisecond
	}
	_, err = l.call(ctx, id.ActivateSessionRequest_Encoding_DefaultBinary, id.ActivateSessionResponse_Encoding_DefaultBinary, encode(&activateSession{
		Signature:      &ua.SignatureData{},
		Locales:        []string{"en"},
		Identity:       ua.NewExtensionObject(identity),
		TokenSignature: &ua.SignatureData{},
	}))
	if err != nil {
		return fmt.Errorf("activate session: %w", err)
	}
	return nil
}

func (s *settings) createSession(ctx context.Context, l *link) (session, error) {
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return session{}, err
	}
	r, err := l.call(ctx, id.CreateSessionRequest_Encoding_DefaultBinary, id.CreateSessionResponse_Encoding_DefaultBinary, encode(&createSession{
		Client: &ua.ApplicationDescription{
			ApplicationURI:  "urn:millrace:gateway",
			ProductURI:      "urn:millrace",
			ApplicationName: ua.NewLocalizedText("millrace"),
			ApplicationType: ua.ApplicationTypeClient,
		},
		EndpointURL: s.endpoint,
		SessionName: "millrace " + s.device,
		Nonce:       nonce,
		Timeout:     float64(s.session / time.Millisecond),
		MaxResponse: maxMessage,
	}))
	if err != nil {
		return session{}, err
	}
	wanted := ua.UserTokenTypeAnonymous
	if s.user != "" {
		wanted = ua.UserTokenTypeUserName
	}
	created := r.session(wanted)
	return created, r.err
}

// identity returns the user token that the server's policy for this channel asks for.
func (s *settings) identity(created *session) (any, error) {
	policy := created.user
	if s.user == "" {
		if policy == nil { // some servers list no endpoints here; let them refuse
			policy = &userPolicy{id: "Anonymous"}
		}
		return &ua.AnonymousIdentityToken{PolicyID: policy.id}, nil
	}
	switch {
	case policy == nil:
		return nil, errors.New("the server takes no user names on this endpoint; remove username")
	case policy.security == "" || policy.security == ua.SecurityPolicyURINone:
		return nil, errors.New("the server wants the password in clear text, which is refused; have it ask for an encrypted password")
	}
	if policy.certificate == nil {
		policy.certificate = created.certificate
	}
	password, algorithm, err := encrypt(s.password, policy.security, policy.certificate, created.nonce)
	if err != nil {
		return nil, fmt.Errorf("encrypt the password: %w", err)
	}
	return &ua.UserNameIdentityToken{PolicyID: policy.id, UserName: s.user, Password: password, EncryptionAlgorithm: algorithm}, nil
}

// encrypt encrypts a password for the server (OPC 10000-4, 7.40.2.2). The library takes any certificate to
// hold an RSA key of a usual size, so that is made sure of.
func encrypt(password, policy string, certificate, nonce []byte) (secret []byte, algorithm string, err error) {
	parsed, err := uapolicy.ParseCertificate(certificate)
	if err != nil {
		return nil, "", fmt.Errorf("read the server's certificate: %w", err)
	}
	key, ok := parsed.PublicKey.(*rsa.PublicKey)
	switch {
	case !ok:
		return nil, "", fmt.Errorf("the server's certificate holds a key of type %v, not RSA", parsed.PublicKeyAlgorithm)
	case key.N.BitLen() < minKey || key.N.BitLen() > maxKey:
		return nil, "", fmt.Errorf("the server's key has %d bits; %d to %d are allowed", key.N.BitLen(), minKey, maxKey)
	case len(nonce) > maxNonce:
		return nil, "", fmt.Errorf("the server's nonce has %d bytes; at most %d are allowed", len(nonce), maxNonce)
	}
	cipher, err := uapolicy.Asymmetric(policy, nil, key)
	if err != nil {
		return nil, "", err
	}
	plain := binary.LittleEndian.AppendUint32(nil, uint32(len(password)+len(nonce)))
	plain = append(append(plain, password...), nonce...)
	if secret, err = cipher.Encrypt(plain); err != nil {
		return nil, "", err
	}
	return secret, cipher.EncryptionURI(), nil
}
