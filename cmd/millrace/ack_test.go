package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAckSaysWhatIsNotKept: what a person has acknowledged and the disk does not take is said not to be kept, and is acknowledged all the same.
func TestAckSaysWhatIsNotKept(t *testing.T) {
	dir := makeStore(t, 10)
	file, _ := running(t, dir)
	if out := until(t, "nothing was lost", "ack", "--config", file); strings.Contains(out, "in memory") {
		t.Errorf("while the disk takes it: %s", out)
	}
	taken := filepath.Join(dir, "state.db.new")
	if err := errors.Join(os.Mkdir(taken, 0o700), os.WriteFile(filepath.Join(taken, "x"), nil, 0o600), os.WriteFile(filepath.Join(dir, "state.db"), make([]byte, 64<<10), 0o640)); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(taken)
	if code, out := millrace("ack", "--config", file); code != exitOK || !strings.Contains(out, "acknowledged in memory only: the disk did not take it, which is tried again") || !strings.Contains(out, "state.db.new") {
		t.Errorf("exit %d: %s", code, out)
	}
}
