package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStatusOfWhatWasLeft: `buffer status` says what a store is that nobody closed as the log of its next start does: a backup, or one of which nobody knows.
func TestStatusOfWhatWasLeft(t *testing.T) {
	said := func(dir, want string) {
		t.Helper()
		code, out := millrace("buffer", "status", "--path", dir)
		if code != exitOK || want == "" && strings.Contains(out, "\n  before  ") || !strings.Contains(out, want) || strings.Contains(out, "last stop was not clean") {
			t.Errorf("exit %d, want %q:\n%s", code, want, out)
		}
	}
	dir := makeStore(t, 20)
	said(dir, "")
	tar, restored := filepath.Join(t.TempDir(), "b.tar"), filepath.Join(t.TempDir(), "restored")
	if code, out := millrace("buffer", "backup", "--path", dir, tar); code != exitOK {
		t.Fatal(code, out)
	}
	if code, out := millrace("buffer", "restore", "--path", restored, tar); code != exitOK {
		t.Fatal(code, out)
	}
	said(restored, "  before      the store was restored from a backup: nothing is in it")
	if err := os.WriteFile(filepath.Join(dir, "state.db"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	said(dir, "  before      state.db of the store was lost or damaged: nobody knows whether the last stop was clean")
}
