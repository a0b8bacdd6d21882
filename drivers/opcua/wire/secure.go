package wire

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/binary"
	"hash"
)

// Security is how a channel is secured. The zero Security is not valid: take Unsecured for none.
type Security struct {
	Policy *Policy
	Mode   Mode
	Chain  []byte          // our certificate in DER, its issuers behind it
	Key    *rsa.PrivateKey // of our certificate

	Remote    []byte         // the server's certificate in DER, without its issuers; the caller has checked that it is to be trusted
	RemoteKey *rsa.PublicKey // of Remote; the caller has checked it with Policy.CheckKey
}

// Unsecured is a channel without signature and encryption.
func Unsecured() Security { return Security{Policy: None(), Mode: ModeNone} }

const (
	blockSize    = 16 // of AES
	sequenceSize = 8  // sequence number and request id
	symmetric    = 16 // before them in a MSG chunk: header, channel, token
)

// keys secure one direction under one token. They are used by one goroutine at a time.
type keys struct {
	mac   hash.Hash
	block cipher.Block // nil in mode Sign
	iv    []byte
	sum   []byte
}

// newKeys derives the keys of the side whose nonce is the seed (OPC 10000-6, 6.7.5); nil without security.
func (s *Security) newKeys(secret, seed []byte) *keys {
	p := s.Policy
	if s.Mode == ModeNone {
		return nil
	}
	b := p.derive(secret, seed, p.signKey+p.encryptKey+blockSize)
	k := &keys{mac: hmac.New(p.hash, b[:p.signKey])}
	if s.Mode == ModeSignAndEncrypt {
		k.block, _ = aes.NewCipher(b[p.signKey : p.signKey+p.encryptKey]) // fails for other sizes only
		k.iv = b[p.signKey+p.encryptKey:]
	}
	return k
}

// room returns how many bytes of a body fit a chunk.
func (k *keys) room(chunk int) int {
	switch {
	case k == nil:
		return chunk - symmetric - sequenceSize
	case k.block == nil:
		return chunk - symmetric - sequenceSize - k.mac.Size()
	}
	return (chunk-symmetric)/blockSize*blockSize - sequenceSize - 1 - k.mac.Size()
}

// seal fills in the size of a chunk that is whole up to its body, signs and encrypts it.
func (k *keys) seal(b []byte) []byte {
	if k != nil && k.block != nil {
		size := len(b) - symmetric + 1 + k.mac.Size()
		n := (blockSize - size%blockSize) % blockSize
		for range n + 1 {
			b = append(b, byte(n))
		}
	}
	size := len(b)
	if k != nil {
		size += k.mac.Size()
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(size))
	if k == nil {
		return b
	}
	k.mac.Reset()
	k.mac.Write(b)
	b = k.mac.Sum(b)
	if k.block != nil {
		cipher.NewCBCEncrypter(k.block, k.iv).CryptBlocks(b[symmetric:], b[symmetric:])
	}
	return b
}

// open checks a chunk in place and returns what stands behind its token: sequence number, request id, body. Nothing is
// looked at before its signature was found good.
func (k *keys) open(b []byte) ([]byte, error) {
	if k == nil {
		return b[symmetric:], nil
	}
	if k.block != nil {
		if (len(b)-symmetric)%blockSize != 0 {
			return nil, ProtocolError("the server's chunk is not encrypted as agreed")
		}
		cipher.NewCBCDecrypter(k.block, k.iv).CryptBlocks(b[symmetric:], b[symmetric:])
	}
	end := len(b) - k.mac.Size()
	if end < symmetric+sequenceSize {
		return nil, ProtocolError("the server's chunk is shorter than its signature")
	}
	k.mac.Reset()
	k.mac.Write(b[:end])
	if k.sum = k.mac.Sum(k.sum[:0]); !hmac.Equal(k.sum, b[end:]) {
		return nil, ProtocolError("the signature of the server's chunk is wrong")
	}
	body := b[symmetric:end]
	if k.block == nil {
		return body, nil
	}
	n := int(body[len(body)-1]) + 1
	if len(body)-n < sequenceSize {
		return nil, ProtocolError("the server's chunk has more padding than body")
	}
	return body[:len(body)-n], nil
}

// asymmetricHead appends policy, certificate and thumbprint of an OPN chunk.
func (s *Security) asymmetricHead(b []byte) []byte {
	b = AppendBytes(b, []byte(s.Policy.URI))
	if s.Mode == ModeNone {
		return AppendBytes(AppendBytes(b, nil), nil)
	}
	thumb := sha1.Sum(s.Remote)
	return AppendBytes(AppendBytes(b, s.Chain), thumb[:])
}

