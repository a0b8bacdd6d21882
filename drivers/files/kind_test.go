package files

import (
	"encoding/asn1"
	"encoding/pem"
	"strings"
	"testing"
)

type algorithm struct {
	ID         asn1.ObjectIdentifier
	Parameters asn1.ObjectIdentifier `asn1:"optional"`
}

// pkcs8Of returns the key of a kind as PKCS #8.
func pkcs8Of(t *testing.T, a algorithm) []byte {
	t.Helper()
	b, err := asn1.Marshal(struct {
		Version   int
		Algorithm algorithm
		Key       []byte
	}{0, a, []byte("key")})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOtherKind: a key that is whole, and of a kind or on a curve that is not used here, is not one to be copied again.
func TestOtherKind(t *testing.T) {
	own := issue(t, "own", 10, nil)
	oid := func(id ...int) asn1.ObjectIdentifier { return id }
	secp256k1 := oid(1, 3, 132, 0, 10)
	sec1, err := asn1.Marshal(struct {
		Version int
		Key     []byte
		Curve   asn1.ObjectIdentifier `asn1:"explicit,tag:0"`
	}{1, []byte("key"), secp256k1})
	if err != nil {
		t.Fatal(err)
	}
	dsa, err := asn1.Marshal(struct{ Version, P, Q, G, Y, X int }{0, 1, 2, 3, 4, 5})
	if err != nil {
		t.Fatal(err)
	}
	ed448 := pkcs8Of(t, algorithm{ID: oid(1, 3, 101, 113)})
	for _, c := range []struct {
		kind string
		der  []byte
		want string // "" = it is damaged
	}{
		{"PRIVATE KEY", ed448, "Ed448"},
		{"PRIVATE KEY", pkcs8Of(t, algorithm{ID: oid(1, 2, 840, 10040, 4, 1)}), "DSA"},
		{"PRIVATE KEY", pkcs8Of(t, algorithm{ID: oid(1, 2, 3)}), "1.2.3"},
		{"PRIVATE KEY", pkcs8Of(t, algorithm{oidEC, secp256k1}), "EC on secp256k1"},
		{"PRIVATE KEY", pkcs8Of(t, algorithm{oidEC, oid(1, 2, 3)}), "EC on 1.2.3"},
		{"PRIVATE KEY", pkcs8Of(t, algorithm{ID: oidEC}), withoutName},
		{"EC PRIVATE KEY", sec1, "EC on secp256k1"},
		{"DSA PRIVATE KEY", dsa, "DSA"},
		{"PRIVATE KEY", ed448[:len(ed448)-1], ""},
		{"PRIVATE KEY", pkcs8Of(t, algorithm{ID: oidEd25519}), ""},
		{"PRIVATE KEY", pkcs8Of(t, algorithm{ID: oidRSA}), ""},
		{"PRIVATE KEY", pkcs8Of(t, algorithm{oidEC, curves[1]}), ""},
		{"EC PRIVATE KEY", sec1[:len(sec1)-1], ""},
		{"DSA PRIVATE KEY", dsa[:len(dsa)-1], ""},
		{"RSA PRIVATE KEY", dsa, ""},
	} {
		_, _, err := Pair(own.cert, pem.EncodeToMemory(&pem.Block{Type: c.kind, Bytes: c.der}))
		want := "holds a key of a kind that is not used here: " + c.want + "; make one of RSA, ECDSA (P-256, P-384, P-521) or Ed25519"
		if c.want == "" {
			want = "holds a key that cannot be read; " + copyAgain
		}
		flawed(t, c.kind+" "+c.want, err, true, want)
		if err != nil && strings.Contains(err.Error(), "copy the file again") != (c.want == "") {
			t.Errorf("%s %s: %v", c.kind, c.want, err)
		}
	}
}
