package wire

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	"testing"
	"time"
)

// side is one end of a channel: its key and certificate.
func side(t testing.TB, bits int) (*rsa.PrivateKey, []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

// TestOpenChunks sends an OPN chunk of each policy from one end to the other, with keys on both sides of 2048 bits, and with
// each byte spoilt.
func TestOpenChunks(t *testing.T) {
	ourKey, our := side(t, 2048)
	theirKey, their := side(t, 3072)
	for _, p := range Policies()[1:] {
		a := Security{Policy: p, Mode: ModeSign, Chain: our, Key: ourKey, Remote: their, RemoteKey: &theirKey.PublicKey}
		b := Security{Policy: p, Mode: ModeSign, Chain: their, Key: theirKey, Remote: our, RemoteKey: &ourKey.PublicKey}
		for _, ends := range [][2]*Security{{&a, &b}, {&b, &a}} {
			for _, size := range []int{sequenceSize + 1, 132, 214, 500} {
				body := bytes.Repeat([]byte{7}, size)
				chunk := ends[0].asymmetricHead([]byte("OPNF\x00\x00\x00\x00\x01\x00\x00\x00"))
				head := len(chunk)
				chunk, err := ends[0].sealOpen(append(chunk, body...), head)
				if err != nil {
					t.Fatalf("%s: %v", p.Name, err)
				}
				if n := binary.LittleEndian.Uint32(chunk[4:]); int(n) != len(chunk) {
					t.Fatalf("%s: says %d bytes, has %d", p.Name, n, len(chunk))
				}
				got, err := ends[1].openOpen(bytes.Clone(chunk))
				if err != nil || !bytes.Equal(got, body) {
					t.Fatalf("%s, body of %d: got %x, %v", p.Name, size, got, err)
				}
				for at := 0; at < len(chunk); at += 37 {
					spoilt := bytes.Clone(chunk)
					spoilt[at] ^= 1
					if _, err := ends[1].openOpen(spoilt); err == nil {
						t.Errorf("%s: byte %d of %d may be wrong", p.Name, at, len(chunk))
					}
				}
				for at := 8; at < len(chunk); at += 37 { // none may panic
					if _, err := ends[1].openOpen(bytes.Clone(chunk[:at])); err == nil {
						t.Errorf("%s: %d of %d bytes will do", p.Name, at, len(chunk))
					}
				}
			}
		}
	}
}

// TestMessageChunks sends MSG chunks of every size around the block size from one end to the other, whole, spoilt and cut short.
func TestMessageChunks(t *testing.T) {
	for _, p := range Policies()[1:] {
		for _, mode := range []Mode{ModeSign, ModeSignAndEncrypt} {
			s := Security{Policy: p, Mode: mode}
			client, server := p.Nonce(), p.Nonce()
			out, in := s.newKeys(server, client), s.newKeys(server, client)
			back := s.newKeys(client, server)
			for size := range 70 {
				chunk := append([]byte("MSGF\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"), bytes.Repeat([]byte{9}, sequenceSize+size)...)
				want := bytes.Clone(chunk[symmetric:])
				chunk = out.seal(chunk)
				got, err := in.open(bytes.Clone(chunk))
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%s %v, body of %d: got %x, %v", p.Name, mode, size, got, err)
				}
				if _, err := back.open(bytes.Clone(chunk)); err == nil {
					t.Errorf("%s %v: the keys of the other direction will do", p.Name, mode)
				}
				for at := range chunk {
					spoilt := bytes.Clone(chunk)
					spoilt[at] ^= 0x80
					if _, err := in.open(spoilt); err == nil {
						t.Errorf("%s %v: byte %d of %d may be wrong", p.Name, mode, at, len(chunk))
					}
					if at < HeadSize {
						continue
					}
					if _, err := in.open(bytes.Clone(chunk[:at])); err == nil {
						t.Errorf("%s %v: %d of %d bytes will do", p.Name, mode, at, len(chunk))
					}
				}
			}
			for chunk := 1024; chunk < 1100; chunk++ { // what fits is sent whole, and no byte more would fit
				b := make([]byte, HeadSize+out.room(chunk))
				if n := len(out.seal(b)); n > chunk {
					t.Errorf("%s %v: a chunk of %d bytes where %d are allowed", p.Name, mode, n, chunk)
				}
				b = make([]byte, HeadSize+out.room(chunk)+1)
				if n := len(out.seal(b)); n <= chunk {
					t.Errorf("%s %v: room for one more in %d", p.Name, mode, chunk)
				}
			}
		}
	}
}

// TestPassword has a password that takes more than one block of each policy's encryption.
func TestPassword(t *testing.T) {
	key, _ := side(t, 2048)
	// RFC 8017: 11 bytes of padding for PKCS #1, twice the hash and 2 for OAEP.
	room := map[string]int{"basic128rsa15": 245, "basic256": 214, "basic256sha256": 214, "aes128-sha256-rsaoaep": 214, "aes256-sha256-rsapss": 190}
	for _, p := range Policies()[1:] {
		for _, n := range []int{1, 126, 127, 190, 191, 500} {
			t.Run(fmt.Sprint(p.Name, n), func(t *testing.T) {
				plain := bytes.Repeat([]byte{3}, n)
				secret, err := p.Encrypt(&key.PublicKey, plain)
				if err != nil {
					t.Fatal(err)
				}
				blocks := (n + room[p.Name] - 1) / room[p.Name]
				if len(secret) != 256*blocks {
					t.Errorf("%d bytes, want %d blocks", len(secret), blocks)
				}
				if got, err := p.Decrypt(key, secret); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("got %x, %v", got, err)
				}
			})
		}
	}
}

// TestSaltLength has a signature of RSA-PSS that is right but for the length of its salt.
func TestSaltLength(t *testing.T) {
	key, _ := side(t, 2048)
	sum := sha256.Sum256([]byte("data"))
	for salt, good := range map[int]bool{32: true, 20: false, 0: false} {
		if salt == 0 {
			salt = rsa.PSSSaltLengthAuto // the longest, when signing
		}
		signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: salt})
		if err != nil {
			t.Fatal(err)
		}
		if err := policyAes256.Verify(&key.PublicKey, []byte("data"), signature); (err == nil) != good {
			t.Errorf("salt of %d bytes: %v", salt, err)
		}
	}
}
