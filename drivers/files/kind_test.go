package files

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"testing"
)

// TestOtherKind: a key that is whole, and of a kind or on a curve that is not used here, is not one to be copied again.
func TestOtherKind(t *testing.T) {
	type algorithm struct {
		ID         asn1.ObjectIdentifier
		Parameters asn1.ObjectIdentifier `asn1:"optional"`
	}
	own := issue(t, "own", 10, nil)
	marshal := func(v any) []byte {
		b, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	pkcs8 := func(a algorithm) []byte {
		return marshal(struct {
			Version   int
			Algorithm algorithm
			Key       []byte
		}{0, a, []byte("key")})
	}
	oid := func(id ...int) asn1.ObjectIdentifier { return id }
	secp256k1 := oid(1, 3, 132, 0, 10)
	sec1 := marshal(struct {
		Version int
		Key     []byte
		Curve   asn1.ObjectIdentifier `asn1:"explicit,tag:0"`
	}{1, []byte("key"), secp256k1})
	curve, err := ecdh.X25519().GenerateKey(rand.Reader)
	x25519, xerr := x509.MarshalPKCS8PrivateKey(curve)
	if err := errors.Join(err, xerr); err != nil {
		t.Fatal(err)
	}
	ed448 := pkcs8(algorithm{ID: oid(1, 3, 101, 113)})
	for _, c := range []struct {
		what, kind string
		der        []byte
		damaged    bool
	}{
		{"Ed448", "PRIVATE KEY", ed448, false},
		{"X25519", "PRIVATE KEY", x25519, false}, // which crypto/x509 reads
		{"DSA", "PRIVATE KEY", pkcs8(algorithm{ID: oid(1, 2, 840, 10040, 4, 1)}), false},
		{"DSA of OpenSSL", "DSA PRIVATE KEY", []byte{0x30, 0}, false},
		{"secp256k1 of OpenSSL", "EC PRIVATE KEY", sec1, false},
		{"Ed448 cut off", "PRIVATE KEY", ed448[:len(ed448)-1], true},
		{"Ed25519", "PRIVATE KEY", pkcs8(algorithm{ID: oid(1, 3, 101, 112)}), true},
		{"RSA", "PRIVATE KEY", pkcs8(algorithm{ID: oid(1, 2, 840, 113549, 1, 1, 1)}), true},
		{"EC cut off", "EC PRIVATE KEY", sec1[:len(sec1)-1], true},
	} {
		_, _, err := Pair(own.cert, pem.EncodeToMemory(&pem.Block{Type: c.kind, Bytes: c.der}))
		want := "holds a key of a kind that is not used here; make one of RSA, ECDSA (P-256, P-384, P-521) or Ed25519"
		if c.damaged {
			want = "holds a key that cannot be read; " + copyAgain
		}
		flawed(t, c.what, err, true, want)
	}
}
