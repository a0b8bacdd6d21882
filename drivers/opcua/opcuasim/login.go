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
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"
)

// login is the one user that the server knows.
type login struct {
	user, password string
	certificate    []byte // DER, self-signed
	nonce          []byte // the same for each session: this is no real server
	key            *rsa.PrivateKey
}

func newLogin(user, password string) (*login, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make the server's key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "millrace simulated machine"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make the server's certificate: %w", err)
	}
	return &login{user: user, password: password, certificate: der, nonce: nonce(), key: key}, nil
}

// accepts decrypts the password: a length, the password, the server's nonce (OPC 10000-4, 7.40.2.2).
func (l *login) accepts(token *ua.ExtensionObject) bool {
	t, ok := token.Value.(*ua.UserNameIdentityToken)
	if !ok || t.UserName != l.user {
		return false
	}
	policy, err := uapolicy.Asymmetric(ua.SecurityPolicyURIBasic256Sha256, l.key, &l.key.PublicKey)
	if err != nil {
		return false
	}
	secret, err := policy.Decrypt(t.Password)
	if err != nil || len(secret) < 4 {
		return false
	}
	n := int(binary.LittleEndian.Uint32(secret))
	return n == len(secret)-4 && bytes.Equal(secret[4:], append([]byte(l.password), l.nonce...))
}
