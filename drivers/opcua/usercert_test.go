package opcua

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"millrace/drivers/opcua/opcuasim"
	"millrace/drivers/opcua/wire"
)

// userFiles writes a user's certificate and key, each alone and both in one file, in DER and in PEM.
func userFiles(t *testing.T, spoil func(*x509.Certificate)) (dir string, der []byte) {
	t.Helper()
	template := opcuasim.Template()
	template.Subject.CommonName = "operator"
	if spoil != nil {
		spoil(template)
	}
	user, err := opcuasim.NewIdentity(2048, template)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(user.Key)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	write(t, filepath.Join(dir, "user.der"), user.Certificate)
	write(t, filepath.Join(dir, "user.key"), key)
	write(t, filepath.Join(dir, "user.key.pem"), block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(user.Key)))
	write(t, filepath.Join(dir, "user.pem"), append(block("CERTIFICATE", user.Certificate), block("PRIVATE KEY", key)...))
	write(t, filepath.Join(dir, "locked.pem"), block("ENCRYPTED PRIVATE KEY", key))
	return dir, user.Certificate
}

// TestUserCertificate logs in by a certificate over every policy and mode. The simulator checks the signature with the library.
func TestUserCertificate(t *testing.T) {
	dir, der := userFiles(t, nil)
	s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris(current...), NoneToo: true, Username: "u", Password: "p", UserCertificate: der}, 1)
	for _, files := range [][2]string{{"user.pem", ""}, {"user.der", "user.key"}, {"user.der", "user.key.pem"}, {"user.pem", "user.pem"}} {
		for _, policy := range append([]string{"none"}, current...) {
			for _, mode := range []string{"", "sign", "sign-and-encrypt"} {
				if (policy == "none") != (mode == "") {
					continue
				}
				options := map[string]string{"security_policy": policy, "user_certificate": filepath.Join(dir, files[0])}
				if files[1] != "" {
					options["user_key"] = filepath.Join(dir, files[1])
				}
				if mode != "" {
					options["security_mode"] = mode
				}
				c, _ := securedConnection(t, s.Endpoint(), options, variables(1)...)
				d := connect(t, c)
				wantNumbers(t, read(t, d), nil)
				if all := d.Certificates(); len(all) == 0 || len(all) > 3 || !hasCertificate(d, filepath.Join(dir, files[0])) {
					t.Errorf("its end is not watched: %+v", all)
				}
				d.Close()
			}
		}
	}
}

func hasCertificate(d *driver, name string) bool {
	for _, c := range d.Certificates() {
		if c.Name == name && c.Own && time.Until(c.NotAfter) > 0 {
			return true
		}
	}
	return false
}

// TestUserCertificateRefused: each reason in its own words, and no signature goes to a server that is not trusted.
func TestUserCertificateRefused(t *testing.T) {
	dir, der := userFiles(t, nil)
	other, _ := userFiles(t, nil)
	old, oldDER := userFiles(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	})
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, _ := x509.MarshalECPrivateKey(curve)
	ec8, _ := x509.MarshalPKCS8PrivateKey(curve)
	write(t, dir+"/ec.der", ec)
	write(t, dir+"/ec.pem", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: ec}))
	write(t, dir+"/ec8.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: ec8}))
	young, _ := userFiles(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(24 * time.Hour) })
	thumb := Thumbprint(der)
	for _, c := range []struct {
		name             string
		certificate, key string
		server           opcuasim.Options
		more             map[string]string
		want             string
	}{
		{"not known", dir + "/user.pem", "", opcuasim.Options{UserCertificate: oldDER}, nil, "activate session: BadIdentityTokenRejected: "},
		{"what to do about it", dir + "/user.pem", "", opcuasim.Options{UserCertificate: oldDER}, nil, "; the server must know and trust the user's certificate first: " + dir + "/user.pem, \"operator\" (thumbprint " + thumb + ")"},
		{"none taken", dir + "/user.pem", "", opcuasim.Options{Username: "u"}, nil, "the server takes no user certificates, only user names; remove user_certificate"},
		{"another's key", dir + "/user.der", other + "/user.key", opcuasim.Options{UserCertificate: der}, nil, dir + "/user.der is not the certificate of the key"},
		{"no key", dir + "/user.der", "", opcuasim.Options{UserCertificate: der}, nil, "holds a certificate and no private key; write user_key"},
		{"a key with a passphrase", dir + "/user.der", dir + "/locked.pem", opcuasim.Options{UserCertificate: der}, nil, "locked.pem holds a key with a passphrase, and nobody is there to type it; openssl pkey -in FILE"},
		{"an elliptic key", dir + "/user.der", dir + "/ec.pem", opcuasim.Options{UserCertificate: der}, nil, "ec.pem holds a key of type EC; OPC UA's elliptic-curve policies are not supported: have an RSA key"},
		{"an elliptic key in DER", dir + "/user.der", dir + "/ec.der", opcuasim.Options{UserCertificate: der}, nil, "ec.der holds a key of type EC; "},
		{"an elliptic key, PKCS 8", dir + "/user.der", dir + "/ec8.pem", opcuasim.Options{UserCertificate: der}, nil, "ec8.pem holds a key of type EC; "},
		{"no certificate", dir + "/user.key", "", opcuasim.Options{UserCertificate: der}, nil, "user.key holds a private key and no certificate"},
		{"no file", dir + "/none.pem", "", opcuasim.Options{UserCertificate: der}, nil, "no such file"},
		{"expired", old + "/user.pem", "", opcuasim.Options{UserCertificate: oldDER}, nil, "user.pem expired on "},
		{"not valid yet", young + "/user.pem", "", opcuasim.Options{UserCertificate: der}, nil, "is not valid before "},
		{"a server that is not trusted", dir + "/user.pem", "", opcuasim.Options{UserCertificate: der, NoneToo: true}, map[string]string{"security_policy": "none", "pki": t.TempDir()}, "is not trusted; compare the thumbprint"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.server.Identity, c.server.Policies = identity(t), uris(current...)
			s := start(t, c.server, 1)
			options := map[string]string{"user_certificate": c.certificate, "user_key": c.key}
			for k, v := range c.more {
				options[k] = v
			}
			conn, _ := securedConnection(t, s.Endpoint(), options, variables(1)...)
			refused(t, conn, c.want)
		})
	}
}

