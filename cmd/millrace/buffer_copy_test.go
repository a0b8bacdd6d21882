package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// complains runs a command, which must fail, and returns what it says on standard error.
func complains(t *testing.T, want string, args ...string) {
	t.Helper()
	code := exitOK
	said := stderrOf(t, func() { code, _ = millrace(args...) })
	if code != exitFailed || !strings.Contains(said, want) {
		t.Errorf("%q: exit %d, %s; want %q", args, code, said, want)
	}
}

// TestCopyRefused: what is no backup, and a copy in what is copied, are refused in words, and nothing is left of the attempt.
func TestCopyRefused(t *testing.T) {
	dir, empty, to := makeStore(t, 10), t.TempDir(), filepath.Join(t.TempDir(), "new")
	before := listDir(t, dir)
	complains(t, "is neither a backup nor a store: it has no state.db", "buffer", "restore", empty, "--path", to)
	complains(t, "lies in the store", "buffer", "backup", filepath.Join(dir, "sub"), "--path", dir)
	complains(t, "lies in the backup", "buffer", "restore", dir, "--path", filepath.Join(dir, "x"))
	if _, err := os.Stat(to); err == nil {
		t.Error("a directory was left")
	}
	if after := listDir(t, dir); after != before {
		t.Errorf("the store has changed:\n%s\nbefore:\n%s", after, before)
	}
}

// TestCopyOfDamage: damage of a copy names the file of the source where that is as damaged, and the copy's own where it is not.
func TestCopyOfDamage(t *testing.T) {
	dir, to := makeStore(t, 5000), filepath.Join(t.TempDir(), "new")
	segment := filepath.Join(dir, "seg-0000000000000001.db")
	if err := os.Truncate(segment, 20_000); err != nil {
		t.Fatal(err)
	}
	code, out := millrace("buffer", "restore", dir, "--path", to)
	if code != exitFailed || !strings.Contains(out, "damaged: "+segment) || strings.Contains(out, to) || !strings.Contains(out, "the copy is as that is") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	copied := filepath.Join(to, "seg-0000000000000001.db")
	if !sameContent(segment, copied) || !sameContent(segment+"x", copied+"x") || sameContent(segment, copied+"x") {
		t.Error("files are not compared")
	}
	if err := os.Truncate(copied, 19_999); err != nil {
		t.Fatal(err)
	}
	if sameContent(segment, copied) {
		t.Error("a shorter file is taken for the same")
	}
}

// TestForgetSaysDamage: forget says how much was given up, and what it found damaged, which stands for the next start.
func TestForgetSaysDamage(t *testing.T) {
	dir := makeStore(t, 50)
	if err := os.WriteFile(filepath.Join(dir, "state.db"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	said, out := "", ""
	said = stderrOf(t, func() {
		out = mustSay(t, []string{`destination "old" forgotten; records that were waiting for it and are given up: 5`, "readings, from about 20"}, "buffer", "forget", "old", "--path", dir)
	})
	if !strings.Contains(said, "damaged, found while the store was opened") || !strings.Contains(said, "state.db.corrupt: ") {
		t.Errorf("%s\n%s", out, said)
	}
	mustSay(t, []string{"before      state.db of the store was lost or damaged"}, "buffer", "status", "--path", dir)
}
