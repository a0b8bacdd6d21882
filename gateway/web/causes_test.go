package web

import (
	"encoding/json"
	"testing"

	"millrace/buffer"
)

// TestCausesAreOneWord: a cause of a loss has the same word in /metrics, in the snapshot and in gap messages.
func TestCausesAreOneWord(t *testing.T) {
	d := Drops{Full: 1, Expired: 2, Rejected: 3, Shutdown: 4, Damaged: 5}
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var shown map[string]uint64
	if err := json.Unmarshal(raw, &shown); err != nil {
		t.Fatal(err)
	}
	n := 0
	for cause, count := range d.Causes {
		if word := buffer.Cause(n).String(); cause != word || shown[word] != count {
			t.Errorf("%q in /metrics and %v in the snapshot, want %q", cause, shown, word)
		}
		n++
	}
	if n != buffer.Causes || len(shown) != n {
		t.Errorf("%d causes and %v, want %d", n, shown, buffer.Causes)
	}
}
