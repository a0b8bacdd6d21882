package opcua

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/wire"
)

// Bounds of what the server gives for the encryption of a password.
const (
	minNonce = 32   // bytes, on a secured channel (OPC 10000-4, 5.6.2)
	maxNonce = 1024 // bytes
)

// Exposure says for as long as the config stands that a password may be read by others: drivers.Exposed.
func (d *driver) Exposure() (what, mend string) {
	if !d.set.clearPassword || d.set.user == "" {
		return "", ""
	}
	return "allow_clear_password lets its password go unencrypted, and to whoever answers at its address",
		"take an endpoint that encrypts (millrace opcua endpoints shows which there are) and remove allow_clear_password"
}

// anonymousURI names the gateway where no certificate does.
const anonymousURI = "urn:millrace:gateway"

// loginPatience is how many request timeouts a server may take to create a session, and to activate it. A session that is given up under way stands at the
// server until it times out there, for nobody can name it or end it over another channel (OPC 10000-4, 5.6.2 and 5.6.4): to wait costs the server less than to try again.
const (
	loginPatience = 5
	longestLogin  = 20 * time.Second // of that, unless the timeout itself is longer
)

// loggingIn makes a request of the login.
func (l *link) loggingIn(ctx context.Context, service, want uint16, body func(b []byte) ([]byte, error)) (reader, error) {
	patience := max(l.timeout, min(loginPatience*l.timeout, longestLogin))
	r, err := l.callFor(ctx, patience, service, want, body)
	var slow timeoutError
	if errors.As(err, &slow) {
		err = fmt.Errorf("%w; raise the device's timeout if the server needs longer to log in", err)
	}
	return r, err
}

// login creates and activates the session on a channel that was opened for an endpoint.
func (s *settings) login(ctx context.Context, l *link, e *endpoint, offers []endpoint) error {
	created, err := s.createSession(ctx, l, e)
	if err != nil {
		return fmt.Errorf("create session: %w", advised(err))
	}
	l.token = bytes.Clone(created.token)
	identity, proof, err := s.identity(&created, e, offers, l.channel.Security())
	if err != nil {
		return fmt.Errorf("activate session: %w", err)
	}
	signature, err := signed(l.channel.Security(), created.nonce)
	if err != nil {
		return fmt.Errorf("activate session: sign: %w", err)
	}
	const day = 24 * time.Hour / time.Millisecond
	if created.timeout > 0 { // not NaN
		l.session = time.Duration(min(created.timeout, float64(day))) * time.Millisecond
	}
	_, err = l.loggingIn(ctx, id.ActivateSessionRequest_Encoding_DefaultBinary, id.ActivateSessionResponse_Encoding_DefaultBinary, encode(&activateSession{
		Signature:      signature,
		Locales:        s.locales,
		Identity:       ua.NewExtensionObject(identity),
		TokenSignature: proof,
	}))
	switch {
	case err == nil:
		return nil
	case s.userCertificate != "":
		return fmt.Errorf("activate session: %w", s.mustKnowUser(err))
	}
	return fmt.Errorf("activate session: %w", advised(err))
}

func (s *settings) createSession(ctx context.Context, l *link, e *endpoint) (session, error) {
	security, uri := l.channel.Security(), anonymousURI
	if security.Mode != wire.ModeNone {
		uri = applicationURI(wire.Leaf(security.Chain))
	}
	nonce := make([]byte, minNonce)
	rand.Read(nonce) // never fails
	r, err := l.loggingIn(ctx, id.CreateSessionRequest_Encoding_DefaultBinary, id.CreateSessionResponse_Encoding_DefaultBinary, encode(&createSession{
		Client: &ua.ApplicationDescription{
			ApplicationURI:  uri,
			ProductURI:      "urn:millrace",
			ApplicationName: ua.NewLocalizedText("millrace"),
			ApplicationType: ua.ApplicationTypeClient,
		},
		EndpointURL: s.endpoint,
		SessionName: "millrace " + s.device,
		Nonce:       nonce,
		Certificate: security.Chain,
		Timeout:     float64(s.session / time.Millisecond),
		MaxResponse: wire.MaxMessage,
	}))
	if err != nil {
		return session{}, err
	}
	created := r.session()
	if r.Err != nil {
		return created, r.Err
	}
	if security.Mode != wire.ModeNone {
		err = s.proven(&created, e, security, nonce)
	}
	return created, err
}

