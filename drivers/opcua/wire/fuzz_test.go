package wire

import (
	"bytes"
	"testing"
)

// FuzzChunk holds that no chunk, of a renewal or of a message, ends in a panic, and that none passes but what the peer has sealed.
func FuzzChunk(f *testing.F) {
	ourKey, our := side(f, 2048)
	theirKey, their := side(f, 2048)
	p := &policyBasic256Sha256
	mine := Security{Policy: p, Mode: ModeSignAndEncrypt, Chain: our, Key: ourKey, Remote: their, RemoteKey: &theirKey.PublicKey}
	peer := Security{Policy: p, Mode: ModeSignAndEncrypt, Chain: their, Key: theirKey, Remote: our, RemoteKey: &ourKey.PublicKey}
	secret, seed := p.Nonce(), p.Nonce()
	sign := mine
	sign.Mode = ModeSign
	encrypted, signed := mine.newKeys(secret, seed), sign.newKeys(secret, seed)
	message := func(k *keys) []byte {
		return k.seal(append([]byte("MSGF\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"), make([]byte, sequenceSize+20)...))
	}
	head := peer.asymmetricHead([]byte("OPNF\x00\x00\x00\x00\x01\x00\x00\x00"))
	open, err := peer.sealOpen(append(bytes.Clone(head), make([]byte, sequenceSize+20)...), len(head))
	if err != nil {
		f.Fatal(err)
	}
	good := [][]byte{message(encrypted), message(signed), open}
	for _, seed := range good {
		f.Add(seed)
		for at := range seed {
			f.Add(seed[:at])
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) < HeadSize { // what the Channel hands on
			return
		}
		for i, take := range []func([]byte) ([]byte, error){encrypted.open, signed.open, mine.openOpen} {
			if _, err := take(bytes.Clone(raw)); err == nil && !bytes.Equal(raw, good[i]) {
				t.Errorf("chunk %x passes", raw)
			}
		}
	})
}
