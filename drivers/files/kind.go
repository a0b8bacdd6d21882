package files

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
)

// IsOtherKind reports whether a key that Private cannot use is whole, and of a kind, or on a curve, that is not used here: DSA, Ed448, X25519, secp256k1.
func IsOtherKind(block *pem.Block) bool {
	_, pkcs8 := x509.ParsePKCS8PrivateKey(block.Bytes)
	_, ec := x509.ParseECPrivateKey(block.Bytes)
	said := fmt.Sprint(pkcs8, ec) // there is no error to ask for
	return pkcs8 == nil || block.Type == "DSA PRIVATE KEY" || strings.Contains(said, "unknown algorithm") || strings.Contains(said, "unknown elliptic curve")
}
