package files

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"slices"
)

// otherKinds are kinds of keys, and curves, that are often met and not used here, by their object identifiers.
var otherKinds = map[string]string{
	"1.2.840.10040.4.1":     "DSA",
	"1.2.840.10046.2.1":     "DH",
	"1.2.840.113549.1.3.1":  "DH",
	"1.2.840.113549.1.1.10": "RSA for PSS alone",
	"1.3.101.110":           "X25519",
	"1.3.101.111":           "X448",
	"1.3.101.113":           "Ed448",
	"1.3.132.0.10":          "EC on secp256k1",
	"1.3.36.3.3.2.8.1.1.7":  "EC on brainpoolP256r1",
	"1.3.36.3.3.2.8.1.1.11": "EC on brainpoolP384r1",
	"1.3.36.3.3.2.8.1.1.13": "EC on brainpoolP512r1",
}

// What is read here, by its object identifiers.
var (
	oidRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEC      = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
	curves     = []asn1.ObjectIdentifier{{1, 3, 132, 0, 33}, {1, 2, 840, 10045, 3, 1, 7}, {1, 3, 132, 0, 34}, {1, 3, 132, 0, 35}} // P-224 to P-521
)

const withoutName = "EC on a curve that it describes and does not name"

// OtherKind names the kind of a key that Private cannot use, as its block is whole and says what it is; "" where it does not.
func OtherKind(block *pem.Block) string {
	var pkcs8 struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	var ec struct { // RFC 5915
		Version int
		Key     []byte
		Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
	}
	var noName struct {
		Version int
		Key     []byte
	}
	var dsa struct{ Version, P, Q, G, Y, X asn1.RawValue }
	switch {
	case block.Type == "DSA PRIVATE KEY" && whole(block.Bytes, &dsa):
		return "DSA"
	case whole(block.Bytes, &ec) && len(ec.Curve) > 0:
		return curveName(ec.Curve)
	case block.Type == "EC PRIVATE KEY" && len(ec.Curve) == 0 && whole(block.Bytes, &noName):
		return withoutName
	case !whole(block.Bytes, &pkcs8):
		return ""
	case pkcs8.Algorithm.Algorithm.Equal(oidEC):
		var curve asn1.ObjectIdentifier
		if !whole(pkcs8.Algorithm.Parameters.FullBytes, &curve) {
			return withoutName
		}
		return curveName(curve)
	case pkcs8.Algorithm.Algorithm.Equal(oidRSA), pkcs8.Algorithm.Algorithm.Equal(oidEd25519):
		return "" // it is damaged
	}
	return named(pkcs8.Algorithm.Algorithm, "")
}

// curveName names a curve that is not used here.
func curveName(curve asn1.ObjectIdentifier) string {
	if slices.ContainsFunc(curves, curve.Equal) {
		return ""
	}
	return named(curve, "EC on ")
}

func named(id asn1.ObjectIdentifier, of string) string {
	if name := otherKinds[id.String()]; name != "" {
		return name
	}
	return of + id.String()
}

// whole reads DER and reports whether it is that, and all of it.
func whole(der []byte, into any) bool {
	rest, err := asn1.Unmarshal(der, into)
	return err == nil && len(rest) == 0
}
