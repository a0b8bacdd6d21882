package wire

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
)

// Mode is a MessageSecurityMode with the numbers of the wire (OPC 10000-4, 7.20).
type Mode uint32

// The modes.
const (
	ModeNone           Mode = 1
	ModeSign           Mode = 2
	ModeSignAndEncrypt Mode = 3
)

// String returns the word that the config uses.
func (m Mode) String() string {
	switch m {
	case ModeNone:
		return "none"
	case ModeSign:
		return "sign"
	case ModeSignAndEncrypt:
		return "sign-and-encrypt"
	}
	return fmt.Sprintf("mode %d", uint32(m))
}

// Policy is a security policy (OPC 10000-7, 6.6): which algorithms, with which sizes. Policies are compared by pointer and never
// changed. Only RSA policies exist here: the ones for elliptic curves are still moving, and no server at hand speaks them.
type Policy struct {
	Name      string // as the config writes it
	URI       string
	Strength  int  // of two policies the stronger one has the higher number
	Insecure  bool // withdrawn by the OPC Foundation: SHA-1
	Signature string
	Cipher    string // URI of the algorithm that encrypts a password

	hash             func() hash.Hash // of symmetric signatures and of key derivation
	signs            crypto.Hash      // of asymmetric signatures
	pss              bool
	oaep             func() hash.Hash // nil: PKCS #1 v1.5
	overhead         int              // bytes that a block of asymmetric encryption adds (RFC 8017)
	signKey          int              // bytes
	encryptKey       int
	nonce            int // bytes; every policy but None
	minBits, maxBits int // bits of RSA keys
}

const (
	policyBase = "http://opcfoundation.org/UA/SecurityPolicy#"
	rsaSHA1    = "http://www.w3.org/2000/09/xmldsig#rsa-sha1"
	rsaSHA256  = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
	pssSHA256  = "http://opcfoundation.org/UA/security/rsa-pss-sha2-256"
	rsa15      = "http://www.w3.org/2001/04/xmlenc#rsa-1_5"
	oaepSHA1   = "http://www.w3.org/2001/04/xmlenc#rsa-oaep"
	oaepSHA256 = "http://opcfoundation.org/UA/security/rsa-oaep-sha2-256"
)

// Policies returns all policies, the weakest first.
func Policies() []*Policy {
	return []*Policy{&policyNone, &policyBasic128Rsa15, &policyBasic256, &policyBasic256Sha256, &policyAes128, &policyAes256}
}

// None is the policy without signature and encryption.
func None() *Policy { return &policyNone }

// PolicyByURI returns the policy, nil for one that is not known.
func PolicyByURI(uri string) *Policy {
	for _, p := range Policies() {
		if p.URI == uri {
			return p
		}
	}
	return nil
}

var (
	policyNone          = Policy{Name: "none", URI: policyBase + "None"}
	policyBasic128Rsa15 = Policy{Name: "basic128rsa15", URI: policyBase + "Basic128Rsa15", Strength: 1, Insecure: true, Signature: rsaSHA1, Cipher: rsa15,
		hash: sha1.New, signs: crypto.SHA1, overhead: 11, signKey: 16, encryptKey: 16, nonce: 16, minBits: 1024, maxBits: 4096}
	policyBasic256 = Policy{Name: "basic256", URI: policyBase + "Basic256", Strength: 2, Insecure: true, Signature: rsaSHA1, Cipher: oaepSHA1,
		hash: sha1.New, signs: crypto.SHA1, oaep: sha1.New, overhead: 42, signKey: 24, encryptKey: 32, nonce: 32, minBits: 1024, maxBits: 4096}
	policyBasic256Sha256 = Policy{Name: "basic256sha256", URI: policyBase + "Basic256Sha256", Strength: 3, Signature: rsaSHA256, Cipher: oaepSHA1,
		hash: sha256.New, signs: crypto.SHA256, oaep: sha1.New, overhead: 42, signKey: 32, encryptKey: 32, nonce: 32, minBits: 2048, maxBits: 4096}
	policyAes128 = Policy{Name: "aes128-sha256-rsaoaep", URI: policyBase + "Aes128_Sha256_RsaOaep", Strength: 4, Signature: rsaSHA256, Cipher: oaepSHA1,
		hash: sha256.New, signs: crypto.SHA256, oaep: sha1.New, overhead: 42, signKey: 32, encryptKey: 16, nonce: 32, minBits: 2048, maxBits: 4096}
	policyAes256 = Policy{Name: "aes256-sha256-rsapss", URI: policyBase + "Aes256_Sha256_RsaPss", Strength: 5, Signature: pssSHA256, Cipher: oaepSHA256,
		hash: sha256.New, signs: crypto.SHA256, pss: true, oaep: sha256.New, overhead: 66, signKey: 32, encryptKey: 32, nonce: 32, minBits: 2048, maxBits: 4096}
)

