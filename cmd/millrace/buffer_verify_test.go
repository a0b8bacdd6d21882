package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace/buffer"
)

// TestVerifyUntilAcknowledged: what damage has cost is told after the file is gone, too, until somebody has said that he has seen it.
func TestVerifyUntilAcknowledged(t *testing.T) {
	dir := makeStore(t, 5000)
	files, err := filepath.Glob(filepath.Join(dir, "seg-*.db"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	b, err := buffer.Open(dir, buffer.Options{MaxSize: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	code, out := millrace("buffer", "verify", "--path", dir)
	if code != exitFailed || strings.Contains(out, "damaged: ") || !strings.Contains(out, `readings of destination "cloud", by damage, and nobody has said `) {
		t.Errorf("exit %d:\n%s", code, out)
	}
	mustSay(t, []string{"damaged 9998"}, "buffer", "status", "--path", dir) // exit 0: status shows, verify judges
}