// sealOpen fills in the size of an OPN chunk that is whole up to its body, signs and encrypts what stands behind head.
func (s *Security) sealOpen(b []byte, head int) ([]byte, error) {
	if s.Mode == ModeNone {
		binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
		return b, nil
	}
	cipherBlock, signature := s.RemoteKey.Size(), s.Key.Size()
	plain, lengths := cipherBlock-s.Policy.overhead, 1
	if cipherBlock > 256 {
		lengths = 2 // the receiver's key is over 2048 bits: the padding may be over 255
	}
	n := (plain - (len(b)-head+lengths+signature)%plain) % plain
	b = append(b, bytes.Repeat([]byte{byte(n)}, n+1)...)
	if lengths == 2 {
		b = append(b, byte(n>>8))
	}
	blocks := (len(b) - head + signature) / plain
	binary.LittleEndian.PutUint32(b[4:], uint32(head+blocks*cipherBlock))
	signed, err := s.Policy.Sign(s.Key, b)
	if err != nil {
		return nil, err
	}
	secret, err := s.Policy.Encrypt(s.RemoteKey, append(b[head:len(b):len(b)], signed...))
	if err != nil {
		return nil, err
	}
	return append(b[:head:head], secret...), nil
}

// openOpen checks an OPN chunk and returns what stands behind its head: sequence number, request id, body.
func (s *Security) openOpen(b []byte) ([]byte, error) {
	r := Reader{B: b[8:]}
	r.U32() // the channel, which some servers say behind only
	policy, certificate, thumb := r.Bytes(), r.Bytes(), r.Bytes()
	switch {
	case r.Err != nil:
		return nil, r.Err
	case string(policy) != s.Policy.URI:
		return nil, ProtocolError("the server answered with another security policy than " + policyName(s.Policy))
	case s.Mode == ModeNone:
		return r.B, nil
	case !bytes.HasPrefix(certificate, s.Remote): // its issuers may follow
		return nil, ProtocolError("the server answered with another certificate than its endpoint's")
	}
	own, _ := splitChain(s.Chain)
	if want := sha1.Sum(own); !bytes.Equal(thumb, want[:]) {
		return nil, ProtocolError("the server answered for another certificate than ours")
	}
	head := b[:len(b)-len(r.B)]
	plain, err := s.Policy.Decrypt(s.Key, r.B)
	if err != nil {
		return nil, ProtocolError("the server's answer cannot be decrypted with our key")
	}
	end := len(plain) - s.RemoteKey.Size()
	if end < sequenceSize+1 {
		return nil, ProtocolError("the server's answer is shorter than its signature")
	}
	if err := s.Policy.Verify(s.RemoteKey, append(head[:len(head):len(head)], plain[:end]...), plain[end:]); err != nil {
		return nil, ProtocolError("the signature of the server's answer is wrong")
	}
	return s.unpad(plain[:end])
}

func (s *Security) unpad(b []byte) ([]byte, error) {
	last, n := len(b)-1, 0
	if s.Key.Size() > 256 {
		n, last = int(b[last])<<8, last-1
	}
	n += int(b[last])
	if last-n < sequenceSize {
		return nil, ProtocolError("the server's answer has more padding than body")
	}
	return b[:last-n], nil
}

func policyName(p *Policy) string { return p.URI[len(policyBase):] }

// splitChain returns the first certificate of a chain in DER and what follows it; all of it when it is none.
func splitChain(b []byte) (leaf, rest []byte) {
	if len(b) < 4 || b[0] != 0x30 {
		return b, nil
	}
	n := 2 + int(b[1])
	switch b[1] {
	case 0x81:
		n = 3 + int(b[2])
	case 0x82:
		n = 4 + int(b[2])<<8 + int(b[3])
	}
	if b[1] > 0x82 || n > len(b) {
		return b, nil
	}
	return b[:n], b[n:]
}

// Leaf returns the first certificate of a chain in DER, which is the peer's own.
func Leaf(chain []byte) []byte {
	leaf, _ := splitChain(chain)
	return leaf
}

// AppendBytes appends a ByteString or String; nil is one that is not there.
func AppendBytes(b, s []byte) []byte {
	if s == nil {
		return append(b, 0xff, 0xff, 0xff, 0xff)
	}
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}
