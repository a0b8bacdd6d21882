package buffer

import (
	"bytes"
	"errors"
	"testing"
)

// TestNote: a note outlives the process, and a store without one has none.
func TestNote(t *testing.T) {
	dir := t.TempDir()
	o := Options{MaxSize: 64 << 20, Destinations: []string{"cloud"}}
	for i, want := range [][]byte{nil, []byte("first"), []byte("second")} {
		b, err := Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Note(); !bytes.Equal(got, want) {
			t.Errorf("open %d: note %q, want %q", i, got, want)
		}
		if b.SetNote(make([]byte, maxNote+1)) == nil {
			t.Error("a note of any size is taken")
		}
		if err := b.SetNote([]byte([]string{"first", "second", ""}[i])); err != nil {
			t.Fatal(err)
		}
		b.state.failed = true // as after a write that failed: a new file takes its place
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if err := b.SetNote(nil); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed store: %v", err)
		}
	}
}