// proven checks that the session is with the owner of the certificate that was trusted, and that the list of endpoints was his.
func (s *settings) proven(created *session, e *endpoint, security *wire.Security, nonce []byte) error {
	switch {
	case !bytes.Equal(wire.Leaf(created.certificate), security.Remote):
		return protocolError("the server shows another certificate than at its endpoint")
	case len(created.nonce) < minNonce || len(created.nonce) > maxNonce:
		return protocolError(fmt.Sprintf("the server's nonce has %d bytes; %d to %d are allowed", len(created.nonce), minNonce, maxNonce))
	}
	own := wire.Leaf(security.Chain)
	if security.Policy.Verify(security.RemoteKey, append(bytes.Clone(own), nonce...), created.signature) != nil &&
		security.Policy.Verify(security.RemoteKey, append(bytes.Clone(security.Chain), nonce...), created.signature) != nil {
		return protocolError("the server does not prove that its certificate is its own: the signature of the session is wrong")
	}
	return s.downgraded(e, created.endpoints)
}

// signed proves to the server that our certificate is ours.
func signed(security *wire.Security, nonce []byte) (*ua.SignatureData, error) {
	if security.Mode == wire.ModeNone {
		return &ua.SignatureData{}, nil
	}
	b, err := security.Policy.Sign(security.Key, append(bytes.Clone(security.Remote), nonce...))
	return &ua.SignatureData{Algorithm: security.Policy.Signature, Signature: b}, err
}

// identity returns the user token that the endpoint asks for, and the proof of it.
func (s *settings) identity(created *session, e *endpoint, offers []endpoint, security *wire.Security) (token any, proof *ua.SignatureData, err error) {
	proof = &ua.SignatureData{}
	switch {
	case s.userCertificate != "":
		return s.certificateIdentity(created, e, offers, security)
	case s.user != "":
		token, err = s.nameIdentity(created, e, offers)
	default:
		token, err = e.anonymous()
	}
	return token, proof, err
}

func (e *endpoint) anonymous() (any, error) {
	policy := e.user(ua.UserTokenTypeAnonymous)
	switch {
	case policy == nil && len(e.users) > 0 && e.user(ua.UserTokenTypeUserName) == nil && e.user(ua.UserTokenTypeCertificate) != nil:
		return nil, fmt.Errorf("the server takes no anonymous users at this endpoint, only %s; write user_certificate and user_key", kinds(e.users))
	case policy == nil && len(e.users) > 0:
		return nil, fmt.Errorf("the server takes no anonymous users at this endpoint, only %s; write username and password", kinds(e.users))
	case policy == nil: // some servers list nothing; let them refuse
		policy = &userPolicy{id: "Anonymous"}
	}
	return &ua.AnonymousIdentityToken{PolicyID: policy.id}, nil
}

