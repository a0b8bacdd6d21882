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
	taken := filepath.Join(dir, "losses.json.new")
	if err := errors.Join(os.Mkdir(taken, 0o700), os.WriteFile(filepath.Join(taken, "x"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if code, out := millrace("ack", "--config", file); code != exitOK || !strings.Contains(out, "acknowledged in memory only, as far as the disk did not take it") || !strings.Contains(out, "losses.json.new") {
		t.Errorf("exit %d: %s", code, out)
	}
}
