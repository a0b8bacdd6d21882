package powercut

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"millrace/buffer"
)

// content is all of a record, and all of it follows from the record's id: a wrong value cannot hide.
type content struct {
	account  string
	dict     string
	payload  []byte
	readings int
	at       int64
}

// largeID is where the ids of larger records begin: they fill a store sooner.
const largeID = 1 << 32

// contentOf returns the record of an id. Every second payload is noise, the others compress.
func contentOf(id uint64) content {
	rng := rand.New(rand.NewPCG(id, 1))
	c := content{
		account:  fmt.Sprintf("press-%d", id%3),
		dict:     fmt.Sprintf("schema of press-%d, version %d", id%3, id/1000),
		readings: 1 + int(id%7),
		at:       1_700_000_000_000_000 + int64(id)*1000,
	}
	size := 8 + rng.IntN(600)
	if id >= largeID || id%16 == 0 {
		size *= 8
	}
	c.payload = binary.BigEndian.AppendUint64(make([]byte, 0, size+8), id)
	for len(c.payload) < size {
		word := uint64(len(c.payload) / 24)
		if id%2 == 0 {
			word = rng.Uint64()
		}
		c.payload = binary.BigEndian.AppendUint64(c.payload, word)
	}
	c.payload = c.payload[:size]
	return c
}

// idOf returns the id that a payload claims.
func idOf(payload []byte) uint64 {
	if len(payload) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(payload)
}

// compare says what is wrong with a record that is not a gap record, or nothing.
func compare(rec *buffer.Record) error {
	id := idOf(rec.Payload)
	want := contentOf(id)
	switch {
	case !bytes.Equal(rec.Payload, want.payload):
		return fmt.Errorf("record %d (id %d): payload of %d bytes is not what was appended, which has %d", rec.Seq, id, len(rec.Payload), len(want.payload))
	case rec.Stream.Account() != want.account || string(rec.Stream.Dict()) != want.dict:
		return fmt.Errorf("record %d (id %d): of stream %q %q instead of %q %q", rec.Seq, id, rec.Stream.Account(), rec.Stream.Dict(), want.account, want.dict)
	case rec.Readings != want.readings || rec.At != want.at:
		return fmt.Errorf("record %d (id %d): %d readings at %d instead of %d at %d", rec.Seq, id, rec.Readings, rec.At, want.readings, want.at)
	}
	return nil
}

// appendTo appends the record of an id.
// droppedFull returns how many readings each destination lost for want of room.
func droppedFull(b *buffer.Buffer) (n [2]uint64) {
	for _, a := range b.Ledger() {
		for dest := range a.Destinations {
			n[dest] += a.Destinations[dest].Dropped[buffer.CauseFull]
		}
	}
	return n
}

func appendTo(b *buffer.Buffer, id uint64) (seq uint64, err error) {
	c := contentOf(id)
	s, err := b.Stream(c.account, []byte(c.dict))
	if err != nil {
		return 0, err
	}
	return b.Append(s, c.payload, c.readings, c.at)
}