// nameIdentity is the token of a user name and its password.
func (s *settings) nameIdentity(created *session, e *endpoint, offers []endpoint) (any, error) {
	policy := e.user(ua.UserTokenTypeUserName)
	if policy == nil {
		return nil, noUser(ua.UserTokenTypeUserName, e, offers)
	}
	cipher := e.encryption(policy)
	token := &ua.UserNameIdentityToken{PolicyID: policy.id, UserName: s.user, Password: []byte(s.password)}
	switch {
	case cipher.Policy == nil:
		return nil, fmt.Errorf("the server wants the password encrypted by a policy that this driver does not know: %.100q", policy.security)
	case cipher.Policy == wire.None() && e.mode != wire.ModeSignAndEncrypt && !s.clearPassword:
		return nil, errors.New(`the server wants the password in clear text, which is refused on a connection that is not encrypted; choose an encrypted endpoint, or write "allow_clear_password: true"`)
	case cipher.Policy == wire.None():
		return token, nil
	case cipher.Insecure && e.mode != wire.ModeSignAndEncrypt && !s.insecure:
		return nil, fmt.Errorf(`the server wants the password encrypted by the withdrawn policy %s; write "allow_insecure: true" to allow it`, cipher.Name)
	}
	certificate, err := s.passwordKey(created, e)
	if err != nil {
		return nil, err
	}
	token.EncryptionAlgorithm = cipher.Cipher
	if token.Password, err = encrypt(s.password, cipher.Policy, certificate, created.nonce); err != nil {
		return nil, fmt.Errorf("encrypt the password: %w", err)
	}
	return token, nil
}

// noUser says where else the server takes users of a kind.
func noUser(kind ua.UserTokenType, e *endpoint, offers []endpoint) error {
	what, option := kinds([]userPolicy{{kind: kind}}), "username"
	if kind == ua.UserTokenTypeCertificate {
		what, option = "user certificates", "user_certificate"
	}
	for i := range offers {
		if o := &offers[i]; o.usable() && o.user(kind) != nil {
			return fmt.Errorf("the server takes no %s at this endpoint, but at %s; %s", what, offered(offers[i:i+1]), o.mend())
		}
	}
	if len(e.users) == 0 {
		return fmt.Errorf("the server takes no %s; remove %s", what, option)
	}
	return fmt.Errorf("the server takes no %s, only %s; remove %s", what, kinds(e.users), option)
}

// kinds lists ways to log in.
func kinds(users []userPolicy) string {
	words, seen := "", map[string]bool{}
	for _, u := range users {
		word := map[ua.UserTokenType]string{ua.UserTokenTypeAnonymous: "anonymous users", ua.UserTokenTypeUserName: "user names",
			ua.UserTokenTypeCertificate: "certificates"}[u.kind]
		if word == "" {
			word = "issued tokens"
		}
		if !seen[word] {
			if words != "" {
				words += ", "
			}
			words += word
		}
		seen[word] = true
	}
	return words
}

// passwordKey returns the certificate whose owner alone can read the password. On a channel without security nothing has been
// checked yet. Absent, null and empty are one thing on this wire.
func (s *settings) passwordKey(created *session, e *endpoint) (*x509.Certificate, error) {
	raw := e.certificate
	if len(raw) == 0 {
		raw = created.certificate
	}
	if len(raw) == 0 {
		return nil, errors.New("the server wants the password encrypted and shows no certificate to encrypt it for")
	}
	if s.clearPassword && e.mode == wire.ModeNone { // it may go to anybody
		c, err := x509.ParseCertificate(wire.Leaf(raw))
		if err != nil {
			return nil, fmt.Errorf("the server's certificate cannot be read: %w", err)
		}
		return c, nil
	}
	return s.trusted(raw, e)
}

// encrypt encrypts a password for the server (OPC 10000-4, 7.40.2.2).
func encrypt(password string, policy *wire.Policy, certificate *x509.Certificate, nonce []byte) ([]byte, error) {
	if err := policy.CheckKey(certificate.PublicKey); err != nil {
		return nil, err
	}
	if len(nonce) > maxNonce {
		return nil, fmt.Errorf("the server's nonce has %d bytes; at most %d are allowed", len(nonce), maxNonce)
	}
	plain := binary.LittleEndian.AppendUint32(nil, uint32(len(password)+len(nonce)))
	plain = append(append(plain, password...), nonce...)
	return policy.Encrypt(certificate.PublicKey.(*rsa.PublicKey), plain)
}
