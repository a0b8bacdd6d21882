package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/buffer"
)

// TestCheckSeesTakenPlaces: when run would not start because every place of the store is kept, check says so; of destinations
// that keep nothing it says nothing.
func TestCheckSeesTakenPlaces(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	names := []string{"cloud"}
	for i := range buffer.MaxDestinations - 1 {
		names = append(names, fmt.Sprintf("old-%02d", i))
	}
	b, err := buffer.Open(dir, buffer.Options{Destinations: names, CommitInterval: time.Hour, MaxSize: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "millrace.yaml")
	text := fmt.Sprintf("gateway: g\nbuffer: {path: %q}\ndestinations: [{name: new, url: \"mqtt://127.0.0.1\"}]\ndevices:\n"+
		"  - {name: d, driver: modbus, url: \"tcp://127.0.0.1:1\", groups: [{name: g, interval: 1s, tags: [{name: a, address: \"holding:1\"}]}]}\n", dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := mustSay(t, []string{"\nok\n"}, "check", "--config", file); strings.Contains(out, "old-") {
		t.Errorf("check speaks of destinations that keep nothing:\n%s", out)
	}
	if b, err = buffer.Open(dir, buffer.Options{MaxSize: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	fillStore(t, b, 1)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	code, out := millrace("check", "--config", file)
	if code != exitFailed || strings.Contains(out, "\nok\n") {
		t.Errorf("exit %d:\n%s", code, out)
	}
}
