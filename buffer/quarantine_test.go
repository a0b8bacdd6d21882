package buffer

import (
	"encoding/binary"
	"testing"
)

// TestQuarantineKeepsTheEpoch: also of a record that an earlier process took and that is read from disk.
func TestQuarantineKeepsTheEpoch(t *testing.T) {
	dir := t.TempDir() + "/store"
	b := mustOpen(t, dir, testOptions())
	appendN(t, b, mustStream(t, b, "press"), 1)
	was := b.Epoch()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = mustOpen(t, dir, testOptions())
	d := b.Destination("cloud")
	if err := d.Reject(readAll(t, d, false)[0].Seq, "no"); err != nil {
		t.Fatal(err)
	}
	if list, err := b.Quarantine(); err != nil || len(list) != 1 || list[0].Epoch != was {
		t.Errorf("epoch %+v, want %s: %v", list, was, err)
	}
}

// TestQuarantineOfEarlierBuilds: an entry that has no epoch is still read.
func TestQuarantineOfEarlierBuilds(t *testing.T) {
	v := append(make([]byte, 8), 1, 0)
	v = binary.AppendVarint(binary.AppendVarint(v, 5), 6)
	v = binary.AppendUvarint(v, 2)
	for _, s := range []string{"press", "dict", "no", "payload"} {
		v = appendBytes(v, s)
	}
	q, err := parseQuarantined(quarantineKey(7, "cloud"), sealValue(v))
	if err != nil || q.Account != "press" || string(q.Payload) != "payload" || q.Readings != 2 || q.Epoch != "" || q.Seq != 7 {
		t.Errorf("%+v, %v", q, err)
	}
}