// CheckKey says in words why a peer's or our own key cannot be used, nil when it can.
func (p *Policy) CheckKey(public any) error {
	key, ok := public.(*rsa.PublicKey)
	switch {
	case !ok:
		return fmt.Errorf("the certificate holds a key of type %T, not RSA; OPC UA's elliptic-curve policies are not supported", public)
	case key.N.BitLen() < p.minBits || key.N.BitLen() > p.maxBits:
		return fmt.Errorf("the certificate's key has %d bits; policy %s allows %d to %d", key.N.BitLen(), p.Name, p.minBits, p.maxBits)
	}
	return nil
}

// Nonce returns fresh random bytes of the policy's size, none for the policy None.
func (p *Policy) Nonce() []byte {
	if p.nonce == 0 {
		return nil
	}
	b := make([]byte, p.nonce)
	rand.Read(b) // never fails
	return b
}

// Sign signs data with our key (OPC 10000-6, 6.7.4).
func (p *Policy) Sign(key *rsa.PrivateKey, data []byte) ([]byte, error) {
	h := p.signs.New()
	h.Write(data)
	if p.pss {
		return rsa.SignPSS(rand.Reader, key, p.signs, h.Sum(nil), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	return rsa.SignPKCS1v15(nil, key, p.signs, h.Sum(nil))
}

// Verify checks a signature. Of PSS exactly the salt length that the policy names is taken.
func (p *Policy) Verify(key *rsa.PublicKey, data, signature []byte) error {
	h := p.signs.New()
	h.Write(data)
	if p.pss {
		return rsa.VerifyPSS(key, p.signs, h.Sum(nil), signature, &rsa.PSSOptions{SaltLength: h.Size()})
	}
	return rsa.VerifyPKCS1v15(key, p.signs, h.Sum(nil), signature)
}

// Encrypt encrypts bytes for the owner of the key, block by block.
func (p *Policy) Encrypt(key *rsa.PublicKey, plain []byte) (out []byte, err error) {
	size := key.Size() - p.overhead
	if p.nonce == 0 || size <= 0 {
		return nil, errors.New("the security policy and key cannot encrypt")
	}
	for len(plain) > 0 {
		n := min(size, len(plain))
		var b []byte
		if p.oaep == nil {
			b, err = rsa.EncryptPKCS1v15(rand.Reader, key, plain[:n])
		} else {
			b, err = rsa.EncryptOAEP(p.oaep(), rand.Reader, key, plain[:n], nil)
		}
		if err != nil {
			return nil, err
		}
		out, plain = append(out, b...), plain[n:]
	}
	return out, nil
}

// Decrypt is the inverse of Encrypt.
func (p *Policy) Decrypt(key *rsa.PrivateKey, secret []byte) (out []byte, err error) {
	size := key.Size()
	if len(secret)%size != 0 || p.nonce == 0 {
		return nil, errors.New("what is encrypted does not fit the key")
	}
	for ; len(secret) > 0; secret = secret[size:] {
		var b []byte
		if p.oaep == nil {
			b, err = rsa.DecryptPKCS1v15(nil, key, secret[:size])
		} else {
			b, err = rsa.DecryptOAEP(p.oaep(), nil, key, secret[:size], nil)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

// derive is P_hash of RFC 5246, 5: n bytes from a secret and a seed.
func (p *Policy) derive(secret, seed []byte, n int) (out []byte) {
	mac := hmac.New(p.hash, secret)
	sum := func(parts ...[]byte) []byte {
		mac.Reset()
		for _, b := range parts {
			mac.Write(b)
		}
		return mac.Sum(nil)
	}
	for a := sum(seed); len(out) < n; a = sum(a) {
		out = append(out, sum(a, seed)...)
	}
	return out[:n]
}