// TestUserCertificateAsked: a server that takes nobody else says so in the config's words.
func TestUserCertificateAsked(t *testing.T) {
	_, der := userFiles(t, nil)
	s := start(t, opcuasim.Options{Identity: identity(t), Policies: uris(current...), UserCertificate: der,
		Offers: func(all []*ua.EndpointDescription) []*ua.EndpointDescription {
			for _, e := range all {
				e.UserIdentityTokens = e.UserIdentityTokens[1:]
			}
			return all
		}}, 1)
	c, _ := securedConnection(t, s.Endpoint(), nil, variables(1)...)
	refused(t, c, "the server takes no anonymous users at this endpoint, only certificates; write user_certificate and user_key")
}

// TestUserSignature: it is for this server and this session.
func TestUserSignature(t *testing.T) {
	dir, der := userFiles(t, nil)
	s := settings{userCertificate: filepath.Join(dir, "user.pem"), seen: &seen{}}
	server := identity(t)
	e := &endpoint{mode: wire.ModeSignAndEncrypt, policy: wire.PolicyByURI(uris(current[2])[0]), certificate: server.Certificate, users: []userPolicy{{id: "c", kind: ua.UserTokenTypeCertificate}}}
	created := session{nonce: bytes.Repeat([]byte{7}, 32)}
	security := &wire.Security{Mode: wire.ModeSignAndEncrypt, Remote: server.Certificate}
	token, proof, err := s.certificateIdentity(&created, e, nil, security)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := x509.ParseCertificate(der)
	public := c.PublicKey.(*rsa.PublicKey)
	if !bytes.Equal(token.(*ua.X509IdentityToken).CertificateData, der) || token.(*ua.X509IdentityToken).PolicyID != "c" {
		t.Errorf("token %+v", token)
	}
	if err := e.policy.Verify(public, append(bytes.Clone(server.Certificate), created.nonce...), proof.Signature); err != nil {
		t.Error(err)
	}
	for _, data := range [][]byte{server.Certificate, created.nonce, append(bytes.Clone(der), created.nonce...)} {
		if e.policy.Verify(public, data, proof.Signature) == nil {
			t.Error("the signature is for something else, too")
		}
	}
}

// TestUserOptions: what contradicts itself is refused when the config is read, and a password that may go in clear text is told of.
func TestUserOptions(t *testing.T) {
	for _, c := range []struct {
		options map[string]string
		want    string
		exposed bool
	}{
		{map[string]string{"user_key": "k"}, "user_key is given without a user_certificate; add user_certificate, or remove user_key", false},
		{map[string]string{"user_certificate": "c", "username": "u"}, "user_certificate and username are both given; remove one of them", false},
		{map[string]string{"user_certificate": "c", "user_key": "k"}, "", false},
		{map[string]string{"allow_clear_password": "true"}, "", false},
		{map[string]string{"username": "u"}, "", false},
		{map[string]string{"username": "u", "allow_clear_password": "true"}, "", true},
	} {
		conn := connection("opc.tcp://h", time.Second, variables(1)...)
		conn.Devices[0].Options = c.options
		d, err := newDriver(conn)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: %v, want %q", c.options, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if what, mend := d.(*driver).Exposure(); (what != "") != c.exposed || (mend != "") != c.exposed {
			t.Errorf("%v: %q %q", c.options, what, mend)
		}
	}
	conn := connection("opc.tcp://h", time.Second, variables(1)...)
	conn.Devices[0].Groups[0].Tags[0].Options = map[string]string{"read_back": "yes"}
	if _, err := newDriver(conn); err == nil || !strings.Contains(err.Error(), `read_back "yes" is neither true nor false`) {
		t.Error(err)
	}
}
