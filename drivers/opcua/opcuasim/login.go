package opcuasim

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"
)

// Identity is the server's key and its certificate in DER, issuers behind it.
type Identity struct {
	Key         *rsa.PrivateKey
	Certificate []byte
}

// Template returns what the certificate of a healthy server on the loopback says, for tests to spoil.
func Template() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "millrace simulated machine"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		URIs:         []*url.URL{{Scheme: "urn", Opaque: ServerURI[len("urn:"):]}},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment | x509.KeyUsageContentCommitment,
	}
}

// NewIdentity makes a key and a self-signed certificate; nil means Template.
func NewIdentity(bits int, template *x509.Certificate) (*Identity, error) {
	if template == nil {
		template = Template()
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("make the server's key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the server's certificate: %w", err)
	}
	return &Identity{key, der}, nil
}

// accepts decrypts the password: a length, the password, the server's nonce (OPC 10000-4, 7.40.2.2). Over an encrypted
// channel it may be plain.
func (s *Server) accepts(token *ua.ExtensionObject, nonce []byte, channelPolicy string) bool {
	t, ok := token.Value.(*ua.UserNameIdentityToken)
	if !ok || t.UserName != s.opts.Username {
		return false
	}
	uri := s.userPolicy(channelPolicy)
	if uri == ua.SecurityPolicyURINone {
		return string(t.Password) == s.opts.Password
	}
	policy, err := uapolicy.Asymmetric(uri, s.opts.Identity.Key, &s.opts.Identity.Key.PublicKey)
	if err != nil {
		return false
	}
	secret, err := policy.Decrypt(t.Password)
	if err != nil || len(secret) < 4 {
		return false
	}
	n := int(binary.LittleEndian.Uint32(secret))
	return n == len(secret)-4 && bytes.Equal(secret[4:], append([]byte(s.opts.Password), nonce...))
}

// acceptsCertificate checks that the user's certificate is the one that is known, and that he has its key (OPC 10000-4, 7.40.5).
func (s *Server) acceptsCertificate(t *ua.X509IdentityToken, proof *ua.SignatureData, nonce []byte, channelPolicy string) ua.StatusCode {
	c, err := x509.ParseCertificate(t.CertificateData)
	if err != nil || s.opts.UserCertificate == nil {
		return ua.StatusBadIdentityTokenInvalid
	}
	policy, err := uapolicy.Asymmetric(s.userPolicy(channelPolicy), s.opts.Identity.Key, c.PublicKey.(*rsa.PublicKey))
	if err != nil || policy.VerifySignature(append(bytes.Clone(s.opts.Identity.Certificate), nonce...), proof.Signature) != nil {
		return ua.StatusBadUserSignatureInvalid
	}
	if s.opts.WrongUser || !bytes.Equal(t.CertificateData, s.opts.UserCertificate) {
		return ua.StatusBadIdentityTokenRejected
	}
	return ua.StatusOK
}

// userPolicy is the policy of the password's encryption at an endpoint.
func (s *Server) userPolicy(endpoint string) string {
	switch {
	case s.opts.ClearPassword:
		return ua.SecurityPolicyURINone
	case endpoint == ua.SecurityPolicyURINone:
		return ua.SecurityPolicyURIBasic256Sha256
	}
	return endpoint
}
